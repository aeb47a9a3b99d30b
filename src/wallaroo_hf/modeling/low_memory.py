"""`LowMemoryMixin`: how our models load quantized or offloaded."""

import torch

from .configuration import WallarooConfig
from .parts import part_names

__all__ = ["LowMemoryMixin"]


class LowMemoryMixin:
    """What our models add to transformers' quantized and offloaded loading."""

    config: WallarooConfig
    _keep_in_fp32_modules_strict = ["vq_model"]

    def post_init(self) -> None:
        """Keeps the image tokenizer and the image parts from quantizers, whatever modules the caller tells them to skip.

        The one list that all of transformers' quantizers leave alone: patterns for the names of modules, which have a
        prefix in a larger model.
        """
        parts = ("vq_model", *part_names(self.config.image_tasks))
        self._keep_in_fp32_modules = [rf"(.*\.)?{part}" for part in parts]
        super().post_init()  # type: ignore[misc]

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Loading in float16 must not turn adapters and heads to float32, for which transformers made that list."""
        plan = super()._get_dtype_plan(dtype)  # type: ignore[misc]
        return {name: kept for name, kept in plan.items() if name in self._keep_in_fp32_modules_strict}

    @property
    def device(self) -> torch.device:
        """Where inputs belong: with the first weights, or where accelerate computes with them if they are offloaded."""
        device = super().device  # type: ignore[misc]
        if device.type == "meta":
            hooks = (getattr(module, "_hf_hook", None) for module in self.modules())  # type: ignore[attr-defined]
            devices = (getattr(hook, "execution_device", None) for hook in hooks)
            return next((torch.device(found) for found in devices if found is not None), device)
        return device
