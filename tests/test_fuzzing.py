"""A few rounds of random input of each kind; `python tests/fuzzing.py` tries more."""

import copy

import pytest

from fuzzing import Fuzzer
from wallaroo_hf.processing import preparation, processor

ROUNDS = 60


@pytest.fixture
def fuzzer(compact):
    return Fuzzer(copy.deepcopy(compact.processor))


@pytest.mark.parametrize("kind", ["chats", "inputs", "layout", "rows"])
def test_random_input_is_refused_in_a_sentence_or_read_right(fuzzer, kind):
    accepted = sum(fuzzer.run(kind, seed=0, number=number) for number in range(ROUNDS))
    assert ROUNDS // 10 < accepted < ROUNDS


def test_it_would_find_words_that_are_tokens(fuzzer, monkeypatch):
    monkeypatch.setattr(processor, "refuse_in_chats", lambda *_: None)
    monkeypatch.setattr(processor, "refuse_in_rendered", lambda *_: None)
    monkeypatch.setattr(preparation, "refuse_special_tokens", lambda *_: None)
    with pytest.raises(AssertionError):
        for number in range(ROUNDS):
            fuzzer.run("chats", seed=0, number=number)
