"""Muon for the convolutions' kernels as matrices, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn

from ...modeling.vq import WallarooVQModel
from ..muon import new_muon

__all__ = ["VQOptimizer"]

# The layers that meet pixels or the codebook: Muon is for the matrices between hidden states.
_OUTER_LAYERS = ("encoder.conv_in.", "decoder.conv_out.", "quantize.")


class VQOptimizer:
    """One optimizer made of two that ship with torch.

    Muon ([`new_muon`]) takes matrices only, so it is given each kernel `(out, in, height, width)` as a matrix
    `(out, in * height * width)` that shares its memory. Muon's steps are scaled to the size of AdamW's
    (`match_rms_adamw`), so one learning rate serves both.

    Args:
        model: the tokenizer, on its device.
        learning_rate: peak, for both.
        use_muon: False leaves everything to AdamW.
    """

    def __init__(self, model: WallarooVQModel, learning_rate: float, use_muon: bool = True) -> None:
        self._kernels: list[tuple[nn.Parameter, nn.Parameter]] = []
        rest = []
        for name, parameter in model.named_parameters():
            if use_muon and parameter.ndim == 4 and not name.startswith(_OUTER_LAYERS):
                self._kernels.append((parameter, nn.Parameter(parameter.data.view(len(parameter), -1))))
            else:
                rest.append(parameter)
        self._codebook = model.quantize.embedding.weight
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        }
        if self._kernels:
            self._parts["muon"] = new_muon([matrix for _, matrix in self._kernels], learning_rate)

    def step(self, learning_rate: float) -> None:
        """Updates the weights from their gradients, and clears these."""
        for kernel, matrix in self._kernels:
            matrix.grad = None if kernel.grad is None else kernel.grad.reshape(matrix.shape)
            kernel.grad = None
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()
            part.zero_grad()

    def forget_codes(self, codes: torch.Tensor | slice) -> None:
        """Drops the momentum of codes that were moved by hand."""
        state = self._parts["adamw"].state.get(self._codebook, {})
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                state[key][codes] = 0

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """All of its state, as tensors by name: what a checkpoint has to keep."""
        tensors: dict[str, torch.Tensor] = {}
        for name, part in self._parts.items():
            for index, state in part.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": value for key, value in state.items()}
        return tensors

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `state_tensors`."""
        for name, part in self._parts.items():
            states: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                owner, index, field = key.split(".")
                if owner == name:
                    states.setdefault(int(index), {})[field] = value
            part.load_state_dict({"state": states, "param_groups": part.state_dict()["param_groups"]})
