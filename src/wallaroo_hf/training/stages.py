"""The four-stage recipe (paper Table 1): what each stage trains, on what, how fast.

A stage is a plain dataclass, made by a function and derived from the one before it. Every setting can be overridden;
unknown names are refused. Where the paper and the released configurations differ, the paper is the default and the other
value is named beside it.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files.parsing import parse_yaml
from ..layout.stage import StageRecord, stage_record
from ..modeling.parts import GENERATION, part_names
from .data.training_rows import TASKS

# What a stage may train; visual and image tokenizer stay frozen in each of the recipe's (paper section 4).
GENERATION_PARTS = GENERATION.prefixes
IMAGE_PARTS = tuple(f"{name}." for name in part_names())
TRAINS = ("generation_parts", "all", "understanding_parts")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: how it is recorded in checkpoints, one of `wallaroo_hf.layout.stage.STAGES`.
        follows: stages whose checkpoints it may start from.
        trains: `"generation_parts"` (adapter and head), `"all"` (but `visual` and the image tokenizer), or
            `"understanding_parts"` (backbone and `visual`, for the stand-in of a pretrained Qwen2.5-VL).
        learning_rate, lr_scheduler_type, warmup_steps, max_steps: as in `TrainingArguments`.
        global_batch_size: rows per optimizer step over all processes and accumulation steps.
        task_ratio: rows of each task, relative to each other.
        buckets: image sizes `(height, width)` in pixels; None = the checkpoint's own, or those of the stage's layout where
            the recipe changes them with the stage.
        indicator_sizes: edges that have an indicator token; None = the checkpoint's own.
        max_length: longest row in tokens.
        pixel_limits: areas in pixels between which NaViT sees an image in training; None = the processor's own.
        unconditional_rate: share of drawing rows that are a null prompt (no words, a black source), for guidance.
        source_mask_rate: share of a source's latents that are replaced by -1.
        loss_weights: weight per task in the loss.
        editing_init: where the editing parts of a checkpoint without any come from: `"random"` (as released), or
            `"generation"` (copies of the generation parts; the source adapter of the generation adapter).
        adam_beta1, adam_beta2, adam_epsilon, weight_decay, max_grad_norm, bf16: as in `TrainingArguments`.
    """

    name: str
    follows: tuple[str, ...]
    trains: str
    learning_rate: float
    warmup_steps: int
    max_steps: int
    global_batch_size: int
    task_ratio: Mapping[str, float]
    lr_scheduler_type: str = "constant_with_warmup"
    buckets: tuple[tuple[int, int], ...] | None = None
    indicator_sizes: tuple[int, ...] | None = None
    max_length: int = 4096  # the released configurations have 768 to 2,668, by stage and task
    pixel_limits: Mapping[str, int] | None = dataclasses.field(
        default_factory=lambda: {"shortest_edge": 12544, "longest_edge": 254016}
    )
    unconditional_rate: float = 0.1
    source_mask_rate: float = 0.6
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    editing_init: str = "random"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool = True

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("trains", self.trains, TRAINS),
            ("editing_init", self.editing_init, ("random", "generation")),
        ):
            if value not in allowed:
                raise ValueError(f"Stage setting `{name}` is {value!r}, but must be one of {', '.join(allowed)}.")
        for name in ("unconditional_rate", "source_mask_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be in [0, 1).")
        for name in ("max_steps", "global_batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be at least 1.")
        unknown = set(self.task_ratio) - set(TASKS)
        if unknown or not any(share > 0 for share in self.task_ratio.values()):
            raise ValueError(
                f"Stage setting `task_ratio` is {dict(self.task_ratio)!r}, but must give a share above 0 to at least one "
                f"of {', '.join(TASKS)}, and to nothing else."
            )

    @property
    def record(self) -> StageRecord:
        """The layout of this stage, with the released sizes where the stage names none."""
        record = stage_record(self.name)
        return dataclasses.replace(
            record,
            buckets=record.buckets if self.buckets is None else self.buckets,
            indicator_sizes=record.indicator_sizes if self.indicator_sizes is None else self.indicator_sizes,
        )

    def is_trained(self, parameter_name: str) -> bool:
        """Whether this stage trains a parameter of `WallarooForConditionalGeneration`."""
        name = parameter_name.removeprefix("model.")
        if name.startswith("vq_model."):
            return False
        if self.trains == "generation_parts":
            return name.startswith(GENERATION_PARTS)
        if self.trains == "understanding_parts":
            return not name.startswith(IMAGE_PARTS)
        return not name.startswith("visual.")

    def override(self, settings: Mapping[str, Any]) -> "Stage":
        """This stage with other settings, as they come from YAML or a command line.

        Raises:
            ValueError: for an unknown name, with the nearest known one, and for a value of the wrong kind.
        """
        known = {field.name: field for field in dataclasses.fields(self)}
        changes = {}
        for key, value in settings.items():
            if key not in known or key in ("name", "follows"):
                close = difflib.get_close_matches(key, sorted(known), 1)
                hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(sorted(known))}."
                raise ValueError(f"Stage {self.name} has no setting `{key}` to override; {hint}")
            changes[key] = _as_setting(key, value, getattr(self, key))
        return dataclasses.replace(self, **changes)

    def training_arguments(self) -> dict[str, Any]:
        """The stage's part of `TrainingArguments`."""
        names = (
            "learning_rate lr_scheduler_type warmup_steps max_steps adam_beta1 adam_beta2 adam_epsilon weight_decay "
            "max_grad_norm bf16"
        )
        return {name: getattr(self, name) for name in names.split()}


def _as_setting(key: str, value: Any, default: Any) -> Any:
    """Brings a YAML value to the kind of the setting it replaces."""
    wrong = ValueError(f"Stage setting `{key}` is {value!r}, but must be of the kind of {default!r}.")
    if key in ("buckets", "indicator_sizes"):
        try:
            if value is None:
                return None
            sizes = tuple((int(item[0]), int(item[1])) if key == "buckets" else int(item) for item in value)
            if not sizes:
                raise ValueError("it is empty")
            return sizes
        except (TypeError, ValueError, IndexError) as error:
            raise wrong from error
    if key == "pixel_limits" and value is None:
        return None
    if isinstance(default, Mapping) or key == "pixel_limits":
        if not isinstance(value, Mapping):
            raise wrong
        return dict(value)
    if isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            raise wrong
        return value
    if isinstance(default, int | float):
        try:  # YAML reads 1e-4 as a string
            number = float(value)
        except (TypeError, ValueError) as error:
            raise wrong from error
        if isinstance(default, int) and number != int(number):
            raise wrong
        return int(number) if isinstance(default, int) else number
    if not isinstance(value, type(default)):
        raise wrong
    return value


def stage_0() -> Stage:
    """A stand-in for pretraining Qwen2.5-VL (understanding only, trains `visual` too); not part of the paper's recipe.

    For small models that have no pretrained backbone. Its speed is a plain choice.
    """
    return Stage(
        name="0",
        follows=(),
        trains="understanding_parts",
        learning_rate=1e-3,
        warmup_steps=200,
        max_steps=10_000,
        global_batch_size=256,
        task_ratio={"understanding": 1},
        lr_scheduler_type="cosine",
    )


def stage_1() -> Stage:
    """Adapter and head learn to draw; everything else is frozen."""
    return Stage(
        name="1",
        follows=("0",),
        trains="generation_parts",
        learning_rate=1e-4,
        warmup_steps=1000,
        max_steps=30_000,
        global_batch_size=256,
        task_ratio={"generation": 1},
    )


def stage_2() -> Stage:
    """Understanding and drawing together, 384x384 (paper: warm-up 5,000; released configuration: 0)."""
    return dataclasses.replace(
        stage_1(),
        name="2",
        follows=("1",),
        trains="all",
        warmup_steps=5000,
        max_steps=300_000,
        global_batch_size=320,
        task_ratio={"understanding": 1, "generation": 4},
    )


def stage_3a() -> Stage:
    """The same at 512x512."""
    return dataclasses.replace(
        stage_2(),
        name="3a",
        follows=("2",),
        learning_rate=4e-5,
        warmup_steps=0,
        max_steps=50_000,
        global_batch_size=384,
        task_ratio={"understanding": 1, "generation": 2},
    )


def stage_3b() -> Stage:
    """Many sizes: line breaks and size indicators."""
    return dataclasses.replace(stage_3a(), name="3b", follows=("3a", "2"), learning_rate=1e-5)


def stage_4() -> Stage:
    """Editing joins."""
    return dataclasses.replace(
        stage_3b(),
        name="4",
        follows=("3b",),
        max_steps=55_000,
        task_ratio={"understanding": 1, "generation": 1, "editing": 1},
        pixel_limits={"shortest_edge": 12544, "longest_edge": 188160},
    )


_STAGES: dict[str, Callable[[], Stage]] = {
    "0": stage_0,
    "1": stage_1,
    "2": stage_2,
    "3a": stage_3a,
    "3b": stage_3b,
    "4": stage_4,
}


def stage(name: str | int) -> Stage:
    """The stage of a name: 1, 2, 3a, 3b or 4 (and 0, see [`stage_0`]).

    Raises:
        ValueError: for another name.
    """
    key = str(name).lower()
    if key not in _STAGES:
        raise ValueError(f"Stage is {name!r}, but must be one of {', '.join(_STAGES)}.")
    return _STAGES[key]()


def read_overrides(path: str | Path | None = None, assignments: list[str] | None = None) -> dict[str, Any]:
    """Overrides from a YAML file and from `key=value` words; the words win.

    Raises:
        ValueError: if the file is not there or no mapping, or a word has no `=`.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = parse_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The stage settings in {path} could not be read ({str(error).splitlines()[0]}); give a YAML file with "
                "`setting: value` lines."
            ) from error
        if not isinstance(loaded or {}, Mapping):
            raise ValueError(f"The stage settings in {path} are no mapping; write `setting: value` lines.")
        settings |= loaded or {}
    for word in assignments or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' sets nothing; write setting=value, for example learning_rate=1e-4.")
        try:
            settings[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise ValueError(
                f"'{word[:200]}' sets no value that can be read ({error}); write it as in YAML, for example "
                "learning_rate=1e-4 or 'buckets=[[512, 512]]'."
            ) from error
    return settings


def check_order(recorded: str | None, stage: Stage, force: bool = False) -> str | None:
    """Whether a stage may start from a checkpoint of the recorded stage.

    Returns:
        A warning to show, or None.

    Raises:
        ValueError: if it comes from a stage that this one does not follow, unless `force`.
    """
    if recorded == stage.name or recorded in stage.follows:
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
