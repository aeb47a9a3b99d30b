"""Rows to batches: every task, random choices that follow from the row's number, rows that cannot be trained on."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import picture
from training.conftest import answer_row, drawing_row
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.data.record_formats import adapt_row
from wallaroo_hf.training.data.training_rows import RowError
from wallaroo_hf.training.stages import stage


@pytest.fixture
def collator(processor):
    return WallarooDataCollator(processor, unconditional_rate=0.0)


def _forward(model, batch):
    return model(**{name: value for name, value in batch.items() if name != "row_names"})


def _text(processor, encoded):
    known = len(processor.tokenizer)
    return processor.tokenizer.decode([token for token in encoded["input_ids"] if token < known])


def test_mixed_tasks_in_one_batch_are_the_rows_alone(model, collator, rows):
    numbered = Numbered(rows)
    with torch.no_grad():
        together = _forward(model, collator([numbered[index] for index in range(8)]))
        alone = [_forward(model, collator([numbered[index]])) for index in range(8)]
    assert set(together.losses) == set(LOSS_NAMES)
    torch.testing.assert_close(together.logits, torch.cat([output.logits for output in alone]), atol=1e-4, rtol=0)
    images = torch.cat([output.image_logits for output in alone if output.image_logits.numel()])
    torch.testing.assert_close(together.image_logits, images, atol=1e-4, rtol=0)


def test_batch_is_padded_right_and_names_its_rows(collator, rows):
    batch = collator([{**rows[0], "name": "first"}, {**rows[6], "draw": 12}])
    assert batch["row_names"] == ["first", "12"]
    assert batch["attention_mask"][1, 0] == 1 and batch["attention_mask"][:, -1].sum() == 1
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_choices_follow_from_seed_and_number(processor, rows):
    def all_rows(seed, order):
        collator = WallarooDataCollator(processor, unconditional_rate=0.3, seed=seed)
        numbered = Numbered(rows * 4)
        return {index: collator.encode(numbered[index]) for index in order}

    first, second, other = all_rows(1, range(32)), all_rows(1, reversed(range(32))), all_rows(2, range(32))
    assert all(first[index]["input_ids"] == second[index]["input_ids"] for index in range(32))
    masks = [(first[index]["source_mask"][0], second[index]["source_mask"][0]) for index in range(1, 32, 8)]
    assert all(np.array_equal(one, two) for one, two in masks)
    assert any(first[index]["input_ids"] != other[index]["input_ids"] for index in range(32))


def test_unconditional_rows_have_an_empty_prompt_and_a_black_source(processor, rows):
    collator = WallarooDataCollator(processor, unconditional_rate=0.999999)
    drawn = _text(processor, collator.encode({**rows[0], "draw": 1}))
    assert "red boat" not in drawn and '""' in drawn.replace(': ""', '""')
    edited = collator.encode({**rows[1], "draw": 1})
    assert "blue" not in _text(processor, edited)
    assert (edited["source_pixel_values"][0] == -1).all()
    black = processor.image_processor(
        [Image.new("RGB", rows[1]["images"][0].size)], size=processor.pixel_limits["editing"]
    )
    np.testing.assert_array_equal(edited["pixel_values"], black["pixel_values"])
    # what is learned stays
    plain = WallarooDataCollator(processor, unconditional_rate=0.0).encode({**rows[1], "draw": 1})
    np.testing.assert_array_equal(edited["target_pixel_values"][0], plain["target_pixel_values"][0])


def test_a_tenth_of_the_drawing_rows_is_unconditional(processor, rows):
    collator = WallarooDataCollator(processor)
    chinese = [_text(processor, collator.encode({**rows[3], "draw": index})) for index in range(400)]
    share = sum("一只猫" not in text for text in chinese) / len(chinese)
    assert 0.05 < share < 0.16
    answers = [_text(processor, collator.encode({**rows[2], "draw": index})) for index in range(50)]
    assert all("What is it?" in text for text in answers)


def test_templates_are_drawn_from_the_list_of_the_language(processor, rows, collator):
    listed = processor.prompt_templates["generation"]
    for row, language in ((rows[0], "en"), (rows[3], "zh")):
        texts = {_text(processor, collator.encode({**row, "draw": index})) for index in range(200)}
        assert len(texts) == len(listed[language])
    first = WallarooDataCollator(processor, unconditional_rate=0.0, random_templates=False)
    assert "Generate an image with resolution 32x32" in _text(processor, first.encode({**rows[0], "draw": 5}))


def test_sources_are_masked(collator, rows):
    encoded = collator.encode({**rows[1], "draw": 3})
    mask = encoded["source_mask"][0]
    assert mask.shape == (6,) and (~mask).sum() == int(6 * 0.4)
    assert mask.dtype == bool


def test_encoded_rows_train_as_images_do(model, collator, rows):
    row = {**rows[1], "draw": 3}
    pixels = [
        torch.from_numpy(collator.processor.image_processor.to_vq_pixels(image, 32, 48))[None]
        for image in row["images"]
    ]
    source, target = (model.vq_model.encode(image) for image in pixels)
    encoded = {
        **{key: row[key] for key in ("messages", "draw")},
        "images": [row["images"][0], None],
        "image_tokens": [target.image_tokens[0].tolist()],
        "source_latents": [source.latents[0].tolist()],
    }
    batch = collator([encoded])
    assert "target_pixel_values" not in batch and "source_pixel_values" not in batch
    with torch.no_grad():
        torch.testing.assert_close(
            _forward(model, batch).loss, _forward(model, collator([row])).loss, atol=1e-6, rtol=0
        )
        both = _forward(model, collator([encoded, {**row, "draw": 4}, {**encoded, "draw": 5}]))
    assert torch.isfinite(both.loss)
    # an unconditional row has no use for the latents of its source
    unconditional = WallarooDataCollator(collator.processor, unconditional_rate=0.999999)([encoded, row])
    assert [pixels.max() for pixels in unconditional["source_pixel_values"]] == [-1, -1]


def test_a_chat_before_the_drawing_is_kept(processor, collator, rows):
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, what shall I draw?"}]
    encoded = collator.encode({**rows[0], "messages": earlier + rows[0]["messages"]})
    text = _text(processor, encoded)
    assert text.index("what shall I draw?") < text.index("a red boat")
    learned = processor.tokenizer.decode(
        [token for token in encoded["labels"] if 0 <= token < len(processor.tokenizer)]
    )
    assert "what shall I draw" not in learned and learned.startswith("<|generate_start|>")


def test_interleaved_rows(model, collator, rows):
    asked = {"role": "user", "content": [{"type": "text", "text": "Draw a boat and say so."}]}
    said = [{"type": "text", "text": "Here:"}, {"type": "image"}, {"type": "text", "text": "A boat."}]
    row = {
        "messages": [asked, {"role": "assistant", "content": said}],
        "images": [picture(1)],
        "height": 32,
        "width": 32,
    }
    losses = _forward(model, collator([row])).losses
    assert set(losses) == {"generation_text", "generation_image"}
    # a question in the manner of auto mode, where the image has a source block too
    question = {**answer_row("What?", "A boat.", picture(2)), "task": "interleaved"}
    batch = collator([question, row])
    assert len(batch["source_mask"]) == 1
    assert set(_forward(model, batch).losses) == {"understanding_text", "generation_text", "generation_image"}


def test_long_rows_are_refused_or_left_out_by_name(processor, rows, caplog):
    with pytest.raises(RowError, match=r"Row seven has \d+ tokens, but `max_length` is 60"):
        WallarooDataCollator(processor, max_length=60)([{**rows[1], "name": "seven"}])
    collator = WallarooDataCollator(processor, max_length=60, on_error="skip")
    with caplog.at_level(logging.WARNING):
        batch = collator([{**rows[1], "name": "seven"}, rows[6]])
    assert batch["input_ids"].shape[0] == 1 and collator.skipped == batch["skipped_rows"] == 1
    assert "seven" in caplog.text
    assert "skipped_rows" not in collator([rows[6]])
    empty = collator([{**rows[1], "name": "seven", "skipped": ["six: it has no messages", "eight: the same"]}])
    assert empty["skipped_rows"] == 3
    assert (empty["labels"] == -100).all()


def test_length_is_measured(collator, rows):
    for row in rows:
        lengths = {len(collator.encode({**row, "draw": index})["input_ids"]) for index in range(100)}
        assert collator.measure(row) == max(lengths)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "no `messages`"),
        (drawing_row("a", None), "show 1 images, but it brings 1"),
        ({**answer_row("a", "b"), "images": [picture(1)]}, "show 0 images, but it brings 1"),
        (drawing_row("a", "nowhere.png"), "does not exist"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "show 1 videos, but it brings 0"),
        ({"messages": [{"role": "user", "content": [{"type": "film"}]}]}, "'film'"),
        (drawing_row("", picture(1), height=30, width=32), "multiple of 16"),
        (drawing_row("<|im_end|>", picture(1)), "special token"),
        (drawing_row("<|im_start|>user\na cat<|im_end|>\n", picture(1)), "special token"),
        (drawing_row("<|image_pad|>a cat", picture(1), picture(2)), "special token"),
        (answer_row("a<|im_end|>", "b"), "special token"),
        (answer_row("a", "b<|im_end|>\n<|im_start|>user\nc", picture(1)), "special token"),
        ({**answer_row("a", "<|generate_start|>"), "task": "interleaved"}, "special token"),
        (
            {"messages": [{"role": "system", "content": "<|im_end|>"}, *drawing_row("a", picture(1))["messages"]]}
            | {"images": [picture(1)]},
            "special token",
        ),
        ({**drawing_row("a", picture(1)), "image_tokens": [[[1, 2], [3]]], "images": [None]}, "non-negative integers"),
        (
            {**drawing_row("a", picture(1), picture(2)), "source_latents": [np.zeros((2, 2, 8))]},
            "encode the rows again",
        ),
    ],
)
def test_broken_rows_are_named(collator, row, words):
    with pytest.raises(RowError, match=f"Row broken .*{words}"):
        collator([{**row, "name": "broken"}])


def test_pictures_of_high_range_are_learned_as_they_look(collator):
    """Mode I with 8-bit values is no black picture, and an array is a picture too."""
    gray = np.asarray(picture(1).convert("L"))
    plain, *others = [
        collator([{**drawing_row("a", image), "draw": 1}])["target_pixel_values"][0]
        for image in (Image.fromarray(gray), Image.fromarray(gray.astype(np.int32)), gray / 255)
    ]
    assert plain.std() > 0.1 and all((other == plain).all() for other in others)


def test_image_markers_are_pictures_before_words_are_looked_at(collator):
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A <tool_call>."}]
    row = adapt_row({"conversations": turns, "image": picture(1)})
    assert np.shape(collator.encode(row)["image_grid_thw"]) == (1, 3)
    marked = {
        "messages": [{"role": "user", "content": "\x00source\x00"}, {"role": "assistant", "content": "\x00target\x00"}]
    }
    encoded = collator.encode({**marked, "task": "interleaved"})
    assert "\x00source\x00" in _text(collator.processor, encoded) and "source_pixel_values" not in encoded


def test_names_of_rows_stay_in_one_line(collator):
    with pytest.raises(RowError, match=r"^Row a b cannot be trained on: .*special token"):
        collator.encode({**answer_row("<|im_end|>", "b"), "name": "a\nb"})


def test_settings_of_a_stage(processor):
    collator = WallarooDataCollator.for_stage(processor, stage(4), seed=3)
    assert (collator.max_length, collator.unconditional_rate, collator.source_mask_rate) == (4096, 0.1, 0.6)
    assert collator.pixel_limits["longest_edge"] == 188160 and collator.seed == 3
    with pytest.raises(ValueError, match="on_error"):
        WallarooDataCollator(processor, on_error="ignore")


def test_rows_of_earlier_versions_say_their_ordinal_by_another_name(processor, rows):
    """What was `draw` is `ordinal`; kept rows make the same random choices, and a new ordinal overrides an old one."""
    collator = WallarooDataCollator(processor, unconditional_rate=0.3)
    texts = {}
    for index in range(12):
        new, old, both = (
            collator.encode({**rows[1], **ordinal})
            for ordinal in ({"ordinal": index}, {"draw": index}, {"ordinal": index, "draw": index + 1})
        )
        assert new["input_ids"] == old["input_ids"] == both["input_ids"]
        assert (new["source_mask"][0] == old["source_mask"][0]).all() and (
            new["source_mask"][0] == both["source_mask"][0]
        ).all()
        texts[index] = _text(processor, new)
    assert len(set(texts.values())) > 3
    assert Numbered([{**rows[0], "draw": 7}])[0]["ordinal"] == 0
