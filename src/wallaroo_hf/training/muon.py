"""Torch's Muon, also for processors that are slow in bfloat16."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..families.precision import computes_in_bf16

__all__ = ["Float32Muon", "computes_in_bf16", "new_muon"]


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` whose iteration runs in the gradients' own type instead of bfloat16.

    torch casts each gradient to bfloat16 for the Newton-Schulz iteration and offers no other type. A CPU without bfloat16
    instructions then spends most of a training step there (`benchmarks/optimizer.py`). Steps and states are torch's,
    scaled as with `adjust_lr_fn="match_rms_adamw"`; the updates differ from torch's by bfloat16's rounding.

    Args:
        params: matrices, as in `torch.optim.Muon`.
        lr: learning rate.
        weight_decay: decoupled.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the matrices from their gradients; those without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        wanted = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        # Moonshot's scale ("match_rms_adamw"): the root mean square of AdamW's steps
        scale = 0.2 * max(parameter.shape) ** 0.5
        parameter.add_(
            _orthogonal(wanted, group["ns_coefficients"], group["ns_steps"], group["eps"]), alpha=-group["lr"] * scale
        )


def _orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The nearest matrix whose singular values are all about 1, by the Newton-Schulz iteration that torch uses."""
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def new_muon(matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> torch.optim.Muon:
    """A Muon in the type that the matrices' device is fast in, with steps of AdamW's size (`match_rms_adamw`).

    Args:
        matrices: parameters of two dimensions, all on one device.
        lr: learning rate.
        weight_decay: decoupled, as AdamW's.
    """
    matrices = list(matrices)
    if not computes_in_bf16(matrices[0].device):
        return Float32Muon(matrices, lr, weight_decay)
    return torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
