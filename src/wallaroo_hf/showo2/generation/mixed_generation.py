"""`generation_mode="auto"` of Show-o2: text until an image begins, the image, and text again, over one cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import ModelOutput

from ...common.relaying import Relay, StreamerStopped
from ...common.room import no_room
from ...families.contract import Follow
from .drawing_inputs import check_prompts, read_count, read_sizes
from .flow_drawing import FlowGroup, FlowSettings
from .prompt_cache import PromptCache, join_prompts, read_flow, read_prompt
from .showo2_prefixes import MixedMemory

__all__ = ["MixedRow", "ShowO2MixedOutput", "generate_mixed", "split_rows"]

DEFAULT_MAX_NEW_TOKENS = 512  # of text; images cost none of them
_PUBLISHED_LATER_GUIDANCE = 5.0  # of all images but the first, whatever is asked for
_REFUSED = (
    *("cache", "cache_implementation", "inputs_embeds", "num_return_sequences", "output_attentions", "output_logits"),
    *("output_hidden_states", "output_scores", "position_ids", "return_dict_in_generate", "assistant_model", "noise"),
    *("prompt_lookup_num_tokens", "timesteps", "prefill_chunk_size", "max_length"),
)
_TENSORS = (
    *("input_ids", "attention_mask", "pixel_values", "image_latents", "image_size"),
    *("negative_input_ids", "negative_attention_mask"),
)


@dataclass
class ShowO2MixedOutput(ModelOutput):
    """What `generate(generation_mode="auto")` returns.

    Attributes:
        sequences: `(B, T)` int64, prompts and all that came after them, right-padded; an image that was drawn stands there
            as its tokens do in prompts.
        latents: of each row, those of the images that were drawn, `(C, h, w)` float32.
    """

    sequences: torch.Tensor | None = None
    latents: list[list[torch.Tensor]] | None = None


class MixedRow:
    """One row: its ids so far, its images, and what language model and flow head remember of them.

    The flow head reads nothing until an image begins; then it catches up on the hidden states of what was read and written.
    A finished image is read once, as a clean one, with the text that follows it.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        inputs: of one row: `input_ids` `(1, T)` without padding, `image_latents`, `image_size` (height, width in pixels),
            and where given `negative_input_ids`.
        settings: of images. With `published_eval` finished images have the time 0 while text is written, as in the
            released script, and images after the first a guidance of 5.
        generator: of the images' noise.
    """

    def __init__(
        self, model: Any, inputs: Mapping[str, Any], settings: FlowSettings, generator: torch.Generator | None
    ) -> None:
        self.model, self.settings, self.generator = model, settings, generator
        self.ids: torch.Tensor = inputs["input_ids"]
        self.images: list[torch.Tensor] = list(inputs["image_latents"])
        self.drawn: list[torch.Tensor] = []
        self._size = inputs["image_size"]
        self._negative = inputs.get("negative_input_ids")
        self._null: PromptCache | None = None
        self._language, self._flow = DynamicCache(), DynamicCache()
        self._unheard: list[torch.Tensor] = []  # hidden states that the flow head has not read
        self.memory: MixedMemory | None = None  # what was read of it before

    def tell(
        self,
        budget: int,
        generation_config: GenerationConfig | None,
        kwargs: Mapping[str, Any],
        streamer: BaseStreamer | None,
        listener: Any = None,
    ) -> None:
        """Writes and draws until the text ends, or after `budget` new tokens of it.

        Args:
            budget: of text; what opens an image is one.
            generation_config: of text, as given to `generate`.
            kwargs: of text.
            streamer: hears the tokens of text; ends the row by its attribute `stopped`.
            listener: a [`DrawingRow`], which hears of images.
        """
        relay = None if streamer is None else Relay(streamer)
        start = self.model.config.vision_start_token_id
        told = dict(kwargs)
        if relay is not None:
            criteria = [*(told.get("stopping_criteria") or ()), StreamerStopped(relay)]
            told |= {"streamer": relay, "stopping_criteria": StoppingCriteriaList(criteria)}
        if listener is not None and int(self.ids[0, -1]) == start:
            listener.begin_picture()
        if self.memory is not None:
            self.memory.recall(self._language, self._unheard)
        while budget > 0:
            if int(self.ids[0, -1]) != start:
                length = self.ids.shape[1]
                self._write(budget, generation_config, told)
                budget -= self.ids.shape[1] - length
            if int(self.ids[0, -1]) != start or (relay is not None and relay.stopped):
                break
            self._remember()
            if not self._draw(listener):
                break
        self._remember()

    def _remember(self) -> None:
        """Keeps what was read up to the first image; drawn ones are shown in chats as pictures that are read anew."""
        if self.memory is not None:
            self.memory.keep(self.ids, self._language, self._unheard)
            self.memory = None

    def _write(self, budget: int, generation_config: GenerationConfig | None, kwargs: Mapping[str, Any]) -> None:
        """A segment of text: stock `generate`, which also stops where an image begins."""
        config, model = self.model.config, self.model
        ends = kwargs.get("eos_token_id")
        for own in (generation_config, model.generation_config):
            ends = getattr(own, "eos_token_id", None) if ends is None else ends
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        history = 0.0 if self.settings.published_eval else 1.0
        self.ids = model.write(
            generation_config,
            {
                **kwargs,
                "input_ids": self.ids,
                "attention_mask": torch.ones_like(self.ids),
                "image_latents": self.images,
                "timesteps": [history] * len(self.images),
                "cache": self._language,
                "eos_token_id": [*ends, config.vision_start_token_id],
                "max_new_tokens": budget,
                "hidden_states_read": None if self.settings.published_eval else self._unheard,
            },
            may_draw=True,
        )

    def _draw(self, listener: Any) -> bool:
        """An image behind what opens it, which was just said; returns whether text goes on."""
        model, config = self.model, self.model.config
        size = [int(edge) // model.vae.spatial_factor for edge in self._size]
        tokens = config.image_tokens(size) + 1
        longest = config.text_config.max_position_embeddings
        if self.ids.shape[1] + tokens > longest:
            seen = int((self.ids == config.image_token_id).sum())
            raise no_room(self.ids.shape[1] - seen, seen + tokens, longest, "chat")
        settings = self.settings
        if settings.published_eval and self.drawn:
            settings = dataclasses.replace(settings, guidance_scale=_PUBLISHED_LATER_GUIDANCE)
        follow: Follow | None = None if listener is None else listener.draw
        prompts = [self._read()]
        if settings.guidance_scale != 1:
            prompts.append(self._read_null())
        batch = {"image_size": torch.tensor([list(self._size)])}
        group = FlowGroup(model, batch, 1, self.generator, settings, follow, prompts=join_prompts(prompts))
        if listener is not None:
            listener.group = group
        while group.advance():
            pass
        if not group.complete or (listener is not None and listener.over):
            return False
        latents = group.latents(0)
        self.images.append(latents)
        self.drawn.append(latents)
        shown = [*[config.image_token_id] * tokens, config.vision_end_token_id]
        self.ids = torch.cat([self.ids, self.ids.new_tensor([shown])], dim=1)
        if listener is not None:
            pixels = group.pixels(0, True)
            assert pixels is not None
            listener.group = None
            listener.finish_picture(pixels, tokens - 1)
            return not listener.over
        return True

    def _read(self) -> PromptCache:
        """The whole row, up to what opens the image."""
        if self.settings.published_eval:  # the text's cache has images of another time
            return read_prompt(self.model, self.ids, None, self.images or None)
        before, heard, read = None, self._flow.get_seq_length(), self._language.get_seq_length()
        if self._unheard:
            hidden_states = torch.cat(self._unheard, dim=1)[:, : read - heard]
            self._unheard.clear()
            read_flow(self.model, hidden_states, self.ids[:, heard:read], self._flow)
            before = PromptCache(
                self._language, self._flow, torch.ones_like(self.ids[:, :read]), hidden_states[:, -1:]
            )
        # what opens the image was said and not read; where nothing was said, all the prompt
        prompt = read_prompt(
            self.model, self.ids[:, read:], None, None if before else self.images or None, before=before
        )
        self._language, self._flow = prompt.language, prompt.flow
        return prompt

    def _read_null(self) -> PromptCache:
        """Null prompts know nothing of the row."""
        if self._null is None:
            ids = self._negative
            if ids is None:
                config = self.model.config
                ids = self.ids.new_tensor([[config.bos_token_id, config.vision_start_token_id]])
            self._null = read_prompt(self.model, ids)
        return self._null


def generate_mixed(
    model: Any, generation_config: GenerationConfig | None, kwargs: Mapping[str, Any]
) -> ShowO2MixedOutput:
    """Continues each row with text and images until the text ends.

    A row is answered by transformers' own `generate` until it says what opens an image; the image is drawn over the same
    cache, is read once, clean, and text goes on behind it. Rows are answered one after the other.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        generation_config: as given to `generate`, of text; its `image_` entries are the images' defaults.
        kwargs: the tensors of `processor(..., generation_mode="auto")`; of images `guidance_scale`, `num_inference_steps`,
            `scheduler`, `published_eval` and `generator` (one, or one per row); and settings of text. `max_new_tokens`
            counts text tokens.

    Returns:
        [`ShowO2MixedOutput`].

    Raises:
        ValueError: for arguments that cannot work.
    """
    told = {name: value for name, value in kwargs.items() if value is not None}
    for name in _REFUSED:
        value = told.pop(name, None)
        is_default = value is None or value is False or (name == "num_return_sequences" and value == 1)
        if not is_default:
            raise ValueError(f"`{name}` cannot be used with generation_mode='auto'; leave it out.")
    if told.get("num_beams", 1) != 1 or told.get("use_cache", True) is False:
        raise ValueError("generation_mode='auto' needs `num_beams=1` and the cache; leave both out.")
    given = {
        name: told.pop(name, None) for name in ("guidance_scale", "num_inference_steps", "scheduler", "published_eval")
    }
    for name in ("guidance_scale", "num_inference_steps"):
        if given[name] is None:
            given[name] = getattr(generation_config, f"image_{name}", None)
    settings = FlowSettings.read(given, model.generation_config)
    tensors = {name: told.pop(name) for name in _TENSORS if name in told}
    rows = list(split_rows(model, tensors, settings))
    streamer = told.pop("streamer", None)
    if streamer is not None and len(rows) > 1:
        raise ValueError("A streamer can follow one row only; generate rows one at a time to stream them.")
    generator = told.pop("generator", None)
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * len(rows)
    if len(generators) != len(rows):
        raise ValueError(f"There are {len(rows)} rows, but {len(generators)} generators; give one, or one each.")
    budget = told.pop("max_new_tokens", None)
    for config in (generation_config, model.generation_config):
        budget = getattr(config, "max_new_tokens", None) if budget is None else budget
    budget = DEFAULT_MAX_NEW_TOKENS if budget is None else read_count("max_new_tokens", budget)
    answered, latents = [], []
    for inputs, own in zip(rows, generators, strict=True):
        row = MixedRow(model, inputs, settings, own)
        row.tell(budget, generation_config, told, streamer)
        answered.append(row.ids[0, inputs["input_ids"].shape[1] :])
        latents.append(row.drawn)
    if streamer is not None:
        streamer.end()
    longest = max(len(answer) for answer in answered)
    pad = model.config.pad_token_id
    new = torch.stack([F.pad(answer, (0, longest - len(answer)), value=pad) for answer in answered])
    return ShowO2MixedOutput(torch.cat([tensors["input_ids"].to(new.device), new], dim=1), latents)


def split_rows(model: Any, batch: Mapping[str, Any], settings: FlowSettings) -> Iterator[dict[str, Any]]:
    """The rows of a batch that was prepared for auto mode, as [`MixedRow`] takes them: without padding, images encoded.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        batch: the processor's tensors.
        settings: of images.

    Raises:
        ValueError: for a batch that was prepared for something else.
    """
    ids, sizes, latents = (batch.get(name) for name in ("input_ids", "image_size", "image_latents"))
    if ids is None or sizes is None:
        raise ValueError(
            'The inputs were not prepared for generation_mode="auto" (`image_size`, one per row, is missing); pass '
            'generation_mode="auto" to the processor too.'
        )
    check_prompts(batch, model.config.vision_start_token_id, may_answer=True)
    sizes = read_sizes(sizes, len(ids), model.vae.spatial_factor * model.config.patch_size)
    negative = batch.get("negative_input_ids")
    if batch.get("pixel_values") is not None:
        latents = model.encode_pixels(batch["pixel_values"], sample=settings.published_eval)
    latents = [] if latents is None else list(latents)
    of = model.model.find_images(ids, None).rows
    if len(of) != len(latents):
        raise ValueError(f"There are {len(of)} images in `input_ids`, but {len(latents)} were given; give one each.")
    for row, size in enumerate(sizes):
        yield {
            "input_ids": _unpadded(ids, batch.get("attention_mask"), row).to(model.device),
            "image_latents": [one for number, one in zip(of, latents, strict=True) if number == row],
            "image_size": size,
            "negative_input_ids": None
            if negative is None
            else _unpadded(negative, batch.get("negative_attention_mask"), row).to(model.device),
        }


def _unpadded(ids: torch.Tensor, mask: torch.Tensor | None, row: int) -> torch.Tensor:
    return ids[row : row + 1] if mask is None else ids[row][mask[row].bool()][None]
