"""What doors ask of the model, and transformers' `generate`: [`HieraQueryGenerationMixin`]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList

from ...common.kept_chats import KeptBatch
from ...common.navit_prefixes import NavitReader, behind_cache
from ...common.row_following import FollowedRow, check_chats, end_ids, following
from ...families.contract import Answer, DrawnImages, Follow, Listener, TextSettings
from ...families.prefixes import Prefixes
from .query_sampling import PROMPT_TENSORS, QueryGroup, QuerySession
from .query_settings import QuerySettings

__all__ = ["GENERATION_MODES", "HieraQueryGenerationMixin"]

GENERATION_MODES = ("text", "image", "auto")
_FOR_DRAWING = ("image_size", "num_inference_steps", "scheduler", "scales", "generator", "follow")
_NO_AUTO = (
    "A HieraQuery model was not trained to decide by itself when to draw; ask it for text alone (generation_mode='text'), "
    "or for a picture alone (generation_mode='image')."
)


class HieraQueryGenerationMixin(GenerationMixin):
    """Answers are the frozen language model's own; pictures are drawn from its queries."""

    mllm: Any
    codec: Any
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
            batch: the processor's tensors; see [`QueryGroup`].
            copies: images per row, side by side; prompts are read once.
            generators: of the noise: one for all, or one per image.
            follow: called with each step of each image; returning False ends the drawing.
            settings: see [`QuerySettings`]; None = the checkpoint's default.

        Returns:
            Pixels, decoded one by one so that equal latents are equal bytes; `native` is a list of latents `(C, h, w)`, or
            with `scales="all"` of a list of these for each image, coarse to fine, see
            [`~HieraQueryGenerationMixin.decode_scales`]. A drawing that was ended gives what its velocity pointed to.

        Raises:
            ValueError: for settings or tensors that cannot be.
        """
        return self.session(len(batch["input_ids"]) * copies, **settings).draw(batch, copies, generators, follow)

    def session(self, max_rows: int, **settings: Any) -> QuerySession:
        """A session of drawings that come and go.

        Args:
            max_rows: most images at once.
            settings: see [`QuerySettings`].

        Raises:
            ValueError: for settings that cannot be.
        """
        session = QuerySession(self, max_rows, settings)
        session.check_settings(settings)
        return session

    @torch.no_grad()
    def reconstruct(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Pictures `(3, H, W)` in [-1, 1] to their latents and back, one by one."""
        return [self.decode_latents(self.codec.encode_images(one[None].to(self.device)).mean[0]) for one in pixels]

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(C, h, w)` of one picture as pixels `(3, H, W)`, float32 in [-1, 1]."""
        pixels: torch.Tensor = self.codec.decode_latents(latents[None])[0].float()
        return pixels

    def decode_scales(self, native: Sequence[Sequence[torch.Tensor]]) -> list[list[torch.Tensor]]:
        """Pictures of all scales.

        Args:
            native: of what was drawn with `scales="all"`.

        Returns:
            For each image pixels `(3, h, w)`, coarse to fine.
        """
        return [[self.decode_latents(latents) for latents in image] for image in native]

    # ------------------------------------------------------------------------------------------------------ generate

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *,
        generation_mode: str | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""Answers (`generation_mode="text"`, the default) or draws (`"image"`).

        Args:
            inputs, generation_config, logits_processor, stopping_criteria: as in transformers.
            generation_mode: `"text"` is the language model's own `generate`, with all that it can; `"image"` draws.
            kwargs: the processor's tensors, and arguments of transformers; to draw, settings of [`QuerySettings`],
                `generator` (one for all or one per image), `num_return_sequences` (images per row) and `follow`.

        Returns:
            Text mode: as transformers. Image mode: `native` of [`~HieraQueryGenerationMixin.draw`].

        Raises:
            ValueError: for modes and arguments that cannot work; one sentence each.
        """
        if generation_mode not in (None, *GENERATION_MODES):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        if generation_mode == "auto":
            raise ValueError(_NO_AUTO)
        if inputs is not None:
            kwargs["input_ids"] = inputs
        of_text = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        of_text = {name: value for name, value in of_text.items() if value is not None}
        if generation_mode == "image":
            return self._draw_as_asked(generation_config, kwargs | of_text)
        for name in _FOR_DRAWING:
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"`{name}` is for drawing; pass generation_mode='image' with it.")
        self.mllm.generation_config = self.generation_config  # the folder's
        kwargs = behind_cache(NavitReader(self.mllm.model), kwargs.get("input_ids"), kwargs)
        return self.mllm.generate(generation_config=generation_config, **kwargs, **of_text)

    def _draw_as_asked(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> Any:
        """Image mode: tensors apart from settings, those of the generation config where none are given."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        batch = {name: given.pop(name) for name in PROMPT_TENSORS if name in given}
        generator, follow = given.pop("generator", None), given.pop("follow", None)
        copies = given.pop("num_return_sequences", 1)
        settings = QuerySettings.read(given, generation_config or self.generation_config)
        group = QueryGroup(self, batch, copies, generator, settings, follow)
        while group.advance():
            pass
        return group.native(None)

    @torch.no_grad()
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
        """Answers the chats of a batch.

        Text is chosen by [`wallaroo_hf.common.seeded_text.SeededChoice`], so that a seed gives the same answer alone or in
        any batch.

        Args:
            batch: the processor's tensors for text, on the model's device.
            mode: "text"; "auto" is refused.
            follow: hears what comes.
            generators: one per row; None needs `text.temperature` 0.
            max_new_tokens: one per row.
            text: how text is sampled.
            drawing: settings of drawings, which are only checked.
            prefixes: what was read of each chat before, one per row; None = nothing is kept.

        Raises:
            ValueError: for settings or tensors that cannot be, and for chats in which it may draw.
        """
        if mode == "auto":
            raise ValueError(_NO_AUTO)
        QuerySettings.read(drawing, self.generation_config)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        check_chats(len(lengths), generators, max_new_tokens, text)
        ends = end_ids(self)
        rows = [
            FollowedRow(follow, row, ends, (), length, budget)
            for row, (length, budget) in enumerate(zip(lengths, max_new_tokens, strict=True))
        ]
        sampled = generators if text.temperature > 0 else None
        static = self.generation_config.cache_implementation is not None
        kept = KeptBatch(NavitReader(self.mllm.model), batch, prefixes, rows, static)
        said = following(rows, sampled, text)
        kept.keep(self.generate(generation_mode="text", **kept.inputs, do_sample=False, **said))
        return [row.answer for row in rows]
