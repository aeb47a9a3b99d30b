"""From noise to latents: Euler's steps, or any flow scheduler's, over prompts that were read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.masking_utils import create_bidirectional_mask

from ...common.scheduler_steps import SchedulerSteps, make_scheduler
from ..flow_head import TimeOfPositions, read_velocity
from ..omni_backbone import same_attention
from .prompt_cache import PromptCache

__all__ = ["DEFAULT_SHIFT", "Denoiser", "FlowSteps"]

DEFAULT_SHIFT = 3.0  # of the released settings: t / (t + 3 - 3 t)


class Denoiser:
    """Velocities of images of one size.

    SigLIP's layers, fusion and time are computed once for an image, whatever the branches of guidance; positions of the
    prompts are not computed at all.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        prompts: those of the images, then, with guidance, those of the branch without condition, in the same order.
        size: `(h, w)` of the latents.
        guidance_scale: `v_null + scale · (v_cond - v_null)`; at 1 there is one branch.
    """

    def __init__(self, model: Any, prompts: PromptCache, size: Sequence[int], guidance_scale: float) -> None:
        self.model, self.size, self.guidance_scale = model, (int(size[0]), int(size[1])), guidance_scale
        self.branches = 1 if guidance_scale == 1 else 2
        rows, self._prompts = len(prompts.attention_mask), prompts
        length = model.config.image_tokens(self.size) + 1
        device = model.device
        mask = prompts.attention_mask.to(device)
        self._positions = mask.long().sum(1)[:, None] + torch.arange(length, device=device)
        like = torch.empty(rows, length, 0, dtype=model.dtype, device=device)
        seen = torch.cat([mask, mask.new_ones(rows, length)], dim=1)
        text, flow = model.config.text_config, model.config.flow_config
        masks = [
            create_bidirectional_mask(config=one, inputs_embeds=like, attention_mask=seen, cache=prompts.language)
            for one in ((text,) if same_attention(text, flow) else (text, flow))
        ]
        self._mask, self._flow_mask = masks[0], masks[-1]

    @torch.no_grad()
    def velocity(self, latents: torch.Tensor, time: float | torch.Tensor) -> torch.Tensor:
        """The guided velocity, float32 `(K, C, h, w)`, of latents of that size at a time (0 = noise, 1 = clean)."""
        backbone = self.model.model
        times = backbone.embed_times(torch.as_tensor(time).reshape(1))
        fused = backbone.visual(latents.to(self.model.device)).fused
        tokens = torch.cat([backbone.time_tokens(times).expand(len(fused), 1, -1), fused], dim=1)
        tokens = tokens.repeat(self.branches, 1, 1)
        # not causal: without padding there is no mask, and sdpa would take that for a causal one
        hidden_states = backbone.language_model(
            inputs_embeds=tokens,
            attention_mask={"full_attention": self._mask},
            position_ids=self._positions,
            cache=self._prompts.language,
            use_cache=False,
            is_causal=False,
        ).last_hidden_state
        flow = self.model.flow_head(
            hidden_states,
            TimeOfPositions(times, None),
            self._flow_mask,
            self._positions,
            cache=self._prompts.flow,
            is_causal=False,
        )
        each = torch.stack([read_velocity(one, self.size, self.model.config) for one in flow[:, 1:].float()])
        if self.branches == 1:
            return each
        given, null = each.chunk(2)
        return null + self.guidance_scale * (given - null)


class FlowSteps(SchedulerSteps):
    """The steps of a flow scheduler; times here run from noise (0) to clean (1), sigmas the other way.

    Args:
        scheduler: used as it is, on a copy; None = the released settings.
        num_inference_steps: at least 1; calls of the model, as far as the scheduler has one per step.
        device: of the latents.

    Raises:
        ImportError: if diffusers is needed, and is not installed.
        ValueError: for a scheduler that is not one of flow matching, with a fixed shift, from noise to clean.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int, device: torch.device) -> None:
        if scheduler is None:  # the released settings as diffusers has them
            own = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": DEFAULT_SHIFT}
            scheduler = make_scheduler(own, "Show-o2", "showo2")
        # N + 1 points from noise to clean, the last without a call (the authors count the points)
        points = torch.linspace(0, 1, num_inference_steps + 1, dtype=torch.float32)[:-1]
        super().__init__(scheduler, num_inference_steps, device, "Show-o2", sigmas=1 - points)

    def time(self, step: int) -> torch.Tensor:
        """When a step begins, between 0 (noise) and 1 (clean)."""
        return 1 - self.scheduler.sigmas[step].float()

    def advance(self, step: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Latents after a step, float32.

        Args:
            step: its number.
            velocity: towards clean, float32; the scheduler wants the other direction.
            latents: before it, float32.
        """
        return super().advance(step, -velocity, latents)
