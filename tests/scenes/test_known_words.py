"""The words that the data set says: none that it says is unknown, and others are."""

from __future__ import annotations

import pytest

from wallaroo_hf.families.vocabulary import unknown_words
from wallaroo_hf.scenes.known_words import known_words
from wallaroo_hf.scenes.tasks import make_row


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_what_the_data_set_says_is_known(split):
    prompts = [make_row(9, index, split)["prompt"] for index in range(200)]
    assert {word for prompt in prompts for word in unknown_words(prompt, known_words())} == set()


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a cat", ["cat"]),
        ("five blue circles", ["five"]),
        ("A brown square next to a Star", ["brown", "next"]),
        ("画一只猫", ["只猫"]),
        ("五个蓝色的圆形", ["五"]),
    ],
)
def test_other_words_are_not(prompt, unknown):
    assert unknown_words(prompt, known_words()) == unknown
