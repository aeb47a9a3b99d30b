"""Drawings of all sorts in one forward: equal to those drawn alone, and each row free when nobody waits for it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from helpers import picture

# prompt, (height, width), source, settings; no two alike
ASKED = [
    ("a red fox", (64, 64), None, {}),
    (
        "a very long story of a blue fox that sleeps under a tall tree in the snow",
        (32, 96),
        None,
        {"guidance_scale": 1.0},
    ),
    ("x", (96, 32), None, {"guidance_scale": 4.0, "top_k": 5}),
    ("bluer", (64, 64), 1, {"temperature": 2.0}),
    ("two foxes", (48, 80), None, {"temperature": 0}),
    ("a red fox", (64, 64), None, {}),
]


def _row(compact, number):
    prompt, (height, width), source, _ = ASKED[number]
    return compact.processor(
        text=[prompt],
        images=None if source is None else [picture(source)],
        generation_mode="image",
        height=height,
        width=width,
        return_tensors="pt",
    )


def _generator(number):
    return torch.Generator().manual_seed(number)


def _admit(session, compact, number):
    return session.admit(_row(compact, number), _generator(number), ASKED[number][3])


@pytest.fixture(scope="module")
def alone(compact):
    return [
        compact.model.draw(_row(compact, number), generators=[_generator(number)], **ASKED[number][3])
        for number in range(len(ASKED))
    ]


@pytest.fixture
def forwards(compact):
    """How many rows each forward had."""
    rows = []

    def count(model, arguments, keywords):
        given = keywords.get("input_ids")
        rows.append(len(keywords["inputs_embeds"] if given is None else given))

    hook = compact.model.register_forward_pre_hook(count, with_kwargs=True)
    yield rows
    hook.remove()


def _codes(model, ids):
    first = model.config.text_config.vocab_size
    return (ids[ids >= first] - first).tolist()


def test_all_sorts_share_their_forwards(compact, alone, forwards):
    session = compact.model.session(len(ASKED))
    numbers = [_admit(session, compact, number) for number in range(len(ASKED))]
    session.step()
    assert len(forwards) == len(ASKED) - 1  # prompts: the first and the last are of one kind and begin together
    forwards.clear()
    session.step()
    assert forwards == [2 * len(ASKED) - 1]  # all branches of all; one has no guidance
    while session.under_way:
        session.step()
    longest = max((width // 16 + 1) * (height // 16) for _, (height, width), _, _ in ASKED)
    assert len(forwards) <= longest + max(height // 16 for _, (height, _), _, _ in ASKED)
    for number, expected in zip(numbers, alone, strict=True):
        drawn = session.take(number)
        assert drawn.complete and torch.equal(drawn.pixels[0], expected.pixels[0])
        assert _codes(compact.model, drawn.native) == _codes(compact.model, expected.native[0])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_they_come_when_they_like(compact, alone, attention):
    """One more after each third step, into rows that others have left."""
    before = compact.model.config.get_text_config()._attn_implementation
    compact.model.set_attn_implementation(attention)
    try:
        session = compact.model.session(3)
        waiting, numbers, drawn, steps = list(range(len(ASKED))), {}, {}, 0
        while waiting or session.under_way:
            if waiting and session.under_way < 3 and steps % 3 == 0:
                number = waiting.pop(0)
                numbers[_admit(session, compact, number)] = number
            session.step()
            steps += 1
            for one in [one for one in numbers if session.is_over(one)]:
                drawn[numbers.pop(one)] = session.take(one)
        for number, expected in enumerate(alone):
            assert torch.equal(drawn[number].pixels[0], expected.pixels[0])
    finally:
        compact.model.set_attn_implementation(before)


def test_rows_are_free_when_nobody_waits(compact, alone, forwards):
    session = compact.model.session(4)
    numbers = [_admit(session, compact, number) for number in (0, 5, 2)]  # the first two begin together
    while not any(step.image == numbers[1] and step.done == 2 for step in session.step()):
        pass
    assert forwards[-1] == 6
    session.cancel(numbers[1])
    session.step()
    assert forwards[-1] == 4
    late = _admit(session, compact, 3)
    while session.under_way:
        session.step()
    partial = session.take(numbers[1])  # what was there when it was cancelled, though its group went on
    assert not partial.complete
    codes = _codes(compact.model, alone[5].native[0])[:8]
    assert _codes(compact.model, partial.native)[:8] == codes
    assert torch.equal(partial.pixels[0], compact.model.vq_model.decode(torch.tensor(codes).view(1, 2, 4))[0])
    for number, which in ((numbers[0], 0), (numbers[2], 2), (late, 3)):
        assert torch.equal(session.take(number).pixels[0], alone[which].pixels[0])


def test_an_idle_session_holds_no_states(compact):
    session = compact.model.session(2)
    _admit(session, compact, 0)
    session.step()
    assert session._joint._states and len(session._joint) == 2
    while session.under_way:
        session.step()
    assert not session._joint._states and len(session._joint) == 0


def test_codes_that_are_given_go_along(compact, alone):
    """An edit within a mask, whose kept codes are fed and not decided, beside drawings that decide theirs."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 32, 64, 48))
    row = compact.processor(
        text=["bluer"],
        images=[picture(1, 64, 64)],
        mask_images=[mask],
        generation_mode="image",
        height=64,
        width=64,
        return_tensors="pt",
    )
    expected = compact.model.draw(row, generators=[_generator(7)])
    session = compact.model.session(3)
    first = _admit(session, compact, 0)
    session.step()
    masked, second = session.admit(row, _generator(7)), _admit(session, compact, 2)
    while session.under_way:
        session.step()
    assert torch.equal(session.take(masked).pixels[0], expected.pixels[0])
    for number, which in ((first, 0), (second, 2)):
        assert torch.equal(session.take(number).pixels[0], alone[which].pixels[0])


def test_many_given_codes_wait_for_nobody(compact, alone, forwards):
    """All but the last of them take one forward of their own, not one for each code that others decide."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 48, 64, 64))  # the last two of sixteen codes
    row = compact.processor(
        text=["bluer"],
        images=[picture(1, 64, 64)],
        mask_images=[mask],
        generation_mode="image",
        height=64,
        width=64,
        return_tensors="pt",
    )
    expected = compact.model.draw(row, generators=[_generator(7)])
    session = compact.model.session(2)
    first = _admit(session, compact, 0)
    session.step()
    masked = session.admit(row, _generator(7))
    forwards.clear()
    while not session.is_over(masked):
        session.step()
    assert forwards == [2, 2, 4, 4]  # the prompt, what is given, and two codes together with the other's
    while session.under_way:
        session.step()
    assert torch.equal(session.take(masked).pixels[0], expected.pixels[0])
    assert torch.equal(session.take(first).pixels[0], alone[0].pixels[0])


def test_no_room_for_one_leaves_the_others_theirs(compact, alone, monkeypatch):
    session = compact.model.session(3)
    first, left = _admit(session, compact, 0), _admit(session, compact, 2)
    session.step()
    session.cancel(left)  # places are free, but too short for what comes

    def large():
        row = compact.processor(
            text=["a red fox"], generation_mode="image", height=192, width=192, return_tensors="pt"
        )
        return session.admit(row, _generator(3))

    def full(like, *size):
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_zeros", full)
        bad = large()
        session.step()
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        session.take(bad)
    good = large()
    while session.under_way:
        session.step()
    assert torch.equal(session.take(first).pixels[0], alone[0].pixels[0])
    assert session.take(good).complete


def test_what_goes_wrong_behind_a_forward_is_its_own_drawings(compact, alone, monkeypatch):
    session = compact.model.session(3)
    first, bad = _admit(session, compact, 0), _admit(session, compact, 2)
    session.step()

    def fail(outputs):
        raise ArithmeticError("no such code")

    monkeypatch.setattr(session._places[bad][0].run, "go_on", fail)
    late, begun = _admit(session, compact, 3), session.begun

    def begin(group):  # goes along at once, and fails there
        begun(group)
        monkeypatch.setattr(group.run, "go_on", fail)

    monkeypatch.setattr(session, "begun", begin)
    session.step()
    for number in (bad, late):
        with pytest.raises(ArithmeticError, match="no such code"):
            session.take(number)
    while session.under_way:
        session.step()
    assert torch.equal(session.take(first).pixels[0], alone[0].pixels[0])


def test_windows_go_on_beside_them(compact, alone):
    session = compact.model.session(3)
    plain = [_admit(session, compact, number) for number in (0, 2)]
    windows = session.admit(_row(compact, 0), _generator(0), {"window": 4})
    while session.under_way:
        session.step()
    for number, which in ((plain[0], 0), (plain[1], 2), (windows, 0)):
        assert torch.equal(session.take(number).pixels[0], alone[which].pixels[0])


def test_what_cannot_begin_fails_alone(compact, alone):
    """Also where it would have begun with others, who keep their seeds."""
    session = compact.model.session(3)
    first = _admit(session, compact, 0)
    broken = _row(compact, 0)
    broken["input_ids"] = broken["input_ids"][:, :-1]
    broken["attention_mask"] = broken["attention_mask"][:, :-1]
    bad = session.admit(broken, _generator(1))
    while session.under_way:
        session.step()
    with pytest.raises(ValueError, match="were not prepared for drawing"):
        session.take(bad)
    assert torch.equal(session.take(first).pixels[0], alone[0].pixels[0])


def test_a_forward_that_fails_ends_those_in_it_and_no_other(compact, alone, monkeypatch):
    session = compact.model.session(3)
    joint = [_admit(session, compact, number) for number in (0, 2)]
    windows = session.admit(_row(compact, 0), _generator(0), {"window": 4})
    session.step()

    def fail(*arguments):
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(session._joint, "_forward", fail)
        session.step()
    assert session.under_way == 1
    for number in joint:
        assert session.is_over(number)
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            session.take(number)
    again = _admit(session, compact, 2)
    while session.under_way:
        session.step()
    assert torch.equal(session.take(windows).pixels[0], alone[0].pixels[0])
    assert torch.equal(session.take(again).pixels[0], alone[2].pixels[0])
