"""Text as it is written: pieces of characters, and strings that end it."""

from __future__ import annotations

import pytest

from wallaroo_hf.families.text_decoder import TextDecoder


@pytest.fixture
def write(compact):
    """Writes a text token by token; returns the pieces that came out."""
    tokenizer = compact.processor.tokenizer

    def run(text, stop=()):
        decoder = TextDecoder.of(compact.processor, stop)
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
