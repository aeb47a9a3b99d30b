"""Images that begin together and come out of their noise step by step: [`QueryGroup`]."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...common.drawing_sessions import GroupedSession
from ...common.drawn_values import draw_noise, read_count, read_sizes
from ...common.scheduler_steps import SchedulerSteps, make_scheduler
from ...families.contract import Follow, Step
from .kept_latents import KeptLatents, KeptRow, kept_rows
from .query_settings import QuerySettings

__all__ = ["PROMPT_TENSORS", "UNSHIFTED", "QueryGroup", "QuerySession"]

_READ = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids")  # by the language model
PROMPT_TENSORS = {*_READ, "image_size", "repaint_mask", "source_pixel_values"}
UNSHIFTED = {"_class_name": "FlowMatchEulerDiscreteScheduler"}  # as trained, where a checkpoint says nothing
_PREPARE = 'prepare them with `processor(..., generation_mode="image")`'


@dataclass
class _Canvas:
    """Images of one size and scale.

    Attributes:
        model: draws.
        images: their numbers.
        condition: `(K, N, condition_size)`.
        guidance_scale: see [`QuerySettings`].
        steps: what they go through.
        latents: `(K, C, h, w)` float32, where they are.
        finest: `(h, w)` of the finest scale's latents, where this scale is a coarser one.
        kept: what of them stays, if they have masks.
        clean: where their last velocity pointed to.
    """

    model: Any
    images: list[int]
    condition: torch.Tensor
    guidance_scale: float
    steps: SchedulerSteps
    latents: torch.Tensor
    finest: tuple[int, int] | None
    kept: KeptLatents | None = None
    clean: torch.Tensor | None = None

    @torch.no_grad()
    def advance(self, step: int) -> None:
        """One step, in float32; the transformer alone computes in its own precision."""
        sigma = self.steps.sigma(step).to(self.latents.device)
        velocity = self._velocity(sigma)
        self.clean = self.latents - sigma * velocity
        self.latents = self.steps.advance(step, velocity, self.latents)
        if self.kept is not None:
            left = self.steps.sigma(step + 1).to(self.latents.device) if step + 1 < self.steps.total else 0.0
            self.clean, self.latents = self.kept.put_back(self.clean, 0.0), self.kept.put_back(self.latents, left)

    def _velocity(self, sigma: torch.Tensor) -> torch.Tensor:
        """The guided velocity, noise - clean; the null condition is zeros, so no prompt is read for it."""
        latents, condition = self.latents, self.condition
        if self.guidance_scale != 1:
            latents = torch.cat([latents, latents])
            condition = torch.cat([torch.zeros_like(condition), condition])
        sigmas = sigma.expand(len(latents))
        velocity = self.model.dit_adapter.velocity(self.model.dit, latents, sigmas, condition, self.finest).float()
        if self.guidance_scale == 1:
            return velocity
        null, given = velocity.chunk(2)
        return null + self.guidance_scale * (given - null)


class QueryGroup:
    """See [`wallaroo_hf.common.drawing_sessions.DrawingGroup`]. Prompts are read once, however many images and steps.

    Args:
        model: a [`HieraQueryForConditionalGeneration`].
        batch: `input_ids`, `attention_mask` `(B, T)`, left-padded, that end where the assistant's turn begins; for edits
            `pixel_values`, `image_grid_thw`, `mm_token_type_ids` of the pictures in the prompts; `image_size` `(B, 2)` in
            pixels; for edits within masks `repaint_mask` and `source_pixel_values`, see [`kept_rows`].
        copies: images per row, side by side.
        generators: of the noise, one for all or one per image.
        settings: how.
        follow: called with each step of each image; False ends the group.

    Raises:
        ValueError: for tensors that cannot be.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, Any],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        settings: QuerySettings,
        follow: Follow | None,
    ) -> None:
        self.model, self.settings, self._follow = model, settings, follow
        rows = _check_prompts(batch)
        copies = read_count("num_return_sequences", copies)
        self.count, self.was_ended = rows * copies, False
        if batch.get("image_size") is None:
            raise ValueError("`image_size` was not given; say how large the images are.")
        self._check_room(batch)
        sizes = read_sizes(batch["image_size"], rows, model.size_multiple)
        count = len(model.config.scales)
        # the finest first, so that a seed gives the same picture whether coarser ones are drawn or not
        scales = [count - 1] if settings.scales == "finest" else [count - 1, *range(count - 1)]
        canvases = [(scale, [model.scale_size(*size, scale) for size in sizes]) for scale in scales]
        kept = kept_rows(batch, sizes, model.size_multiple)
        conditions = self._read(batch, scales, sizes)
        self._scales: dict[int, list[_Canvas]] = {}
        for (scale, drawn), condition in zip(canvases, conditions, strict=True):
            self._scales[scale] = self._begin(drawn, sizes, copies, generators, condition, kept)
        self._finest = count - 1
        every = [canvas for canvases in self._scales.values() for canvas in canvases]
        self.done, self.total = 0, max(canvas.steps.total for canvas in every)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.was_ended or self.done == self.total

    @property
    def complete(self) -> bool:
        """Whether it came to its end, or may still."""
        return not self.was_ended

    def advance(self) -> bool:
        """One call of the diffusion transformer per size and scale; returns whether there is more to come."""
        if self.is_over:
            return False
        for canvases in self._scales.values():
            for canvas in canvases:
                canvas.advance(self.done)
        self.done += 1
        self._tell()
        return not self.is_over

    def end(self) -> None:
        """Ends it where it is."""
        self.was_ended = self.was_ended or self.done < self.total

    def pixels(self, image: int, is_whole: bool) -> torch.Tensor | None:
        """An image `(3, H, W)`; before its end what its velocity points to; None before the first step."""
        if self.done == 0:
            return None
        # alone, so that equal latents are equal bytes
        return self.model.decode_latents(self._of(image, self._finest, self.done < self.total))

    def native(self, image: int | None) -> Any:
        """Latents `(C, h, w)` of an image, or a list of all; with `scales="all"` a list for each, coarse to fine."""
        if image is None:
            return [self.native(one) for one in range(self.count)]
        if self.settings.scales == "finest":
            return self._of(image, self._finest, False)
        return [self._of(image, scale, False) for scale in sorted(self._scales)]

    def _of(self, image: int, scale: int, is_preview: bool) -> torch.Tensor:
        canvas = next(one for one in self._scales[scale] if image in one.images)
        found = canvas.clean if is_preview and canvas.clean is not None else canvas.latents
        return found[canvas.images.index(image)]

    def _tell(self) -> None:
        if self._follow is None:
            return
        for image in range(self.count):
            preview = functools.partial(self.model.decode_latents, self._of(image, self._finest, True))
            if self._follow(Step(image, self.done, self.total, preview)) is False:
                self.end()

    # ------------------------------------------------------------------------------------------------ how it begins

    @torch.no_grad()
    def _read(
        self, batch: Mapping[str, Any], scales: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Conditions `(B, N, condition_size)` of each scale, by one pass of the language model."""
        read = {name: batch[name].to(self.model.device) for name in _READ if batch.get(name) is not None}
        return self.model.conditions(**read, scales=scales, sizes=sizes)

    def _begin(
        self,
        drawn: Sequence[tuple[int, int]],
        sizes: Sequence[tuple[int, int]],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        condition: torch.Tensor,
        kept: Sequence[KeptRow | None] | None,
    ) -> list[_Canvas]:
        """The images of a scale, those of one size together.

        Args:
            drawn: size in pixels of each row's image at this scale.
            sizes: of each row's image at the finest.
            copies: images per row.
            generators: of their noise.
            condition: of the rows.
            kept: see [`kept_rows`].
        """
        model, settings = self.model, self.settings
        factor, channels = model.codec.spatial_factor, model.codec.latent_channels
        cells = [(height // factor, width // factor) for height, width in drawn]
        noise = draw_noise([(channels, *cell) for cell in cells for _ in range(copies)], generators)
        by_size: dict[tuple[tuple[int, int], tuple[int, int]], list[int]] = defaultdict(list)
        for image in range(self.count):
            by_size[drawn[image // copies], sizes[image // copies]].append(image)
        scheduler = settings.scheduler
        if scheduler is None:
            scheduler = make_scheduler({**UNSHIFTED, **model.config.scheduler}, "HieraQuery", "hieraquery")
        canvases = []
        for (own, (height, width)), images in by_size.items():
            steps = SchedulerSteps(scheduler, settings.num_inference_steps, model.device, "HieraQuery")
            start = torch.stack([noise[image] for image in images]).to(model.device)
            finest = None if own == (height, width) else (height // factor, width // factor)
            rows = [image // copies for image in images]
            stays = None if kept is None else _stays(model, [kept[row] for row in rows], own, start)
            canvases.append(
                _Canvas(model, images, condition[rows], settings.guidance_scale, steps, start, finest, stays)
            )
        return canvases

    def _check_room(self, batch: Mapping[str, Any]) -> None:
        longest = self.model.config.mllm_config.text_config.max_position_embeddings
        queries = sum(count + 2 for count in self.model.config.num_queries)
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        needed = queries + (ids.shape[1] if mask is None else int(mask.sum(1).max()))
        if needed > longest:
            raise ValueError(
                f"Prompt and queries together need {needed} positions, but the model has {longest}; shorten the prompt."
            )


def _stays(
    model: Any, rows: Sequence[KeptRow | None], size: tuple[int, int], noise: torch.Tensor
) -> KeptLatents | None:
    """What stays of images `(K, C, h, w)` of one size; None if they have no masks."""
    if all(row is None for row in rows):
        return None
    latents, repainted = torch.zeros_like(noise), torch.ones_like(noise[:, :1], dtype=torch.bool)
    seen = {id(row): row.at_scale(model.codec, size, noise.device) for row in rows if row is not None}
    for index, row in enumerate(rows):
        if row is not None:
            latents[index], repainted[index] = seen[id(row)]
    return KeptLatents(latents, repainted, noise)


def _check_prompts(batch: Mapping[str, Any]) -> int:
    """How many rows there are.

    Raises:
        ValueError: for ids or a mask of another shape, or padding on the right.
    """
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if ids is None or ids.dim() != 2 or not ids.numel():
        shape = "missing" if ids is None else f"of shape {tuple(ids.shape)}"
        raise ValueError(f"`input_ids` are {shape}, but must be (B, T), one row per prompt; {_PREPARE}.")
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(
            f"`attention_mask` is of shape {tuple(mask.shape)}, but `input_ids` are of {tuple(ids.shape)}; {_PREPARE}."
        )
    if mask is not None and not bool(mask[:, -1].all()):
        raise ValueError(
            f"Rows of `input_ids` must be padded on the left, for queries go on at their end; {_PREPARE}."
        )
    return len(ids)


class QuerySession(GroupedSession):
    """Drawings of one model that come and go; see [`wallaroo_hf.common.drawing_sessions.GroupedSession`]."""

    group_form = QueryGroup

    def read_settings(self, settings: Mapping[str, Any]) -> QuerySettings:
        """See [`QuerySettings`]."""
        return QuerySettings.read(settings, self.model.generation_config)

    @property
    def pad_token_id(self) -> int:
        """The language model's; what pads is masked."""
        return self.model.config.mllm_config.text_config.pad_token_id or 0
