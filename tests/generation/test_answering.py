"""`converse`: what a seed fixes."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from helpers import generators
from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.families.contract import TextSettings

SAID = (40, 41, 42)


class _Silent:
    """Hears everything."""

    def token(self, row, id):
        return None

    def image_begins(self, row):
        return None

    def image_step(self, row, step):
        return None

    def image_done(self, row, pixels, num_tokens):
        return None

    def ended(self, row, answer):
        return None


@pytest.fixture
def says_and_draws(monkeypatch, compact):
    """Makes the tiny model say three words and begin an image, however it is sampled."""
    start = compact.model.config.generate_start_token_id
    original = WallarooForConditionalGeneration._get_logits_processor

    def wanting(self, generation_config, *args, **kwargs):
        processors = original(self, generation_config, *args, **kwargs)
        if generation_config.eos_token_id is None:
            return processors  # a drawing segment
        words = iter((*SAID, start))

        def want(input_ids, scores):
            only = torch.full_like(scores, -torch.inf)
            return only.index_fill(1, torch.tensor([next(words)]), 0.0)

        return LogitsProcessorList([want, *processors])

    monkeypatch.setattr(WallarooForConditionalGeneration, "_get_logits_processor", wanting)


def test_pictures_do_not_depend_on_how_words_were_sampled(compact, says_and_draws):
    """Nor on how many: the same chat and seed give the same codes, and another seed gives others."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "Draw."}]}]
    text = compact.processor.apply_chat_template(chat, add_generation_prompt=True)
    batch = compact.processor(text=[text], generation_mode="auto", height=32, width=48, return_tensors="pt")

    def draw(seed: int, temperature: float) -> torch.Tensor:
        answer = compact.model.converse(
            batch,
            mode="auto",
            follow=_Silent(),
            generators=generators(seed),
            max_new_tokens=[len(SAID) + 1],
            text=TextSettings(temperature),
            drawing={"temperature": 9.0},
        )[0]
        words, pixels = answer.pieces
        assert words == list(SAID) and answer.new_tokens == len(SAID) + 1 + 6
        return pixels

    greedy = draw(1, 0.0)
    assert torch.equal(draw(1, 2.0), greedy) and not torch.equal(draw(2, 2.0), greedy)
