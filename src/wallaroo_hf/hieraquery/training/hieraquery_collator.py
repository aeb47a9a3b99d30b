"""Rows to batches: prompts as they are drawn from, pictures or what was encoded of them, and the seeds of their noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...common.chat_form import expand_vision
from ...common.padded_rows import pad_rows
from ...training.data.row_parts import RowParts, only_draws
from ...training.data.training_rows import RowError
from ...training.row_collator import RowCollator
from .drawn_rows import RowSizes, prompt_patches
from .hieraquery_stages import HieraQueryStage

__all__ = ["HieraQueryDataCollator"]

_MOST_SEEDS = 2**62
# Of each row, in lists; None where there is no such thing.
PICTURE_ITEMS = (
    "target_pixels",
    "target_latents",
    "vision_features",
    "shown_patches",
    "shown_features",
    "noise_seeds",
)


class HieraQueryDataCollator(RowCollator):
    """Turns rows (docs/data.md) that draw into a batch for HieraQuery, of which [`HieraQueryKit.prepare`] makes latents.

    The prompt is that from which is drawn: one turn of the user, with the picture that is edited in it, up to where the
    answer begins. Of drawing rows, as many as the stage says become reconstructions.

    All random choices of a row, the seed of its noise among them, follow from `seed` and the row's `ordinal`: see
    [`RowCollator`].

    Args:
        processor: the checkpoint's.
        stage: whose settings count: see [`HieraQueryStage`].
        max_length: longest prompt in tokens; None = no limit.
        on_error: `"raise"` or `"skip"`.
        seed: of the random choices.
    """

    def __init__(
        self,
        processor: Any,
        stage: HieraQueryStage,
        *,
        max_length: int | None = None,
        on_error: str = "raise",
        seed: int = 0,
    ) -> None:
        super().__init__(processor, max_length=max_length, on_error=on_error, seed=seed)
        self.stage = stage
        self.sizes = RowSizes(processor)
        self.image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)

    # ------------------------------------------------------------------------------------------------------- one row

    def _lay_out(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        if not only_draws(parts) or len(parts.messages) > 2:
            raise RowError(
                "HieraQuery is trained on rows of one request, with at most one picture, and one picture in answer.",
                "unsupported_task",
            )
        words = "".join(part["text"] for part in parts.messages[0]["content"] if part["type"] == "text").strip()
        is_shown = bool(parts.shown)
        rate = 0.0 if is_shown else self.stage.reconstruction_rate
        if rate and (rng is None or rng.random() < rate):
            words, is_shown = self.stage.reconstruction_prompt, True
        made = self._pictures(row, parts, is_shown)
        rendered = self.processor.prompt_to_draw(words, is_shown)
        text = expand_vision(rendered, [made.pop("shown_tokens")] if is_shown else [])
        ids = list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        laid = {"input_ids": ids, "labels": [-100] * len(ids)}
        return laid if rng is None else {**laid, **made, "noise_seeds": int(rng.integers(_MOST_SEEDS))}

    def _pictures(self, row: Mapping[str, Any], parts: RowParts, is_shown: bool) -> dict[str, Any]:
        """What is learned to be drawn and, if one is shown, what is read of that, with its number of tokens."""
        merge = self.processor.image_processor.merge_size
        if parts.scales is not None:
            seen = _array(row["prompt_features"][0])
            made: dict[str, Any] = {
                "target_latents": [_array(one) for one in parts.scales],
                "vision_features": _array(row["vision_features"][0]),
            }
            if is_shown:
                made |= {"shown_features": seen, "shown_tokens": seen.shape[0] * seen.shape[1]}
            return made
        height, width = self.sizes.size(row, parts.drawn[0])
        read = self.processor.image_processor
        made = {"target_pixels": torch.from_numpy(read.to_pixels(parts.drawn[0], height, width))}
        if is_shown:
            source = read.fit_to_size((parts.shown or parts.drawn)[0], height, width, "crop")
            patches = torch.from_numpy(prompt_patches(read, source))
            made |= {"shown_patches": patches, "shown_tokens": patches.shape[0] * patches.shape[1] // merge**2}
        return made

    # ------------------------------------------------------------------------------------------------------ the batch

    def _batch(self, encoded: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [{"input_ids": row["input_ids"]} for row in encoded]
        padded = pad_rows(self.processor.tokenizer.pad_token_id, rows, {"padding": True, "padding_side": "left"})
        batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in padded.items()}
        batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_id).long()
        batch |= {name: [row.get(name) for row in encoded] for name in PICTURE_ITEMS}
        batch["is_learned"] = [seed is not None for seed in batch["noise_seeds"]]
        return batch


def _array(values: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
