"""`generate()` of Show-o2: text goes the stock way, with a cache; images by their velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.utils.deprecation import deprecate_kwarg

from ...families.contract import Answer, Listener, TextSettings
from ...families.prefixes import Prefixes
from ..checked_inputs import read_times
from .flow_drawing import PROMPT_TENSORS
from .mixed_generation import generate_mixed
from .showo2_answering import converse
from .showo2_doors import ShowO2DoorsMixin
from .showo2_text_inputs import ShowO2TextInputsMixin

__all__ = ["GENERATION_MODES", "ShowO2GenerationMixin"]

GENERATION_MODES = ("text", "image", "auto")
_FOR_DRAWING = (
    *("negative_input_ids", "negative_attention_mask", "image_size", "noise", "num_inference_steps", "scheduler"),
    *("generator", "follow"),
)


class ShowO2GenerationMixin(ShowO2DoorsMixin, ShowO2TextInputsMixin):
    """Adds the modes "image" and "auto" to transformers' `generate`, and what doors ask of a model."""

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
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

        Takes exactly the processor's tensors. Text mode is transformers' own `generate` with all that it can: images and
        videos of the prompts are encoded once and read with the prompt, and each later step runs one token.

        Args:
            inputs, generation_config, logits_processor, stopping_criteria: as in transformers.
            generation_mode: `"text"`; `"image"`, see [`~ShowO2DoorsMixin.generate_images`]; or `"auto"`, see
                [`generate_mixed`].
            kwargs: the processor's tensors, and arguments of transformers or of those. In text mode: `pixel_values` or
                `image_latents` of the images in the prompts, row by row, and their `timesteps` (default: 1, clean);
                `published_eval` reads them as the released scripts do: latents are sampled; the block that sees itself lies
                one token late, from behind the time to what closes the image (of videos it is as long as an image's); and
                no token is kept out of the answer.

        Returns:
            Text mode: ids `(B * num_return_sequences, T)`, or transformers' output. Image mode: latents, one per image.
            Auto mode: a [`ShowO2MixedOutput`].

        Raises:
            ValueError: for modes and arguments that cannot work; one sentence each.
        """
        if generation_mode not in (None, *GENERATION_MODES):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        if inputs is not None:
            kwargs["input_ids"] = inputs
        of_text = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        if generation_mode == "image":
            return self._draw_as_asked(generation_config, kwargs | of_text)
        kwargs |= {name: value for name, value in of_text.items() if value is not None}
        if generation_mode == "auto":
            return generate_mixed(self, generation_config, kwargs)
        for name in _FOR_DRAWING:
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"`{name}` is for drawing; pass generation_mode='image' with it.")
        return self.write(generation_config, kwargs)

    def _draw_as_asked(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> Any:
        """Image mode: tensors apart from settings, those of the generation config where none are given."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        for name in ("guidance_scale", "num_inference_steps"):
            default = getattr(generation_config, f"image_{name}", None)
            if default is not None:
                given.setdefault(name, default)
        batch = {name: given.pop(name) for name in PROMPT_TENSORS if name in given}
        if "input_ids" not in batch:
            raise ValueError('`input_ids` are missing; prepare them with `processor(..., generation_mode="image")`.')
        return self.generate_images(batch, **given)

    def write(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any], may_draw: bool = False) -> Any:
        """Text by transformers' own `generate`, in which no token of images is chosen.

        Args:
            generation_config: as in transformers.
            kwargs: as in text mode of [`~ShowO2GenerationMixin.generate`].
            may_draw: what opens an image can be chosen after all, which says that an image comes next.

        Raises:
            ValueError: for a prompt that is too long, images that were given twice, or a prefill in chunks.
        """
        input_ids, published = kwargs.get("input_ids"), bool(kwargs.get("published_eval"))
        longest = self.config.text_config.max_position_embeddings
        if input_ids is not None and input_ids.shape[1] > longest:
            raise ValueError(
                f"The prompt has {input_ids.shape[1]} tokens, but the model has {longest} positions; shorten it."
            )
        if not published:
            kwargs["suppress_tokens"] = self._never_said(generation_config, kwargs, may_draw)
        kwargs |= self._take_latents(kwargs, published)
        if kwargs.get("image_latents") and kwargs.get("prefill_chunk_size") is not None:
            raise ValueError("A prompt with images is read in one piece; leave out `prefill_chunk_size`.")
        if input_ids is not None:
            kwargs["answer_start"] = input_ids.shape[1]
        return super().generate(generation_config=generation_config, **kwargs)

    def _never_said(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any], may_draw: bool
    ) -> list[int]:
        """Tokens of images, and those that the caller rules out."""
        never = set(self.config.special_token_ids)
        if may_draw:
            never.discard(self.config.vision_start_token_id)
        own = kwargs.get("suppress_tokens")
        for config in (generation_config, self.generation_config):
            own = getattr(config, "suppress_tokens", None) if own is None else own
        return sorted(never | {int(token) for token in own or ()})

    def _take_latents(self, kwargs: dict[str, Any], published: bool) -> dict[str, Any]:
        """Latents of the images of prompts and their times, as lists, in the place of `pixel_values`."""
        pixels, latents, times = (kwargs.pop(name, None) for name in ("pixel_values", "image_latents", "timesteps"))
        if pixels is not None and latents is not None:
            raise ValueError("Both `pixel_values` and `image_latents` were given; give one of them.")
        if pixels is not None:
            latents = self.encode_pixels(pixels, sample=published)
        if latents is None:
            return {}
        return {"image_latents": list(latents), "timesteps": read_times(times, len(latents)).tolist()}

    def converse(
        self,
        batch: Mapping[str, Any],
        *,
        mode: Literal["text", "auto"],
        follow: Listener,
        generators: Sequence[torch.Generator] | None,
        max_new_tokens: Sequence[int],
        text: TextSettings,
        drawing: Mapping[str, Any],
        prefixes: Sequence[Prefixes | None] | None = None,
    ) -> list[Answer]:
        """Answers the chats of a batch; in the mode "auto" it may draw.

        Args:
            batch: the processor's tensors for this mode, on the model's device.
            mode: as the batch was prepared.
            follow: hears what comes.
            generators: one per row, of text and images; None needs `text.temperature` 0.
            max_new_tokens: of text, one per row.
            text: how text is sampled.
            drawing: settings of images, see [`~ShowO2DoorsMixin.draw`].
            prefixes: what was read of each chat before, one per row; None = nothing is kept.

        Raises:
            ValueError: for settings or tensors that cannot be; see [`~ShowO2GenerationMixin.generate`].
        """
        return converse(self, batch, mode, follow, generators, max_new_tokens, text, drawing, prefixes)
