"""A few rounds of random input of each kind; `python tests/fuzzing.py` tries more."""

import pytest

from fuzz_kinds import KINDS, make_kind
from wallaroo_hf.processing import preparation, processor

ROUNDS = {"converter": 20}
MORE = 60  # rounds of the others


@pytest.mark.parametrize("name", KINDS)
def test_random_input_is_refused_in_a_sentence_or_read_right(compact, tmp_path, name):
    if name == "server":
        pytest.importorskip("fastapi", reason="the server needs fastapi; install wallaroo-hf[serve]")
    kind, rounds = make_kind(name, compact, tmp_path), ROUNDS.get(name, MORE)
    try:
        accepted = sum(kind.run(seed=0, number=number) for number in range(rounds))
    finally:
        kind.close()
    assert rounds // 10 < accepted < rounds


def test_it_would_find_words_that_are_tokens(compact, tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "refuse_in_chats", lambda *_: None)
    monkeypatch.setattr(processor, "refuse_in_rendered", lambda *_: None)
    monkeypatch.setattr(preparation, "refuse_special_tokens", lambda *_: None)
    chats = make_kind("chats", compact, tmp_path)
    with pytest.raises(AssertionError):
        for number in range(MORE):
            chats.run(seed=0, number=number)
