"""Stages that name what they train, and learning rates of their own, by the beginnings of parameter names."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from .training_stages import TrainingStage

__all__ = ["PartStage"]


class PartStage(TrainingStage):
    """A stage of a family whose parts have names. A family's own is a frozen dataclass that inherits this.

    Attributes:
        trains: beginnings of the names of the parameters that it trains; everything else is frozen. Words of `PARTS` may
            be among them.
        learning_rates: of parts, by the beginnings of their names; the longest that fits counts. What is not named has
            `learning_rate`.
        PARTS: words for several beginnings; "all" is everything that can be trained.
        FROZEN: beginnings of what never trains, and what it is.
        WRAPPER: what parameter names may begin with that is not said.
    """

    learning_rates: Mapping[str, float]

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    FROZEN: ClassVar[Mapping[str, str]] = {}
    WRAPPER: ClassVar[str] = ""

    def check(self) -> None:
        """As [`TrainingStage.check`]; words for parts become their beginnings.

        Raises:
            ValueError: naming the first setting that cannot be.
        """
        object.__setattr__(self, "trains", self._prefixes("trains", self.trains))
        object.__setattr__(self, "learning_rates", self._rates(self.learning_rates))
        super().check()

    def is_trained(self, parameter_name: str) -> bool:
        """Whether this stage trains a parameter of the model."""
        name = parameter_name.removeprefix(self.WRAPPER)
        return name.startswith(self.trains) and not name.startswith(tuple(self.FROZEN))

    def rate(self, parameter_name: str) -> float | None:
        """The learning rate that a parameter has of its own; None = the stage's."""
        name = parameter_name.removeprefix(self.WRAPPER)
        fitting = [prefix for prefix in self.learning_rates if name.startswith(prefix)]
        return self.learning_rates[max(fitting, key=len)] if fitting else None

    def check_parts(self, parameter_names: Iterable[str]) -> None:
        """Makes sure that a model has what this stage trains.

        Raises:
            ValueError: if a beginning is that of no parameter and no known part, or nothing would be trained.
        """
        names = [name.removeprefix(self.WRAPPER) for name in parameter_names]
        lacking = [prefix for prefix in self.trains if not any(name.startswith(prefix) for name in names)]
        wrong = lacking if len(lacking) == len(self.trains) else [p for p in lacking if p not in self.PARTS["all"]]
        if wrong:
            raise ValueError(
                f"Stage {self.name} trains {', '.join(wrong)}, but the model has no such parameters; train some of "
                f"{', '.join(self.PARTS['all'])}."
            )

    def groups(self, named_parameters: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
        """Parameters that train, by the learning rates that parts have of their own."""
        groups: dict[float, list[Any]] = {}
        for name, parameter in named_parameters:
            rate = self.rate(name)
            if parameter.requires_grad and rate is not None:
                groups.setdefault(rate, []).append(parameter)
        return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]

    def to_dict(self) -> dict[str, Any]:
        """Its settings as records have them: `trains` is the word of `PARTS` where there is one for just that."""
        word = next((word for word, parts in self.PARTS.items() if set(parts) == set(self.trains)), None)
        return dataclasses.asdict(self) | {"trains": word or list(self.trains)}  # type: ignore[call-overload]

    def read_setting(self, key: str, value: Any) -> Any:
        """Brings a YAML value to the kind of the setting that it replaces.

        Args:
            key: a setting's name.
            value: what was given for it.

        Raises:
            ValueError: if it is of another kind.
        """
        if key == "trains":
            return self._prefixes(key, value)
        if key == "learning_rates":
            return self._rates(value)
        if key == "image_sizes":
            try:
                return None if value is None else tuple((int(height), int(width)) for height, width in value)
            except (TypeError, ValueError) as error:
                raise self.wrong_kind(key, value) from error
        return super().read_setting(key, value)

    def _prefixes(self, setting: str, given: Any) -> tuple[str, ...]:
        """Beginnings of parameter names, from such and from words of `PARTS`; each once.

        Raises:
            ValueError: for anything else, and for what never trains.
        """
        items = [given] if isinstance(given, str) else given
        prefixes: dict[str, None] = {}
        for item in items if isinstance(items, Sequence) and items else [items]:
            prefix = item.removeprefix(self.WRAPPER) if isinstance(item, str) else ""
            if isinstance(item, str) and item in self.PARTS:
                prefixes |= dict.fromkeys(self.PARTS[item])
            elif "." not in prefix or not prefix.partition(".")[0]:
                raise ValueError(
                    f"Stage setting `{setting}` is {given!r}, but must name beginnings of parameter names with their "
                    f"dots, such as {self.PARTS['all'][-1]}, or words of {', '.join(self.PARTS)}."
                )
            elif prefix.startswith(tuple(self.FROZEN)):
                what = next(what for frozen, what in self.FROZEN.items() if prefix.startswith(frozen))
                raise ValueError(f"Stage setting `{setting}` is {given!r}, but {what} is frozen in every stage.")
            else:
                prefixes[prefix] = None
        return tuple(prefixes)

    def _rates(self, given: Any) -> dict[str, float]:
        """Learning rates by the beginnings of names."""
        example = f"{{{self.PARTS['all'][-1]}: 1e-4}}"
        if not isinstance(given, Mapping):
            raise ValueError(
                f"Stage setting `learning_rates` is {given!r}, but must give rates to beginnings of parameter names, such "
                f"as {example}."
            )
        rates: dict[str, float] = {}
        for key, value in given.items():
            try:
                rate = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"The learning rate of {key} is {value!r}, but must be a number.") from error
            rates |= dict.fromkeys(self._prefixes("learning_rates", key), rate)
        return rates
