"""A few rounds of random input of each kind; `python tests/fuzzing.py` tries more."""

import contextlib

import pytest

from fuzz_kinds import KINDS, make_kind
from wallaroo_hf.common import processor_base
from wallaroo_hf.conversion import archives
from wallaroo_hf.processing import processor, row_preparation

ROUNDS = {"converter": 20}
MORE = 60  # rounds of the others


def _needs_server():
    pytest.importorskip("fastapi", reason="the server needs fastapi; install wallaroo-hf[serve]")


@pytest.mark.parametrize("name", KINDS)
def test_random_input_is_refused_in_a_sentence_or_read_right(compact, tmp_path, name):
    if name == "server":
        _needs_server()
    kind, rounds = make_kind(name, compact, tmp_path), ROUNDS.get(name, MORE)
    try:
        accepted = sum(kind.run(seed=0, number=number) for number in range(rounds))
    finally:
        kind.close()
    assert rounds // 10 < accepted < rounds


def _finds(kind, rounds):
    with pytest.raises((AssertionError, UnicodeError)), contextlib.closing(kind):
        for number in range(rounds):
            kind.run(seed=0, number=number)


def test_it_would_find_words_that_are_tokens(compact, tmp_path, monkeypatch):
    monkeypatch.setattr(processor_base, "refuse_in_chats", lambda *_: None)
    monkeypatch.setattr(processor, "refuse_in_rendered", lambda *_: None)
    monkeypatch.setattr(row_preparation, "refuse_special_tokens", lambda *_: None)
    _finds(make_kind("chats", compact, tmp_path), MORE)


def test_it_would_find_damage_that_is_converted(compact, tmp_path, monkeypatch):
    monkeypatch.setattr(archives.Checksums, "check", lambda *_: None)
    _finds(make_kind("converter", compact, tmp_path), ROUNDS["converter"])


def test_it_would_find_requests_that_the_server_fails_at(compact, tmp_path, monkeypatch):
    _needs_server()
    from wallaroo_hf.web import bodies

    monkeypatch.setattr(bodies, "_is_whole", lambda _: True)
    _finds(make_kind("server", compact, tmp_path), 10 * MORE)
