"""`LowMemoryMixin`: how our models load quantized or offloaded."""

import torch

from .configuration import WallarooConfig
from .parts import part_names

__all__ = ["LowMemoryMixin"]


class LowMemoryMixin:
    """What our models add to transformers' quantized and offloaded loading."""

    config: WallarooConfig
    _keep_in_fp32_modules: set[str]
    _keep_in_fp32_modules_strict = ["vq_model"]

    def post_init(self) -> None:
        """Keeps the image tokenizer and the image parts from quantizers, whatever modules the caller tells them to skip.

        `_keep_in_fp32_modules` is the one list that all of transformers' quantizers leave alone, so these parts join what a
        class or a part of the model put there to be float32 when it loads in float16.
        """
        super().post_init()  # type: ignore[misc]
        self._keep_in_fp32_modules |= self._unquantized_modules()

    def _unquantized_modules(self) -> set[str]:
        """Patterns for the names of modules, which have a prefix in a larger model."""
        return {rf"(.*\.)?{part}" for part in ("vq_model", *part_names(self.config.image_tasks))}

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """As in transformers, without those that are on the list for quantizers alone: float16 is float16 in them."""
        plan = super()._get_dtype_plan(dtype)  # type: ignore[misc]
        return {name: kept for name, kept in plan.items() if name not in self._unquantized_modules()}

    @property
    def device(self) -> torch.device:
        """Where inputs belong: with the first weights, or where accelerate computes with them if they are offloaded."""
        device = super().device  # type: ignore[misc]
        if device.type == "meta":
            hooks = (getattr(module, "_hf_hook", None) for module in self.modules())  # type: ignore[attr-defined]
            devices = (getattr(hook, "execution_device", None) for hook in hooks)
            return next((torch.device(found) for found in devices if found is not None), device)
        return device
