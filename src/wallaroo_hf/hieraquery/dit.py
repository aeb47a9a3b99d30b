"""Diffusion transformers of diffusers behind one interface. The only file that knows their classes."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["DiTAdapter", "Tap", "find_dit"]

_TIMESTEPS = 1000  # what a sigma of 1 is called in both transformers


class Tap:
    """What a block gave during the last pass.

    Args:
        layer: number of the block, from 0.

    Attributes:
        hidden_states: `(B, h * w, hidden_size)`; None before the pass.
    """

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.hidden_states: torch.Tensor | None = None


# What a pass is told beside the transformer's own arguments. Hooks that are there since construction read them, so that
# nothing is kept on the transformer while it computes: threads share it.
_tap: ContextVar[Tap | None] = ContextVar("_tap", default=None)
_finest: ContextVar[tuple[int, int] | None] = ContextVar("_finest", default=None)


def _keep(layer: int, _block: nn.Module, _arguments: Any, output: Any) -> None:
    """Of every block: gives its states to the tap of this pass, if there is one and it is for this block."""
    tap = _tap.get()
    if tap is not None and tap.layer == layer:
        tap.hidden_states = output[1] if isinstance(output, tuple) else output  # SD3: (context, hidden states)


@contextmanager
def _telling(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Has a variable a value, in this thread, while the context lasts."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class DiTAdapter(ABC):
    """One class of diffusion transformers, and the settings of one.

    Args:
        settings: the transformer's configuration as diffusers writes it.

    Attributes:
        class_name: diffusers' name.
        settings: arguments of the class, all of them.

    Raises:
        ImportError: if diffusers cannot be imported.
        ValueError: for settings that the class has not.
    """

    class_name: str

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._class = _transformer_class(self.class_name)
        given = {name: value for name, value in settings.items() if not name.startswith("_")}
        known = self._class._get_init_keys(self._class) - {"self"}
        if given.keys() - known:
            raise ValueError(f"{self.class_name} has no setting `{sorted(given.keys() - known)[0]}`; remove it.")
        self.settings: dict[str, Any] = _defaults(self._class) | given

    def build(self, **changes: Any) -> nn.Module:
        """The transformer with weights that are still to be loaded; `changes` stand for settings."""
        dit: Any = self._class(**(self.settings | changes))
        for layer, block in enumerate(dit.transformer_blocks):
            block.register_forward_hook(functools.partial(_keep, layer))
        built: nn.Module = dit
        return built

    @property
    def latent_channels(self) -> int:
        """Of the latents that it takes and of the velocities that it gives."""
        return int(self.settings["in_channels"])

    @property
    def patch_size(self) -> int:
        """Edge of one of its tokens in latents."""
        return int(self.settings["patch_size"])

    @property
    def num_layers(self) -> int:
        """Its blocks."""
        return int(self.settings["num_layers"])

    @property
    def hidden_size(self) -> int:
        """Width of its blocks."""
        return int(self.settings["num_attention_heads"] * self.settings["attention_head_dim"])

    @property
    @abstractmethod
    def condition_size(self) -> int:
        """Width of a condition."""

    @abstractmethod
    def velocity(
        self,
        dit: nn.Module,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        condition: torch.Tensor,
        finest: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """The velocity, noise - data.

        Args:
            dit: from [`build`].
            latents: `(B, C, h, w)`, `(1 - sigma) * data + sigma * noise`; cast to the transformer's dtype.
            sigma: `(B,)`, from 0 (data) to 1 (noise).
            condition: `(B, N, condition_size)`; zeros = none.
            finest: `(h, w)` of the finest scale's latents, where these are a coarser one's: its positions are spread over
                the same picture. None = these are the finest.

        Returns:
            `(B, C, h, w)`, in the transformer's dtype.
        """

    @contextmanager
    def tap(self, dit: nn.Module, layer: int) -> Iterator[Tap]:
        """Keeps what a block gives while the context lasts, in this thread.

        Args:
            dit: from [`build`].
            layer: number of the block, from 0.

        Raises:
            ValueError: if there is no such block.
        """
        blocks: Any = dit.transformer_blocks
        if not 0 <= layer < len(blocks):
            raise ValueError(f"The diffusion transformer has no block {layer}; give one from 0 to {len(blocks) - 1}.")
        tap = Tap(layer)
        with _telling(_tap, tap):
            yield tap

    @torch.no_grad()
    def rebuild_buffers(self, dit: nn.Module) -> None:
        """Fills the buffers that no file has, which loading through the meta device leaves undefined."""
        names = dict(dit.named_buffers()).keys() - dit.state_dict().keys()
        for layers in (1, self.num_layers):  # blocks have none in either class: one is enough to make the others
            if names:
                with torch.device("cpu"):
                    made = dict(self.build(num_layers=layers).named_buffers())
                for name in sorted(names & made.keys()):
                    owner, _, own = name.rpartition(".")
                    old = dit.get_buffer(name)
                    device = old.device
                    dit.get_submodule(owner).register_buffer(own, made[name].to(device), persistent=False)
                names -= made.keys()


class _Sana(DiTAdapter):
    class_name = "SanaTransformer2DModel"

    @property
    def condition_size(self) -> int:
        return int(self.settings["caption_channels"])

    def velocity(
        self,
        dit: nn.Module,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        condition: torch.Tensor,
        finest: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        # has no positions, or spreads them over any grid by itself: `finest` changes nothing
        dtype = dit.proj_out.weight.dtype
        timestep = sigma.float() * (_TIMESTEPS * self.settings["timestep_scale"])
        velocity: torch.Tensor = dit(
            latents.to(dtype), encoder_hidden_states=condition.to(dtype), timestep=timestep, return_dict=False
        )[0]
        return velocity[:, : self.latent_channels]  # some have a variance behind it


class _SD3(DiTAdapter):
    class_name = "SD3Transformer2DModel"

    def build(self, **changes: Any) -> nn.Module:
        """The transformer, whose positions can be those of a finer grid."""
        dit: Any = super().build(**changes)
        dit.pos_embed.register_forward_hook(_spread_positions)
        built: nn.Module = dit
        return built

    @property
    def condition_size(self) -> int:
        return int(self.settings["joint_attention_dim"])

    def pooled(self, condition: torch.Tensor) -> torch.Tensor:
        """The vector `(B, pooled_projection_dim)` beside a condition: its mean, resized."""
        mean = condition.float().mean(1, keepdim=True)
        size = self.settings["pooled_projection_dim"]
        return functional.adaptive_avg_pool1d(mean, size).squeeze(1).to(condition.dtype)

    def velocity(
        self,
        dit: nn.Module,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        condition: torch.Tensor,
        finest: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        dtype = dit.proj_out.weight.dtype
        with _telling(_finest, finest):
            velocity: torch.Tensor = dit(
                latents.to(dtype),
                encoder_hidden_states=condition.to(dtype),
                pooled_projections=self.pooled(condition).to(dtype),
                timestep=sigma.float() * _TIMESTEPS,
                return_dict=False,
            )[0]
        return velocity


def _spread_positions(embed: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    """Of the embedding of latents: the finest positions, resized, for the middle of them that a coarser grid is given."""
    finest, size = _finest.get(), tuple(arguments[0].shape[-2:])
    if finest is None or tuple(finest) == size:
        return None
    (height, width), patch = size, embed.patch_size
    whole = embed.cropped_pos_embed(*finest).unflatten(1, (finest[0] // patch, finest[1] // patch)).movedim(-1, 1)
    grid = (height // patch, width // patch)
    spread = functional.interpolate(whole.float(), grid, mode="bilinear", align_corners=False)
    change = spread.flatten(2).transpose(1, 2) - embed.cropped_pos_embed(height, width).float()
    return (output + change).to(output.dtype)


_ADAPTERS: dict[str, type[DiTAdapter]] = {adapter.class_name: adapter for adapter in (_Sana, _SD3)}


def find_dit(settings: Mapping[str, Any]) -> DiTAdapter:
    """The adapter of a diffusion transformer.

    Args:
        settings: its configuration as diffusers writes it, with `_class_name`.

    Raises:
        ImportError: if diffusers cannot be imported.
        ValueError: if there is none for that class, or for settings that the class has not.
    """
    name = settings.get("_class_name")
    if name not in _ADAPTERS:
        raise ValueError(f"The diffusion transformer is a {name!r}, but this needs a {' or a '.join(_ADAPTERS)}.")
    return _ADAPTERS[name](settings)


def _transformer_class(name: str) -> Any:
    try:
        from diffusers.models import transformers
    except ImportError as error:
        raise ImportError(
            f"HieraQuery needs diffusers, which cannot be imported ({error}); run `pip install wallaroo-hf[hieraquery]`."
        ) from error
    return getattr(transformers, name)


def _defaults(dit_class: Any) -> dict[str, Any]:
    """The class's own settings."""
    parameters = inspect.signature(dit_class.__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
