"""Chats that go on from what was read of them: the same answers in every family, and only what is new is read."""

from __future__ import annotations

import pytest

import small_hieraquery
import small_showo2
from helpers import picture
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.contract import TextSettings
from wallaroo_hf.families.prefixes import PrefixStore

TURNS = (("what colour is it?", [1]), ("a red square", []), ("and this?", [2]), ("blue", []))


@pytest.fixture(scope="module", params=["wallaroo", "showo2", "hieraquery"])
def family(request, compact):
    """Model and processor, with random weights."""
    if request.param == "wallaroo":
        return compact.model, compact.processor
    pytest.importorskip("diffusers")
    return small_showo2.new_showo2() if request.param == "showo2" else small_hieraquery.new_hieraquery()


@pytest.fixture
def read(family, monkeypatch):
    """The lengths that the language model reads, forward by forward."""
    model = family[0]
    named = {
        name.rpartition(".")[2]: module for name, module in model.named_modules() if hasattr(module, "embed_tokens")
    }
    body = named.get("language_model") or named["model"]
    lengths: list[int] = []

    def note(module, args, kwargs):
        ids = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else kwargs.get("input_ids")
        lengths.append((args[0] if ids is None else ids).shape[1])

    handle = body.register_forward_pre_hook(note, with_kwargs=True)
    yield lengths
    handle.remove()


def _answers(family, prefix_cache, read, settings=None):
    conversation = Conversation(*family, seed=1, max_new_tokens=5, prefix_cache=prefix_cache, settings=settings)
    said, counts = [], []
    for words, shown in TURNS:
        read.clear()
        pieces = conversation.say(words, [picture(seed, 64, 64) for seed in shown])
        said.append([piece if isinstance(piece, str) else piece.tobytes() for piece in pieces])
        counts.append((conversation.reused_tokens, max(read)))
    return said, counts


def test_answers_are_the_same_and_less_is_read(family, read):
    whole, before = _answers(family, 0, read)
    said, after = _answers(family, 64, read)
    assert said == whole
    assert [reused for reused, _ in before] == [0] * len(TURNS)
    assert after[0] == (0, before[0][1])
    for (reused, longest), (_, all_of_it) in zip(after[1:], before[1:], strict=True):
        assert reused > 0 and longest < all_of_it
    reused, longest = after[-1]  # words alone: those that are new, the answer before, and the template's
    assert longest <= 32 and reused > before[-1][1] // 2


def _batch(family, *chats):
    model, processor = family
    rows = [
        processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        for chat in chats
    ]
    return processor.collate(rows).to(dtype=model.dtype)


class _Silent:
    def token(self, row, id):
        return None

    def image_begins(self, row): ...

    def image_step(self, row, step): ...

    def image_done(self, row, pixels, num_tokens): ...

    def ended(self, row, answer): ...


def _converse(family, chats, prefixes):
    answers = family[0].converse(
        _batch(family, *chats),
        mode="text",
        follow=_Silent(),
        generators=None,
        max_new_tokens=[6] * len(chats),
        text=TextSettings(),
        drawing={},
        **({} if prefixes is None else {"prefixes": prefixes}),
    )
    return [answer.pieces for answer in answers], [answer.reused_tokens for answer in answers]


def _user(words, *shown):
    return {
        "role": "user",
        "content": [*({"type": "image", "image": one} for one in shown), {"type": "text", "text": words}],
    }


def test_rows_of_a_batch_go_on_each_from_its_own(family):
    """Long and short ones, with and without pictures, some that were never read, and one of which nothing is kept."""
    first, second = picture(1, 64, 64), picture(2, 64, 64)
    begun = [
        [_user("what colour is it?", first)],
        [_user("a red square above a blue circle")],
        [_user("blue", second)],
    ]
    store = PrefixStore(10**8)
    prefixes = [store.of("a"), store.of("b"), None]
    said, reused = _converse(family, begun, prefixes)
    assert reused == [0, 0, 0] and said == _converse(family, begun, None)[0] and len(store) == 2
    more = [
        [*begun[0], {"role": "assistant", "content": [{"type": "text", "text": "blue"}]}, _user("and this?", second)],
        [*begun[1], {"role": "assistant", "content": [{"type": "text", "text": "a square"}]}, _user("make it green")],
        [*begun[2], {"role": "assistant", "content": [{"type": "text", "text": "blue"}]}, _user("what colour?")],
        [_user("make it green", first)],
    ]
    prefixes.append(store.of("d"))
    said, reused = _converse(family, more, prefixes)
    assert reused[0] > 0 and reused[1] > 0 and reused[2:] == [0, 0]
    assert said == _converse(family, more, None)[0]


def test_another_history_is_read_from_where_it_differs(family):
    first, second = picture(1, 64, 64), picture(2, 64, 64)
    store = PrefixStore(10**8)
    chat = [_user("what colour is it?", first)]
    _converse(family, [chat], [store.of()])
    changed = [_user("what colour is it?", second)]
    said, reused = _converse(family, [changed], [store.of()])
    before = len(_batch(family, [_user("what colour is it?")])["input_ids"][0])
    assert reused[0] < before  # no more than stands before the picture
    assert said == _converse(family, [changed], None)[0]
    again, reused = _converse(family, [chat], [store.of()])  # the very same words: all but the last token
    assert reused[0] == len(_batch(family, chat)["input_ids"][0]) - 1 and again == _converse(family, [chat], None)[0]


def test_a_static_cache_keeps_nothing(family):
    model = family[0]
    store = PrefixStore(10**8)
    chat = [_user("what colour is it?", picture(1, 64, 64))]
    expected = _converse(family, [chat], None)[0]
    model.generation_config.cache_implementation = "static"
    try:
        assert _converse(family, [chat], [store.of()]) == (expected, [0]) and len(store) == 0
    finally:
        model.generation_config.cache_implementation = None
