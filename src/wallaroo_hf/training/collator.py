"""Rows to batches, through the processor: the layouts, sizes and random choices of the released training code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..layout.prompt_texts import prompt_language
from ..processing.processor import WallarooProcessor
from ..processing.refused_words import refuse_special_tokens, refused_tokens
from ..processing.token_rows import pad
from .data.row_parts import Numbered, RowParts, only_draws
from .row_collator import RowCollator
from .stages import Stage

__all__ = ["Numbered", "WallarooDataCollator"]

# What the vision tower sees, row by row.
SEEN = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
RAGGED = ("source_pixel_values", "source_latents", "source_mask", "target_pixel_values", "target_image_tokens")


class WallarooDataCollator(RowCollator):
    """Turns rows (docs/data.md) into a batch for `WallarooForConditionalGeneration.forward`.

    Understanding rows are chats; a row whose last answer is one image draws it (or edits the images in the user's turn);
    a row in which the assistant speaks and draws is interleaved. All kinds can be in one batch. Drawing rows get a random
    template of their language; some become a null prompt (no words, black source); a share of each source is masked.

    The random choices of a row follow from `seed` and the row's `ordinal` (its number in the order of training, which
    `TaskMixture` and [`Numbered`] give), so they are the same however rows are split over processes and workers, and after
    a resume. Rows without it take torch's global generator.

    Args:
        processor: the checkpoint's.
        max_length: longest row in tokens; None = no limit.
        unconditional_rate: share of drawing rows that become a null prompt.
        source_mask_rate: share of a source's latents that are replaced; `int(n * (1 - rate))` of n are kept.
        pixel_limits: areas in pixels between which NaViT sees an image (`shortest_edge`, `longest_edge`); None = the
            processor's.
        random_templates: False = always the first template.
        pad_to_multiple_of: pad rows to a multiple of this length.
        on_error: what to do with a row that is broken or too long: `"raise"`, or `"skip"`: it is left out, named in a
            warning and counted, in the batch and (by this process) in `skipped`. Rows are never cut.
        seed: of the random choices.

    Raises:
        ValueError: for another `on_error`.
    """

    takes_videos = True

    def __init__(
        self,
        processor: WallarooProcessor,
        *,
        max_length: int | None = None,
        unconditional_rate: float = 0.1,
        source_mask_rate: float = 0.6,
        pixel_limits: Mapping[str, int] | None = None,
        random_templates: bool = True,
        pad_to_multiple_of: int | None = None,
        on_error: str = "raise",
        seed: int = 0,
    ) -> None:
        super().__init__(processor, max_length=max_length, on_error=on_error, seed=seed)
        self.unconditional_rate = unconditional_rate
        self.source_mask_rate = source_mask_rate
        self.pixel_limits = None if pixel_limits is None else dict(pixel_limits)
        self.random_templates = random_templates
        self.pad_to_multiple_of = pad_to_multiple_of

    @classmethod
    def for_stage(cls, processor: WallarooProcessor, stage: Stage, **kwargs: Any) -> "WallarooDataCollator":
        """A collator with the settings of a stage; `kwargs` are this class's other arguments."""
        settings = {
            "max_length": stage.max_length,
            "unconditional_rate": stage.unconditional_rate,
            "source_mask_rate": stage.source_mask_rate,
            "pixel_limits": stage.pixel_limits,
        }
        return cls(processor, **{**settings, **kwargs})

    # ------------------------------------------------------------------------------------------------------- one row

    def _lay_out(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        """One row; without `rng` as it is longest, with the longest template of its language."""
        if parts.videos and (parts.drawn or row.get("task") == "interleaved"):
            raise ValueError("nothing is drawn from a video; leave the video or the drawing out.")
        if not parts.drawn and row.get("task") != "interleaved":
            return self._answer(parts)
        if only_draws(parts, max_sources=None) and row.get("task") != "interleaved":
            return self._drawing(row, parts, rng)
        return self._interleaved(row, parts, rng)

    def _process(self, **kwargs: Any) -> dict[str, Any]:
        if self.pixel_limits is not None:
            kwargs["images_kwargs"] = {"size": self.pixel_limits}
        data = self.processor(return_labels=True, **kwargs).data
        encoded = {name: data[name] for name in data if name in (*SEEN, *RAGGED)}
        return encoded | {"input_ids": data["input_ids"][0], "labels": data["labels"][0]}

    def _answer(self, parts: RowParts) -> dict[str, Any]:
        return self._process(
            text=[self._render(parts.messages)],
            images=parts.shown or None,
            videos=parts.videos or None,
            generation_mode="text",
        )

    def _drawing(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        request = parts.messages[-2]
        prompt = "".join(item["text"] for item in request["content"] if item["type"] == "text").strip()
        # here already: the processor would take some for a rendered chat
        refuse_special_tokens("prompt", prompt, refused_tokens(self.processor.tokenizer))
        task = "editing" if parts.shown else "generation"
        templates = self.processor.prompt_templates[task][prompt_language(prompt)]
        if not self.random_templates:
            template = templates[0]
        else:
            template = self._longest(templates) if rng is None else templates[int(rng.integers(len(templates)))]
        sources = list(parts.shown)
        text, latents = prompt, parts.latents
        if len(parts.messages) > 2:  # with its history
            text = self._render(parts.messages[:-1])
        if rng is not None and rng.random() < self.unconditional_rate:
            text, latents = "", None
            sources = [Image.new("RGB", source.size) for source in sources]
        encoded = self._process(
            text=[text],
            images=[sources],
            target_images=parts.drawn,
            height=row.get("height"),
            width=row.get("width"),
            prompt_template=template,
            generation_mode="image",
        )
        return self._with_latents(encoded, latents, rng)

    def _interleaved(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        encoded = self._process(
            text=[self._render(parts.messages)],
            images=parts.shown or None,
            target_images=[parts.drawn],
            height=row.get("height"),
            width=row.get("width"),
            generation_mode="auto",
        )
        return self._with_latents(encoded, parts.latents, rng)

    def _with_latents(
        self, encoded: dict[str, Any], latents: list[Any] | None, rng: np.random.Generator | None
    ) -> dict[str, Any]:
        """Encoded sources in place of their pixels, and the mask of each source."""
        sources = encoded.get("source_pixel_values")
        if not sources or rng is None:
            return encoded
        factor = self.processor.image_token_size
        grids = [(source.shape[1] // factor, source.shape[2] // factor) for source in sources]
        encoded["source_latents"] = [None] * len(sources)
        if latents is not None:
            arrays = [np.asarray(latent, dtype=np.float32) for latent in latents]
            if [array.shape[:2] for array in arrays] != grids:
                raise ValueError(
                    f"`source_latents` have shapes {[array.shape for array in arrays]}, but the sources are drawn on "
                    f"{grids} (rows, cols); encode the rows again (`wallaroo encode`)."
                )
            encoded["source_latents"] = arrays
            encoded["source_pixel_values"] = []
        encoded["source_mask"] = [self._mask(rows * cols, rng) for rows, cols in grids]
        return encoded

    def _longest(self, templates: list[str]) -> str:
        """The template with the most tokens."""
        return max(templates, key=lambda template: len(self.processor.tokenizer(template)["input_ids"]))

    def _mask(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Which latents are replaced: all but `int(count * (1 - rate))` random ones (released `random_masking`)."""
        mask = np.zeros(count, dtype=bool)
        mask[rng.permutation(count)[int(count * (1 - self.source_mask_rate)) :]] = True
        return mask

    def _render(self, messages: list[dict[str, Any]]) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False)

    # ------------------------------------------------------------------------------------------------------ the batch

    def _batch(self, encoded: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in encoded]
        options = {"padding": True, "padding_side": "right", "pad_to_multiple_of": self.pad_to_multiple_of}
        batch: dict[str, Any] = {
            name: torch.from_numpy(array) for name, array in pad(self.processor.tokenizer, rows, options).items()
        }
        for name in SEEN:
            arrays = [row[name] for row in encoded if name in row]
            if arrays:
                batch[name] = torch.from_numpy(np.concatenate([np.asarray(array) for array in arrays]))
        for row in encoded:  # beside rows with codes, those with pixels leave theirs open
            row.setdefault("target_image_tokens", [None] * len(row.get("target_pixel_values", ())))
        for name in RAGGED:
            items = [item for row in encoded for item in row.get(name, ())]
            if any(item is not None for item in items):
                batch[name] = [None if item is None else torch.from_numpy(np.asarray(item)) for item in items]
        return batch
