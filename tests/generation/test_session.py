"""Drawings that come and go: equal to those drawn alone, ended one by one, and taken when they are over."""

from __future__ import annotations

import pytest
import torch

from helpers import picture

SIZES = [(64, 64), (32, 96), (64, 64), (96, 64)]


def _row(compact, number, source=None):
    height, width = SIZES[number]
    return compact.processor(
        text=[f"a red fox number {number}"],
        images=None if source is None else [source],
        generation_mode="image",
        height=height,
        width=width,
        return_tensors="pt",
    )


def _generator(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def alone(compact):
    return [compact.model.draw(_row(compact, number), generators=[_generator(number)]) for number in range(4)]


def _finish(session):
    steps = []
    while session.under_way:
        steps += session.step()
    return steps


def test_rows_that_come_later_are_those_drawn_alone(compact, alone):
    session = compact.model.session(4)
    numbers = [session.admit(_row(compact, 0), _generator(0)), session.admit(_row(compact, 1), _generator(1))]
    steps = session.step() + session.step()
    numbers += [session.admit(_row(compact, number), _generator(number)) for number in (2, 3)]
    with pytest.raises(ValueError, match="draws 4 images at once"):
        session.admit(_row(compact, 0))
    with pytest.raises(ValueError, match="is not over"):
        session.take(numbers[0])
    steps += _finish(session)
    assert numbers == [0, 1, 2, 3]
    for number, (height, _) in enumerate(SIZES):
        own = [step for step in steps if step.image == number]
        assert [(step.done, step.total) for step in own] == [(k + 1, height // 16) for k in range(height // 16)]
        drawn = session.take(number)
        assert drawn.complete and torch.equal(drawn.pixels[0], alone[number].pixels[0])
        assert own[-1].preview().shape == drawn.pixels[0].shape
    with pytest.raises(ValueError, match="no drawing 0"):
        session.take(0)


def test_one_is_cancelled_and_the_others_go_on(compact, alone):
    session = compact.model.session(3)
    for number in (0, 2, 3):
        session.admit(_row(compact, number), _generator(number))
    while not any(step.image == 1 and step.done == 2 for step in session.step()):
        pass
    session.cancel(1)
    partial = session.take(1)
    assert not partial.complete and partial.pixels[0].shape == (3, 32, 64)
    rows = alone[2].native[0][-(4 * 5) :]  # codes and line breaks
    codes = rows[rows >= compact.model.config.text_config.vocab_size][:8] - compact.model.config.text_config.vocab_size
    assert torch.equal(partial.pixels[0], compact.model.vq_model.decode(codes.view(1, 2, 4))[0])
    _finish(session)
    for number, index in ((0, 0), (2, 3)):
        assert torch.equal(session.take(number).pixels[0], alone[index].pixels[0])


def test_all_are_cancelled_or_none_began(compact):
    session = compact.model.session(2)
    first = session.admit(_row(compact, 0), _generator(0))
    session.step()
    second = session.admit(_row(compact, 1), _generator(1))
    session.cancel(second)
    session.cancel(first)
    assert session.under_way == 0 and session.step() == []
    taken = [session.take(number) for number in (first, second)]
    assert [one.complete for one in taken] == [False, False] and taken[1].pixels == [None]


def test_settings_are_of_the_session_or_of_a_row(compact, alone):
    session = compact.model.session(3, guidance_scale=1.0)
    own = session.admit(_row(compact, 0), _generator(0), {"guidance_scale": None, "temperature": None})
    other = session.admit(_row(compact, 0), _generator(0))
    with pytest.raises(ValueError, match="`steps` is no setting of drawing"):
        session.admit(_row(compact, 0), settings={"steps": 3})
    _finish(session)
    assert torch.equal(session.take(own).pixels[0], alone[0].pixels[0])
    assert not torch.equal(session.take(other).pixels[0], alone[0].pixels[0])


def test_temperature_zero_is_greedy(compact):
    greedy = compact.model.draw(_row(compact, 0), temperature=0)
    stock = compact.model.generate(**_row(compact, 0), generation_mode="image", do_sample=False)
    assert torch.equal(greedy.native, stock)


def test_edits_and_drawings_in_one_session(compact):
    rows = [_row(compact, 0, picture(1)), _row(compact, 2)]
    edited = compact.model.draw(rows[0], generators=[_generator(0)])
    session = compact.model.session(2)
    session.admit(rows[0], _generator(0))
    session.step()
    session.admit(rows[1], _generator(2))
    _finish(session)
    assert torch.equal(session.take(0).pixels[0], edited.pixels[0])


def test_following_a_drawing(compact, alone):
    seen = []
    drawn = compact.model.draw(_row(compact, 0), generators=[_generator(0)], copies=1, follow=seen.append)
    assert [(step.image, step.done, step.total) for step in seen] == [(0, row, 4) for row in (1, 2, 3, 4)]
    assert torch.equal(drawn.pixels[0], alone[0].pixels[0])
    stopped = compact.model.draw(
        _row(compact, 0), generators=[_generator(0)], copies=1, follow=lambda step: step.done < 2
    )
    assert not stopped.complete and stopped.pixels[0].shape == (3, 32, 64)


def test_reconstruction(compact):
    pixels = [compact.processor.to_pixels(picture(1), 64, 96), compact.processor.to_pixels(picture(2), 32, 32)]
    rebuilt = compact.model.reconstruct(pixels)
    assert [tuple(one.shape) for one in rebuilt] == [(3, 64, 96), (3, 32, 32)]
    codes = compact.model.vq_model.encode(pixels[0][None]).image_tokens
    assert torch.equal(rebuilt[0], compact.model.vq_model.decode(codes)[0])
