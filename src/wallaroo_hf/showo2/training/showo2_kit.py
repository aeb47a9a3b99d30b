"""How Show-o2 is trained: its side of [`wallaroo_hf.families.training_kit.TrainingKit`]."""

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
from ...training.data.training_rows import INTERLEAVED, TASKS
from ..block_layout import find_blocks
from ..flow_losses import LOSS_NAMES, SEMANTIC_LOSS, TEXT_LOSSES
from ..showo2_configuration import ShowO2Config
from ..showo2_model import ShowO2ForConditionalGeneration
from .codec_alone import CodecAlone, load_codec
from .noisy_batch import noisy_batch
from .pre_distillation import Teacher, load_teacher
from .showo2_collator import ShowO2DataCollator
from .showo2_encoder import ShowO2RowEncoder
from .showo2_stages import PARTS, PRE_DISTILLATION, STAGES, ShowO2Stage, showo2_stage

__all__ = ["KIT", "ShowO2Kit"]

logger = logging.getLogger(__name__)
_TEACHER = "_teacher"  # where a model that is distilled keeps it: no module of its own, which would be saved


class ShowO2Kit:
    """See [`wallaroo_hf.families.training_kit.TrainingKit`]."""

    tasks = TASKS
    options = frozenset({"lora", "encode"})
    frozen_parts = ("vae",)
    left_out = ()
    token_parts = ("embed_tokens.", "lm_head.", "position_embedding.", "flow_head.output.", "_patch.")

    # -------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> Mapping[str, Callable[[], ShowO2Stage]]:
        """The paper's stages, interleaved fine-tuning, and what comes before."""
        return STAGES

    def fine_tuning(self, folder: str | Path, tasks: Mapping[str, int], lora: bool) -> ShowO2Stage:
        """A stage that trains everything, with the checkpoint's weight of text, few steps, all rows equally often.

        Args:
            folder: the checkpoint to start from; its stage is recorded in what is trained.
            tasks: rows of each task in the data.
            lora: LoRA learns with a higher rate than all weights do (1e-4 and 1e-5).

        Raises:
            ValueError: if the checkpoint cannot be loaded.
        """
        with reading_checkpoint(folder):
            config = ShowO2Config.from_pretrained(folder)
        name = config.stage if config.stage not in (None, PRE_DISTILLATION) else "2c"
        return dataclasses.replace(
            showo2_stage("2c"),
            name=name,
            follows=None,
            trains=PARTS["all"],
            learning_rate=1e-4 if lora else 1e-5,
            warmup_steps=10,
            max_steps=300,
            global_batch_size=8,
            task_ratio=dict(tasks),
            max_length=config.text_config.max_position_embeddings,
            text_weight=config.text_weight,
            clean_rate=0.7 if INTERLEAVED in tasks else 0.0,
        )

    def prepare_processor(self, processor: Any, config: ShowO2Config, stage: ShowO2Stage, force: bool = False) -> None:
        """Has a processor choose sizes as a stage does.

        Args:
            processor: the checkpoint's.
            config: the checkpoint's, as it is before the stage.
            stage: the one to train.
            force: start from a checkpoint of any stage.

        Raises:
            ValueError: if the stage does not follow the checkpoint's, or names sizes that the model cannot draw.
        """
        warning = check_order(config.stage, stage, force)
        if warning:
            logger.warning(warning)
        self.take_sizes(processor, stage)

    def prepare_for_stage(
        self, model: ShowO2ForConditionalGeneration, processor: Any, stage: ShowO2Stage, force: bool = False
    ) -> None:
        """Has model and processor know the sizes, the weight of text, and the tasks of a stage.

        Args:
            model: not wrapped.
            processor: the checkpoint's.
            stage: the one to train.
            force: start from a checkpoint of any stage.

        Raises:
            ValueError: as [`~ShowO2Kit.prepare_processor`], and for a teacher that does not fit.
        """
        self.prepare_processor(processor, model.config, stage, force)
        if stage.teacher is not None:
            model.__dict__[_TEACHER] = load_teacher(stage.teacher, model.config)
            return
        learned = {"editing": "image-editing", INTERLEAVED: INTERLEAVED}
        tasks = list(model.config.tasks)
        tasks += [word for task, word in learned.items() if stage.task_ratio.get(task) and word not in tasks]
        sizes = [list(size) for size in stage.image_sizes or model.config.drawing_sizes]
        for config in (model.config, model.model.config):
            config.text_weight, config.tasks, config.drawing_sizes = stage.text_weight, list(tasks), list(sizes)

    def check_model(self, model: ShowO2ForConditionalGeneration, stage: ShowO2Stage) -> None:
        """A stage with a teacher needs it loaded.

        Raises:
            ValueError: if it is not.
        """
        if (stage.teacher is not None) != (_TEACHER in model.__dict__):
            raise ValueError(f"Stage {stage.name} has another teacher than the model; call `prepare_for_stage` first.")

    def check_parts(self, model: ShowO2ForConditionalGeneration, stage: ShowO2Stage) -> None:
        """See [`ShowO2Stage.check_parts`]."""
        stage.check_parts(name for name, _ in model.named_parameters())

    def is_trained(self, stage: ShowO2Stage, name: str) -> bool:
        """Whether a stage trains the parameter of a name."""
        return stage.is_trained(name)

    def parameter_groups(self, model: nn.Module, stage: ShowO2Stage) -> list[dict[str, Any]]:
        """Parameters by the learning rates that parts have of their own."""
        return stage.groups(model.named_parameters())

    def agree(self, model: ShowO2ForConditionalGeneration, processor: Any) -> None:
        """Nothing of a processor depends on what can change in a model."""

    # -------------------------------------------------------------------------------------------------------- losses

    def loss_names(self, config: ShowO2Config) -> tuple[str, ...]:
        """Text by what its row does, and the velocity; of pre-distillation the features alone."""
        return (SEMANTIC_LOSS,) if config.stage == PRE_DISTILLATION else LOSS_NAMES

    def total_loss(
        self, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None, config: ShowO2Config
    ) -> torch.Tensor:
        """`text_weight · text + flow`, where text is one mean over all of it; each part weighted by its task besides.

        Raises:
            ValueError: for a weight of an unknown task.
        """
        weights = weights or {}
        tasks = dict.fromkeys(name.partition("_")[0] for name in LOSS_NAMES)
        unknown = sorted(set(weights) - set(tasks))
        if unknown:
            raise ValueError(f"`loss_weights` names {unknown}, but the tasks are {', '.join(tasks)}.")
        total = torch.tensor(0.0)
        for name, loss in losses.items():
            share = config.text_weight if name in TEXT_LOSSES else 1.0
            total = total + share * weights.get(name.partition("_")[0], 1.0) * loss
        return total

    def guesses(self, config: ShowO2Config) -> None:
        """There are no codes to guess among."""

    def count(self, batch: Mapping[str, Any], config: ShowO2Config) -> torch.Tensor:
        """Text labels of rows that understand and of rows that draw, and tokens of the images that are learned."""
        blocks = find_blocks(batch["input_ids"] == config.image_token_id)
        learned = batch.get("image_learned", [False] * len(blocks.rows))
        tokens = [length - 1 for length in blocks.lengths]
        labels = (batch["labels"][:, 1:] >= 0).sum(dim=1)
        flow = sum(count for count, is_learned in zip(tokens, learned, strict=True) if is_learned)
        if config.stage == PRE_DISTILLATION:
            return labels.new_tensor([flow])
        draws = {row for row, is_learned in zip(blocks.rows, learned, strict=True) if is_learned}
        generates = torch.tensor([row in draws for row in range(len(labels))], device=labels.device)
        text = torch.stack([labels[~generates].sum(), labels[generates].sum()])
        return torch.cat([text, text.new_tensor([flow])])

    def denominators(self, counts: torch.Tensor, config: ShowO2Config) -> torch.Tensor:
        """All text is one mean, as released; the velocity is another."""
        names = self.loss_names(config)
        is_text = torch.tensor([name in TEXT_LOSSES for name in names], device=counts.device)
        return torch.where(is_text, counts[is_text].sum(), counts)

    # ------------------------------------------------------------------------------------------------------- batches

    def collator(self, processor: Any, stage: ShowO2Stage, **options: Any) -> ShowO2DataCollator:
        """See [`ShowO2DataCollator`]."""
        return ShowO2DataCollator(processor, stage, **{"max_length": stage.max_length, **options})

    def prepare(self, model: ShowO2ForConditionalGeneration, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See [`noisy_batch`]; with a teacher also what it sees."""
        teacher: Teacher | None = model.__dict__.get(_TEACHER)
        prepared = noisy_batch(model, inputs)
        if teacher is not None and "image_pixels" in inputs:
            prepared["semantic_targets"] = teacher.features(inputs["image_pixels"], prepared["image_latents"])
        return prepared

    def keep_rows(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """The others lose their labels and their targets, and of their images nothing is learned."""
        labels = inputs["labels"]
        others = torch.arange(len(labels), device=labels.device)[:, None] >= count
        kept = {**inputs, "labels": labels.masked_fill(others, -100)}
        rows = inputs.get("image_rows", ())
        for name, nothing in (("image_learned", False), ("velocity_targets", None), ("semantic_targets", None)):
            if name in inputs:
                own = zip(inputs[name], rows, strict=True)
                kept[name] = [value if row < count else nothing for value, row in own]
        return kept

    def arrange(
        self, model: ShowO2ForConditionalGeneration, inputs: Mapping[str, Any], every_part: bool, padding_free: bool
    ) -> dict[str, Any]:
        """The arguments of the forward.

        Args:
            model: not wrapped.
            inputs: from [`~ShowO2Kit.prepare`].
            every_part: all that trains belongs to the graph, whatever the rows are.
            padding_free: not offered.
        """
        arranged = {name: value for name, value in inputs.items() if name not in ("image_learned", "image_rows")}
        if "semantic_targets" in inputs:
            del arranged["velocity_targets"]
        return arranged | {"touch_all_parts": every_part, "label_logits_only": True}

    # ---------------------------------------------------------------------------------------------------------- LoRA

    def lora(self, model: Any) -> LoraTargets:
        """The linear layers of language model and flow head; the fusion trains whole."""
        stacks = (model.model.language_model.layers, model.flow_head.layers)
        known = {
            name.rpartition(".")[2]
            for layers in stacks
            for name, module in layers.named_modules()
            if isinstance(module, nn.Linear) and name.count(".") == 2
        }
        within = r"(?:model\.language_model|flow_head)\.layers\.\d+\.\w+\."
        return LoraTargets(within, tuple(sorted(known)), ("visual.fusion",))

    def extend_base(
        self, model: ShowO2ForConditionalGeneration, trained: ShowO2Config, keys: Sequence[str], base: str
    ) -> None:
        """Settings that training changed; there are no parts that a checkpoint can lack.

        Args:
            model: the base.
            trained: the adapter's configuration.
            keys: names of the adapter's weights.
            base: what the base is called.
        """
        for config in (model.config, model.model.config):
            for name in ("text_weight", "tasks", "drawing_sizes"):
                setattr(config, name, getattr(trained, name))

    # ------------------------------------------------------------------------------------------------ encoding ahead

    def load_codec(self, name: str, check_weights: bool = True) -> CodecAlone:
        """The image codec of a checkpoint."""
        return load_codec(name, check_weights)

    def codec(self, model: ShowO2ForConditionalGeneration) -> CodecAlone:
        """Its image codec."""
        return CodecAlone(model.config, model.vae)

    def encoder(self, codec: CodecAlone, processor: Any) -> ShowO2RowEncoder:
        """Encodes with a codec at the sizes of a processor."""
        return ShowO2RowEncoder(codec, processor)

    def take_sizes(self, processor: Any, stage: ShowO2Stage) -> None:
        """Sizes that are drawn, and how pictures are brought to those that are seen."""
        if stage.image_sizes is not None:
            processor.drawing_sizes = [tuple(size) for size in stage.image_sizes]
        processor.image_processor.fit = stage.fit


KIT = ShowO2Kit()
