"""How Wallaroo is trained: its side of [`wallaroo_hf.families.training_kit.TrainingKit`]."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..families.loading import reading_checkpoint
from ..families.training_kit import LoraTargets
from ..modeling.backbone import WallarooModel
from ..modeling.configuration import WallarooConfig
from ..modeling.losses import count_labels, total_loss
from ..modeling.model import WallarooForConditionalGeneration
from ..modeling.parts import loss_names, part_names, task_names
from ..modeling.vq import WallarooVQModel
from ..processing.processor import WallarooProcessor
from .collator import WallarooDataCollator
from .data.training_rows import TASKS
from .preparation import add_image_parts, prepare_for_stage, prepare_processor
from .stages import STAGES, Stage, stage
from .wallaroo_encoder import WallarooRowEncoder

__all__ = ["KIT", "WallarooKit", "encode_images"]


class WallarooKit:
    """See [`wallaroo_hf.families.training_kit.TrainingKit`]."""

    tasks = TASKS
    options = frozenset({"lora", "quantize", "padding_free", "encode"})
    frozen_parts = ("model.vq_model",)
    left_out = ()
    token_parts = ("embed_tokens.", "lm_head.", "_head.2.", "patch_embed.")

    # -------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> Mapping[str, Callable[[], Stage]]:
        """The paper's stages."""
        return STAGES

    def fine_tuning(self, folder: str | Path, tasks: Mapping[str, int], lora: bool) -> Stage:
        """A stage with the checkpoint's layout and sizes, few steps, every row as often as the others.

        It trains what the paper's stage of that name trains; all but `visual` and the image tokenizer after any other.

        Args:
            folder: the checkpoint to start from; its stage is recorded in what is trained.
            tasks: rows of each task in the data.
            lora: LoRA learns with a higher rate than all weights do (1e-4 and 1e-5).

        Raises:
            ValueError: if the checkpoint cannot be loaded.
        """
        with reading_checkpoint(folder):
            config, processor = WallarooConfig.from_pretrained(folder), WallarooProcessor.from_pretrained(folder)
        without_editing = "3b" if processor.line_breaks else "2"
        of_the_paper = "4" if config.has_editing else without_editing
        return dataclasses.replace(
            stage(config.stage if config.stage in STAGES else of_the_paper),
            name=config.stage or of_the_paper,
            follows=None,
            layout=None,
            buckets=tuple(processor.buckets),
            indicator_sizes=tuple(processor.indicator_sizes),
            pixel_limits=None,
            learning_rate=1e-4 if lora else 1e-5,
            warmup_steps=10,
            max_steps=300,
            global_batch_size=8,
            task_ratio=dict(tasks),
        )

    prepare_processor = staticmethod(prepare_processor)
    prepare_for_stage = staticmethod(prepare_for_stage)

    def check_model(self, model: WallarooForConditionalGeneration, stage: Stage) -> None:
        """Makes sure that a model has editing parts where the stage's layout has editing, and only there.

        Raises:
            ValueError: if not.
        """
        layout = stage.layout
        if layout is not None and model.config.has_editing != layout.has_editing:
            wants, has = ("needs", "lacks") if layout.has_editing else ("has no", "has")
            raise ValueError(
                f"Stage {stage.name} {wants} editing parts, which the model {has}; call `prepare_for_stage` first."
            )

    def check_parts(self, model: WallarooForConditionalGeneration, stage: Stage) -> None:
        """Makes sure that a model has what a stage trains.

        Raises:
            ValueError: see [`Stage.check_parts`].
        """
        stage.check_parts(name for name, _ in model.named_parameters())

    def is_trained(self, stage: Stage, name: str) -> bool:
        """Whether a stage trains the parameter of a name."""
        return stage.is_trained(name)

    def parameter_groups(self, model: WallarooForConditionalGeneration, stage: Stage) -> list[dict[str, Any]]:
        """None: one learning rate is for all."""
        return []

    def agree(self, model: WallarooForConditionalGeneration, processor: Any) -> None:
        """Image codes begin where the model's vocabulary ends, which may have been resized since it was loaded."""
        if isinstance(processor, WallarooProcessor):
            processor.first_image_token_id = model.config.text_config.vocab_size

    # -------------------------------------------------------------------------------------------------------- losses

    def loss_names(self, config: WallarooConfig) -> tuple[str, ...]:
        """The text of every task, and the codes of those that draw."""
        return loss_names(config.image_tasks)

    def total_loss(
        self, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None, config: WallarooConfig
    ) -> torch.Tensor:
        """`Σ_task weight · (text mean + code mean)`; see [`wallaroo_hf.modeling.losses.total_loss`]."""
        return total_loss(losses, weights, task_names(config.image_tasks))

    def guesses(self, config: WallarooConfig) -> int | None:
        """The size of the codebook."""
        return config.codebook_size

    def count(self, batch: Mapping[str, Any], config: WallarooConfig) -> torch.Tensor:
        """Labels of each part of the loss."""
        return count_labels(batch["input_ids"], batch["labels"], config)

    def denominators(self, counts: torch.Tensor, config: WallarooConfig) -> torch.Tensor:
        """Each part's own labels: the loss is a sum of means."""
        return counts

    # ------------------------------------------------------------------------------------------------------- batches

    def collator(self, processor: WallarooProcessor, stage: Stage, **options: Any) -> WallarooDataCollator:
        """See [`WallarooDataCollator.for_stage`]."""
        return WallarooDataCollator.for_stage(processor, stage, **options)

    def prepare(self, model: WallarooForConditionalGeneration, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See [`encode_images`]."""
        return encode_images(model.model, inputs)

    def keep_rows(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Masks the labels of the others."""
        labels = inputs["labels"]
        others = torch.arange(len(labels), device=labels.device)[:, None] >= count
        return {**inputs, "labels": labels.masked_fill(others, -100)}

    def arrange(
        self, model: WallarooForConditionalGeneration, inputs: Mapping[str, Any], every_part: bool, padding_free: bool
    ) -> dict[str, Any]:
        """The arguments of the forward.

        Args:
            model: not wrapped.
            inputs: from [`~WallarooKit.prepare`].
            every_part: adapters, heads and vision tower belong to the graph, whatever the rows are.
            padding_free: rows follow each other, `(1, T)`, instead of being padded.
        """
        arranged = _without_padding(model.model, inputs) if padding_free else dict(inputs)
        return arranged | {"touch_all_parts": every_part}

    # ---------------------------------------------------------------------------------------------------------- LoRA

    def lora(self, model: Any) -> LoraTargets:
        """The linear layers of the language model; image adapters and heads train whole.

        Neither the vision tower, nor the image tokenizer, nor the text head get adapters.
        """
        layers = model.model.language_model.layers
        known = {name.rpartition(".")[2] for name, module in layers.named_modules() if isinstance(module, nn.Linear)}
        found = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        whole = tuple(name for name in part_names(model.config.image_tasks) if name in found)
        # a pattern for whole names: `visual` has layers of the same names
        return LoraTargets(r"model\.language_model\.layers\.\d+\.\w+\.", tuple(sorted(known)), whole)

    def extend_base(
        self, model: WallarooForConditionalGeneration, trained: WallarooConfig, keys: Sequence[str], base: str
    ) -> None:
        """Gives a base the image parts that an adapter was trained with.

        Args:
            model: the base.
            trained: the adapter's configuration.
            keys: names of the adapter's weights.
            base: what the base is called.

        Raises:
            ValueError: if the adapter does not bring them.
        """
        for task in model.config.image_tasks:
            if not trained.has_task(task) or model.config.has_task(task):
                continue
            if not all(any(part in key for key in keys) for part in task.prefixes):
                raise ValueError(
                    f"The base '{base}' has no {task.name} parts, and the adapter brings none although it was trained with "
                    "new ones; train again with image parts (`train_image_parts=True`)."
                )
            add_image_parts(model, task)

    # ------------------------------------------------------------------------------------------------ encoding ahead

    def load_codec(self, name: str, check_weights: bool = True) -> WallarooVQModel:
        """The image tokenizer of a checkpoint."""
        from .vq.vq_loading import load_vq_model

        return load_vq_model(name, check_weights)

    def codec(self, model: WallarooForConditionalGeneration) -> WallarooVQModel:
        """Its image tokenizer."""
        return model.vq_model

    def encoder(self, codec: WallarooVQModel, processor: WallarooProcessor | None) -> WallarooRowEncoder:
        """Encodes with an image tokenizer at the sizes of a processor."""
        return WallarooRowEncoder(codec, processor)

    def take_sizes(self, processor: WallarooProcessor, stage: Stage) -> None:
        """Sizes and grid of a stage's layout; a stage without one is trained on the checkpoint's own."""
        if stage.layout is not None:
            processor.buckets, processor.line_breaks = list(stage.layout.buckets), stage.layout.line_breaks
        if stage.buckets is not None:
            processor.buckets = list(stage.buckets)


def encode_images(model: WallarooModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with codes and latents in the place of the pixels that the image tokenizer makes them of.

    Done before the (wrapped) model is called, because FSDP's mixed precision rounds what it is called with.

    Args:
        model: not wrapped.
        inputs: `input_ids`, `labels` and, where there are, `target_pixel_values`, `target_image_tokens`,
            `source_pixel_values` and `source_latents` (see `WallarooForConditionalGeneration.forward`).

    Raises:
        ValueError: if images and their places do not match in number.
    """
    inputs = dict(inputs)
    targets = [inputs.pop(name, None) for name in ("target_pixel_values", "target_image_tokens")]
    sources = inputs.pop("source_pixel_values", None)
    inputs["input_ids"], inputs["labels"] = model.place_targets(inputs["input_ids"], inputs["labels"], *targets)
    if sources is not None or inputs.get("source_latents") is not None:
        inputs["source_latents"] = model.source_latents(sources, inputs.get("source_latents"))
    return inputs


def _without_padding(model: WallarooModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a padded batch one after the other, `(1, T)`; their positions say where each begins."""
    inputs = dict(inputs)
    mask = inputs.pop("attention_mask").bool()
    ids = inputs["input_ids"]
    three, _ = model.get_rope_index(
        ids,
        inputs.pop("mm_token_type_ids", None),
        inputs.get("image_grid_thw"),
        inputs.get("video_grid_thw"),
        inputs.pop("second_per_grid_ts", None),
        mask.long(),
    )
    positions = torch.cat([(mask.long().cumsum(dim=1) - 1)[None], three.to(ids)])  # (4, B, T)
    labels = inputs["labels"].masked_fill(torch.zeros_like(mask).index_fill(1, ids.new_zeros(1), True), -100)
    flat = {
        "input_ids": ids[mask][None],
        "labels": labels[mask][None],
        "position_ids": positions[:, mask][:, None],
    }
    return inputs | flat


KIT = WallarooKit()
