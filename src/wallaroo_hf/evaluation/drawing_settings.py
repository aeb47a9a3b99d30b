"""The settings that an evaluation draws with, and writes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..families.abilities import Abilities
from ..families.settings import SettingsAsAttributes

__all__ = ["Sampling", "check_sampling", "read_sampling"]


@dataclass(frozen=True)
class Sampling(SettingsAsAttributes):
    """How pictures are drawn.

    Attributes:
        settings: by name, in the order of records; None = the checkpoint says nothing, and so does the evaluation.
    """

    settings: Mapping[str, Any]

    def arguments(self) -> dict[str, Any]:
        """The settings that say something."""
        return {name: value for name, value in self.settings.items() if value is not None}


def check_sampling(abilities: Abilities, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks settings of a drawing whose settings are written down; returns those that are not None.

    Args:
        abilities: of the checkpoint.
        given: by name.

    Raises:
        ValueError: for a setting that cannot be, or that the checkpoint does not have; also for a temperature of 0, so that
            there is one way to write down that the likeliest is taken.
    """
    checked = abilities.check_settings(given)
    if checked.get("temperature") == 0:
        raise ValueError(f"The temperature must be above 0, but is {given['temperature']}; --top-k 1 is greedy.")
    return checked


def read_sampling(abilities: Abilities, given: Mapping[str, Any] | None = None) -> Sampling:
    """The settings given, else those of the checkpoint, so that a record says what was used.

    Args:
        abilities: of the checkpoint.
        given: by name; None = not given.

    Raises:
        ValueError: see [`check_sampling`].
    """
    settings = abilities.own_settings()
    settings |= {name: value for name, value in (given or {}).items() if value is not None}
    check_sampling(abilities, settings)
    return Sampling(settings)
