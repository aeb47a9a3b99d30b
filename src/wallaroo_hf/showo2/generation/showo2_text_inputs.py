"""What stock `generate` prepares for text, with images and videos among the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import GenerationMixin
from transformers.cache_utils import Cache

from ...common.generate_arguments import drop_generate_arguments
from ..block_layout import BlockLayout

__all__ = ["ShowO2TextInputsMixin"]


class ShowO2TextInputsMixin(GenerationMixin):
    """transformers' own hooks, for prompts with images."""

    model: Any
    config: Any

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        image_latents: Sequence[torch.Tensor] | None = None,
        timesteps: Sequence[float] | None = None,
        published_eval: bool = False,
        answer_start: int = 0,
        hidden_states_read: list[torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; images enter with the prompt, or at each step where nothing is kept of it.

        Args:
            input_ids: `(B, T)`, all so far.
            next_sequence_length, cache, attention_mask, inputs_embeds, is_first_iteration: as in transformers.
            image_latents, timesteps: of all images of `input_ids`, row by row; those that the cache holds are left out.
            published_eval: see [`~wallaroo_hf.showo2.generation.showo2_mixin.ShowO2GenerationMixin.generate`].
            answer_start: where the answer begins in `input_ids`.
            hidden_states_read: is given the last hidden states of what is read, one tensor per step.
            kwargs: for transformers and the forward.
        """
        prepared = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        drop_generate_arguments(prepared)
        prepared["output_velocities"] = False
        if published_eval and prepared.get("input_ids") is not None:
            self._say_image_tokens(prepared, answer_start - input_ids.shape[1])
        if image_latents and (is_first_iteration or not kwargs.get("use_cache", True)):
            self._read_images(prepared, input_ids[:, :answer_start], image_latents, timesteps or ())
            # the one that was given: for static caches transformers makes one that knows of no images
            prepared["attention_mask"] = attention_mask
            if published_eval:
                prepared["attention_mask"] = self._published_mask(prepared)
        return prepared

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers; also keeps what was read, where somebody asked for it."""
        read = model_kwargs.get("hidden_states_read")
        if read is not None:
            read.append(outputs.last_hidden_state)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """As in transformers; also repeats each row's images."""
        if expand_size > 1 and model_kwargs.get("image_latents"):
            embeds = model_kwargs.get("inputs_embeds")
            rows = self.model.find_images(input_ids if embeds is None else None, embeds).rows
            for name in ("image_latents", "timesteps"):
                of_rows: dict[int, list[Any]] = {}
                for row, one in zip(rows, model_kwargs[name]):  # too many or too few are refused by the forward
                    of_rows.setdefault(row, []).append(one)
                rest = list(model_kwargs[name][len(rows) :])
                model_kwargs[name] = [one for own in of_rows.values() for one in own * expand_size] + rest
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    # ----------------------------------------------------------------------------------------------------------- images

    def _read_images(
        self,
        prepared: dict[str, Any],
        prompt: torch.Tensor,
        image_latents: Sequence[torch.Tensor],
        timesteps: Sequence[float],
    ) -> None:
        """Puts in the images of what is read now; those before it are in the cache."""
        chosen = list(range(len(image_latents)))
        ids = prepared.get("input_ids")
        if ids is not None and prepared.get("cache") is not None:
            blocks = self.model.find_images(prompt, None)
            kept = int(prepared["cache"].get_seq_length())
            columns = [int((blocks.numbers == number).nonzero()[0, 1]) for number in range(len(blocks.rows))]
            if len(columns) == len(image_latents):
                chosen = [number for number, column in enumerate(columns) if column >= kept]
        prepared["image_latents"] = [image_latents[number] for number in chosen] or None
        prepared["timesteps"] = [timesteps[number] for number in chosen] or None

    def _say_image_tokens(self, prepared: dict[str, Any], answer_start: int) -> None:
        """Tokens of images within the answer are words like others, as in the released scripts.

        Args:
            prepared: of what is read now.
            answer_start: where the answer begins, counted from its end.
        """
        ids = prepared["input_ids"]
        is_word = torch.arange(-ids.shape[1], 0, device=ids.device) >= answer_start
        said = is_word & ((ids == self.config.image_token_id) | (ids == self.config.video_token_id))
        if bool(said.any()):
            prepared["inputs_embeds"] = self.get_input_embeddings()(ids)
            prepared["input_ids"] = ids.masked_fill(said, self.config.vision_end_token_id)  # any that is no image's

    def _published_mask(self, prepared: dict[str, Any]) -> Any:
        """The released scripts' mask: blocks lie one token late; of videos they are as long as those of images."""
        ids, embeds, latents = prepared.get("input_ids"), prepared.get("inputs_embeds"), prepared["image_latents"]
        blocks: BlockLayout = self.model.find_images(ids, embeds)
        numbers = F.pad(blocks.numbers[:, :-1], (1, 0), value=-1)
        rows, cols = self.config.position_grid
        for number, one in enumerate(latents or ()):
            if one.dim() == 4:
                places = (numbers == number).nonzero()[rows * cols + 1 :]
                numbers[places[:, 0], places[:, 1]] = -1
        given: Any = ids if embeds is None else embeds
        like = torch.empty(*given.shape[:2], 0, dtype=self.dtype, device=given.device)
        shifted, cache = blocks._replace(numbers=numbers), prepared.get("cache")
        return self.model.omni_masks(like, prepared["attention_mask"], prepared["position_ids"], cache, shifted)[0]
