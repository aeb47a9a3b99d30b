"""What doors ask of the model, and `generate(generation_mode="image")`: [`ShowO2DoorsMixin`]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...families.contract import DrawnImages, Follow
from .flow_drawing import FlowGroup, FlowSession, FlowSettings, ShowO2DrawingOutput

__all__ = ["ShowO2DoorsMixin"]


class ShowO2DoorsMixin:
    """Drawing as [`wallaroo_hf.families.contract.DrawingModel`] has it."""

    vae: Any
    generation_config: Any

    def draw(
        self,
        batch: Mapping[str, Any],
        *,
        copies: int = 1,
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        follow: Follow | None = None,
        **settings: Any,
    ) -> DrawnImages:
        """Draws what the processor prepared with `generation_mode="image"`.

        Args:
            batch: the processor's tensors; see [`FlowGroup`].
            copies: images per row, side by side; prompts are read once.
            generators: of the noise: one for all, or one per image.
            follow: called with each step of each image; returning False ends the drawing.
            settings: see [`FlowSettings`]; None = the checkpoint's default.

        Returns:
            Pixels, decoded one by one so that equal latents are equal bytes; `native` is a list of latents `(C, h, w)`. A
            drawing that was ended gives what its velocity pointed to.

        Raises:
            ValueError: for settings or tensors that cannot be.
        """
        return self.session(len(batch["input_ids"]) * copies, **settings).draw(batch, copies, generators, follow)

    def session(self, max_rows: int, **settings: Any) -> FlowSession:
        """A session of drawings that come and go.

        Args:
            max_rows: most images at once.
            settings: see [`FlowSettings`].

        Raises:
            ValueError: for settings that cannot be.
        """
        session = FlowSession(self, max_rows, settings)
        session.check_settings(settings)
        return session

    @torch.no_grad()
    def reconstruct(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Pictures `(3, H, W)` in [-1, 1] to the means of their latents and back, one by one."""
        means = (self.vae.encode_images(one[None].to(self.device)).mean for one in pixels)  # type: ignore[attr-defined]
        return [self.vae.decode_latents(mean)[0] for mean in means]

    def generate_images(
        self,
        batch: Mapping[str, Any],
        *,
        noise: Sequence[torch.Tensor] | None = None,
        generator: Sequence[torch.Generator] | torch.Generator | None = None,
        num_return_sequences: int = 1,
        return_dict_in_generate: bool = False,
        follow: Follow | None = None,
        **settings: Any,
    ) -> list[torch.Tensor] | ShowO2DrawingOutput:
        """What `generate(generation_mode="image")` does.

        Args:
            batch: `input_ids`, `attention_mask`, left-padded, ending with the token that opens an image, and what else
                [`FlowGroup`] takes.
            noise: one latent `(C, h, w)` per image, where it is not to be drawn.
            generator: of the noise, one for all or one per image.
            num_return_sequences: images per row, side by side.
            return_dict_in_generate: also every step's latents and velocities.
            follow: called with each step of each image; returning False ends the drawing.
            settings: see [`FlowSettings`].

        Returns:
            Latents `(C, h, w)`, float32, one per image; or [`ShowO2DrawingOutput`].

        Raises:
            ValueError: for settings or tensors that cannot be.
        """
        chosen = FlowSettings.read(settings, self.generation_config)
        group = FlowGroup(self, batch, num_return_sequences, generator, chosen, follow, noise)
        images = range(group.count)
        trajectory, velocities = [group.native(None)], []
        while not group.is_over:
            group.advance()
            if return_dict_in_generate:
                trajectory.append(group.native(None))
                velocities.append([group.velocity(image) for image in images])
        if not return_dict_in_generate:
            return group.native(None)
        return ShowO2DrawingOutput(latents=group.native(None), trajectory=trajectory, velocities=velocities)
