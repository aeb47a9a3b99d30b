"""Rows as batches: prompts as they are drawn from, reconstructions, and chance that follows from a row's number."""

import dataclasses

import pytest
import torch

from small_hieraquery import new_hieraquery, picture
from wallaroo_hf.hieraquery.training.hieraquery_kit import KIT
from wallaroo_hf.hieraquery.training.hieraquery_stages import hieraquery_stage
from wallaroo_hf.hieraquery.training.prepared_pictures import draw_noise
from wallaroo_hf.training.data.training_rows import RowError


@pytest.fixture(scope="module")
def made():
    return new_hieraquery()


def _row(words="a red square", shown=False, number=1):
    asked = [*([{"type": "image"}] if shown else []), {"type": "text", "text": words}]
    answer = {"role": "assistant", "content": [{"type": "image"}]}
    images = [picture((9, 99, 9))] if shown else []
    return {
        "messages": [{"role": "user", "content": asked}, answer],
        "images": [*images, picture()],
        "ordinal": number,
    }


def _collator(processor, **changes):
    return KIT.collator(processor, dataclasses.replace(hieraquery_stage("t2i"), **changes))


@pytest.mark.parametrize("shown", [False, True])
def test_prompts_are_those_that_are_drawn_from(made, shown):
    _, processor = made
    batch = _collator(processor)([_row("make it green", shown)])
    images = [picture((9, 99, 9))] if shown else None
    asked = processor(
        text="make it green", images=images, generation_mode="image", height=32, width=32, return_tensors="pt"
    )
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        assert torch.equal(batch[name], asked[name]), name
    if shown:
        assert torch.equal(batch["shown_patches"][0].flatten(0, 1), asked["pixel_values"])
    pixels = processor.to_pixels(picture(), 32, 32)
    assert torch.equal(batch["target_pixels"][0], pixels)


def test_what_is_seen_conditions_as_when_drawing(made):
    model, processor = made
    batch = _collator(processor)([_row("make it green", True)])
    prepared = KIT.prepare(model, batch)
    asked = processor(
        text="make it green",
        images=[picture((9, 99, 9))],
        generation_mode="image",
        height=32,
        width=32,
        return_tensors="pt",
    )
    asked.pop("image_size")
    with torch.no_grad():
        trained = model.conditions(
            **{name: prepared[name] for name in ("input_ids", "attention_mask", "image_features", "image_grid_thw")},
            sizes=[(32, 32)],
        )
        drawn = model.conditions(**asked, sizes=[(32, 32)])
    for one, other in zip(trained, drawn, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-3)  # kept in float16


def test_reconstructions_are_made_of_drawing_rows(made):
    _, processor = made
    always = _collator(processor, reconstruction_rate=1.0)([_row()])
    kept = processor(
        text="Keep the image unchanged.",
        images=[picture()],
        generation_mode="image",
        height=32,
        width=32,
        return_tensors="pt",
    )
    assert torch.equal(always["input_ids"], kept["input_ids"])
    assert torch.equal(always["shown_patches"][0].flatten(0, 1), kept["pixel_values"])
    some = _collator(processor, reconstruction_rate=0.3)
    shown = [some([_row(number=number)])["shown_patches"][0] is not None for number in range(200)]
    assert 40 <= sum(shown) <= 80
    edited = _collator(processor, reconstruction_rate=1.0)([_row("make it green", True)])
    plain = _collator(processor)([_row("make it green", True)])
    assert torch.equal(edited["input_ids"], plain["input_ids"])


def test_chance_follows_from_the_rows_number(made):
    _, processor = made
    collator = _collator(processor)
    one, again, other = (collator([_row(number=number)])["noise_seeds"] for number in (1, 1, 2))
    assert one == again != other
    together = collator([_row(number=2), _row(number=1)])["noise_seeds"]
    assert together == [*other, *one]


def test_noise_of_a_row():
    noise, sigmas, decisions = draw_noise([(3, 1, 2), (3, 2, 4)], 4, 7, 1.0)
    assert [tuple(one.shape) for one in noise] == [(4, 3, 1, 2), (4, 3, 2, 4)] and decisions.shape == (4,)
    spread = sigmas.sort(dim=1).values
    torch.testing.assert_close(spread.diff(dim=1), torch.full((2, 3), 0.25))
    many = torch.cat([draw_noise([(1, 1, 1)], 4, seed, 1.0)[1].flatten() for seed in range(500)])
    assert abs(float(many.mean()) - 0.5) < 0.02 and float(many.min()) >= 0 and float(many.max()) < 1
    shifted = draw_noise([(3, 1, 2), (3, 2, 4)], 4, 7, 3.0)[1]
    torch.testing.assert_close(shifted, 3 * sigmas / (1 + 2 * sigmas))


def test_rows_that_do_not_draw_are_refused(made):
    _, processor = made
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}], "images": []}
    with pytest.raises(RowError, match="rows of one request"):
        _collator(processor)([row])
    with pytest.raises(RowError, match="special"):
        _collator(processor)([_row("a <|im_end|> square")])
    with pytest.raises(RowError, match=r"has \d+ tokens, but `max_length` is 5"):
        _collator(processor, max_length=5)([_row()])
