"""The steps of diffusers' flow schedulers, from noise (sigma 1) to clean (sigma 0): [`SchedulerSteps`]."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["SchedulerSteps", "make_scheduler"]


def make_scheduler(settings: Mapping[str, Any], family: str, extra: str) -> Any:
    """The scheduler that a configuration of diffusers describes.

    Args:
        settings: with `_class_name`.
        family: who draws with it, for messages.
        extra: of this package, with what it needs.

    Raises:
        ImportError: if diffusers cannot be imported.
        ValueError: if diffusers has no such scheduler.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            f"Drawing with {family} needs diffusers, which is not installed; run `pip install wallaroo-hf[{extra}]`."
        ) from error
    name = str(settings.get("_class_name"))
    found = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if found is None:
        raise ValueError(f"The scheduler is a {name!r}, but diffusers has no such scheduler; give one of its own.")
    return found.from_config({key: value for key, value in settings.items() if not key.startswith("_")})


class SchedulerSteps:
    """The steps of a flow scheduler of diffusers.

    Args:
        scheduler: used as it is, on a copy.
        num_inference_steps: at least 1; calls of the model, as far as the scheduler has one per step.
        device: of the latents.
        family: who draws, for messages.
        sigmas: where steps begin, before the scheduler's own shift, as far as it takes them; None = the scheduler's.

    Attributes:
        scheduler: the copy.
        total: calls of the model.

    Raises:
        ValueError: for a scheduler that is not one of flow matching, with a fixed shift, from noise to clean.
    """

    def __init__(
        self,
        scheduler: Any,
        num_inference_steps: int,
        device: torch.device,
        family: str,
        sigmas: torch.Tensor | None = None,
    ) -> None:
        if isinstance(scheduler, type):
            raise ValueError(f"`scheduler` is the class {scheduler.__name__}, but must be an object; make one of it.")
        self.scheduler = copy.deepcopy(scheduler)
        options = getattr(self.scheduler, "config", {})
        is_flow = "FlowMatch" in type(self.scheduler).__name__ or options.get("use_flow_sigmas", False)
        predicts = options.get("prediction_type", "flow_prediction")
        if not is_flow or not hasattr(self.scheduler, "set_timesteps"):
            raise ValueError(
                f"`scheduler` is a {type(scheduler).__name__}, but {family} draws by flow matching; give one of diffusers' "
                "FlowMatch schedulers, or one with `use_flow_sigmas=True`."
            )
        faults = {
            "has dynamic shifting": options.get("use_dynamic_shifting", False),
            "goes from clean to noise": options.get("invert_sigmas", False),
            f"takes what a model says for {predicts!r}": predicts != "flow_prediction",
        }
        for fault, is_so in faults.items():
            if is_so:
                raise ValueError(
                    f"The `scheduler`, a {type(scheduler).__name__}, {fault}; {family} needs one of flow prediction with a "
                    "fixed shift, from noise to clean."
                )
        if sigmas is not None and "sigmas" in inspect.signature(self.scheduler.set_timesteps).parameters:
            self.scheduler.set_timesteps(sigmas=sigmas.double().numpy(), device=device)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device)
        self.total = len(self.scheduler.timesteps)

    def sigma(self, step: int) -> torch.Tensor:
        """When a step begins, as the scheduler tells models: from 1 (noise) to 0 (clean), float32."""
        return self.scheduler.timesteps[step].float() / self.scheduler.config.num_train_timesteps

    def advance(self, step: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Latents after a step, float32.

        Args:
            step: its number.
            velocity: noise - clean, float32.
            latents: before it, float32.
        """
        timestep = self.scheduler.timesteps[step]
        return self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
