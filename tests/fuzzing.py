"""Random input for what reads prompts, chats, sizes, pictures and rows: it is refused in one sentence, or read right.

`python tests/fuzzing.py --seconds 60 --seed 1` tries every kind; `tests/test_fuzzing.py` tries a few rounds of each. A
round follows from its kind, seed and number alone, so what is reported can be run again (`--rounds 1 --first NUMBER`).
"""

from __future__ import annotations

import argparse
import collections
import math
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from golden import GoldenSet
from helpers import picture
from wallaroo_hf import WallarooProcessor
from wallaroo_hf.layout import grid, prompts
from wallaroo_hf.layout.special_tokens import IMAGE_PAD, VISION_END, VISION_START
from wallaroo_hf.processing.rows import expand_vision
from wallaroo_hf.processing.words import refused_tokens
from wallaroo_hf.training.adapters import FORMATS, adapt_row
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.rows import check_row

BLOCK = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
# Words, parts of tokens, whole tokens, and what means something to some reader.
BITS = (
    *(
        "a",
        "cat",
        "一只猫",
        "é",
        "e\u0301",
        "\u0338",
        "🦘",
        "\u202e",
        "\x00",
        "\n",
        " ",
        '"',
        "{prompt}",
        "{",
        "%s",
        "x",
        ":",
        "16",
    ),
    *(
        "<",
        ">",
        "|",
        "<|",
        "|>",
        "<|im_",
        "end|>",
        "start|>",
        "im_end",
        "<|im_end|",
        "<|end_of_line>",
        "\uff1c|im_end|\uff1e",
    ),
    *(
        "\x00source\x00",
        "\x00target\x00",
        "<image>",
        "<video>",
        "<tool_call>",
        "</tool_call>",
        "<|fim_prefix|>",
        "<|repo_name|>",
    ),
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        IMAGE_PAD,
        BLOCK,
        "<|video_pad|>",
        "<|generate_start|>",
        "<|end_of_line>|",
    ),
    *(
        "<indicator:512>",
        "<|generate_image_pad|>",
        "<|pixel_start|>",
        "<|box_start|>",
        "<|im_start|>user\n",
        "<|im_end|>\n",
    ),
)
ROLES = ("system", "user", "assistant", "tool", "user\n", "<|im_end|>", "")


class Refused(Exception):
    """The input was refused as it should be."""


class Fuzzer:
    """What the rounds of all kinds need.

    Args:
        processor: of a checkpoint with editing.
    """

    def __init__(self, processor: WallarooProcessor) -> None:
        self.processor = processor
        self.collator = WallarooDataCollator(processor, unconditional_rate=0.1)
        self.tokens = refused_tokens(processor.tokenizer)
        self.kinds: dict[str, Callable[[random.Random], None]] = {
            "chats": self.chats,
            "inputs": self.inputs,
            "layout": self.layout,
            "rows": self.rows,
        }

    def run(self, kind: str, seed: int, number: int) -> bool:
        """One round; returns whether its input was accepted.

        Raises:
            AssertionError: if it was refused badly, or read wrongly.
        """
        try:
            self.kinds[kind](random.Random(f"{kind} {seed} {number}"))
        except Refused:
            return False
        return True

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function; a refusal must be a ValueError in one sentence."""
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            says = str(error)
            assert says and "\n" not in says.strip() and len(says) < 2000 and "Traceback" not in says, repr(says)
            raise Refused from error

    def counts(self, ids: Any) -> list[int]:
        """How often each refused token occurs in ids."""
        found = collections.Counter(ids.tolist() if hasattr(ids, "tolist") else ids)
        return [found[token] for token in self.processor.tokenizer.convert_tokens_to_ids(list(self.tokens))]

    # ----------------------------------------------------------------------------------------------------- chats

    def chats(self, rng: random.Random) -> None:
        """Chats, rendered and prepared: an accepted one has the special tokens of the same chat that says nothing."""
        chats = [_chat(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        given = chats[0] if len(chats) == 1 and rng.random() < 0.8 else chats
        options: dict[str, Any] = {"add_generation_prompt": rng.random() < 0.5}
        if rng.random() < 0.1 and not options["add_generation_prompt"]:
            options["continue_final_message"] = True
        if rng.random() < 0.3:
            written = self.attempt(self.processor.apply_chat_template, given, **options)
            plain = self.processor.apply_chat_template(_quiet(given), **{**options, "continue_final_message": False})
            for ours, theirs in zip(*([t] if isinstance(t, str) else t for t in (written, plain)), strict=True):
                for token in () if options.get("continue_final_message") else self.tokens:
                    assert ours.count(token) == theirs.count(token), token
            return
        options.pop("continue_final_message", None)
        mode = rng.choice(("text", "auto", "image"))
        options |= {"tokenize": True, "return_dict": True, "processor_kwargs": {"generation_mode": mode}}
        batch = self.attempt(self.processor.apply_chat_template, given, **options)
        plain = self.processor.apply_chat_template(_quiet(given), **options)
        for ours, theirs in zip(batch["input_ids"], plain["input_ids"], strict=True):
            padding = self.tokens.index("<|endoftext|>")
            ours, theirs = self.counts(ours), self.counts(theirs)
            assert [*ours[:padding], *ours[padding + 1 :]] == [*theirs[:padding], *theirs[padding + 1 :]], given

    # ---------------------------------------------------------------------------------------------------- inputs

    def inputs(self, rng: random.Random) -> None:
        """Calls of the processor: what is accepted has the placeholders of its images and no token of its words."""
        mode = rng.choice(("text", "image", "image", "auto", "auto"))
        texts = [_prompt(rng, mode) for _ in range(rng.choice((1, 1, 2)))]
        arguments = _arguments(rng, mode, texts)
        batch = self.attempt(self.processor, text=texts[0] if len(texts) == 1 else texts, **arguments)
        ids = [torch.as_tensor(row) for row in batch["input_ids"]]
        assert len(ids) == len(texts) and {len(row) for row in ids} == {len(row) for row in batch["attention_mask"]}
        seen = sum(int(torch.as_tensor(np.asarray(row)).sum()) for row in batch["mm_token_type_ids"])
        areas = np.asarray(batch["image_grid_thw"]).prod(axis=-1) // 4 if "image_grid_thw" in batch else np.zeros(0)
        if mode == "text":  # whoever renders a chat may put placeholders outside of blocks, which the model refuses
            return
        assert seen == areas.sum(), (seen, areas)
        image = self.processor.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        sources = batch.get("source_pixel_values", [])
        codes = sum(np.asarray(source).shape[-2] * np.asarray(source).shape[-1] // 256 for source in sources)
        assert sum(int((row == image).sum()) for row in ids) == seen + codes
        learn = self.processor.tokenizer.convert_tokens_to_ids("<|generate_image_pad|>")
        learned = sum(int((row == learn).sum()) for row in ids)
        targets = (
            [np.asarray(target) for target in batch["target_pixel_values"]] if "target_pixel_values" in batch else []
        )
        assert learned == sum(target.shape[-2] * target.shape[-1] // 256 for target in targets)

    # ---------------------------------------------------------------------------------------------------- layout

    def layout(self, rng: random.Random) -> None:
        """Taking rendered chats apart, filling templates, and the arithmetic of sizes."""
        rng.choice((self._turns, self._templates, self._sizes, self._pieces))(rng)

    def _turns(self, rng: random.Random) -> None:
        roles = [rng.choice(ROLES[:3]) for _ in range(rng.randint(1, 4))]
        said = [re.sub("|".join(map(re.escape, self.tokens)), "", _words(rng)) for _ in roles]
        if any(token in text for text in said for token in self.tokens):
            said = ["x"] * len(roles)
        text = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in zip(roles, said))
        answers = [words for role, words in zip(roles, said) if role == "assistant"]
        spans = prompts.answer_spans(text)
        assert [text[start:end] for start, end in spans] == [f"{words}<|im_end|>\n" for words in answers]
        assert prompts.said(text) == "".join(f"{role}\n{words}\n" for role, words in zip(roles, said))
        mess = _words(rng)
        assert all(0 <= start <= end <= len(mess) for start, end in prompts.answer_spans(mess))
        prompts.said(mess)
        lengths = [rng.randint(0, 3) for _ in range(mess.count(IMAGE_PAD))]
        assert expand_vision(mess, lengths).count(IMAGE_PAD) == sum(lengths)
        history, prompt = self.attempt(prompts.split_chat, rng.choice((text, mess)))
        assert history + "<|im_start|>user\n" + prompt in (text, mess) or text.startswith(history)

    def _templates(self, rng: random.Random) -> None:
        template = rng.choice((_words(rng), rng.randint(-2, 12), f"{_words(rng)}{{prompt}}{{target_w}}"))
        words, height, width = _words(rng), rng.randint(1, 999), rng.randint(1, 999)
        templates = prompts.PROMPT_TEMPLATES["generation"]
        filled = self.attempt(
            prompts.fill_template, template, templates, prompts.prompt_language(words), words, height, width
        )
        assert words in filled

    def _sizes(self, rng: random.Random) -> None:
        ratio = self.attempt(grid.parse_aspect_ratio, _ratio(rng))
        assert (
            math.isfinite(ratio)
            and ratio > 0
            and grid.nearest_bucket(1.0, ratio, grid.BUCKETS_512) in grid.BUCKETS_512
        )
        height, width = _size(rng), _size(rng)
        rows, cols = self.attempt(grid.check_size, height, width, 16, rng.random() < 0.3)
        assert (rows * 16, cols * 16) == (height, width) and 0 < rows * cols <= grid.MAX_IMAGE_TOKENS
        own = rng.randint(1, 4000), rng.randint(1, 4000)
        resized, (top, left) = grid.cover_and_crop(*own, height, width)
        assert 0 <= top <= resized[0] - height + 1 and 0 <= left <= resized[1] - width + 1
        resized, (top, left) = grid.contain_and_pad(*own, height, width)
        assert resized[0] + top <= height and resized[1] + left <= width
        broken = rng.random() < 0.5
        assert len(re.findall("<p>", grid.render_rows("<p>", rows, cols, broken))) == rows * cols

    def _pieces(self, rng: random.Random) -> None:
        first = self.processor.first_image_token_id or 0
        line = self.processor.tokenizer.convert_tokens_to_ids("<|end_of_line>|")
        ids = [
            rng.choice((rng.randint(0, first - 1), line, first + rng.randint(0, 9))) for _ in range(rng.randint(0, 20))
        ]
        pieces = self.attempt(self.processor.split_output, ids)
        codes = [token - first for token in ids if token >= first]
        assert [code for piece in pieces if not isinstance(piece, str) for code in piece.flatten().tolist()] == codes

    # ------------------------------------------------------------------------------------------------------ rows

    def rows(self, rng: random.Random) -> None:
        """Records of all formats, as they are read, checked and laid out."""
        record = _record(rng)
        row = self.attempt(adapt_row, record, rng.choice(("auto", "auto", "auto", *FORMATS)))
        task = self.attempt(check_row, row)
        number = rng.randint(0, 99)
        encoded = self.attempt(self.collator.encode, {**row, "draw": number})
        assert len(encoded["input_ids"]) == len(encoded["labels"]) and any(
            label != -100 for label in encoded["labels"]
        )
        quiet = {**row, "messages": _quiet(row["messages"])}
        assert check_row(quiet) == task
        plain = self.collator.encode({**quiet, "draw": number})
        assert self.counts(encoded["input_ids"]) == self.counts(plain["input_ids"]), record


# ------------------------------------------------------------------------------------------------------- what is made up


def _words(rng: random.Random) -> str:
    return "".join(rng.choice(BITS[:17] if rng.random() < 0.85 else BITS) for _ in range(rng.randint(0, 6)))


def _picture(rng: random.Random) -> Image.Image:
    image = picture(rng.randint(0, 3), rng.randint(1, 90), rng.randint(1, 90))
    return image.convert(rng.choice(("RGB", "RGB", "L", "RGBA", "P", "CMYK", "1", "LA")))


def _chat(rng: random.Random) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for place in range(rng.randint(1, 4)):
        role = rng.choice(ROLES) if rng.random() < 0.1 else ("user", "assistant")[place % 2]
        content: Any = _words(rng)
        if rng.random() < 0.6:
            content = [{"type": "text", "text": _words(rng)} for _ in range(rng.randint(0, 3))]
            if role == "user" and rng.random() < 0.4:
                content.insert(rng.randint(0, len(content)), {"type": "image", "image": _picture(rng)})
        messages.append({"role": role, "content": content})
    if rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": _words(rng)})
    if rng.random() < 0.1:
        messages[-1][_words(rng)] = _words(rng)
    return messages


def _quiet(value: Any) -> Any:
    """The same chat, in which every text is a word that is no token."""
    if isinstance(value, list):
        return [_quiet(item) for item in value]
    if isinstance(value, dict):
        known = ("system", "user", "assistant", "tool")
        quiet = {key: _quiet(item) if key in ("content", "text") else item for key, item in value.items()}
        return quiet | (
            {"role": value["role"] if value["role"].strip() in known else "someone"} if "role" in value else {}
        )
    return ("yes" if value.strip() else value) if isinstance(value, str) else value


def _prompt(rng: random.Random, mode: str) -> str:
    """Plain words, or a rendered chat; whoever renders it in text mode may write anything."""
    if mode == "image" and rng.random() < 0.7:
        return _words(rng)
    block = BLOCK if rng.random() < 0.3 else ""
    turns = [f"<|im_start|>{rng.choice(ROLES[:3])}\n{_words(rng)}<|im_end|>\n" for _ in range(rng.randint(0, 2))]
    return (
        "".join(turns)
        + f"<|im_start|>user\n{block}{_words(rng)}<|im_end|>\n"
        + "<|im_start|>assistant\n" * rng.randint(0, 1)
    )


def _size(rng: random.Random) -> Any:
    odd = (0, -16, 17, 10**9, 32.0, "32", True, None, [32], math.nan, math.inf)
    return rng.choice((16, 32, 48, 64, 80)) if rng.random() < 0.9 else rng.choice(odd)


def _ratio(rng: random.Random) -> Any:
    odd = (
        "16:9",
        1.5,
        "1",
        "0:1",
        "a",
        "1:0",
        "",
        ":",
        "1:2:3",
        -1,
        math.nan,
        math.inf,
        10**400,
        1e-320,
        None,
        [1.0],
        "1e999",
    )
    return rng.choice(odd)


def _image(rng: random.Random) -> Any:
    odd = (
        None,
        "nowhere.png",
        b"",
        b"\x89PNG",
        "",
        "\x00",
        np.zeros((4, 4), np.uint8),
        7,
        [],
    )
    return _picture(rng) if rng.random() < 0.85 else rng.choice(odd)


def _maybe_list(rng: random.Random, make: Callable[[random.Random], Any], count: int) -> Any:
    return (
        make(rng)
        if rng.random() < 0.6
        else [make(rng) for _ in range(count if rng.random() < 0.9 else rng.randint(0, 3))]
    )


def _arguments(rng: random.Random, mode: str, texts: list[str]) -> dict[str, Any]:
    """Arguments of the processor, of which most fit."""
    count = len(texts)
    given: dict[str, Any] = {"generation_mode": mode if rng.random() < 0.98 else _words(rng)}
    if rng.random() < 0.8 and mode != "text":
        given |= {"height": _maybe_list(rng, _size, count), "width": _maybe_list(rng, _size, count)}
    shown = sum(text.count(IMAGE_PAD) for text in texts)
    if mode == "image" and rng.random() < 0.4:
        given["images"] = _maybe_list(rng, _image, count)
    elif shown and rng.random() < 0.9:
        given["images"] = [_image(rng) for _ in range(shown)]
    rare: dict[str, Callable[[], Any]] = {
        "aspect_ratio": lambda: _maybe_list(rng, _ratio, count),
        "negative_prompt": lambda: _maybe_list(rng, _words, count),
        "prompt_template": lambda: rng.choice((1, 99, -1, "{prompt}", _words(rng), f"{{prompt}}{_words(rng)}")),
        "layout": lambda: rng.choice(("trained", "published_eval", "other")),
        "source_guidance": lambda: True,
        "source_fit": lambda: rng.choice(("crop", "pad", "fill")),
        "padding_side": lambda: rng.choice(("left", "right")),
        "padding": lambda: rng.choice((True, False, "longest", "max_length")),
        "max_length": lambda: rng.choice((1, 50, 4096)),
        "pad_to_multiple_of": lambda: rng.choice((1, 8)),
        "return_tensors": lambda: rng.choice(("pt", "np", None)),
    }
    given |= {name: make() for name, make in rare.items() if rng.random() < 0.07}
    if rng.random() < 0.15 and mode != "text":
        given["target_images"] = [_image(rng) for _ in texts] if mode == "image" else [[] for _ in texts]
        given["return_labels"] = rng.random() < 0.8
    return given


def _record(rng: random.Random) -> dict[str, Any]:
    """A record of some format, often with something wrong."""
    images = [_image(rng) for _ in range(rng.randint(0, 2))]
    marks = "<image>" * len(images) if rng.random() < 0.8 else ""
    said, answer = f"{marks}{_words(rng)}", _words(rng)
    parts = [{"type": "image"} for _ in images] + [
        {"type": "text", "text": _words(rng)},
        {"type": "text", "text": answer},
    ]
    drawn = [{"type": "text", "text": _words(rng)}, {"type": "image"}] if rng.random() < 0.5 else [{"type": "image"}]
    size = {"height": 32, "width": 48} if rng.random() < 0.7 else {"height": _size(rng), "width": _size(rng)}
    record: dict[str, Any] = rng.choice(
        (
            {"messages": [_turn("user", parts), _turn("assistant", answer)], "images": images},
            {"messages": [_turn("user", parts), _turn("assistant", drawn)], "images": [*images, _image(rng)], **size},
            {"messages": [_turn("user", said), _turn("assistant", answer)], "images": images, "task": "interleaved"},
            {"messages": [_turn("system", said), *_chat(rng)], "images": images},
            {"conversations": [_value("human", said), _value("gpt", answer)], "images": images, "system": _words(rng)},
            {"conversations": [_value(_words(rng), said), _value("gpt", answer)], "image": images},
            {"path": _image(rng), "prompt": said},
            {"instruction": said, "input_images": images, "output_image": _image(rng), "task_type": "edit"},
            {"image": _image(rng), "caption": said, **size},
            {"source": _image(rng), "instruction": said, "target": _image(rng)},
            {"question": said, "answer": answer, "image": images},
        )
    )
    if rng.random() < 0.2:
        record[rng.choice([*record, "task", "name", "image_tokens", "source_latents", _words(rng)])] = _junk(rng, 2)
    return record


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _value(speaker: str, text: str) -> dict[str, Any]:
    return {"from": speaker, "value": text}


def _junk(rng: random.Random, depth: int) -> Any:
    """Anything that JSON or a table can hold."""
    simple: tuple[Any, ...] = (
        None,
        True,
        0,
        -1,
        7,
        math.nan,
        "",
        _words(rng),
        "understanding",
        b"x",
        np.ones((2, 3), np.int64),
    )
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(simple)
    items = [_junk(rng, depth - 1) for _ in range(rng.randint(0, 2))]
    return items if rng.random() < 0.5 else {_words(rng) or "type": item for item in items}


# ----------------------------------------------------------------------------------------------------------- by hand


def _rounds(first: int, count: int | None, seconds: float) -> Iterator[int]:
    end, number = time.monotonic() + seconds, first
    while (count is None or number < first + count) and time.monotonic() < end:
        yield number
        number += 1


def say(words: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> None:
    """Tries kinds for a while each and prints how many rounds there were, and each round that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind")
    parser.add_argument("--rounds", type=int, help="of each kind, at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--kind", action="append", help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        golden = GoldenSet("compact", Path(__file__).parent / "assets" / "compact", Path(folder))
        fuzzer = Fuzzer(golden.processor)
        for kind in options.kind or fuzzer.kinds:
            found: collections.Counter[str] = collections.Counter()
            for number in _rounds(options.first, options.rounds, options.seconds):
                try:
                    found["accepted" if fuzzer.run(kind, options.seed, number) else "refused"] += 1
                except Exception:
                    found["wrong"] += 1
                    say(f"{kind}, seed {options.seed}, round {number}:\n{traceback.format_exc(limit=-4)}")
            say(f"{kind}, seed {options.seed}: {sum(found.values())} rounds, {dict(found)}")


if __name__ == "__main__":
    main()
