"""Parts of the model that training may move, by the beginnings of their parameters' names."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..modeling.parts import IMAGE_TASKS, part_names

# Without `model.`. `visual` is frozen in each of the paper's stages (section 4), the image tokenizer in every stage.
LANGUAGE_PARTS = ("language_model.", "lm_head.")
ALWAYS_FROZEN = "vq_model."
# Words for them; `all` is what the paper's stages train from the second on.
PARTS: dict[str, tuple[str, ...]] = {
    **{f"{task.name}_parts": task.prefixes for task in IMAGE_TASKS},
    "understanding_parts": (*LANGUAGE_PARTS, "visual."),
    "all": (*LANGUAGE_PARTS, *(f"{part}." for part in part_names())),
}


def as_prefixes(trains: Any) -> tuple[str, ...]:
    """Beginnings of parameter names, from such and from words of `PARTS`; each once.

    Args:
        trains: one, or several, with or without `model.`.

    Raises:
        ValueError: for anything else, and for the image tokenizer's.
    """
    given = [trains] if isinstance(trains, str) else trains
    prefixes: dict[str, None] = {}
    for item in given if isinstance(given, Sequence) and given else [given]:
        prefix = item.removeprefix("model.") if isinstance(item, str) else ""
        if isinstance(item, str) and item in PARTS:
            prefixes |= dict.fromkeys(PARTS[item])
        elif not prefix.partition(".")[0] or "." not in prefix:
            raise ValueError(
                f"Stage setting `trains` is {trains!r}, but must be beginnings of parameter names with their dots, such as "
                f"edit_head., or of {', '.join(PARTS)}."
            )
        elif prefix.startswith(ALWAYS_FROZEN):
            raise ValueError(
                f"Stage setting `trains` is {trains!r}, but the image tokenizer is frozen in every stage; "
                "`wallaroo train vq` trains one."
            )
        else:
            prefixes[prefix] = None
    return tuple(prefixes)


def word_for(prefixes: Sequence[str]) -> str | None:
    """The word of `PARTS` for just these beginnings, if there is one."""
    return next((word for word, parts in PARTS.items() if set(parts) == set(prefixes)), None)


def check_prefixes(stage: str, prefixes: Sequence[str], parameter_names: Iterable[str]) -> None:
    """Makes sure that a model has what a stage trains; a known part may be missing as long as others are there.

    Args:
        stage: its name, for the message.
        prefixes: from [`as_prefixes`].
        parameter_names: the model's.

    Raises:
        ValueError: if a beginning is that of no parameter and no known part, or nothing would be trained.
    """
    names = [name.removeprefix("model.") for name in parameter_names]
    lacking = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)]
    known = {part for parts in PARTS.values() for part in parts}
    wrong = lacking if len(lacking) == len(prefixes) else [prefix for prefix in lacking if prefix not in known]
    if wrong:
        there = dict.fromkeys(f"{name.partition('.')[0]}." for name in names)
        raise ValueError(
            f"Stage {stage} trains {', '.join(wrong)}, but the model has no such parameters; train some of "
            f"{', '.join(part for part in there if part != ALWAYS_FROZEN)}, or start from a checkpoint that has them."
        )
