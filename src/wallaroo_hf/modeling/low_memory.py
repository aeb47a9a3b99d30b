"""`LowMemoryMixin`: how our models load quantized or offloaded."""

import torch

__all__ = ["LowMemoryMixin"]


class LowMemoryMixin:
    """What our models add to transformers' quantized and offloaded loading."""

    # The one list that all of transformers' quantizers leave alone, whatever modules the caller tells them to skip:
    # patterns for the names of modules, which have a prefix in a larger model.
    _keep_in_fp32_modules = [
        r"(.*\.)?vq_model",
        r"(.*\.)?(generation|source|edit)_adapter",
        r"(.*\.)?(generation|edit)_head",
    ]
    _keep_in_fp32_modules_strict = ["vq_model"]

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
