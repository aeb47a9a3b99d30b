"""Text as it is written: pieces of characters, strings that end it, and choices that a seed fixes."""

from __future__ import annotations

import pytest
import torch

import running_server  # noqa: F401  skips where the server's packages are missing
from helpers import generators
from wallaroo_hf.generation.seeded_text import SeededChoice
from wallaroo_hf.web.answer_writers import TextDecoder


@pytest.fixture
def write(compact):
    """Writes a text token by token; returns the pieces that came out."""
    tokenizer = compact.processor.tokenizer

    def run(text, stop=()):
        decoder = TextDecoder(lambda ids: tokenizer.decode(ids, skip_special_tokens=True), stop)
        pieces = []
        for token in tokenizer(text)["input_ids"]:
            pieces.append(decoder.put(token))
            if decoder.stopped:
                return pieces
        return [*pieces, decoder.end()]

    return run


@pytest.mark.parametrize(
    "text", ["a cat on a mat", "蓝色的星星 🦘🦘 ok", " leading and trailing ", "naïve café\n\n\ttabs", ""]
)
def test_pieces_make_the_whole(write, text):
    pieces = write(text)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_words_come_as_soon_as_they_are_there(write):
    pieces = write("one two three four five six seven")
    assert sum(map(bool, pieces)) > 6


@pytest.mark.parametrize(
    ("text", "stop", "out"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["e"], "on"),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["four"], "one two three"),
        ("one two thr", ["three"], "one two thr"),
        ("ababac!", ["abac"], "ab"),
        ("🦘🦘x", ["🦘x"], "🦘"),
    ],
)
def test_strings_that_end_it(write, text, stop, out):
    """Nothing of them gets out, however they are cut into tokens."""
    assert "".join(write(text, stop)) == out


def test_what_may_be_the_beginning_of_an_end_is_held_back(write):
    pieces = write("a b c STO a b", ["STOP"])
    assert "".join(pieces) == "a b c STO a b"
    so_far = ""
    for piece in pieces[:-1]:
        so_far += piece
        assert not so_far.endswith(("S", "ST", "STO"))


def test_choices_follow_the_filtered_distribution():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    choice = SeededChoice(generators(0), temperature=2.0, top_k=3)
    counts = torch.zeros(4)
    for _ in range(4000):
        chosen = choice(torch.zeros(1, 1, dtype=torch.long), scores)
        assert torch.isfinite(chosen).sum() == 1
        counts[chosen.argmax()] += 1
    expected = torch.softmax(torch.tensor([1.0, 0.5, 0.0]), 0)
    assert counts[3] == 0
    assert torch.allclose(counts[:3] / 4000, expected, atol=0.03)  # four standard deviations


def test_choices_belong_to_their_row():
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(3, 1, dtype=torch.long)
    together = SeededChoice(generators(1, 2, 3), top_p=0.9)(ids, scores)
    for row, seed in enumerate((1, 2, 3)):
        alone = SeededChoice(generators(seed), top_p=0.9)(ids[:1], scores[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_without_generators_it_is_the_likeliest():
    scores = torch.tensor([[0.0, 3.0, 1.0]], dtype=torch.bfloat16)
    chosen = SeededChoice(None, temperature=5.0, top_k=1)(torch.zeros(1, 1, dtype=torch.long), scores)
    assert chosen.tolist() == [[-torch.inf, 0.0, -torch.inf]] and chosen.dtype == torch.bfloat16
