"""Arguments that may be tensors: positions to keep, and stacked pictures in place of lists."""

from __future__ import annotations

import pytest
import torch

from helpers import draw, generators, picture
from wallaroo_hf.generation import NullPromptCache
from wallaroo_hf.generation.branches import split_rows, take_branch


def _edits(processor, **kwargs):
    return processor(
        text=["make it blue", "redder"],
        images=[picture(1), picture(2)],
        generation_mode="image",
        height=64,
        width=64,
        return_tensors="pt",
        **kwargs,
    )


KEPT = {
    "the first, as an index": (torch.tensor([0]), lambda logits: logits[:, [0]]),
    "some": (torch.tensor([0, 2]), lambda logits: logits[:, [0, 2]]),
    "from the end": (torch.tensor([-1, 1]), lambda logits: logits[:, [-1, 1]]),
    "others in each row": (
        torch.tensor([[0, 3], [1, 2]]),
        lambda logits: torch.stack([logits[0, [0, 3]], logits[1, [1, 2]]]),
    ),
    "none": (torch.tensor([], dtype=torch.long), lambda logits: logits[:, :0]),
    "the last two": (2, lambda logits: logits[:, -2:]),
    "all": (0, lambda logits: logits),
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("images", [False, True], ids=["text", "image"])
def test_positions_to_keep(model, processor, kind, images):
    inputs = {name: value for name, value in _edits(processor).items() if not name.startswith("negative_")}
    keep, expected = KEPT[kind]
    with torch.no_grad():
        whole, kept = (model(**inputs, logits_to_keep=which, output_image_logits=images) for which in (None, keep))
    name = "image_logits" if images else "logits"
    torch.testing.assert_close(kept[name], expected(whole[name]), atol=1e-5, rtol=0)


def test_a_mask_of_positions_to_keep(model, processor):
    inputs = {name: value for name, value in _edits(processor).items() if not name.startswith("negative_")}
    mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    mask[0, 4] = mask[1, 2:5] = True
    with torch.no_grad():
        for name in ("logits", "image_logits"):
            options = {"output_image_logits": name == "image_logits"}
            kept, whole = (model(**inputs, logits_to_keep=which, **options)[name] for which in (mask, None))
            torch.testing.assert_close(kept, whole[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", [[0], [0, 2]])
def test_positions_to_keep_beside_labels(model, processor, positions):
    rows = processor(
        text="a cat",
        target_images=[picture(2)],
        generation_mode="image",
        height=64,
        width=64,
        return_labels=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        kept = model(**rows, logits_to_keep=torch.tensor(positions))
        whole = model(**rows, logits_to_keep=0)
    assert torch.equal(kept.loss, whole.loss)
    torch.testing.assert_close(kept.logits, whole.logits[:, positions], atol=1e-5, rtol=0)


def test_stacked_pictures_are_a_list_of_them(model, processor):
    """Sources in drawing, in both branches and one by one in auto mode; sources and targets in training."""
    inputs = _edits(processor)
    names = [name for name in inputs if name.endswith("source_pixel_values")]
    stacked = {**inputs, **{name: torch.stack(list(inputs[name])) for name in names}}
    assert len(names) == 2
    options = {"generator": generators(1, 2)}
    assert draw(model, stacked, **options) == draw(model, inputs, generator=generators(1, 2))
    copies = [
        draw(model, given, num_return_sequences=2, generator=generators(1, 2, 3, 4)) for given in (inputs, stacked)
    ]
    assert copies[0] == copies[1]
    rows = _edits(processor, target_images=[picture(3), picture(4)], return_labels=True, padding_side="right")
    named = ("source_pixel_values", "target_pixel_values")
    with torch.no_grad():
        as_lists = model(**rows)
        as_tensors = model(**{**rows, **{name: torch.stack(list(rows[name])) for name in named}})
        latents = torch.stack(model.model.encode_images(rows["source_pixel_values"])[1])
        encoded = model(**{**rows, "source_pixel_values": None, "source_latents": latents})
    assert torch.equal(as_tensors.loss, as_lists.loss)
    torch.testing.assert_close(encoded.loss, as_lists.loss)


def test_null_prompts_of_stacked_pictures_are_the_same_ones(model, processor):
    inputs = _edits(processor)
    name = "negative_source_pixel_values"
    stacked = {**inputs, name: torch.stack(list(inputs[name]))}
    store = NullPromptCache()
    drawn = [draw(model, given, generator=generators(1, 2), null_prompt_cache=store) for given in (inputs, stacked)]
    assert drawn[0] == drawn[1] and len(store) == len({NullPromptCache.key(row) for row in _rows(model, inputs)})


def _rows(model, inputs):
    return split_rows(model, take_branch(dict(inputs), "negative_"))
