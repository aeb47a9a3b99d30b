"""What was read is found again by what it is, and goes when there is no room."""

from __future__ import annotations

import pytest
import torch

from wallaroo_hf.families.prefixes import Block, PrefixStore, Prompt

A, B = Block(2, 5, b"a"), Block(2, 5, b"b")


def _parts(length, fill=0.0):
    return {"language": [torch.full((1, 2, length, 4), fill + layer) for layer in range(2)]}


BYTES = 2 * 2 * 4 * 4  # of a token


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        (Prompt((1, 2, 3)), Prompt((1, 2, 3, 4)), 3),
        (Prompt((1, 2, 3)), Prompt((1, 9, 3)), 1),
        (Prompt((1, 2)), Prompt((2, 1)), 0),
        (Prompt((1, 2, 7, 7, 7, 3), (A,)), Prompt((1, 2, 7, 7, 7, 3), (A,)), 6),
        (Prompt((1, 2, 7, 7, 7, 3), (A,)), Prompt((1, 2, 7, 7, 7, 3), (B,)), 2),  # another picture in its place
        (Prompt((1, 2, 7, 7, 7, 3), (A,)), Prompt((1, 2, 7, 7, 3)), 2),  # never a part of one
        (Prompt((1, 2, 7, 7, 7, 3), (A,)), Prompt((1, 2, 7, 7, 7, 7), (Block(2, 6, b"a"),)), 2),
    ],
)
def test_how_far_two_prompts_are_the_same(one, other, length):
    assert one.common(other) == other.common(one) == length


def test_the_longest_beginning_is_found_short_of_the_last_token():
    store = PrefixStore(10_000)
    store.keep("me", Prompt((1, 2, 3)), _parts(3))
    store.keep("me", Prompt((1, 5, 6, 7)), _parts(4, 10))
    length, parts = store.find("me", Prompt((1, 5, 6, 8)), ["language"])
    assert length == 3 and [tuple(one.shape) for one in parts["language"]] == [(1, 2, 3, 4)] * 2
    assert parts["language"][1].unique().tolist() == [11]
    assert store.find("me", Prompt((1, 2, 3)), ["language"])[0] == 2  # something must say what follows
    assert store.find("me", Prompt((9, 2, 3)), ["language"]) == (0, {})
    assert store.find("me", Prompt((1, 2, 3, 4)), ["language", "more"]) == (0, {})
    ends = Prompt((1, 2, 7, 7, 7), (A,))
    store.keep("me", ends, _parts(5))
    assert store.find("me", ends, ["language"])[0] == 2  # not within its last picture
    assert (store.hits, store.misses) == (3, 2) and store.tokens_reused == 7


def test_nobody_finds_what_another_left():
    store = PrefixStore(10_000)
    store.of("me").keep(Prompt((1, 2, 3)), _parts(3))
    assert store.of("you").find(Prompt((1, 2, 3, 4)), ["language"])[0] == 0
    assert store.of("me").find(Prompt((1, 2, 3, 4)), ["language"])[0] == 3


def test_room_is_bounded_and_the_oldest_goes():
    store = PrefixStore(8 * BYTES)
    for number in range(3):
        store.keep("me", Prompt((number, 1, 2)), _parts(3))
        assert store.num_bytes <= 8 * BYTES
        store.find("me", Prompt((0, 1, 2, 3)), ["language"])  # used again
    assert len(store) == 2 and store.num_bytes == 6 * BYTES
    assert [store.find("me", Prompt((number, 1, 2, 3)), ["language"])[0] for number in range(3)] == [3, 0, 3]
    store.keep("me", Prompt(tuple(range(9))), _parts(9))  # too much for all of it
    assert len(store) == 2
    store.clear()
    assert len(store) == store.num_bytes == 0
    nothing = PrefixStore(0)
    nothing.keep("me", Prompt((1,)), _parts(1))
    assert len(nothing) == 0
    with pytest.raises(ValueError, match="`max_bytes` is -1, but must be at least 0"):
        PrefixStore(-1)


def test_a_chat_that_goes_on_is_kept_once_and_alone():
    """What it goes on from is forgotten; what is kept holds no larger tensor in memory."""
    store = PrefixStore(10_000)
    store.keep("me", Prompt((1, 2)), _parts(2))
    store.keep("me", Prompt((1, 2, 3)), _parts(50))
    assert len(store) == 1 and store.num_bytes == 3 * BYTES
    (kept,) = store._entries
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in kept.parts["language"])


def test_few_tokens_are_not_worth_it():
    store = PrefixStore(10_000, least=3)
    store.keep("me", Prompt((1, 2, 3, 4)), _parts(4))
    assert store.find("me", Prompt((1, 2, 5, 5)), ["language"]) == (0, {})
    assert store.find("me", Prompt((1, 2, 3, 5)), ["language"])[0] == 3
