"""Images that begin together and come out of their noise step by step: [`FlowGroup`]."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from ...common.drawing_sessions import GroupedSession
from ...common.step_settings import StepSettings
from ...families.contract import Follow, Step
from .denoising import Denoiser, FlowSteps
from .drawing_inputs import check_prompts, draw_noise, read_count, read_noise, read_sizes
from .prompt_cache import PromptCache, read_prompt

__all__ = [
    "PROMPT_TENSORS",
    "FlowGroup",
    "FlowSession",
    "FlowSettings",
    "ShowO2DrawingOutput",
]

DEFAULT_GUIDANCE_SCALE = 5.0
DEFAULT_STEPS = 49  # the authors' "50" are points
_PROMPT = ("input_ids", "attention_mask")
PROMPT_TENSORS = {
    *_PROMPT,
    "negative_input_ids",
    "negative_attention_mask",
    "image_size",
    "pixel_values",
    "image_latents",
}


@dataclass(frozen=True)
class FlowSettings(StepSettings):
    """See [`StepSettings`]; a step is a call of the model.

    Attributes:
        published_eval: the released script's: noise rounded to bfloat16.

    Raises:
        ValueError: for values that cannot be.
    """

    family: ClassVar[str] = "Show-o2"

    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    num_inference_steps: int = DEFAULT_STEPS
    published_eval: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.published_eval, bool):
            raise ValueError(f"`published_eval` is {self.published_eval!r}, but must be True or False.")


@dataclass
class ShowO2DrawingOutput(ModelOutput):
    """What `generate(generation_mode="image", return_dict_in_generate=True)` returns.

    Attributes:
        latents: one `(C, h, w)` per image, float32, normalised as the codec takes them.
        trajectory: the same before the first step and behind each.
        velocities: the guided velocity of each step.
    """

    latents: list[torch.Tensor] | None = None
    trajectory: list[list[torch.Tensor]] | None = None
    velocities: list[list[torch.Tensor]] | None = None


@dataclass
class _SameSize:
    """Images of one size.

    Attributes:
        images: their numbers.
        denoiser, steps: what they go through.
        latents: `(K, C, h, w)` float32, where they are.
        velocity: the last one, the same size.
        clean: where that one pointed to.
    """

    images: list[int]
    denoiser: Denoiser
    steps: FlowSteps
    latents: torch.Tensor
    velocity: torch.Tensor | None = None
    clean: torch.Tensor | None = None

    def advance(self, step: int) -> None:
        """One step."""
        time = self.steps.time(step)
        self.velocity = self.denoiser.velocity(self.latents, time)
        self.clean = self.latents + (1 - time) * self.velocity
        self.latents = self.steps.advance(step, self.velocity, self.latents)


class FlowGroup:
    """See [`wallaroo_hf.common.drawing_sessions.DrawingGroup`]. Prompts are read once, however many images and steps.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        batch: `input_ids`, `attention_mask` `(B, T)`, left-padded, that end with the token that opens an image; for
            guidance `negative_input_ids`, `negative_attention_mask` (None = nothing said); `image_size` `(B, 2)` in pixels;
            for edits `pixel_values` or `image_latents` of the images in the prompts.
        copies: images per row, side by side.
        generators: of the noise, one for all or one per image.
        settings: how.
        follow: called with each step of each image; False ends the group.
        noise: one `(C, h, w)` per image in the place of generators and sizes.
        prompts: what was read already, in the place of ids and images: those of the rows, then, with guidance, the null
            prompts.

    Raises:
        ValueError: for tensors that cannot be.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, Any],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        settings: FlowSettings,
        follow: Follow | None,
        noise: Sequence[torch.Tensor] | None = None,
        prompts: PromptCache | None = None,
    ) -> None:
        unknown = sorted(set(batch) - PROMPT_TENSORS)
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` is not what an image is drawn from; give {', '.join(sorted(PROMPT_TENSORS))}."
            )
        self.model, self.settings, self._follow = model, settings, follow
        rows = len(batch["input_ids" if prompts is None else "image_size"])
        copies = read_count("num_return_sequences", copies)
        self.count = rows * copies
        self.was_ended = False
        if prompts is None:
            check_prompts(batch, model.config.vision_start_token_id)
        noise = self._noise(batch.get("image_size"), rows, generators, noise)
        if prompts is None:
            prompts = self._read(batch, rows)
        by_size: dict[Any, list[int]] = defaultdict(list)
        for image, one in enumerate(noise):
            by_size[tuple(one.shape[-2:])].append(image)
        self._sizes = []
        for size, images in by_size.items():
            given = [image // copies for image in images]
            both = given if settings.guidance_scale == 1 else [*given, *(rows + row for row in given)]
            self._check_room(prompts, given, size)
            denoiser = Denoiser(model, prompts.select(both), size, settings.guidance_scale)
            steps = FlowSteps(settings.scheduler, settings.num_inference_steps, model.device)
            start = torch.stack([noise[image].to(model.device) for image in images])
            self._sizes.append(_SameSize(images, denoiser, steps, start))
        self.done, self.total = 0, max(one.steps.total for one in self._sizes)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.was_ended or self.done == self.total

    @property
    def complete(self) -> bool:
        """Whether it came to its end, or may still."""
        return not self.was_ended

    def advance(self) -> bool:
        """One call of the model per size; returns whether there is more to come."""
        if self.is_over:
            return False
        for one in self._sizes:
            one.advance(self.done)
        self.done += 1
        self._tell()
        return not self.is_over

    def end(self) -> None:
        """Ends it where it is."""
        self.was_ended = self.was_ended or self.done < self.total

    def latents(self, image: int) -> torch.Tensor:
        """Where an image is between noise and clean, `(C, h, w)` float32."""
        return self._of(image, "latents")

    def velocity(self, image: int) -> torch.Tensor:
        """The last guided velocity of an image, `(C, h, w)` float32."""
        return self._of(image, "velocity")

    def pixels(self, image: int, is_whole: bool) -> torch.Tensor | None:
        """An image `(3, H, W)`; before its end what its velocity points to; None before the first step."""
        if self.done == 0:
            return None
        # alone, so that equal latents are equal bytes
        return self.model.decode_latents(self._of(image, "latents" if self.done == self.total else "clean"))

    def native(self, image: int | None) -> Any:
        """Latents of an image, or a list of all."""
        return self.latents(image) if image is not None else [self.latents(one) for one in range(self.count)]

    def _of(self, image: int, what: str) -> torch.Tensor:
        one = next(one for one in self._sizes if image in one.images)
        return getattr(one, what)[one.images.index(image)]

    def _tell(self) -> None:
        if self._follow is None:
            return
        for image in range(self.count):
            preview = functools.partial(self.model.decode_latents, self._of(image, "clean"))
            if self._follow(Step(image, self.done, self.total, preview)) is False:
                self.end()

    def _check_room(self, prompts: PromptCache, rows: Sequence[int], size: Sequence[int]) -> None:
        config = self.model.config
        longest = config.text_config.max_position_embeddings
        needed = int(prompts.attention_mask[rows].sum(1).max()) + config.image_tokens(size) + 1
        if needed > longest:
            raise ValueError(
                f"Prompt and image together need {needed} positions, but the model has {longest}; shorten the prompt or "
                "ask for a smaller image."
            )

    def _noise(self, image_size: Any, rows: int, generators: Any, given: Any) -> list[torch.Tensor]:
        """One `(C, h, w)` float32 per image, drawn in their order."""
        if given is not None:
            noise = read_noise(given, self.count, self.model.config)
        elif image_size is None:
            raise ValueError("Neither `image_size` nor `noise` were given; say how large the images are.")
        else:
            sizes = read_sizes(image_size, rows, self.model.vae.spatial_factor * self.model.config.patch_size)
            copies = self.count // rows
            noise = draw_noise([size for size in sizes for _ in range(copies)], generators, self.model)
        return [one.bfloat16().float() for one in noise] if self.settings.published_eval else noise

    def _read(self, batch: Mapping[str, Any], rows: int) -> PromptCache:
        """Keys and values of all prompts, then of all null prompts, read at once."""
        ids, masks = [batch["input_ids"]], [batch.get("attention_mask")]
        if self.settings.guidance_scale != 1:
            null = batch.get("negative_input_ids")
            if null is None:
                config = self.model.config
                null = ids[0].new_tensor([[config.bos_token_id, config.vision_start_token_id]]).expand(rows, -1)
            ids.append(null)
            masks.append(batch.get("negative_attention_mask"))
        images = batch.get("image_latents")
        if batch.get("pixel_values") is not None:
            images = self.model.encode_pixels(batch["pixel_values"])
        whole = [torch.ones_like(one) if mask is None else mask for one, mask in zip(ids, masks, strict=True)]
        widest = max(one.shape[1] for one in ids)
        padded = [F.pad(one, (widest - one.shape[1], 0), value=self.model.config.pad_token_id) for one in ids]
        seen = [F.pad(mask, (widest - mask.shape[1], 0)) for mask in whole]
        device = self.model.device
        return read_prompt(self.model, torch.cat(padded).to(device), torch.cat(seen).to(device), images)


class FlowSession(GroupedSession):
    """Drawings of one model that come and go; see [`wallaroo_hf.common.drawing_sessions.GroupedSession`]."""

    group_form = FlowGroup

    def read_settings(self, settings: Mapping[str, Any]) -> FlowSettings:
        """See [`FlowSettings`]."""
        return FlowSettings.read(settings, self.model.generation_config)

    @property
    def pad_token_id(self) -> int:
        """The language model's."""
        return self.model.config.pad_token_id
