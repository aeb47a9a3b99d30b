"""The contract of training: what a family's kit must be able to do, so that runs need to know nothing else of it.

Types of torch are named for readers and type checkers only; importing this needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from .training_stages import TrainingStage

__all__ = ["LoraTargets", "RowEncoder", "TrainingKit"]


@dataclass(frozen=True)
class LoraTargets:
    """What LoRA trains of a model.

    Attributes:
        within: regular expression for how the names of the layers that get adapters begin.
        layers: the last words of their names.
        whole: modules that are small and train whole.
    """

    within: str
    layers: tuple[str, ...]
    whole: tuple[str, ...]


class RowEncoder(Protocol):
    """Encodes the pictures of training rows ahead, by one codec and for one processor.

    Attributes:
        fingerprint: of the codec: equal ones encode equally.
        columns: what encoded rows have, by name: dtype and number of axes of each array.
        size_multiple: edges of pictures are multiples of it.
        sizes: those that pictures without one are given, `(height, width)`.
    """

    fingerprint: str
    columns: Mapping[str, tuple[str, int]]
    size_multiple: int
    sizes: list[list[int]]

    def plan(
        self, row: Mapping[str, Any], task: str, drawn: Sequence[Any], shown: Sequence[Any]
    ) -> tuple[tuple[int, int] | None, list[tuple[str, Any]]]:
        """What of a row is encoded.

        Args:
            row: as it was read.
            task: its task.
            drawn, shown: its pictures, those of the assistant and the others, each a function that opens it.

        Returns:
            Its size `(height, width)` and, in order, columns with the pixels `(3, H, W)` of a NumPy array; None and
            nothing for a row that needs no codec.

        Raises:
            ValueError: for a row that cannot be encoded.
        """

    def encode(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Arrays by column of pictures `(B, 3, H, W)` of one size."""

    def reconstruct(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures `(B, 3, H, W)` in [-1, 1] through the codec and back: what drawings can be at best."""


class TrainingKit(Protocol):
    """How a family is trained. A model that trains has a forward with `loss`, `logits` (or None) and `losses` by name, and
    `config.stage`, where a run records what the checkpoint went through.

    Attributes:
        tasks: of training rows that it can be trained on.
        options: of "lora", "quantize", "padding_free" and "encode", those that it has.
        frozen_parts: modules that never train and compute in their own precision: kept whole where a model is sharded.
        token_parts: in the names of parameters, what tells tables and output layers, whose rows are tokens.
    """

    tasks: tuple[str, ...]
    options: frozenset[str]
    frozen_parts: tuple[str, ...]
    token_parts: tuple[str, ...]

    def stages(self) -> Mapping[str, Callable[[], TrainingStage]]:
        """What makes each stage of its recipe, by name, in order."""

    def fine_tuning(self, folder: Any, tasks: Mapping[str, int], lora: bool) -> TrainingStage:
        """A stage for data of one's own, for the checkpoint in a folder (or of a Hub id) and rows of each task."""

    def prepare_processor(self, processor: Any, config: Any, stage: TrainingStage, force: bool = False) -> Any:
        """Brings a processor to a stage, in place, for looking at rows without a model.

        Args:
            processor: the checkpoint's.
            config: the checkpoint's, as it is before the stage.
            stage: the one to train.
            force: start from a checkpoint of any stage.
        """

    def prepare_for_stage(self, model: Any, processor: Any, stage: TrainingStage, force: bool = False) -> None:
        """Brings model and processor to a stage, in place.

        Args:
            model: not wrapped.
            processor: the checkpoint's.
            stage: the one to train.
            force: start from a checkpoint of any stage.
        """

    def check_model(self, model: Any, stage: TrainingStage) -> None:
        """Raises a ValueError unless a model is as a stage needs it."""

    def check_parts(self, model: Any, stage: TrainingStage) -> None:
        """Raises a ValueError unless a model has what a stage trains."""

    def is_trained(self, stage: TrainingStage, name: str) -> bool:
        """Whether a stage trains the parameter of a name."""

    def parameter_groups(self, model: Any, stage: TrainingStage) -> list[dict[str, Any]]:
        """Parameters (`params`) with settings of the optimizer that are their own, such as `lr`; [] = none has any."""

    def agree(self, model: Any, processor: Any) -> None:
        """Has a processor know what changed in a model since both were loaded."""

    def loss_names(self, config: Any) -> tuple[str, ...]:
        """The parts of its loss."""

    def total_loss(
        self, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None, config: Any
    ) -> torch.Tensor:
        """The sum of the parts that are there, weighted by task; each was divided by its denominator."""

    def guesses(self, config: Any) -> int | None:
        """Among how many codes a picture is guessed; None for a family without any."""

    def count(self, batch: Mapping[str, Any], config: Any) -> torch.Tensor:
        """How many labels each part of the loss has in a batch: what its mean is over, in the order of `loss_names`."""

    def denominators(self, counts: torch.Tensor, config: Any) -> torch.Tensor:
        """What the sum of each part is divided by in the loss, from the labels of all parts: a part's own labels where its
        mean stands in the loss; the labels of several where one mean is over all of them.
        """

    def collator(self, processor: Any, stage: TrainingStage, **options: Any) -> Any:
        """Rows to batches; `options` are `seed` and `on_error`. It has `measure(row)`, the row's length in tokens."""

    def prepare(self, model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with what the frozen parts make of it, for a model without wrappers."""

    def keep_rows(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """A prepared batch in which only the first rows have something to learn."""

    def arrange(self, model: Any, inputs: Mapping[str, Any], every_part: bool, padding_free: bool) -> dict[str, Any]:
        """The arguments of the forward.

        Args:
            model: not wrapped.
            inputs: a prepared batch.
            every_part: all that trains belongs to the graph, whatever the rows are.
            padding_free: rows follow each other instead of being padded.
        """

    def lora(self, model: Any) -> LoraTargets:
        """What LoRA trains."""

    def extend_base(self, model: Any, trained: Any, keys: Sequence[str], base: str) -> None:
        """Gives a base the parts that an adapter was trained with.

        Args:
            model: the base.
            trained: the adapter's configuration.
            keys: names of the adapter's weights.
            base: what the base is called.
        """

    def load_codec(self, name: str, check_weights: bool = True) -> Any:
        """The codec of a checkpoint, alone, on the CPU."""

    def codec(self, model: Any) -> Any:
        """The codec of a model."""

    def encoder(self, codec: Any, processor: Any) -> RowEncoder:
        """What encodes rows ahead; without a codec (None) it only plans."""

    def take_sizes(self, processor: Any, stage: TrainingStage) -> None:
        """Has a processor choose the sizes of a stage, for encoding ahead."""
