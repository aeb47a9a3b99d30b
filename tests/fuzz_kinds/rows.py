"""Records that are trained on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from golden import GoldenSet
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.data.record_formats import FORMATS, adapt_row
from wallaroo_hf.training.data.training_rows import check_row

from .kind import Kind, attempt
from .made_up import quieted, some_chat, some_image, some_junk, some_side, some_words


class Rows(Kind):
    """Records of all formats, often with something wrong."""

    def __init__(self, golden: GoldenSet, folder: Path) -> None:
        super().__init__(golden, folder)
        self.collator = WallarooDataCollator(self.processor, unconditional_rate=0.1)

    def round(self, rng: random.Random) -> None:
        """Records of all formats, as they are read, checked and laid out."""
        record = _record(rng)
        row = attempt(adapt_row, record, rng.choice(("auto", "auto", "auto", *FORMATS)))
        task = attempt(check_row, row)
        number = rng.randint(0, 99)
        encoded = attempt(self.collator.encode, {**row, "draw": number})
        assert len(encoded["input_ids"]) == len(encoded["labels"]) and any(
            label != -100 for label in encoded["labels"]
        )
        quiet = {**row, "messages": quieted(row["messages"])}
        assert check_row(quiet) == task
        plain = self.collator.encode({**quiet, "draw": number})
        assert self.counts(encoded["input_ids"]) == self.counts(plain["input_ids"]), record


def _record(rng: random.Random) -> dict[str, Any]:
    """A record of some format, often with something wrong."""
    images = [some_image(rng) for _ in range(rng.randint(0, 2))]
    marks = "<image>" * len(images) if rng.random() < 0.8 else ""
    said, answer = f"{marks}{some_words(rng)}", some_words(rng)
    parts = [{"type": "image"} for _ in images] + [
        {"type": "text", "text": some_words(rng)},
        {"type": "text", "text": answer},
    ]
    drawn = (
        [{"type": "text", "text": some_words(rng)}, {"type": "image"}] if rng.random() < 0.5 else [{"type": "image"}]
    )
    size = {"height": 32, "width": 48} if rng.random() < 0.7 else {"height": some_side(rng), "width": some_side(rng)}
    record: dict[str, Any] = rng.choice(
        (
            {"messages": [_turn("user", parts), _turn("assistant", answer)], "images": images},
            {
                "messages": [_turn("user", parts), _turn("assistant", drawn)],
                "images": [*images, some_image(rng)],
                **size,
            },
            {"messages": [_turn("user", said), _turn("assistant", answer)], "images": images, "task": "interleaved"},
            {"messages": [_turn("system", said), *some_chat(rng)], "images": images},
            {
                "conversations": [_value("human", said), _value("gpt", answer)],
                "images": images,
                "system": some_words(rng),
            },
            {"conversations": [_value(some_words(rng), said), _value("gpt", answer)], "image": images},
            {"path": some_image(rng), "prompt": said},
            {"instruction": said, "input_images": images, "output_image": some_image(rng), "task_type": "edit"},
            {"image": some_image(rng), "caption": said, **size},
            {"source": some_image(rng), "instruction": said, "target": some_image(rng)},
            {"question": said, "answer": answer, "image": images},
        )
    )
    if rng.random() < 0.2:
        record[rng.choice([*record, "task", "name", "image_tokens", "source_latents", some_words(rng)])] = some_junk(
            rng, 2
        )
    return record


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _value(speaker: str, text: str) -> dict[str, Any]:
    return {"from": speaker, "value": text}
