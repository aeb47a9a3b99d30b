"""What is computed from texts and sizes: turns, templates, grids and pieces of an output."""

from __future__ import annotations

import math
import random
import re

from wallaroo_hf.layout import grid, prompt_texts
from wallaroo_hf.layout.special_tokens import IMAGE_PAD
from wallaroo_hf.processing.token_rows import expand_vision

from .kind import Kind, attempt
from .made_up import ROLES, some_ratio, some_side, some_words


class Layout(Kind):
    """Rendered chats, templates, sizes and token ids."""

    def round(self, rng: random.Random) -> None:
        """Taking rendered chats apart, filling templates, and the arithmetic of sizes."""
        rng.choice((self._turns, self._templates, self._sizes, self._pieces))(rng)

    def _turns(self, rng: random.Random) -> None:
        roles = [rng.choice(ROLES[:3]) for _ in range(rng.randint(1, 4))]
        said = [re.sub("|".join(map(re.escape, self.tokens)), "", some_words(rng)) for _ in roles]
        if any(token in text for text in said for token in self.tokens):
            said = ["x"] * len(roles)
        text = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in zip(roles, said))
        answers = [words for role, words in zip(roles, said) if role == "assistant"]
        spans = prompt_texts.answer_spans(text)
        assert [text[start:end] for start, end in spans] == [f"{words}<|im_end|>\n" for words in answers]
        assert prompt_texts.said(text) == "".join(f"{role}\n{words}\n" for role, words in zip(roles, said))
        mess = some_words(rng)
        assert all(0 <= start <= end <= len(mess) for start, end in prompt_texts.answer_spans(mess))
        prompt_texts.said(mess)
        lengths = [rng.randint(0, 3) for _ in range(mess.count(IMAGE_PAD))]
        assert expand_vision(mess, lengths).count(IMAGE_PAD) == sum(lengths)
        given = rng.choice((text, mess))
        history, prompt = attempt(prompt_texts.split_chat, given)
        head = f"{history}<|im_start|>user\n{prompt}"
        assert given.startswith(head)
        assert not re.sub(r"<\|im_end\|>|<\|im_start\|>assistant", "", given[len(head) :]).strip(), given

    def _templates(self, rng: random.Random) -> None:
        template = rng.choice((some_words(rng), rng.randint(-2, 12), f"{some_words(rng)}{{prompt}}{{target_w}}"))
        words, height, width = some_words(rng), rng.randint(1, 999), rng.randint(1, 999)
        templates = prompt_texts.PROMPT_TEMPLATES["generation"]
        filled = attempt(
            prompt_texts.fill_template, template, templates, prompt_texts.prompt_language(words), words, height, width
        )
        assert words in filled

    def _sizes(self, rng: random.Random) -> None:
        ratio = attempt(grid.parse_aspect_ratio, some_ratio(rng))
        assert (
            math.isfinite(ratio)
            and ratio > 0
            and grid.nearest_bucket(1.0, ratio, grid.BUCKETS_512) in grid.BUCKETS_512
        )
        height, width = some_side(rng), some_side(rng)
        rows, cols = attempt(grid.check_size, height, width, 16, rng.random() < 0.3)
        assert (rows * 16, cols * 16) == (height, width) and 0 < rows * cols <= grid.MAX_CODES
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
        pieces = attempt(self.processor.split_output, ids)
        codes = [token - first for token in ids if token >= first]
        assert [code for piece in pieces if not isinstance(piece, str) for code in piece.flatten().tolist()] == codes
