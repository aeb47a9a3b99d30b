"""Rows of every task become sequences of the released code, with labels, times and seeds that follow from numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from small_showo2 import assistant, drawing, edit, new_showo2, picture, question, story, user
from wallaroo_hf.showo2.flow_noise import CLEAN
from wallaroo_hf.showo2.sequences import FLAG, block_positions
from wallaroo_hf.showo2.training.noisy_batch import noisy_batch, pack_posteriors
from wallaroo_hf.showo2.training.showo2_collator import ShowO2DataCollator
from wallaroo_hf.showo2.training.showo2_stages import showo2_stage
from wallaroo_hf.training.data.training_rows import RowError


@pytest.fixture(scope="module")
def small():
    return new_showo2()


@pytest.fixture(scope="module")
def processor(small):
    return small[1]


def _collator(processor, stage="2c", **settings):
    options = {name: settings.pop(name) for name in ("max_length", "on_error", "seed") if name in settings}
    return ShowO2DataCollator(processor, dataclasses.replace(showo2_stage(stage), **settings), **options)


def _said(processor, ids):
    return processor.tokenizer.decode(ids)


def _learned(processor, batch, row=0):
    return _said(processor, [label for label in batch["labels"][row].tolist() if label >= 0])


def test_a_drawing(processor):
    batch = _collator(processor, caption_dropout=0.0)([drawing(ordinal=3)])
    pads = "<|image_pad|>" * 5
    assert _said(processor, batch["input_ids"][0].tolist()) == (
        f"<|im_start|>a red square<|vision_start|>{pads}<|vision_end|><|im_end|>"
    )
    assert (batch["labels"] == -100).all() and batch["image_learned"] == [True]
    assert 0 < batch["timesteps"][0] < 1
    assert batch["image_pixels"][0].shape == (3, 32, 32) and batch["image_posteriors"] == [None]


def test_dropped_words_leave_the_null_prompt(processor):
    batch = _collator(processor, caption_dropout=1.0)([drawing(ordinal=3)])
    start, first = batch["input_ids"][0, :2].tolist()
    assert (start, first) == (processor.ids.bos_token_id, processor.ids.vision_start_token_id)
    collator = _collator(processor)  # one in ten
    dropped = [len(collator.encode(drawing(ordinal=number))["input_ids"]) < 10 for number in range(400)]
    assert 20 <= sum(dropped) <= 62


@pytest.mark.parametrize(
    ("layout", "expected", "learned"),
    [
        ("caption", "<|im_start|>{image}red<|im_end|>", "<|im_start|><|vision_start|><|vision_end|>red<|im_end|>"),
        ("image", "<|im_start|>{image}red<|im_end|>", "red<|im_end|>"),
        ("plain", "<|im_start|>{image}\nwhat colour is it?red<|im_end|>", "red<|im_end|>"),
        (
            "chat",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{image}\nwhat colour is it?"
            "<|im_end|>\n<|im_start|>assistant\nred<|im_end|>",
            "red<|im_end|>",
        ),
    ],
)
def test_an_answer_in_each_layout(processor, layout, expected, learned):
    batch = _collator(processor, understanding=layout)([question(ordinal=0)])
    image = f"<|vision_start|>{'<|image_pad|>' * 5}<|vision_end|>"
    assert _said(processor, batch["input_ids"][0].tolist()) == expected.format(image=image)
    assert _learned(processor, batch) == learned
    assert batch["timesteps"] == [CLEAN] and batch["image_learned"] == [False]


def test_rows_without_one_picture_are_chats(processor):
    collator = _collator(processor, understanding="caption")
    text = {"messages": [user("what colour is it?"), assistant("blue"), user("a red circle"), assistant("red")]}
    batch = collator([text])
    assert "image_pixels" not in batch and _learned(processor, batch) == "blue<|im_end|>red<|im_end|>"
    two = question() | {"messages": [user(None, "red"), assistant("red"), user("blue"), assistant("blue")]}
    assert _said(processor, collator([two])["input_ids"][0].tolist()).count("<|im_start|>") == 5


def test_a_chat_is_what_the_processor_makes_of_it(processor):
    row = question()
    rendered = processor.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True)
    prompt = processor(text=rendered, images=row["images"], return_tensors="pt")
    batch = _collator(processor)([row])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], prompt["input_ids"])
    assert torch.equal(batch["image_pixels"][0], prompt["pixel_values"][0])
    assert (batch["labels"][0, :length] == -100).all() and (batch["labels"][0, length:] >= 0).all()


def test_an_edit_shows_its_source_first(small):
    model, _ = new_showo2()
    model.config.tasks = ["understanding", "text-to-image", "image-editing"]
    processor = type(small[1]).of_config(model.config, small[1].tokenizer, sizes=[(32, 32)])
    row = edit(ordinal=1)
    prompt = processor(text="make it green", images=row["images"][0], generation_mode="image", return_tensors="pt")
    batch = _collator(processor, caption_dropout=0.0)([row])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], prompt["input_ids"])
    assert batch["image_learned"] == [False, True] and batch["timesteps"][0] == CLEAN != batch["timesteps"][1]


def test_a_story(processor):
    batch = _collator(processor, "interleaved", clean_rate=0.0)([story(ordinal=2)])
    said = _said(processor, batch["input_ids"][0].tolist())
    image = f"<|vision_start|>{'<|image_pad|>' * 5}<|vision_end|>"
    assert said == f"<|im_start|>{FLAG} a red circleone{image}two{image}three{image}<|im_end|>"
    assert batch["image_learned"] == [True] * 3
    learned = _learned(processor, batch)
    assert "<|image_pad|>" not in learned and FLAG not in learned
    assert learned.count("<|vision_start|>") == 3 and learned.endswith("<|im_end|>")
    chat = _collator(processor, "interleaved", interleaved="chat")([story(ordinal=2)])
    assert _learned(processor, chat).startswith("one<|vision_start|><|vision_end|>two")


def test_first_pictures_of_stories_are_clean_now_and_then(processor):
    collator = _collator(processor, "interleaved", clean_rate=0.7)
    clean = [collator.encode(story(ordinal=number))["image_learned"].count(False) for number in range(300)]
    assert set(clean) == {0, 1, 2} and 170 <= sum(count > 0 for count in clean) <= 250
    encoded = collator.encode(story(ordinal=next(number for number, count in enumerate(clean) if count == 1)))
    assert encoded["image_learned"] == [False, True, True] and encoded["timesteps"][0] == CLEAN


def test_choices_follow_from_a_rows_number(small):
    model, processor = small
    rows = [drawing(ordinal=5), story(ordinal=6), question(ordinal=7)]
    together = noisy_batch(model, _collator(processor, seed=3)(rows))
    apart = [noisy_batch(model, _collator(processor, seed=3)([row])) for row in rows]
    torch.manual_seed(9)
    for name in ("timesteps", "image_latents"):
        for one, other in zip(together[name], [item for batch in apart for item in batch[name]], strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    other = noisy_batch(model, _collator(processor, seed=4)(rows))
    assert not torch.equal(together["image_latents"][0], other["image_latents"][0])
    again = noisy_batch(model, _collator(processor, seed=3)([drawing(ordinal=50)]))
    assert not torch.equal(together["image_latents"][0], again["image_latents"][0])


def test_latents_encoded_ahead_are_the_same(small):
    model, processor = small
    rows = [drawing(ordinal=5), question(ordinal=7)]
    expected = noisy_batch(model, _collator(processor)(rows))
    pixels = torch.stack(_collator(processor)(rows)["image_pixels"])
    packed = pack_posteriors(model.vae.encode_images(pixels), model.config.patch_size)
    ahead = [{**row, "image_latents": [one.numpy()]} for row, one in zip(rows, packed, strict=True)]
    ahead[0]["images"] = [None]
    found = noisy_batch(model, _collator(processor)(ahead))
    assert torch.equal(found["input_ids"], expected["input_ids"])
    for one, other in zip(found["image_latents"], expected["image_latents"], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    broken = {**rows[0], "image_latents": [np.zeros((4, 4))]}
    with pytest.raises(RowError, match="encode the rows again"):
        _collator(processor)([broken])


def test_sizes(processor):
    collator = _collator(processor)
    wide = drawing(ordinal=0) | {"images": [picture(size=(300, 140))]}
    assert collator([wide])["image_pixels"][0].shape == (3, 32, 64)
    asked = collator([wide | {"height": 48, "width": 16}])
    assert asked["image_pixels"][0].shape == (3, 48, 16)
    assert block_positions(asked["input_ids"][0].tolist(), processor.ids)[0][1] == 3 + 1
    with pytest.raises(RowError, match="multiple"):
        collator([wide | {"height": 40, "width": 16}])


def test_broken_and_long_rows(processor, caplog):
    assert _collator(processor, max_length=9).measure(drawing()) > 9
    with pytest.raises(RowError, match=r"Row 4 has .* `max_length` is 9"):
        _collator(processor, max_length=9)([drawing(ordinal=4)])
    spells = question(answer="<|vision_start|>", name="bad")
    batch = _collator(processor, on_error="skip")([spells, question(ordinal=1)])
    assert batch["skipped_rows"] == 1 and len(batch["input_ids"]) == 1 and "bad" in caplog.text
    nothing = _collator(processor, on_error="skip")([spells])
    assert (nothing["labels"] == -100).all() and "image_pixels" not in nothing


def test_rows_are_padded_on_the_right(processor):
    batch = _collator(processor)([drawing(ordinal=0), question(ordinal=1)])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    row = batch["attention_mask"][0]
    assert row[0] == 1 and row[-1] == 0 and (batch["input_ids"][0][row == 0] == processor.ids.pad_token_id).all()
