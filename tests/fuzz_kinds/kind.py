"""What the kinds have in common: a round is refused in one sentence, or its result is right."""

from __future__ import annotations

import collections
import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from golden import GoldenSet
from wallaroo_hf.processing.refused_words import refused_tokens


class Refused(Exception):
    """The input was refused as it should be."""


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function; a refusal must be a ValueError in one sentence.

    Raises:
        Refused: if it was one.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        says = str(error)
        assert says and "\n" not in says.strip() and len(says) < 2000 and "Traceback" not in says, repr(says)
        says.encode()
        raise Refused(says) from error


class Kind:
    """Rounds of one kind.

    Args:
        golden: the model that is tried; it has editing.
        folder: an empty place for files.
    """

    def __init__(self, golden: GoldenSet, folder: Path) -> None:
        self.golden, self.folder = golden, folder
        self.processor = copy.deepcopy(golden.processor)
        self.tokens = refused_tokens(self.processor.tokenizer)

    def run(self, seed: int, number: int) -> bool:
        """One round; returns whether its input was accepted.

        Raises:
            AssertionError: if it was refused badly, or read wrongly.
        """
        try:
            self.round(random.Random(f"{type(self).__name__.lower()} {seed} {number}"))
        except Refused:
            return False
        return True

    def round(self, rng: random.Random) -> None:
        """Makes an input up and looks at what comes of it.

        Raises:
            Refused: if it was refused as it should be.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Looks whether all is as before, and ends what was started."""

    def counts(self, ids: Any) -> list[int]:
        """How often each refused token occurs in ids."""
        found = collections.Counter(ids.tolist() if hasattr(ids, "tolist") else ids)
        return [found[token] for token in self.processor.tokenizer.convert_tokens_to_ids(list(self.tokens))]
