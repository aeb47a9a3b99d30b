"""What `forward` offers to trainers: encoded sources, label counts, rows without padding, parts that always run."""

import pytest
import torch

from helpers import picture
from wallaroo_hf.modeling.losses import LOSS_NAMES, count_labels

TEXTS = ["a cat", "make it blue, please", "a dog in the garden"]


@pytest.fixture
def batch(processor):
    """Two generation rows around one edit, of unequal length, padded right."""
    return processor(
        text=TEXTS,
        images=[None, picture(4), None],
        target_images=[picture(1), picture(2), picture(3)],
        generation_mode="image",
        height=[64, 64, 32],
        width=[64, 96, 64],
        return_labels=True,
        padding_side="right",
        return_tensors="pt",
    )


@pytest.fixture
def answers(processor):
    """One understanding row."""
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A boat."}]},
    ]
    text = processor.apply_chat_template(chat, tokenize=False)
    return processor(text=[text], images=[picture(5)], return_labels=True, return_tensors="pt")


def test_encoded_sources_give_the_same_loss(model, batch):
    pixels = batch.pop("source_pixel_values")
    expected = model(**batch, source_pixel_values=pixels)
    latents = model.vq_model.encode(pixels[0][None]).latents[0]
    assert torch.equal(model(**batch, source_latents=[latents]).loss, expected.loss)
    assert torch.equal(model(**batch, source_latents=[None], source_pixel_values=pixels).loss, expected.loss)
    mask = torch.zeros(24, dtype=torch.bool)
    mask[3:9] = True
    masked = model(**batch, source_latents=[latents], source_mask=[mask]).loss
    assert torch.equal(masked, model(**batch, source_pixel_values=pixels, source_mask=[mask]).loss)
    assert masked != expected.loss
    with pytest.raises(ValueError, match="leaves 1 sources to be encoded"):
        model(**batch, source_latents=[None])
    with pytest.raises(ValueError, match="source_latents"):
        model(**batch, source_latents=[latents[:2]])


def test_label_counts_are_those_of_the_loss(model, batch, answers):
    counts = dict(zip(LOSS_NAMES, count_labels(batch["input_ids"], batch["labels"], model.config).tolist()))
    # text: start, line breaks, end, end of turn, newline
    assert counts == {
        "understanding_text": 0,
        "generation_text": (4 + 3) + (4 + 1),
        "generation_image": 16 + 8,
        "editing_text": 4 + 3,
        "editing_image": 24,
    }
    losses = model(**batch).losses
    assert set(losses) == {name for name, count in counts.items() if count}
    counted = count_labels(answers["input_ids"], answers["labels"], model.config)
    assert counted[0] == (answers["labels"] >= 0).sum()
    assert counted[1:].sum() == 0


def test_rows_without_padding_compute_the_same(model, batch):
    """Rows one after the other, told apart by their positions: logits and losses of the padded batch."""
    padded = model(**batch)
    kept = batch["attention_mask"].bool()
    positions, _ = model.model.get_rope_index(
        batch["input_ids"], None, batch["image_grid_thw"], attention_mask=batch["attention_mask"]
    )
    in_row = (batch["attention_mask"].cumsum(dim=1) - 1)[None]
    packed = model(
        input_ids=batch["input_ids"][kept][None],
        labels=batch["labels"][kept][None],
        position_ids=torch.cat([in_row, positions])[:, kept][:, None],
        **{
            key: batch[key] for key in ("pixel_values", "image_grid_thw", "source_pixel_values", "target_pixel_values")
        },
    )
    torch.testing.assert_close(packed.logits, padded.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(packed.image_logits, padded.image_logits, atol=1e-4, rtol=0)
    for name, loss in padded.losses.items():
        torch.testing.assert_close(packed.losses[name], loss, atol=1e-5, rtol=0)


def test_an_answered_source_does_not_make_the_next_row_an_edit(model, processor):
    """In auto mode a question's image has a source block too; the drawing after it, in a row of its own, is none."""
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A boat."}]},
    ]
    kwargs = {"generation_mode": "auto", "height": 32, "width": 32, "return_labels": True, "return_tensors": "pt"}
    asked = processor(
        text=[processor.apply_chat_template(chat, tokenize=False)], images=[picture(1)], target_images=[[]], **kwargs
    )
    drawn = processor(
        text=["a"],
        target_images=[picture(2)],
        generation_mode="image",
        height=32,
        width=32,
        return_labels=True,
        return_tensors="pt",
    )
    ids = torch.cat([asked["input_ids"], drawn["input_ids"]], dim=1)
    labels = torch.cat([asked["labels"], drawn["labels"]], dim=1)
    starts = torch.zeros_like(ids, dtype=torch.bool)
    starts[0, 0] = starts[0, asked["input_ids"].shape[1]] = True
    counts = dict(zip(LOSS_NAMES, count_labels(ids, labels, model.config, starts).tolist()))
    assert counts["generation_image"] == 4
    assert counts["editing_image"] == 0
    assert counts["understanding_text"] > 0


@pytest.mark.parametrize("kind", ["drawing", "answering"])
def test_touching_all_parts_changes_no_number_and_reaches_every_parameter(model, batch, answers, kind):
    inputs = batch if kind == "drawing" else answers
    model.train()
    plain = model(**inputs)
    touched = model(**inputs, touch_all_parts=True)
    torch.testing.assert_close(touched.loss, plain.loss, atol=1e-6, rtol=0)
    touched.loss.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and not name.startswith(("model.vq_model", "model.visual"))
    ]
    assert without == []
    assert any(parameter.grad is not None for parameter in model.model.visual.parameters())
