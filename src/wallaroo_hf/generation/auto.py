"""`generation_mode="auto"`: the text head decides when to draw; text and images alternate over one cache."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteriaList

from ..common.relaying import Relay, StreamerStopped
from .branches import Branch, guidance_branches, split_rows, take_branch
from .drawing import DrawingJob, DrawingSettings
from .inputs import look_up
from .plan import plan_drawing
from .streamers import ImageStreamer
from .wallaroo_prefixes import Memory

DEFAULT_MAX_NEW_TOKENS = 512  # of text; images cost none of them
_REFUSED = (
    "cache_implementation",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "cache",
    "position_ids",
    "return_dict_in_generate",
)


def generate_auto(
    model: Any,
    generation_config: GenerationConfig | None,
    settings: DrawingSettings,
    kwargs: dict[str, Any],
    image_sampling: Mapping[str, Any] | None = None,
    memory: Memory | None = None,
) -> torch.LongTensor:
    """Continues each row with text and images until the text ends.

    A row is answered by transformers' own `generate` until it says what opens an image; the image is drawn over the same
    cache (the null prompt's beside it), and text goes on behind it. An image is an edit iff a source stands
    between it and the image before it.

    Args:
        model: the model.
        generation_config: as given to `generate`; text segments follow it, images its `image_` entries.
        settings: of images; `generator` one for all rows or one per row, images only (text samples from torch's global
            generator).
        kwargs: the tensors of `processor(..., generation_mode="auto")`, and settings for the text segments, the caller's
            logits processors and stopping criteria among them. `max_new_tokens` counts text tokens.

        image_sampling: `temperature`, `top_k`, `top_p`, `do_sample` of images; default: the generation config's entries
            and the text's `do_sample`.
        memory: what was read before of the chat, which is then one row; None = nothing is kept.

    Returns:
        `(B, T)` ids, prompts and all that came after them, right-padded.

    Raises:
        ValueError: for arguments that cannot work.
    """
    for name in _REFUSED:
        if kwargs.get(name) is not None and kwargs[name] is not False:
            raise ValueError(f"`{name}` cannot be used with generation_mode='auto'; leave it out.")
    conditional, null = take_branch(kwargs, ""), take_branch(kwargs, "negative_")
    grids = kwargs.pop("target_grid_hw", None)
    if conditional is None or grids is None:
        raise ValueError(
            'The inputs were not prepared for generation_mode="auto" (`target_grid_hw` is missing); pass '
            'generation_mode="auto" to the processor too.'
        )
    streamer = kwargs.pop("streamer", None)
    if streamer is not None and len(conditional.input_ids) > 1:
        raise ValueError("A streamer can follow one row only; generate rows one at a time to stream them.")
    if isinstance(streamer, ImageStreamer):
        streamer.expect([(int(rows), int(cols)) for rows, cols in torch.as_tensor(grids).tolist()])
    relay = None if streamer is None else Relay(streamer)
    if relay is not None:
        criteria = kwargs.get("stopping_criteria") or ()
        kwargs["stopping_criteria"] = StoppingCriteriaList([*criteria, StreamerStopped(relay)])
    budget = look_up(
        generation_config,
        model.generation_config,
        "max_new_tokens",
        kwargs.pop("max_new_tokens", None),
        DEFAULT_MAX_NEW_TOKENS,
    )
    rows = split_rows(model, conditional)
    nulls: Sequence[Branch | None] = [None] * len(rows) if null is None else split_rows(model, null)
    generator = settings.generator
    generators = generator if isinstance(generator, Sequence) else [generator] * len(rows)
    if len(generators) != len(rows):
        raise ValueError(
            f"`generator` has {len(generators)} generators, but there are {len(rows)} rows; give one each."
        )
    answers = []
    for row, own_null, grid, own in zip(rows, nulls, torch.as_tensor(grids).tolist(), generators, strict=True):
        size = int(grid[0]), int(grid[1])
        story = _Story(model, row, own_null, size, dataclasses.replace(settings, generator=own), image_sampling or {})
        if memory is not None:
            memory.recall(row, story.cache)
        answers.append(story.tell(budget, generation_config, kwargs, relay)[row.input_ids.shape[1] :])
        if memory is not None:
            memory.keep(row, story.ids, story.cache)
    if streamer is not None:
        streamer.end()
    pad = model._pad_token_id(kwargs)
    longest = max(len(answer) for answer in answers)
    new = torch.stack([torch.nn.functional.pad(answer, (0, longest - len(answer)), value=pad) for answer in answers])
    return torch.cat([conditional.input_ids.to(new.device), new], dim=1)


class _Story:
    """One row: its ids so far and the cache behind them."""

    def __init__(
        self,
        model: Any,
        row: Branch,
        null: Branch | None,
        grid: tuple[int, int],
        settings: DrawingSettings,
        image_sampling: Mapping[str, Any],
    ) -> None:
        self.model, self.row, self.null = model, row, null
        self.grid, self.settings, self.image_sampling = grid, settings, image_sampling
        self.ids = row.input_ids  # (1, T)
        self.cache = DynamicCache(config=model.config.get_text_config())

    def tell(
        self,
        budget: int,
        generation_config: GenerationConfig | None,
        kwargs: dict[str, Any],
        relay: Relay | None,
    ) -> torch.Tensor:
        """Ids `(T,)` of the whole row, after at most `budget` new text tokens."""
        starts = self.model.config.image_start_token_ids
        while budget > 0:
            length = self.ids.shape[1]
            self._write(budget, generation_config, {**kwargs, "streamer": relay})
            budget -= self.ids.shape[1] - length
            if int(self.ids[0, -1]) not in starts or (relay is not None and relay.stopped):
                break
            settings: dict[str, Any] = {"do_sample": kwargs.get("do_sample"), "streamer": relay}
            self._draw(generation_config, settings | dict(self.image_sampling))
            if relay is not None and relay.stopped:
                break
        return self.ids[0]

    def _write(self, budget: int, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> None:
        """A segment of text: stock `generate`, which also stops where an image starts."""
        # of what is not in the cache yet: the last code of the newest image, and what ends it
        unread = self.model.model.image_tasks(self.ids)[:, self.cache.get_seq_length() :]
        images: dict[str, Any] = {"image_task": max(int(unread.max()), 0)}
        if self.cache.get_seq_length() == 0:
            images = dict(self.row.pictures)
        positions, _ = self.model.model.get_rope_index(self.ids, image_grid_thw=self.row.image_grid_thw)
        text_positions = torch.arange(self.ids.shape[1], device=self.ids.device).view(1, 1, -1)
        stops = look_up(
            generation_config, self.model.generation_config, "eos_token_id", kwargs.get("eos_token_id"), []
        )
        stops = [stops] if isinstance(stops, int) else list(stops)
        self.ids = self.model._write(
            None,
            generation_config,
            kwargs
            | images
            | {
                "input_ids": self.ids,
                "attention_mask": torch.ones_like(self.ids),
                "position_ids": torch.cat([text_positions, positions]),  # (4, 1, T), as transformers prepares them
                "cache": self.cache,
                "eos_token_id": [*stops, *self.model.config.image_start_token_ids],
                "max_new_tokens": budget,
            },
            may_draw=True,
        )

    def _draw(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> None:
        """A segment of codes, behind what opens an image and was just said."""
        config = self.model.config
        grids = {name: value for name, value in self.row.pictures.items() if name == "image_grid_thw"}
        conditional = Branch(self.ids, torch.ones_like(self.ids), grids)
        branches, scales = guidance_branches(conditional, self.null, None, self.settings.guidance_scale, None)
        plan = plan_drawing(
            [self.grid],
            self.settings.line_breaks,
            config.end_of_line_token_id,
            config.generate_end_token_id,
            self.model._pad_token_id(kwargs),
        )
        job = DrawingJob(
            branches,
            scales,
            plan,
            self.model.model.last_image_tasks(self.ids).tolist(),
            False,
            self.settings.generator,
            resumes=True,
            window=self.settings.window,
            guidance_min_p=self.settings.guidance_min_p,
        )
        settings = {name: value for name, value in kwargs.items() if value is not None}
        self.ids = self.model._run(job, generation_config, {**settings, "cache": self.cache}).finish()
