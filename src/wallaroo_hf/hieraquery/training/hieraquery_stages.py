"""The recipe of HieraQuery (its paper's three stages): what each trains, how fast, and on which rows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ...families.part_stages import PartStage
from ...families.training_stages import find_stage

__all__ = ["PARTS", "STAGES", "HieraQueryStage", "hieraquery_stage"]

TASKS = ("generation", "editing")
PARTS: dict[str, tuple[str, ...]] = {
    "queries": ("queries.",),
    "connector": ("connector.",),
    "dit": ("dit.",),
    "all": ("queries.", "connector.", "alignment.", "dit."),
}
_SLOWEST = 1e-6  # where the rate begins and ends
_PAIRS, _EDITS = 14_000_000, 7_000_000  # of the paper: text and picture; edits and styles
_EPOCHS, _BATCH = 2, 512  # the batch is a plain choice
_WITH_FLOOR = "cosine_warmup_with_min_lr"


@dataclasses.dataclass(frozen=True)
class HieraQueryStage(PartStage):
    """One stage of training HieraQuery.

    Attributes:
        name, follows, max_steps, global_batch_size, task_ratio, max_length, loss_weights, lr_scheduler_type, warmup_steps,
            adam_beta1, adam_beta2, adam_epsilon, weight_decay, max_grad_norm, bf16: see
            [`wallaroo_hf.families.training_stages.TrainingStage`]. Loss weights are of `flow` and `alignment`.
        trains, learning_rates: see [`PartStage`].
        learning_rate: of what has no rate of its own.
        lowest_rate: where the rate begins and ends, with the schedule "cosine_warmup_with_min_lr".
        reconstruction_rate: share of drawing rows that become reconstructions: the picture is shown, and drawn again.
        reconstruction_prompt: what is asked of them.
        noise_draws: times that each picture is noised, on one pass of the language model.
        sigma_shift: of the noise that pictures are given: 1 = evenly from none to all, more = more noise.
        condition_dropout: share of noisy pictures that are learned without condition, for guidance.
        alignment_weight: of the alignment in the loss, where the model has it; what is trained records it.
        image_sizes: `(height, width)` in pixels that drawn pictures are brought to; None = the checkpoint's.
    """

    name: str
    follows: tuple[str, ...] | None
    max_steps: int
    task_ratio: Mapping[str, float]
    trains: tuple[str, ...] = PARTS["all"]
    learning_rate: float = 5e-5
    warmup_steps: int = 1000
    global_batch_size: int = _BATCH
    lr_scheduler_type: str = _WITH_FLOOR
    lowest_rate: float = _SLOWEST
    max_length: int = 2048
    learning_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reconstruction_rate: float = 0.0
    reconstruction_prompt: str = "Keep the image unchanged."
    noise_draws: int = 1
    sigma_shift: float = 1.0
    condition_dropout: float = 0.1
    alignment_weight: float = 0.5
    image_sizes: tuple[tuple[int, int], ...] | None = None
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    bf16: bool = True

    TASKS: ClassVar[tuple[str, ...]] = TASKS
    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = PARTS
    FROZEN: ClassVar[Mapping[str, str]] = {"mllm.": "the language model", "codec.": "the image codec"}

    def __post_init__(self) -> None:
        for name in ("reconstruction_rate", "condition_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be in [0, 1].")
        for name in ("alignment_weight", "lowest_rate"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be at least 0.")
        if self.noise_draws < 1 or not self.sigma_shift > 0:
            raise ValueError(
                f"Stage settings `noise_draws` and `sigma_shift` are {self.noise_draws!r} and {self.sigma_shift!r}, but "
                "must be at least 1 and above 0."
            )
        self.check()

    def training_arguments(self) -> dict[str, Any]:
        """The stage's part of `TrainingArguments`, the lowest rate among it."""
        arguments = super().training_arguments()
        if self.lr_scheduler_type == _WITH_FLOOR:
            begins = self.lowest_rate / self.learning_rate if self.learning_rate else 0.0
            arguments["lr_scheduler_kwargs"] = {
                "min_lr_rate": min(begins, 1.0),  # a share, so that parts with rates of their own keep theirs
                "warmup_lr_rate": min(begins, 1.0),
            }
        return arguments


def _steps(rows: int) -> int:
    return _EPOCHS * rows // _BATCH


def t2i() -> HieraQueryStage:
    """Everything but language model and image codec learns to draw from words: two epochs of 14 million pairs."""
    return HieraQueryStage(name="t2i", follows=(), max_steps=_steps(_PAIRS), task_ratio={"generation": 1})


def reconstruction() -> HieraQueryStage:
    """A picture is shown and drawn again; of as many pairs as before, which the paper does not say."""
    return dataclasses.replace(t2i(), name="reconstruction", follows=("t2i",), reconstruction_rate=1.0)


def editing() -> HieraQueryStage:
    """Edits: two epochs of 5 million, and of 2 million changes of style."""
    return dataclasses.replace(
        t2i(),
        name="editing",
        follows=("reconstruction",),
        max_steps=_steps(_EDITS),
        task_ratio={"editing": 1},
    )


# By the names that `--stage` takes, in order.
STAGES: dict[str, Callable[[], HieraQueryStage]] = {
    "t2i": t2i,
    "reconstruction": reconstruction,
    "editing": editing,
}


def hieraquery_stage(name: str) -> HieraQueryStage:
    """The stage of a name: t2i, reconstruction or editing.

    Raises:
        ValueError: for another name.
    """
    return find_stage(STAGES, name)()
