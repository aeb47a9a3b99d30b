"""What stock `generate` prepares for text, with sources and codes among the inputs."""

from typing import Any

import torch
from transformers import GenerationMixin

from ..common.generate_arguments import drop_generate_arguments

__all__ = ["TextInputsMixin"]


class TextInputsMixin(GenerationMixin):
    """transformers' own hooks for models that are also given sources to edit."""

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers; sources enter with the prompt only, and answers hold no codes.

        Args:
            input_ids: all so far, `(B, T)`.
            inputs_embeds: of the prompt, `(B, T, hidden_size)`; named, for transformers reads from the signature that
                prompts may come as embeddings.
            kwargs: as in transformers.
        """
        model_inputs = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        drop_generate_arguments(model_inputs)
        if kwargs.get("use_cache", True) and not kwargs.get("is_first_iteration", False):
            model_inputs.pop("source_pixel_values", None)
            if model_inputs.get("image_task") is None:
                model_inputs["image_task"] = 0
        return model_inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """As in transformers; also repeats each row's sources, whose placeholders are not the vision tower's."""
        sources = model_kwargs.get("source_pixel_values")
        if expand_size > 1 and sources is not None and input_ids is not None:
            counts = (input_ids == self.config.pixel_start_token_id).sum(dim=1).tolist()
            queue = iter(sources)
            rows = [[next(queue) for _ in range(count)] for count in counts]
            model_kwargs["source_pixel_values"] = [source for row in rows for source in row * expand_size]
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.Tensor,
        mm_encoder_output: dict[str, Any],
        expand_size: int = 1,
        inputs_embeds: Any = None,
    ) -> dict[str, dict[str, Any]]:
        if input_ids is not None and input_ids.numel():
            not_vision = (input_ids == self.config.image_token_id) & ~self.model.mm_token_type_ids(input_ids).bool()
            input_ids = input_ids.masked_fill(not_vision, self.config.generate_image_token_id)
        return super()._expand_multimodal_outputs(input_ids, mm_encoder_output, expand_size, inputs_embeds)
