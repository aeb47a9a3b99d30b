"""How the pictures of a benchmark are drawn: a family's published settings, and one's own."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .settings import SettingsAsAttributes

__all__ = ["RANDOM_TEMPLATE", "TEMPLATE", "Recipe"]

TEMPLATE, RANDOM_TEMPLATE = "template", "random"


@dataclass(frozen=True)
class Recipe(SettingsAsAttributes):
    """Everything that decides how a picture is drawn, seed, size and checkpoint apart.

    Attributes:
        name: "paper", "released" (the authors' script), and what was changed.
        settings: by the names of the family's [`Setting`]s, in the order of records; None = not given. Beside them
            `template`: an index into the templates of the prompt's language, a text with {prompt} in it, or "random": one
            of the listed ones for each picture, as in the authors' scripts.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(hash=False)

    def changed(self, **given: Any) -> Recipe:
        """The same with what is given (None: not given); its name then tells of it."""
        before = {TEMPLATE: 0, **self.settings}
        changes = {name: value for name, value in given.items() if value is not None and value != before.get(name)}
        if not changes:
            return self
        told = ", ".join(f"{name} {value}" for name, value in changes.items())
        return Recipe(f"{self.name}, but {told}", {**self.settings, **changes})

    def given(self) -> dict[str, Any]:
        """What is said of the family's settings."""
        return {name: value for name, value in self.settings.items() if name != TEMPLATE and value is not None}

    def choose_template(self, name: str, seed: int, listed: Sequence[str]) -> int | str:
        """The template of one picture.

        Args:
            name: the picture's.
            seed: of random choices.
            listed: templates of the prompt's language.
        """
        template = self.settings.get(TEMPLATE, 0)
        if template != RANDOM_TEMPLATE or not listed:
            return 0 if template == RANDOM_TEMPLATE else template
        return random.Random(f"{seed}/template/{name}").randrange(len(listed))
