"""What doors ask of the model, family by family in the same words: [`DoorsMixin`]."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from ..families.contract import Answer, DrawnImages, Follow, Listener, TextSettings
from ..families.prefixes import Prefixes
from .answering import converse
from .session import ImageSession

__all__ = ["DoorsMixin"]


class DoorsMixin:
    """Wallaroo's side of [`wallaroo_hf.families.contract.DrawingModel`]."""

    vq_model: Any

    def draw(
        self,
        batch: Mapping[str, Any],
        *,
        copies: int = 1,
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        follow: Follow | None = None,
        **settings: Any,
    ) -> DrawnImages:
        """Draws what the processor prepared with `generation_mode="image"`: `generate`, pixels and progress in one.

        Args:
            batch: the processor's tensors, on the model's device.
            copies: images per row, side by side.
            generators: one for all, or one per image; see [`wallaroo_hf.generation.sampling.GumbelNoise`].
            follow: called with each row of each image when it is complete; returning False ends the drawing.
            settings: `guidance_scale`, `source_guidance_scale`, `guidance_min_p`, `temperature` (0 takes the likeliest
                codes), `top_k`, `top_p`, `do_sample`, `window`, `null_prompt_cache`, `published_eval`; see `generate`.
                None = the checkpoint's default.

        Returns:
            Pixels, decoded one by one so that equal codes are equal bytes; `native` are the ids of `generate`.

        Raises:
            ValueError: see `generate`.
        """
        return self.session(len(batch["input_ids"]) * copies, **settings).draw(batch, copies, generators, follow)

    def session(self, max_rows: int, **settings: Any) -> ImageSession:
        """A session of drawings that come and go.

        Args:
            max_rows: most images at once.
            settings: see [`~DoorsMixin.draw`].
        """
        return ImageSession(self, max_rows, settings)

    @torch.no_grad()
    def reconstruct(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Pictures `(3, H, W)` in [-1, 1], with edges of whole codes, through the image tokenizer and back, one by one."""
        return [self.vq_model.decode(self.vq_model.encode(one[None]).image_tokens)[0] for one in pixels]

    def converse(
        self,
        batch: Mapping[str, Any],
        *,
        mode: Literal["text", "auto"],
        follow: Listener,
        generators: Sequence[torch.Generator] | None,
        max_new_tokens: Sequence[int],
        text: TextSettings,
        drawing: Mapping[str, Any],
        prefixes: Sequence[Prefixes | None] | None = None,
    ) -> list[Answer]:
        """Answers the chats of a batch; in the mode "auto" it may draw.

        Args:
            batch: the processor's tensors for this mode, on the model's device.
            mode: as the batch was prepared.
            follow: hears what comes.
            generators: one per row, of text and images; None needs `text.temperature` 0.
            max_new_tokens: of text, one per row.
            text: how text is sampled.
            drawing: settings of images, see [`~DoorsMixin.draw`].
            prefixes: what was read of each chat before, one per row; None = nothing is kept.

        Raises:
            ValueError: for settings or tensors that cannot be; see `generate`.
        """
        return converse(self, batch, mode, follow, generators, max_new_tokens, text, drawing, prefixes)
