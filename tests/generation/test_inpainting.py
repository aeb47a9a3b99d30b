"""Codes outside the mask are the source's, those inside are drawn, by every way to draw."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CompileConfig

from helpers import draw, generators, picture
from wallaroo_hf.generation import NullPromptCache

SIZE = {"height": 64, "width": 96}
PROMPTS = ["make it blue", "two very small green birds on a long wooden table"]


def masks(*boxes):
    """White boxes in cells of 16 pixels: (left, top, right, bottom)."""
    made = []
    for box in boxes:
        mask = Image.new("L", (96, 64), 0)
        mask.paste(255, tuple(16 * edge for edge in box))
        made.append(mask)
    return made


LATE, EARLY = (2, 1, 4, 3), (0, 0, 1, 2)  # of 6x4 codes: behind a given beginning, and from the first code on


@pytest.fixture
def prepare(processor):
    def prepared(*boxes, prompts=PROMPTS, **more):
        return processor(
            text=prompts[: len(boxes)],
            images=[picture(seed, 96, 64) for seed in range(len(boxes))],
            mask_images=[None if box is None else masks(box)[0] for box in boxes],
            generation_mode="image",
            return_tensors="pt",
            **SIZE,
            **more,
        )

    return prepared


def grids(tokens, config):
    """Codes `(rows, cols)` of each row of `draw`, without line breaks and end."""
    first = config.text_config.vocab_size
    return [torch.tensor([token - first for token in row if token >= first][: 4 * 6]).view(4, 6) for row in tokens]


def known(model, seed):
    pixels = model.vq_model.encode
    inputs = np.asarray(picture(seed, 96, 64), np.float32) / 127.5 - 1
    return pixels(torch.from_numpy(inputs).permute(2, 0, 1)[None]).image_tokens[0]


@pytest.mark.parametrize("box", [LATE, EARLY])
@pytest.mark.parametrize("window", [1, 3, 8])
def test_codes_outside_are_the_sources(model, prepare, box, window):
    inputs = prepare(box)
    drawn = grids(draw(model, inputs, generator=generators(1), window=window), model.config)[0]
    left, top, right, bottom = box
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert torch.equal(inputs["repaint_mask"][0], inside)
    source = known(model, 0)
    assert torch.equal(drawn[~inside], source[~inside]) and not torch.equal(drawn[inside], source[inside])
    by_one = grids(draw(model, inputs, generator=generators(1)), model.config)[0]
    assert torch.equal(drawn, by_one)


def test_drawn_codes_follow_from_what_is_given_and_their_own_noise(model, prepare):
    """Whoever forces the same codes by scores gets the same picture, forward by forward."""
    inputs = prepare(LATE)
    source, inside = known(model, 0), inputs["repaint_mask"][0]
    plain = prepare(None)
    assert "repaint_mask" not in plain
    first = model.config.text_config.vocab_size
    prompt = plain["input_ids"].shape[1]

    def force(input_ids, scores):
        position = input_ids.shape[1] - prompt  # 6 codes and a line break to a row
        row, col = divmod(position, 7)
        if not inside[row, col]:
            scores = torch.full_like(scores, -torch.inf)
            scores[:, first + source[row, col]] = 0.0
        return scores

    forced = draw(model, plain, generator=generators(5), logits_processor=[force])
    assert forced == draw(model, inputs, generator=generators(5))


@pytest.mark.parametrize("window", [1, 4])
def test_batches_are_as_single_rows(model, prepare, window):
    together = draw(model, prepare(LATE, None), generator=generators(1, 2), window=window)
    alone = [
        draw(model, prepare(box, prompts=[prompt]), generator=generators(seed), window=window)[0]
        for box, prompt, seed in ((LATE, PROMPTS[0], 1),)
    ]
    assert together[0] == alone[0]
    both = draw(model, prepare(LATE, EARLY), generator=generators(1, 2), window=window)
    assert both[0] == alone[0]


def test_copies_and_other_settings(model, prepare):
    inputs = prepare(LATE, source_guidance=True)
    for settings in (
        {"guidance_scale": 1.0},
        {"source_guidance_scale": 1.5},
        {"null_prompt_cache": NullPromptCache()},
        {"attend_padding": True},
        {"top_k": 1},
    ):
        drawn = draw(model, inputs, generator=generators(1, 2), num_return_sequences=2, **settings)
        source, inside = known(model, 0), inputs["repaint_mask"][0]
        for grid in grids(drawn, model.config):
            assert torch.equal(grid[~inside], source[~inside]), settings


def test_compiled_steps_draw_the_same(model, prepare):
    inputs = prepare(LATE)
    plain = draw(model, inputs, generator=generators(1), cache_implementation="static", disable_compile=True)
    eager = CompileConfig(backend="eager", fullgraph=False)
    eager._compile_all_devices = True
    compiled = draw(model, inputs, generator=generators(1), cache_implementation="static", compile_config=eager)
    assert compiled == plain == draw(model, inputs, generator=generators(1))


def test_given_codes_cost_no_forward_of_their_own(model, prepare):
    output = model.generate(
        **prepare(LATE), generation_mode="image", generator=generators(1), return_dict_in_generate=True
    )
    assert sum(count for forward in output.statistics.decided for count in forward) == 4
    assert len(output.statistics.decided) == 5  # the prompt, then one for each code that is decided


def test_sessions_take_rows_with_and_without_masks(model, prepare):
    rows = [prepare(None), prepare(LATE)]
    session = model.session(2)
    numbers = [session.admit(row, generator) for row, generator in zip(rows, generators(3, 4), strict=True)]
    while not all(session.is_over(number) for number in numbers):
        session.step()
    ids = [session.take(number).native.tolist() for number in numbers]
    source, inside = known(model, 0), rows[1]["repaint_mask"][0]
    drawn = grids(ids, model.config)
    assert torch.equal(drawn[1][~inside], source[~inside]) and not torch.equal(drawn[0][~inside], source[~inside])


def test_masks_that_cannot_be(model, processor, prepare):
    with pytest.raises(ValueError, match="has no image to edit"):
        processor(text="a cat", mask_images=masks(LATE), generation_mode="image", return_tensors="pt", **SIZE)
    with pytest.raises(ValueError, match="`mask_images` is for drawing"):
        processor(text="a cat", mask_images=masks(LATE), return_tensors="pt")
    mask = Image.new("L", (200, 64), 0)
    mask.paste(255, (0, 0, 4, 64))
    wide = {"text": "make it blue", "images": [picture(1, 200, 64)], "mask_images": [mask], "generation_mode": "image"}
    with pytest.raises(ValueError, match="source_fit='pad'"):
        processor(**wide, **SIZE)
    assert processor(**wide, source_fit="pad", **SIZE)["repaint_mask"][0].any()
    inputs = prepare(LATE)
    with pytest.raises(ValueError, match="`repaint_mask` has 2 entries"):
        draw(model, {**inputs, "repaint_mask": inputs["repaint_mask"] * 2})
    with pytest.raises(ValueError, match="unchanged"):
        draw(model, {**inputs, "repaint_mask": [inputs["repaint_mask"][0][:3]]})
