"""`WallarooForConditionalGeneration`: the body with its heads, its losses and its `generate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import MultimodalCausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple

from ..generation.mixin import WallarooGenerationMixin
from .adapters import WallarooImageHead, part_of_task, row_starts, run_by_task, token_masks
from .backbone import WallarooModel
from .configuration import WallarooConfig
from .forward_arguments import refuse_unknown_arguments
from .losses import find_labels, task_losses, total_loss
from .low_memory import LowMemoryMixin
from .parts import loss_names, task_names
from .vq import WallarooVQModel

__all__ = ["WallarooCausalLMOutput", "WallarooForConditionalGeneration"]


@dataclass
class WallarooCausalLMOutput(MultimodalCausalLMOutputWithPast):
    """Output of [`WallarooForConditionalGeneration`].

    Attributes:
        loss: scalar, when labels were given: the weighted sum of `losses`.
        logits: text logits. Without labels `(B, K, vocab_size)` at the positions that `logits_to_keep` names. With
            labels and no `logits_to_keep`, `(N, vocab_size)`: only the rows that predict the N text labels, in order.
        image_logits: code logits. With labels `(M, codebook_size)`, the rows that predict the M code labels, in order;
            with `output_image_logits=True` `(B, K, codebook_size)`; else None.
        losses: named means: `understanding_text`, `generation_text`, `generation_image`, `editing_text`,
            `editing_image`, those that have labels; with `touch_all_parts` all of them, 0 where there are no labels.
    """

    image_logits: torch.FloatTensor | None = None
    losses: dict[str, torch.Tensor] | None = None


class WallarooForConditionalGeneration(WallarooGenerationMixin, LowMemoryMixin, Qwen2_5_VLForConditionalGeneration):
    r"""Wallaroo (arXiv 2603.04980): Qwen2.5-VL that also draws and edits, with one head for each.

    `forward` is for training and scoring; `generate` answers, draws and edits (see [`WallarooGenerationMixin`]).
    """

    config: WallarooConfig
    generation_head: WallarooImageHead
    input_modalities = ("image", "video", "text")
    output_modalities = ("image", "text")
    _no_split_modules = WallarooModel._no_split_modules

    def __init__(self, config: WallarooConfig) -> None:
        super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)
        self.model = WallarooModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        for name in config.image_heads:
            setattr(self, name, WallarooImageHead(config))
        self.post_init()

    @property
    def vq_model(self) -> WallarooVQModel:
        """The image tokenizer."""
        return self.model.vq_model

    def image_logits(self, hidden_states: torch.Tensor, image_task: torch.Tensor | int) -> torch.Tensor:
        """Code logits `(..., codebook_size)` of hidden states `(..., hidden_size)`, by the head of their span's task."""
        return run_by_task(self, "head", image_task, hidden_states)

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor | None = None,
        source_pixel_values: Sequence[torch.Tensor] | None = None,
        source_latents: Sequence[torch.Tensor | None] | None = None,
        source_mask: Sequence[torch.Tensor] | None = None,
        target_pixel_values: Sequence[torch.Tensor] | None = None,
        target_image_tokens: Sequence[torch.Tensor | None] | None = None,
        image_task: torch.Tensor | int | None = None,
        edit_mask: torch.Tensor | bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        output_image_logits: bool = False,
        loss_weights: Mapping[str, float] | None = None,
        target_grid_hw: torch.Tensor | None = None,
        touch_all_parts: bool = False,
        step_attention: bool = False,
        **kwargs: Any,
    ) -> WallarooCausalLMOutput:
        r"""Computes logits, and losses when there are labels.

        Args:
            input_ids, attention_mask, mm_token_type_ids, pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw,
                second_per_grid_ts, source_pixel_values, source_latents, source_mask, image_task, edit_mask,
                touch_all_parts: see [`WallarooModel.forward`].
            position_ids: `(3, B, T)` as in Qwen2.5-VL, or `(4, B, T)` with positions in the row first: where those are 0 a
                row begins, so several rows can stand one after the other without padding.
            labels: `(B, T)`, unshifted (the label at p is predicted at p - 1), -100 = ignored; codes are
                `<|generate_image_pad|>` or `vocab_size + index`. With `inputs_embeds` alone codes are the latter, and
                `image_task` says whose they are.
            target_pixel_values: images for the `<|generate_image_pad|>` placeholders, one `(3, H, W)` in [-1, 1] each.
            target_image_tokens: codes for the same placeholders, int64 `(rows, cols)` each and None where
                `target_pixel_values` has the image.
            logits_to_keep: positions to compute logits for, as in transformers: the last n (0 = all), indices `(K,)` or
                `(B, K)`, or a bool mask `(B, T)`. Default: all without labels; with labels only where labels are.
            mm_encoder_outputs: NaViT features in place of `pixel_values`, as transformers' `generate` prepares them.
            output_image_logits: return `image_logits` instead of text logits, at the positions of `logits_to_keep`.
            loss_weights: weight per task (`understanding`, `generation`, `editing`), default 1.
            step_attention: `attention_mask` is a decoding step's, which is read no further than the mask is wide; see
                [`step_attention_forward`]. For a model that was loaded with "sdpa".
            target_grid_hw: not needed here; accepted so that the processor's batch can be passed as it is.
            kwargs: transformers' own, such as `output_hidden_states`.

        Returns:
            [`WallarooCausalLMOutput`], or a tuple with `return_dict=False`.

        Raises:
            TypeError: for other arguments, a misspelt one for example.
            ValueError: see [`WallarooModel.forward`].
        """
        refuse_unknown_arguments("WallarooForConditionalGeneration", kwargs)
        image_task = image_task if edit_mask is None else edit_mask
        if image_task is None and "block_table" in kwargs:
            image_task = 0  # continuous batching, whose cache is none that says where rows begin, is of text
        if labels is not None and use_cache is None:
            use_cache = False  # nothing continues a training row, and with a cache rows without padding would mix
        if input_ids is None and (target_pixel_values is not None or target_image_tokens is not None):
            raise ValueError("Images to learn need `input_ids`, which say where they stand.")
        if input_ids is not None and cache is None:
            # not in a step of generation, where a look at the ids would wait for the device
            input_ids, labels = self.model.place_targets(input_ids, labels, target_pixel_values, target_image_tokens)
        kwargs |= {"step_attention": True} if step_attention else {}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            second_per_grid_ts=second_per_grid_ts,
            source_pixel_values=source_pixel_values,
            source_latents=source_latents,
            source_mask=source_mask,
            image_task=image_task,
            mm_encoder_outputs=mm_encoder_outputs,
            touch_all_parts=touch_all_parts,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss, logits, image_logits, losses = None, None, None, None
        if output_image_logits:
            image_logits = self._kept_image_logits(hidden_states, input_ids, image_task, logits_to_keep)
        elif labels is not None:
            logits, image_logits, losses = self._losses(
                hidden_states, input_ids, labels, row_starts(position_ids), image_task, touch_all_parts
            )
            if touch_all_parts:  # every head belongs to the graph, and there are as many losses in every process
                touched = 0.0 * (logits.sum() + image_logits.sum())
                names = loss_names(self.config.image_tasks)
                losses = {name: losses.get(name, 0.0) + touched for name in names}
            loss = total_loss(losses, loss_weights, task_names(self.config.image_tasks)).to(hidden_states.device)
        if not output_image_logits and (labels is None or logits_to_keep is not None):
            logits = self.lm_head(_kept(hidden_states, logits_to_keep))
        return WallarooCausalLMOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            video_outputs=outputs.video_outputs,
            image_logits=image_logits,
            losses=losses,
        )

    def _kept_image_logits(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor | None,
        image_task: torch.Tensor | int | None,
        logits_to_keep: int | torch.Tensor | None,
    ) -> torch.Tensor:
        if image_task is None:
            if input_ids is None:
                raise ValueError("`output_image_logits=True` needs `input_ids` or `image_task`.")
            image_task = token_masks(input_ids, self.config).task
        if isinstance(image_task, torch.Tensor) and image_task.shape[1] == hidden_states.shape[1]:
            image_task = _kept(image_task.unsqueeze(-1), logits_to_keep).squeeze(-1)
        return self.image_logits(_kept(hidden_states, logits_to_keep), image_task)

    def _losses(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor | None,
        labels: torch.Tensor,
        starts_of_rows: torch.Tensor | None,
        image_task: torch.Tensor | int | None,
        every_head: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Logits at the labels only, and the named losses."""
        labels = labels.to(hidden_states.device)
        input_ids = None if input_ids is None else input_ids.to(hidden_states.device)
        found = find_labels(input_ids, labels, self.config, starts_of_rows, image_task)
        shifted, before = labels[:, 1:], hidden_states[:, :-1]
        text_logits = self.lm_head(before[found.is_text])
        image_logits = self._label_image_logits(before[found.is_code], found.image_tasks - 1, every_head)
        losses = task_losses(
            text_logits,
            shifted[found.is_text],
            found.text_tasks,
            image_logits,
            shifted[found.is_code] - self.config.text_config.vocab_size,
            found.image_tasks,
            task_names(self.config.image_tasks),
        )
        return text_logits, image_logits, losses

    def _label_image_logits(
        self, hidden_states: torch.Tensor, image_tasks: torch.Tensor, every_head: bool
    ) -> torch.Tensor:
        """Code logits `(M, codebook_size)` of `(M, hidden_size)`, each row through its own head only.

        Args:
            image_tasks: `(M,)`, indices in `config.image_tasks`.
            every_head: also run the heads that no row needs.
        """
        tasks = self.config.image_tasks
        # whose head each task has
        heads = [index if self.config.has_task(task) else 0 for index, task in enumerate(tasks)]
        for index, head in enumerate(heads):
            image_tasks = image_tasks if head == index else image_tasks.masked_fill(image_tasks == index, head)
        used = sorted(set(heads)) if every_head else image_tasks.unique().tolist() or [0]
        if len(used) == 1:
            return part_of_task(self, "head", used[0])(hidden_states)
        chosen = [image_tasks == index for index in used]
        parts = [
            part_of_task(self, "head", index)(hidden_states[mine]) for index, mine in zip(used, chosen, strict=True)
        ]
        order = torch.cat([mine.nonzero() for mine in chosen]).squeeze(1).argsort()
        return torch.cat(parts)[order]


def _kept(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor | None) -> torch.Tensor:
    """The positions of `(B, T, ...)` that `logits_to_keep` names, all of them by default."""
    return slice_logits_to_keep(hidden_states, 0 if logits_to_keep is None else logits_to_keep)
