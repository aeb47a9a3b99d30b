"""`generate()` of Show-o2: text goes the stock way, with a cache; images by their velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import Cache

from ...families.contract import Answer, Listener, TextSettings
from ..block_layout import BlockLayout
from .showo2_answering import converse

__all__ = ["ShowO2GenerationMixin"]

GENERATION_MODES = ("text", "image", "auto")
_DRAWING_ONLY = (
    *("negative_input_ids", "negative_attention_mask", "image_size", "noise", "num_inference_steps", "scheduler"),
    "generator",
)


class ShowO2GenerationMixin(GenerationMixin):
    """Adds the modes "image" and "auto" to transformers' `generate`, and images and videos to its prompts."""

    model: Any

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *,
        generation_mode: str | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""Answers (`generation_mode="text"`, the default), draws (`"image"`), or does both as it sees fit (`"auto"`).

        Takes exactly the processor's tensors. Text mode is transformers' own `generate`, with everything that it can: images
        and videos of the prompts are encoded once and read with the prompt, and later steps run one token each.

        Args:
            inputs, generation_config, logits_processor, stopping_criteria: as in transformers.
            generation_mode: `"text"`, `"image"` or `"auto"`.
            kwargs: the processor's tensors and arguments of transformers. In text mode: `pixel_values` or `image_latents` of
                the images in the prompts, row by row, `timesteps` of them (default: 1, clean), and `published_eval`: read
                images as the released scripts do: their latents are sampled, their block lies one token late and ends on
                what closes the image (of videos it is no longer than that of an image), and no token is kept out of the
                answer.

        Returns:
            Text mode: ids `(B * num_return_sequences, T)`, or transformers' output. Image mode: latents, one per image. Auto
            mode: a [`ShowO2MixedOutput`].

        Raises:
            ValueError: for modes and arguments that cannot work; one sentence each.
        """
        if generation_mode not in (None, *GENERATION_MODES):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        kwargs |= {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        if inputs is not None:
            kwargs["input_ids"] = inputs
        if generation_mode == "image":
            return self._generate_images(generation_config=generation_config, **kwargs)
        if generation_mode == "auto":
            raise NotImplementedError
        for name in _DRAWING_ONLY:
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"`{name}` is for drawing; pass generation_mode='image' with it.")
        return self._write(generation_config, kwargs)

    def _write(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any], may_draw: bool = False) -> Any:
        """Text by transformers' own `generate`, in which no token of images is chosen.

        Args:
            may_draw: what opens an image can be chosen after all, which says that an image comes next.
        """
        input_ids, published = kwargs.get("input_ids"), bool(kwargs.get("published_eval"))
        longest = self.config.text_config.max_position_embeddings
        if input_ids is not None and input_ids.shape[1] > longest:
            raise ValueError(
                f"The prompt has {input_ids.shape[1]} tokens, but the model has {longest} positions; shorten it."
            )
        if not published or may_draw:
            never = set(self.config.special_token_ids)
            if may_draw:
                never.discard(self.config.vision_start_token_id)
            own = kwargs.get("suppress_tokens")
            for config in (generation_config, self.generation_config):
                own = getattr(config, "suppress_tokens", None) if own is None else own
            kwargs["suppress_tokens"] = sorted(never | {int(token) for token in own or ()})
        kwargs |= self._latents_of(kwargs, published)
        if input_ids is not None:
            kwargs["answer_start"] = input_ids.shape[1]
        return super().generate(generation_config=generation_config, **kwargs)

    def _latents_of(self, kwargs: dict[str, Any], published: bool) -> dict[str, Any]:
        """Latents of the images of prompts and their times, as lists; `pixel_values` are taken out of `kwargs`."""
        pixels, latents, times = (kwargs.pop(name, None) for name in ("pixel_values", "image_latents", "timesteps"))
        if pixels is not None and latents is not None:
            raise ValueError("Both `pixel_values` and `image_latents` were given; give one of them.")
        if pixels is not None:
            latents = self.encode_pixels(pixels, sample=published)
        if latents is None:
            return {}
        times = [1.0] * len(latents) if times is None else torch.as_tensor(times).tolist()
        return {"image_latents": list(latents), "timesteps": times}

    # ------------------------------------------------------------------------------------------- transformers' own hooks

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
        answer_start: int | None = None,
        hidden_states_read: list[torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; images enter with the prompt, or at each step where nothing is kept of it.

        Args:
            input_ids: `(B, T)`, all so far.
            next_sequence_length, cache, attention_mask, inputs_embeds, is_first_iteration: as in transformers.
            image_latents, timesteps: of all images of `input_ids`; those that the cache holds are left out.
            published_eval: see [`~ShowO2GenerationMixin.generate`].
            answer_start: where the answer begins: what looks like an image from there on is a word.
            hidden_states_read: see [`~ShowO2GenerationMixin._update_model_kwargs_for_generation`].
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
        prepared["output_velocities"] = False
        reads_images = is_first_iteration or not kwargs.get("use_cache", True)
        if image_latents is not None and reads_images:
            prepared |= self._images_to_read(input_ids, prepared, image_latents, timesteps or [])
            if prepared.get("inputs_embeds") is None or prepared["image_latents"]:
                prepared["attention_mask"] = attention_mask  # not one that knows of no images, for static caches
        if answer_start is not None and prepared.get("input_ids") is not None:
            self._speak_image_tokens(prepared, input_ids.shape[1], answer_start)
        if published_eval and prepared.get("image_latents"):
            prepared["attention_mask"] = self._published_mask(prepared)
        return prepared
