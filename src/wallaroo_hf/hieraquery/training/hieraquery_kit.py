"""How HieraQuery is trained: its side of [`wallaroo_hf.families.training_kit.TrainingKit`]."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...families.loading import reading_checkpoint
from ...families.training_kit import LoraTargets
from ...families.training_stages import check_order
from ..hiera_losses import loss_names, total_loss
from ..hieraquery_configuration import HieraQueryConfig
from ..hieraquery_model import HieraQueryForConditionalGeneration
from .hieraquery_collator import HieraQueryDataCollator
from .hieraquery_encoder import HieraQueryRowEncoder
from .hieraquery_stages import STAGES, TASKS, HieraQueryStage, hieraquery_stage
from .picture_side import PictureSide, load_picture_side
from .prepared_pictures import prepare_pictures

__all__ = ["KIT", "HieraQueryKit"]

logger = logging.getLogger(__name__)
_STAGE = "_stage"  # where a model that trains keeps how its pictures are noised: nothing that would be saved
_LEARNED = {"generation": "text-to-image", "editing": "image-editing"}


class HieraQueryKit:
    """See [`wallaroo_hf.families.training_kit.TrainingKit`]."""

    tasks = TASKS
    options = frozenset({"lora", "encode"})
    frozen_parts = ("mllm", "codec")
    left_out = frozen_parts
    token_parts = ("queries.", "proj_out.", "patch_embed.", "scale_vectors", "scale_shift_table")

    # -------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> Mapping[str, Callable[[], HieraQueryStage]]:
        """The paper's stages."""
        return STAGES

    def fine_tuning(self, folder: str | Path, tasks: Mapping[str, int], lora: bool) -> HieraQueryStage:
        """A stage that trains everything that can be, few steps, all rows equally often.

        Args:
            folder: the checkpoint to start from; its stage is recorded in what is trained.
            tasks: rows of each task in the data.
            lora: LoRA learns with a higher rate than all weights do (1e-4 and 1e-5).

        Raises:
            ValueError: if the checkpoint cannot be loaded.
        """
        with reading_checkpoint(folder):
            config = HieraQueryConfig.from_pretrained(folder)
        return dataclasses.replace(
            hieraquery_stage("t2i"),
            name=config.stage or "t2i",
            follows=None,
            learning_rate=1e-4 if lora else 1e-5,
            warmup_steps=10,
            max_steps=300,
            global_batch_size=8,
            task_ratio=dict(tasks),
            condition_dropout=float(config.condition_dropout),
            alignment_weight=float(config.alignment_weight),
        )

    def prepare_processor(
        self, processor: Any, config: HieraQueryConfig, stage: HieraQueryStage, force: bool = False
    ) -> None:
        """Has a processor choose sizes as a stage does.

        Args:
            processor: the checkpoint's.
            config: the checkpoint's, as it is before the stage.
            stage: the one to train.
            force: start from a checkpoint of any stage.

        Raises:
            ValueError: if the stage does not follow the checkpoint's.
        """
        warning = check_order(config.stage, stage, force)
        if warning:
            logger.warning(warning)
        self.take_sizes(processor, stage)

    def prepare_for_stage(
        self,
        model: HieraQueryForConditionalGeneration,
        processor: Any,
        stage: HieraQueryStage,
        force: bool = False,
    ) -> None:
        """Has model and processor know the sizes, the tasks, and what the loss is of in a stage.

        Args:
            model: not wrapped.
            processor: the checkpoint's.
            stage: the one to train.
            force: start from a checkpoint of any stage.

        Raises:
            ValueError: as [`~HieraQueryKit.prepare_processor`], and for sizes that do not fit the model's scales.
        """
        self.prepare_processor(processor, model.config, stage, force)
        config = model.config
        for size in stage.image_sizes or ():
            for scale in range(len(config.scales)):
                model.scale_size(*size, scale)
        tasks = list(config.tasks)
        tasks += [word for task, word in _LEARNED.items() if stage.task_ratio.get(task) and word not in tasks]
        config.tasks = processor.tasks = tasks
        if stage.image_sizes is not None:
            config.drawing_sizes = [list(size) for size in stage.image_sizes]
            config.size = list(stage.image_sizes[0])
        config.condition_dropout = stage.condition_dropout
        if model.alignment is not None and stage.alignment_weight:
            config.alignment_weight = stage.alignment_weight
        model.__dict__[_STAGE] = stage

    def check_model(self, model: HieraQueryForConditionalGeneration, stage: HieraQueryStage) -> None:
        """A stage is prepared for, as it says how pictures are noised.

        Raises:
            ValueError: if it is not.
        """
        if model.__dict__.get(_STAGE) != stage:
            raise ValueError(f"The model is not prepared for stage {stage.name}; call `prepare_for_stage` first.")

    def check_parts(self, model: HieraQueryForConditionalGeneration, stage: HieraQueryStage) -> None:
        """See [`~wallaroo_hf.families.part_stages.PartStage.check_parts`]."""
        stage.check_parts(name for name, _ in model.named_parameters())

    def is_trained(self, stage: HieraQueryStage, name: str) -> bool:
        """Whether a stage trains the parameter of a name."""
        return stage.is_trained(name)

    def parameter_groups(self, model: nn.Module, stage: HieraQueryStage) -> list[dict[str, Any]]:
        """Parameters by the learning rates that parts have of their own."""
        return stage.groups(model.named_parameters())

    def agree(self, model: HieraQueryForConditionalGeneration, processor: Any) -> None:
        """Nothing of a processor depends on what can change in a model."""

    # -------------------------------------------------------------------------------------------------------- losses

    def loss_names(self, config: HieraQueryConfig) -> tuple[str, ...]:
        """The velocity at every scale, and the alignment where there is one."""
        return loss_names(len(config.scales), bool(config.alignment_weight))

    def total_loss(
        self, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None, config: HieraQueryConfig
    ) -> torch.Tensor:
        """The mean over scales of flow loss + alignment loss, each weighted besides.

        Raises:
            ValueError: for a weight of an unknown kind.
        """
        weights = weights or {}
        unknown = sorted(set(weights) - {"flow", "alignment"})
        if unknown:
            raise ValueError(f"`loss_weights` names {unknown}, but the losses are flow and alignment.")
        if not losses:
            return torch.tensor(0.0)
        weighted = {name: weights.get(name.partition("_")[0], 1.0) * loss for name, loss in losses.items()}
        return total_loss(weighted, [scale["loss_weight"] for scale in config.scales], config.alignment_weight)

    def guesses(self, config: HieraQueryConfig) -> None:
        """There are no codes to guess among."""

    def count(self, batch: Mapping[str, Any], config: HieraQueryConfig) -> torch.Tensor:
        """Rows of which something is learned: each has every part of the loss."""
        return torch.full((len(self.loss_names(config)),), float(sum(batch["is_learned"])))

    def denominators(self, counts: torch.Tensor, config: HieraQueryConfig) -> torch.Tensor:
        """Each part is a mean of its own."""
        return counts

    # ------------------------------------------------------------------------------------------------------- batches

    def collator(self, processor: Any, stage: HieraQueryStage, **options: Any) -> HieraQueryDataCollator:
        """See [`HieraQueryDataCollator`]."""
        return HieraQueryDataCollator(processor, stage, **{"max_length": stage.max_length, **options})

    def prepare(self, model: HieraQueryForConditionalGeneration, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See [`prepare_pictures`]."""
        stage: HieraQueryStage | None = model.__dict__.get(_STAGE)
        draws, shift = (1, 1.0) if stage is None else (stage.noise_draws, stage.sigma_shift)
        return prepare_pictures(model, inputs, draws, shift)

    def keep_rows(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Of the others nothing is learned."""
        kept = [row < count and is_learned for row, is_learned in enumerate(inputs["is_learned"])]
        latents = [own if learned else None for own, learned in zip(inputs["latents"], kept, strict=True)]
        return {**inputs, "is_learned": kept, "latents": latents}

    def arrange(
        self,
        model: HieraQueryForConditionalGeneration,
        inputs: Mapping[str, Any],
        every_part: bool,
        padding_free: bool,
    ) -> dict[str, Any]:
        """The arguments of the forward.

        Args:
            model: not wrapped.
            inputs: from [`~HieraQueryKit.prepare`].
            every_part: every row that draws needs all parts, and without one the forward touches them.
            padding_free: not offered.
        """
        return {name: value for name, value in inputs.items() if name != "is_learned"}

    # ---------------------------------------------------------------------------------------------------------- LoRA

    def lora(self, model: Any) -> LoraTargets:
        """The linear layers of the diffusion transformer's blocks; what is small beside it trains whole."""
        known = {
            name.rpartition(".")[2]
            for name, module in model.dit.transformer_blocks.named_modules()
            if isinstance(module, nn.Linear)
        }
        whole = ("queries", "connector", *(("alignment",) if model.alignment is not None else ()))
        return LoraTargets(r"dit\.transformer_blocks\.\d+\..*", tuple(sorted(known)), whole)

    def extend_base(
        self,
        model: HieraQueryForConditionalGeneration,
        trained: HieraQueryConfig,
        keys: Sequence[str],
        base: str,
    ) -> None:
        """Settings that training changed; there are no parts that a checkpoint can lack.

        Args:
            model: the base.
            trained: the adapter's configuration.
            keys: names of the adapter's weights.
            base: what the base is called.
        """
        for name in ("tasks", "drawing_sizes", "size", "condition_dropout"):
            setattr(model.config, name, getattr(trained, name))

    # ------------------------------------------------------------------------------------------------ encoding ahead

    def load_codec(self, name: str, check_weights: bool = True) -> PictureSide:
        """Image codec and vision encoder of a checkpoint."""
        return load_picture_side(name, check_weights)

    def codec(self, model: HieraQueryForConditionalGeneration) -> PictureSide:
        """Its image codec and vision encoder."""
        return PictureSide(model.config, model.codec, model.mllm.model.visual)

    def encoder(self, codec: PictureSide | None, processor: Any) -> HieraQueryRowEncoder:
        """Encodes with them at the sizes of a processor; without them (None) it only plans."""
        return HieraQueryRowEncoder(codec, processor)

    def take_sizes(self, processor: Any, stage: HieraQueryStage) -> None:
        """Sizes that are drawn."""
        if stage.image_sizes is not None:
            processor.drawing_sizes = [tuple(size) for size in stage.image_sizes]


KIT = HieraQueryKit()
