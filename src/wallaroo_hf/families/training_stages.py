"""What every stage of training can, whatever the family: be checked, overridden, recorded, and follow another."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

__all__ = ["TrainingStage", "check_order", "find_stage"]


class TrainingStage:
    """One stage of training. A family's own is a frozen dataclass that inherits this, with more settings if it needs any.

    Attributes:
        name: how it is recorded in checkpoints: any word.
        follows: stages whose checkpoints it may start from; () = a new model only, None = any checkpoint.
        trains: beginnings of the names of the parameters that it trains.
        learning_rate, lr_scheduler_type, warmup_steps, max_steps, weight_decay, max_grad_norm, bf16, adam_beta1,
            adam_beta2, adam_epsilon: as in `TrainingArguments`.
        global_batch_size: rows per optimizer step over all processes and accumulation steps.
        task_ratio: rows of each task, relative to each other.
        max_length: longest row in tokens.
        loss_weights: weight per task in the loss.
        FIXED: settings that cannot be overridden.
        TASKS: the tasks that it can be given a ratio of.
    """

    name: str
    follows: tuple[str, ...] | None
    trains: tuple[str, ...]
    learning_rate: float
    warmup_steps: int
    max_steps: int
    global_batch_size: int
    task_ratio: Mapping[str, float]
    lr_scheduler_type: str
    max_length: int
    loss_weights: Mapping[str, float]
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    bf16: bool

    FIXED: ClassVar[tuple[str, ...]] = ("name", "follows")
    TASKS: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Makes sure of the settings that every stage has.

        Raises:
            ValueError: naming the first that cannot be.
        """
        if not (isinstance(self.name, str) and self.name.strip()):
            raise ValueError(f"Stage setting `name` is {self.name!r}, but must be a word, such as '5' or 'my-stage'.")
        if isinstance(self.follows, str):
            raise ValueError(
                f"Stage setting `follows` is {self.follows!r}, but must be names of stages, such as ({self.follows!r},); "
                "or None for any."
            )
        for name in ("max_steps", "global_batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be at least 1.")
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Stage setting `{name}` is {value!r}, but must be a finite number of at least 0.")
        unknown = set(self.task_ratio) - set(self.TASKS)
        if unknown or not any(share > 0 for share in self.task_ratio.values()):
            raise ValueError(
                f"Stage setting `task_ratio` is {dict(self.task_ratio)!r}, but must give a share above 0 to at least one "
                f"of {', '.join(self.TASKS)}, and to nothing else."
            )

    def to_dict(self) -> dict[str, Any]:
        """Its settings as records have them."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def override(self, settings: Mapping[str, Any]) -> Self:
        """This stage with other settings, as they come from YAML or a command line.

        Args:
            settings: by name.

        Raises:
            ValueError: for an unknown name, with the nearest known one, and for a value of the wrong kind.
        """
        known = {field.name for field in dataclasses.fields(self)} - set(self.FIXED)  # type: ignore[arg-type]
        changes = {}
        for key, value in settings.items():
            if key not in known:
                close = difflib.get_close_matches(key, sorted(known), 1)
                hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(sorted(known))}."
                raise ValueError(f"Stage {self.name} has no setting `{key}` to override; {hint}")
            changes[key] = self.read_setting(key, value)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def read_setting(self, key: str, value: Any) -> Any:
        """Brings a YAML value to the kind of the setting that it replaces.

        Args:
            key: a setting's name.
            value: what was given for it.

        Raises:
            ValueError: if it is of another kind.
        """
        default = getattr(self, key)
        if isinstance(default, Mapping):
            if not isinstance(value, Mapping):
                raise self.wrong_kind(key, value)
            return dict(value)
        if isinstance(default, bool) or isinstance(value, bool):
            if not (isinstance(default, bool) and isinstance(value, bool)):
                raise self.wrong_kind(key, value)
            return value
        if isinstance(default, int | float):
            try:  # YAML reads 1e-4 as a string
                number = float(value)
            except (TypeError, ValueError) as error:
                raise self.wrong_kind(key, value) from error
            if isinstance(default, int) and not (math.isfinite(number) and number == int(number)):
                raise self.wrong_kind(key, value)
            return int(number) if isinstance(default, int) else number
        if not isinstance(value, type(default)):
            raise self.wrong_kind(key, value)
        return value

    def wrong_kind(self, key: str, value: Any) -> ValueError:
        """What is raised for a value of another kind than a setting's."""
        default = getattr(self, key)
        kinds = ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "a word"))
        kind = next((f"{words}, such as" for of, words in kinds if isinstance(default, of)), "of the kind of")
        return ValueError(f"Stage setting `{key}` is {value!r}, but must be {kind} {default!r}.")

    def training_arguments(self) -> dict[str, Any]:
        """The stage's part of `TrainingArguments`."""
        names = (
            "learning_rate lr_scheduler_type warmup_steps max_steps adam_beta1 adam_beta2 adam_epsilon weight_decay "
            "max_grad_norm bf16"
        )
        return {name: getattr(self, name) for name in names.split()}


def find_stage(stages: Mapping[str, Any], name: str | int) -> Any:
    """The stage of a name among those of a family.

    Args:
        stages: by name.
        name: in any case, or a number.

    Raises:
        ValueError: for another name, with those that there are.
    """
    key = str(name).lower()
    if key not in stages:
        raise ValueError(f"Stage is {name!r}, but must be one of {', '.join(stages)}.")
    return stages[key]


def check_order(recorded: str | None, stage: TrainingStage, force: bool = False) -> str | None:
    """Whether a stage may start from a checkpoint of the recorded stage.

    Args:
        recorded: what the checkpoint says; None = nothing.
        stage: the one to train.
        force: start from a checkpoint of any stage.

    Returns:
        A warning to show, or None.

    Raises:
        ValueError: if it comes from a stage that this one does not follow, unless `force`.
    """
    if stage.follows is None or recorded == stage.name or recorded in stage.follows:
        return None
    if recorded is None:
        if not stage.follows:
            return None
        return (
            f"The checkpoint does not say which stage it went through; stage {stage.name} expects one of stage "
            f"{' or '.join(stage.follows)}."
        )
    if force:
        return f"Stage {stage.name} starts from a checkpoint of stage {recorded}, because it was forced to."
    expected = " or ".join(stage.follows) or "none"
    raise ValueError(
        f"Stage {stage.name} starts from a checkpoint of stage {expected}, but this one is of stage {recorded}; choose the "
        "right checkpoint, or force it (`--force`)."
    )
