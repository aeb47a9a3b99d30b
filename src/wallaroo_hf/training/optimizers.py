"""Muon for matrices, AdamW for the rest: one optimizer for a `Trainer`, made of two that ship with torch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .muon import new_muon

__all__ = ["MuonAdamW"]

# In the names of parameters: tables and output layers, whose rows are tokens, are AdamW's, as Muon's authors advise.
TOKEN_PARTS = ("embed_tokens.", "lm_head.", "patch_embed.")


class MuonAdamW(torch.optim.Optimizer):
    """Muon ([`new_muon`]) for the matrices between hidden states, `torch.optim.AdamW` for everything else.

    Small models reach a loss in far fewer steps with it. Muon's steps are scaled to the size of AdamW's
    (`match_rms_adamw`), so one learning rate and one schedule serve both. Both inner optimizers share this one's parameter
    groups, so schedulers and `Trainer` work with it as with any other.

    Args:
        named_parameters: those to train, with their names.
        lr: learning rate.
        betas, eps, weight_decay: of AdamW; weight decay also of Muon.
        token_parts: in the names of matrices, what leaves them to AdamW.

    Raises:
        ValueError: if there is nothing to train.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        token_parts: Sequence[str] = TOKEN_PARTS,
    ) -> None:
        named = list(named_parameters)
        matrices = [p for name, p in named if p.ndim == 2 and not any(part in name for part in token_parts)]
        ours = {id(parameter) for parameter in matrices}
        rest = [parameter for _, parameter in named if id(parameter) not in ours]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if rest:
            self._parts["adamw"] = torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        if matrices:
            self._parts["muon"] = new_muon(matrices, lr, weight_decay)
        if not self._parts:
            raise ValueError("There is nothing to train: no parameter requires a gradient.")
        super().__init__([parameter for _, parameter in named], {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the weights from their gradients; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            ValueError: if it was saved with other parts.
        """
        if set(state_dict) != set(self._parts):
            raise ValueError(
                f"The optimizer's state has the parts {sorted(state_dict)}, but {sorted(self._parts)} are needed; "
                "resume with the same parameters to train."
            )
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()


def muon_adamw(model: nn.Module, args: Any, token_parts: Sequence[str] = TOKEN_PARTS) -> MuonAdamW:
    """A [`MuonAdamW`] for what a model trains, with the settings of `TrainingArguments`."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    betas = (args.adam_beta1, args.adam_beta2)
    return MuonAdamW(trained, args.learning_rate, betas, args.adam_epsilon, args.weight_decay, token_parts)


def with_own_settings(optimizer: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> None:
    """Gives some parameters of a new optimizer settings of their own, in place.

    Args:
        optimizer: that has not stepped yet.
        groups: parameters (`params`) with other settings, such as `lr`.
    """
    own = {id(parameter): place for place, group in enumerate(groups) for parameter in group["params"]}
    divided = []
    for group in optimizer.param_groups if groups else ():
        for place in sorted({own.get(id(parameter), -1) for parameter in group["params"]}):
            settings = {} if place < 0 else {key: value for key, value in groups[place].items() if key != "params"}
            chosen = [parameter for parameter in group["params"] if own.get(id(parameter), -1) == place]
            divided.append({**group, **settings, "params": chosen})
    if groups:
        optimizer.param_groups = divided
