"""What ablations add to model and processor: one head, the other order of blocks, 2-D positions, sizes in words."""

import pytest
import torch
from safetensors.torch import load_file

import wallaroo_hf
from helpers import draw, generators, picture
from wallaroo_hf.evaluation.ablations import find_ablation
from wallaroo_hf.evaluation.ablations.models import GridSourceModel, SharedHeadModel
from wallaroo_hf.evaluation.ablations.processors import SourceAfterProcessor
from wallaroo_hf.evaluation.ablations.training import TrainingPlan, build_variant
from wallaroo_hf.modeling.adapters import token_masks

PROMPT, SIZE = "make the star blue", {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def base():
    return wallaroo_hf.default_checkpoint()


def edit_inputs(processor, **more):
    return processor(
        text=[PROMPT], images=[picture(1, 96, 64)], generation_mode="image", return_tensors="pt", **SIZE, **more
    )


def build(name, variant, base):
    ablation = find_ablation(name)
    chosen = next(one for one in ablation.variants if one.name == variant)
    return build_variant(chosen, base, TrainingPlan(4).stage(ablation.kind, chosen))


# ----------------------------------------------------------------------------------------------------------- the head


def test_the_shared_head_is_one_in_memory_and_on_disk(base, tmp_path):
    model, processor = build("edit_head", "shared", base)
    assert isinstance(model, SharedHeadModel) and model.edit_head is model.generation_head
    assert not any(name.startswith("edit_head") for name, _ in model.named_parameters())
    with torch.no_grad():
        model.generation_head[0].weight.add_(0.5)
    model.save_pretrained(tmp_path)
    assert not any(name.startswith("edit_head") for name in load_file(tmp_path / "model.safetensors"))
    again = SharedHeadModel.from_pretrained(tmp_path)
    assert again.edit_head is again.generation_head
    torch.testing.assert_close(again.edit_head[0].weight, model.generation_head[0].weight)
    hidden = torch.randn(1, 2, model.config.text_config.hidden_size)
    torch.testing.assert_close(again.image_logits(hidden, True), again.image_logits(hidden, False), rtol=0, atol=0)
    assert draw(again, edit_inputs(processor), generator=generators(1))


def test_the_shared_head_learns_from_edits_and_the_separate_one_keeps_to_itself(base):
    for variant, expected in (("shared", True), ("separate", False)):
        model, processor = build("edit_head", variant, base)
        batch = processor(
            text=[PROMPT],
            images=[picture(1, 96, 64)],
            target_images=[picture(2, 96, 64)],
            generation_mode="image",
            return_labels=True,
            return_tensors="pt",
            **SIZE,
        )
        model(**batch).loss.backward()
        assert (model.generation_head[2].weight.grad is not None) == expected, variant


def test_every_variant_starts_from_the_same_weights(base):
    """Editing parts are made anew: copies of the generation parts, whatever editing parts the base has."""
    released, _ = build("edit_head", "separate", base)
    stored = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    assert not torch.equal(stored.edit_head[2].weight, released.edit_head[2].weight)
    torch.testing.assert_close(released.edit_head[2].weight, stored.generation_head[2].weight)
    for name, variant in (("edit_head", "shared"), ("source_order", "after"), ("source_positions", "2-D")):
        weights = build(name, variant, base)[0].state_dict()
        ours = released.state_dict()
        assert set(ours) - set(weights) <= {key for key in ours if key.startswith("edit_head")}
        for key, weight in weights.items():
            torch.testing.assert_close(weight, ours[key], rtol=0, atol=0, msg=key)


# ---------------------------------------------------------------------------------------------------------- the order


def test_the_source_stands_after_what_is_understood(base):
    released = wallaroo_hf.WallarooProcessor.from_pretrained(base)
    after = SourceAfterProcessor.from_pretrained(base)
    ours, theirs = edit_inputs(after), edit_inputs(released)
    tokens = ["<|pixel_start|>", "<|pixel_end|>", "<|vision_start|>", "<|vision_end|>"]
    pixel_start, pixel_end, vision_start, vision_end = released.tokenizer.convert_tokens_to_ids(tokens)

    def parts(ids, *marks):
        first, second, third, fourth = (ids.index(mark) for mark in marks)
        assert first < second == third - 1 and third < fourth
        return ids[:first], ids[first:third], ids[third : fourth + 1], ids[fourth + 1 :]

    for branch in ("input_ids", "negative_input_ids"):
        mine, its = ours[branch][0].tolist(), theirs[branch][0].tolist()
        head, vision, source, tail = parts(mine, vision_start, vision_end, pixel_start, pixel_end)
        assert parts(its, pixel_start, pixel_end, vision_start, vision_end) == (head, source, vision, tail)
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    masks, usual = (token_masks(one["input_ids"], model.config) for one in (ours, theirs))
    assert masks.source.sum() == usual.source.sum() == 4 * 6 and masks.vision.sum() == usual.vision.sum() > 0
    assert masks.task[0, -1] == 1
    torch.testing.assert_close(ours["mm_token_type_ids"], masks.vision.long())
    torch.testing.assert_close(ours["source_pixel_values"][0], theirs["source_pixel_values"][0])
    assert draw(model, ours, generator=generators(1)) != draw(model, theirs, generator=generators(1))


def test_without_a_source_nothing_moves(base):
    released = wallaroo_hf.WallarooProcessor.from_pretrained(base)
    after = SourceAfterProcessor.from_pretrained(base)
    one, other = (p(text="a red star", generation_mode="image", return_tensors="pt") for p in (released, after))
    assert one["input_ids"].tolist() == other["input_ids"].tolist()


# ------------------------------------------------------------------------------------------------------ the positions


@pytest.fixture(scope="module")
def both(base):
    """The released model and the one with two-dimensional sources, of equal weights."""
    classes = (wallaroo_hf.WallarooForConditionalGeneration, GridSourceModel)
    return [one.from_pretrained(base, dtype=torch.float32).eval() for one in classes]


def positions(model, inputs, prefix=""):
    return model.model.get_rope_index(
        inputs[f"{prefix}input_ids"],
        image_grid_thw=inputs[f"{prefix}image_grid_thw"],
        attention_mask=inputs[f"{prefix}attention_mask"],
    )


def test_positions_of_the_source_are_those_of_a_grid(base, both):
    released, grid = both
    inputs = edit_inputs(wallaroo_hf.WallarooProcessor.from_pretrained(base))
    (usual, usual_delta), (ours, delta) = (positions(model, inputs) for model in (released, grid))
    ids = inputs["input_ids"][0]
    start = int((ids == grid.config.pixel_start_token_id).nonzero())
    end = int((ids == grid.config.pixel_end_token_id).nonzero())
    assert end - start - 1 == 4 * 6 + 3  # codes and line breaks
    assert torch.equal(ours[:, :, : start + 1], usual[:, :, : start + 1])
    first = int(ours[0, 0, start]) + 1
    block = ours[:, 0, start + 1 : end]
    assert block[0].eq(first).all()
    expected = [(row, col) for row in range(4) for col in range(7)][:-1]  # the last row has no line break
    assert (block[1:].T - first).tolist() == [list(place) for place in expected]
    saved = 27 - 7  # the longer side is 6 codes and a line break
    assert torch.equal(ours[:, :, end:], usual[:, :, end:] - saved)
    assert int(delta) == int(usual_delta) - saved
    block_before = usual[:, 0, start + 1 : end]
    assert block_before.eq(torch.arange(first, first + 27)).all(), "released: one dimension"


def test_padding_and_batches_change_no_position(base, both):
    _, grid = both
    processor = wallaroo_hf.WallarooProcessor.from_pretrained(base)
    alone = positions(grid, edit_inputs(processor))[0]
    together = processor(
        text=[PROMPT, "put a large green ring where the yellow cross is now"],
        images=[picture(1, 96, 64), picture(2, 96, 64)],
        generation_mode="image",
        return_tensors="pt",
        height=64,
        width=96,
    )
    batched = positions(grid, together)[0]
    mask = together["attention_mask"][0].bool()
    inputs = edit_inputs(processor)
    own = inputs["attention_mask"][0].bool()
    assert torch.equal(batched[:, 0, mask], alone[:, 0, own]) and batched[:, 0, ~mask].eq(1).all()


def test_rows_without_a_source_keep_their_positions(base, both):
    inputs = wallaroo_hf.WallarooProcessor.from_pretrained(base)(
        text="a red star", generation_mode="image", return_tensors="pt"
    )
    for one, other in zip(*(model.model.get_rope_index(inputs["input_ids"]) for model in both), strict=True):
        assert torch.equal(one, other)


def test_drawing_and_training_see_the_same_positions(base, both):
    """What `generate` computes step by step is what `forward` computes at once."""
    _, grid = both
    processor = wallaroo_hf.WallarooProcessor.from_pretrained(base)
    inputs = edit_inputs(processor)
    greedy = {"guidance_scale": 1.0, "do_sample": False}
    new = draw(grid, inputs, **greedy)[0]
    row = torch.cat([inputs["input_ids"], torch.tensor([new])], dim=1)
    with torch.no_grad():
        logits = grid(
            input_ids=row,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
            source_pixel_values=inputs["source_pixel_values"],
            output_image_logits=True,
        ).image_logits[0]
    vocab_size = grid.config.text_config.vocab_size
    length = inputs["input_ids"].shape[1]
    for at, token in enumerate(new):
        if token >= vocab_size:
            assert int(logits[length + at - 1].argmax()) == token - vocab_size
    assert draw(both[0], inputs, **greedy)[0] != new


def test_a_source_without_line_breaks_must_be_square(both):
    _, grid = both
    config = grid.config
    for count, fits in ((9, True), (8, False)):
        ids = [config.pixel_start_token_id, *[config.image_token_id] * count, config.pixel_end_token_id]
        if fits:
            found = grid.model.get_rope_index(torch.tensor([ids]))[0]
            assert found[1:, 0, 1:-1].T.tolist() == [[1 + row, 1 + col] for row in range(3) for col in range(3)]
        else:
            with pytest.raises(ValueError, match="8 codes and no line breaks"):
                grid.model.get_rope_index(torch.tensor([ids]))


# --------------------------------------------------------------------------------------------------------- indicators


def test_how_sizes_are_announced(base):
    said = {}
    for variant in ("none", "words", "tokens"):
        _, processor = build("indicators", variant, base)
        texts = []
        for prompt in ("a star", "一颗星"):
            inputs = processor(text=prompt, generation_mode="image", height=64, width=128, return_tensors="pt")
            texts.append(processor.tokenizer.decode(inputs["input_ids"][0]))
        said[variant] = texts
    assert all("128x64" in text and "<indicator" not in text for text in said["words"])
    assert all("<indicator:64><indicator:128>" in text and "128" in text for text in said["tokens"])
    assert all("128" not in text and "<indicator" not in text for text in said["none"])
