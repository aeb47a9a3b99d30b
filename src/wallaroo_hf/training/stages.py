"""What a stage of training is, and the paper's four-stage recipe (Table 1): what each trains, on what, how fast.

A stage is a plain dataclass, made by a function and derived from the one before it. Every setting can be overridden;
unknown names are refused. Where the paper and the released configurations differ, the paper is the default and the other
value is named beside it. Another stage is another function here, named in `STAGES`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ..families.training_stages import TrainingStage, check_order, find_stage
from ..layout.checkpoint_layout import PAPER_LAYOUTS, Layout
from .data.training_rows import TASKS
from .overrides import read_overrides
from .trained_parts import ALWAYS_FROZEN, PARTS, as_prefixes, check_prefixes, word_for

__all__ = ["STAGES", "Stage", "check_order", "read_overrides", "stage"]


@dataclasses.dataclass(frozen=True)
class Stage(TrainingStage):
    """One stage of training Wallaroo.

    Attributes:
        name: how it is recorded in checkpoints: any word.
        follows: stages whose checkpoints it may start from; () = a new model only, None = any checkpoint.
        trains: beginnings of the names of the parameters that it trains, without `model.`, such as
            `("edit_head.", "language_model.layers.0.")`; everything else is frozen. Words of `PARTS` may be among them:
            `"generation_parts"` (adapter and head), `"editing_parts"`, `"all"` (but `visual` and the image tokenizer),
            `"understanding_parts"` (backbone and `visual`, for the stand-in of a pretrained Qwen2.5-VL). A part that
            the checkpoint lacks is passed over, as long as others are there.
        learning_rate, lr_scheduler_type, warmup_steps, max_steps: as in `TrainingArguments`.
        global_batch_size: rows per optimizer step over all processes and accumulation steps.
        task_ratio: rows of each task, relative to each other.
        layout: what the checkpoint speaks afterwards; None = what it speaks before. One of the paper's stands for its kind:
            a checkpoint with sizes of its own keeps them, unless the recipe changes them from its stage to this one.
            Another is taken as it is.
        buckets: image sizes `(height, width)` in pixels, whatever the layout; None = those of the layout.
        indicator_sizes: edges that have an indicator token, whatever the layout; None = the checkpoint's own, or those of
            a layout that is not the paper's.
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
    follows: tuple[str, ...] | None
    trains: tuple[str, ...]
    learning_rate: float
    warmup_steps: int
    max_steps: int
    global_batch_size: int
    task_ratio: Mapping[str, float]
    lr_scheduler_type: str = "constant_with_warmup"
    layout: Layout | None = None
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

    FIXED: ClassVar[tuple[str, ...]] = ("name", "follows", "layout")
    TASKS: ClassVar[tuple[str, ...]] = TASKS

    def __post_init__(self) -> None:
        object.__setattr__(self, "trains", as_prefixes(self.trains))
        if self.editing_init not in ("random", "generation"):
            raise ValueError(
                f"Stage setting `editing_init` is {self.editing_init!r}, but must be random or generation."
            )
        for name in ("unconditional_rate", "source_mask_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be in [0, 1).")
        self.check()

    def named_layout(self) -> Layout:
        """The layout that this stage names, with the sizes that it names: what a new model of this stage speaks.

        Raises:
            ValueError: if it names none, but keeps the checkpoint's.
        """
        if self.layout is None:
            raise ValueError(
                f"Stage {self.name} keeps the layout of the checkpoint that it starts from, but a layout is needed here; "
                "give a stage that names one (`layout`)."
            )
        return self.with_sizes(self.layout)

    def with_sizes(self, layout: Layout) -> Layout:
        """A layout with this stage's `buckets` and, where sizes are announced, `indicator_sizes`."""
        if self.buckets is not None:
            layout = dataclasses.replace(layout, buckets=self.buckets)
        if self.indicator_sizes is not None and layout.indicators:
            layout = dataclasses.replace(layout, indicators=self.indicator_sizes)
        return layout

    def is_trained(self, parameter_name: str) -> bool:
        """Whether this stage trains a parameter of `WallarooForConditionalGeneration`."""
        name = parameter_name.removeprefix("model.")
        return name.startswith(self.trains) and not name.startswith(ALWAYS_FROZEN)

    def check_parts(self, parameter_names: Iterable[str]) -> None:
        """Makes sure that a model has what this stage trains.

        Raises:
            ValueError: if a beginning is that of no parameter and no part of `PARTS`, or nothing would be trained.
        """
        check_prefixes(self.name, self.trains, parameter_names)

    def to_dict(self) -> dict[str, Any]:
        """Its settings as records have them: `trains` is the word of `PARTS` where there is one for just that."""
        return dataclasses.asdict(self) | {"trains": word_for(self.trains) or list(self.trains)}

    def read_setting(self, key: str, value: Any) -> Any:
        """Brings a YAML value to the kind of the setting that it replaces.

        Args:
            key: a setting's name.
            value: what was given for it.

        Raises:
            ValueError: if it is of another kind.
        """
        if key == "trains":
            return as_prefixes(value)
        if key in ("buckets", "indicator_sizes"):
            try:
                if value is None:
                    return None
                sizes = tuple((int(item[0]), int(item[1])) if key == "buckets" else int(item) for item in value)
                if not sizes:
                    raise ValueError("it is empty")
                return sizes
            except (TypeError, ValueError, IndexError) as error:
                raise self.wrong_kind(key, value) from error
        if key == "pixel_limits":
            if value is not None and not isinstance(value, Mapping):
                raise self.wrong_kind(key, value)
            return None if value is None else dict(value)
        return super().read_setting(key, value)


def stage_0() -> Stage:
    """A stand-in for pretraining Qwen2.5-VL (understanding only, trains `visual` too); not part of the paper's recipe.

    For small models that have no pretrained backbone. Its speed is a plain choice.
    """
    return Stage(
        name="0",
        follows=(),
        trains=PARTS["understanding_parts"],
        layout=PAPER_LAYOUTS["0"],
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
        trains=PARTS["generation_parts"],
        layout=PAPER_LAYOUTS["1"],
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
        trains=PARTS["all"],
        layout=PAPER_LAYOUTS["2"],
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
        layout=PAPER_LAYOUTS["3a"],
        learning_rate=4e-5,
        warmup_steps=0,
        max_steps=50_000,
        global_batch_size=384,
        task_ratio={"understanding": 1, "generation": 2},
    )


def stage_3b() -> Stage:
    """Many sizes: line breaks and size indicators."""
    return dataclasses.replace(
        stage_3a(), name="3b", follows=("3a", "2"), layout=PAPER_LAYOUTS["3b"], learning_rate=1e-5
    )


def stage_4() -> Stage:
    """Editing joins."""
    return dataclasses.replace(
        stage_3b(),
        name="4",
        follows=("3b",),
        layout=PAPER_LAYOUTS["4"],
        max_steps=55_000,
        task_ratio={"understanding": 1, "generation": 1, "editing": 1},
        pixel_limits={"shortest_edge": 12544, "longest_edge": 188160},
    )


# By the names that `--stage` takes, in order.
STAGES: dict[str, Callable[[], Stage]] = {
    make().name: make for make in (stage_0, stage_1, stage_2, stage_3a, stage_3b, stage_4)
}


def stage(name: str | int) -> Stage:
    """The stage of a name: 1, 2, 3a, 3b or 4 (and 0, see [`stage_0`]).

    Raises:
        ValueError: for another name.
    """
    return find_stage(STAGES, name)()
