"""A family's knobs, said once: options, sliders, JSON fields, help texts, checks and warnings are made from them."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Notice",
    "Setting",
    "SettingsAsAttributes",
    "UnknownSettingError",
    "check_settings",
    "of_checkpoint",
    "sensible_notices",
    "unknown_setting",
]


class Notice(UserWarning):
    """What somebody should know who asks for this, though it is done; see [`Abilities.notices`]."""


class UnknownSettingError(ValueError):
    """A setting that a checkpoint does not have."""


@dataclass(frozen=True)
class Setting:
    """One knob of drawing.

    Attributes:
        name: the field's own word, such as `guidance_scale` or `num_inference_steps`.
        type: `float`, `int`, `bool` or `str`; `object` for what only Python can give, which no other door offers.
        stage: who takes it: `"prepare"` the processor, `"draw"` the model, `"both"` the two.
        default: this checkpoint's, for people to read; a door that is not told otherwise gives nothing.
        help: one sentence for help texts, with its unit.
        minimum, maximum: what a number may be, None = no bound.
        above_minimum: the minimum itself is not allowed.
        choices: all that a text may be; beside numbers, the words that are taken as well (`"auto"`).
        sensible: between what a number does well; doors warn outside of it.
        python_only: no door but Python offers it, such as one that another setting says as well.
        tried: what a sweep tries unless it is told otherwise; () = it leaves the setting alone.
        of_answers: it changes how questions are read as well, so doors that answer offer it.
        needs_guidance: it says nothing where `guidance_scale` is 1 or less.
    """

    name: str
    type: type
    stage: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    choices: tuple[str, ...] | None = None
    sensible: tuple[float, float] | None = None
    python_only: bool = False
    tried: tuple[Any, ...] = ()
    of_answers: bool = False
    needs_guidance: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.type in (int, float)

    @property
    def is_offered(self) -> bool:
        """Whether doors other than Python can offer it."""
        return self.type is not object and not self.python_only

    def check(self, value: Any) -> Any:
        """The value as it is meant.

        Raises:
            ValueError: saying what was given and what may be.
        """
        if self.type is object or self._fits(value):
            return value
        raise ValueError(f"`{self.name}` is {value!r}, but must be {self.expected()}.")

    def parse(self, text: str) -> Any:
        """The value that a text, such as an option of a command, stands for.

        Raises:
            ValueError: as [`~Setting.check`].
        """
        if self.choices is not None and text in self.choices:
            return text
        value: Any = text
        try:
            if self.is_number:
                value = float(text) if self.type is float else int(text)
        except ValueError:
            pass
        if self.type is bool and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        return self.check(value)

    def expected(self) -> str:
        """What values may be, in words."""
        if self.type is bool:
            return "true or false"
        words = [repr(choice) for choice in self.choices or ()]
        if not self.is_number:
            return " or ".join(words) if words else "text"
        what = "a whole number" if self.type is int else "a number"
        low = None if self.minimum is None else f"{self.minimum:g}"
        if low is not None and self.maximum is not None:
            between = f"above {low} and at most" if self.above_minimum else f"from {low} to"
            what += f" {between} {self.maximum:g}"
        elif low is not None:
            what += f" above {low}" if self.above_minimum else f" from {low} on"
        elif self.maximum is not None:
            what += f" up to {self.maximum:g}"
        return " or ".join([what, *words])

    def _fits(self, value: Any) -> bool:
        if self.type is bool:
            return isinstance(value, bool)
        if isinstance(value, str):
            return (self.choices is None and self.type is str) or value in (self.choices or ())
        if self.type is str:  # an index, such as that of a prompt template
            return self.choices is None and isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        if not math.isfinite(number) or (self.type is int and number != int(number)):
            return False
        if self.minimum is not None and (number < self.minimum or (self.above_minimum and number == self.minimum)):
            return False
        return self.maximum is None or number <= self.maximum


class SettingsAsAttributes:
    """Something with `settings` by name, which can be read as attributes too: `recipe.guidance_scale`."""

    settings: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings", {})  # not there yet while it is being copied
        if name in settings:
            return settings[name]
        raise AttributeError(f"A {type(self).__name__} has no setting `{name}`; it has {', '.join(settings)}.")


def check_settings(given: Mapping[str, Any], settings: Sequence[Setting], who: str) -> dict[str, Any]:
    """What was given, without what is None.

    Args:
        given: by name; None = not given.
        settings: what there is.
        who: what has them, for messages.

    Raises:
        UnknownSettingError: for a name that is none of them, naming those that are.
        ValueError: for a value that cannot be.
    """
    known = {setting.name: setting for setting in settings}
    checked = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in known:
            raise UnknownSettingError(unknown_setting(name, known.values(), who))
        checked[name] = known[name].check(value)
    return checked


def of_checkpoint(settings: Iterable[Setting], generation_config: Mapping[str, Any]) -> tuple[Setting, ...]:
    """A family's settings as a checkpoint has them.

    Args:
        settings: with the family's defaults.
        generation_config: contents of its file; `image_` and the name of a setting is its default there, and
            `sensible_ranges` may have between what numbers it does well.
    """
    sensible = generation_config.get("sensible_ranges") or {}
    told = []
    for setting in settings:
        own, ends = generation_config.get(f"image_{setting.name}"), sensible.get(setting.name)
        told.append(
            dataclasses.replace(
                setting,
                default=setting.default if own is None else own,
                sensible=setting.sensible if ends is None else (float(ends[0]), float(ends[1])),
            )
        )
    return tuple(told)


def unknown_setting(name: str, settings: Iterable[Setting], who: str) -> str:
    """The sentence about a setting that there is not: it names those that there are, and the one that was probably meant.

    Args:
        name: as it was given.
        settings: what there is.
        who: what has them.
    """
    names = [setting.name for setting in settings]
    close = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"{who} has no setting `{name[:60]}`; it has {', '.join(f'`{known}`' for known in names)}{hint}"


def sensible_notices(given: Mapping[str, Any], settings: Sequence[Setting]) -> list[str]:
    """A sentence for each number that is outside of what does well."""
    notices = []
    for setting in settings:
        value = given.get(setting.name)
        if setting.sensible is None or not isinstance(value, (int, float)):
            continue
        low, high = setting.sensible
        if not low <= value <= high:
            notices.append(
                f"`{setting.name}` is {value:g}; this checkpoint does well between {low:g} and {high:g}, so expect less."
            )
    return notices
