"""Edits of several sources: reference images, and behind them the one that is changed."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import draw, generators, picture
from wallaroo_hf.generation import NullPromptCache

SIZE = {"height": 32, "width": 48}


@pytest.fixture
def prepare(processor):
    def prepared(*rows, text="put the star of the first picture into the second", **more):
        texts = [text] * len(rows) if isinstance(text, str) else text
        options = {"generation_mode": "image", "return_tensors": "pt", **SIZE, **more}
        return processor(text=texts, images=list(rows), **options)

    return prepared


def blocks(ids, model):
    """How each source and vision block begins and ends in a row, in order."""
    config = model.config
    names = {
        config.pixel_start_token_id: "<source",
        config.pixel_end_token_id: "source>",
        config.vision_start_token_id: "<vision",
        config.vision_end_token_id: "vision>",
    }
    return [names[token] for token in ids.tolist() if token in names]


def test_each_source_has_its_blocks(model, prepare):
    first, second = picture(1, 48, 32), picture(2, 48, 32)
    inputs = prepare([first, second])
    for prefix in ("", "negative_"):
        ids = inputs[f"{prefix}input_ids"][0]
        assert blocks(ids, model) == ["<source", "source>", "<vision", "vision>"] * 2
        assert len(inputs[f"{prefix}source_pixel_values"]) == len(inputs[f"{prefix}image_grid_thw"]) == 2
    alone = [prepare([one]) for one in (first, second)]
    for index, one in enumerate(alone):
        assert torch.equal(inputs["source_pixel_values"][index], one["source_pixel_values"][0])
    assert torch.equal(inputs["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))
    assert all(source.eq(-1).all() for source in inputs["negative_source_pixel_values"])
    seen = inputs["mm_token_type_ids"].sum() - sum(one["mm_token_type_ids"].sum() for one in alone)
    assert seen == 0
    assert torch.equal(prepare([second])["input_ids"], prepare(second)["input_ids"])  # one in a list is one


def test_every_source_matters_and_so_does_their_order(model, prepare):
    first, second, third = (picture(seed, 48, 32) for seed in (1, 2, 3))
    rows = ([first, second], [second, first], [third, second], [first, third], [second])
    drawn = [draw(model, prepare(row), generator=generators(1), top_k=1)[0] for row in rows]
    logits = []
    for row in rows:
        output = model.generate(
            **prepare(row), generation_mode="image", do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        logits.append(output.logits[0][0][-model.config.codebook_size :])
    assert all(not torch.equal(logits[0], other) for other in logits[1:])
    assert all(len(tokens) == len(drawn[0]) for tokens in drawn)


@pytest.mark.parametrize("settings", [{}, {"window": 4}, {"guidance_scale": 1.0}, {"source_guidance_scale": 1.5}])
def test_batches_are_as_single_rows(model, prepare, settings):
    first, second = picture(1, 48, 32), picture(2, 48, 32)
    rows = ([first, second], second, None, [second, first, first])
    texts = ["put the star into the second", "make it blue", "a cat", "all of them"]
    both = {"source_guidance": True}
    together = draw(model, prepare(*rows, text=texts, **both), generator=generators(1, 2, 3, 4), **settings)
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        alone = draw(model, prepare(row, text=[text], **both), generator=generators(index + 1), **settings)
        assert together[index] == alone[0]


def test_null_prompts_are_kept(model, prepare):
    inputs = prepare([picture(1, 48, 32), picture(2, 48, 32)])
    store = NullPromptCache()
    first = draw(model, inputs, generator=generators(1), null_prompt_cache=store)
    assert len(store) == 1
    assert draw(model, inputs, generator=generators(1), null_prompt_cache=store) == first
    assert first == draw(model, inputs, generator=generators(1))


def test_a_mask_is_of_the_last_one(model, prepare):
    first, second = picture(1, 48, 32), picture(2, 48, 32)
    mask = Image.new("L", second.size, 0)
    mask.paste(255, (0, 0, 16, 32))
    inputs = prepare([first, second], mask_images=[mask])
    drawn = draw(model, inputs, generator=generators(1))[0]
    codes = [token for token in drawn if token >= model.config.text_config.vocab_size]
    grid = torch.tensor(codes).view(2, 3) - model.config.text_config.vocab_size
    pixels = torch.from_numpy(np.asarray(second, np.float32) / 127.5 - 1).permute(2, 0, 1)
    known = model.vq_model.encode(pixels[None]).image_tokens[0]
    assert torch.equal(grid[:, 1:], known[:, 1:])


def test_the_size_is_that_of_the_last(processor):
    wide, high = picture(1, 96, 32), picture(2, 32, 96)
    options = {"text": "blue", "generation_mode": "image", "return_tensors": "pt"}
    grids = [
        processor(images=[images], **options)["target_grid_hw"].tolist() for images in ([wide, high], [high, wide])
    ]
    assert (
        grids == [processor(images=[one], **options)["target_grid_hw"].tolist() for one in (high, wide)]
        and grids[0] != grids[1]
    )


def test_a_chat_may_show_several(model, processor, prepare):
    first, second = picture(1, 48, 32), picture(2, 48, 32)
    content = [{"type": "image", "image": first}, {"type": "image", "image": second}, {"type": "text", "text": "both"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"generation_mode": "image", **SIZE},
    )
    assert torch.equal(inputs["input_ids"], prepare([first, second], text="both")["input_ids"])


def test_whose_sources_they_are_must_be_clear(processor, prepare):
    one = picture(1, 48, 32)
    with pytest.raises(ValueError, match=r"2 images were given .* images=\[\[first, second\]\]"):
        prepare(one, one, text=["blue"])
    with pytest.raises(ValueError, match=r"A prompt has 1 <\|image_pad\|>, but 2 images"):
        prepare([one, one], text="<|vision_start|><|image_pad|><|vision_end|> blue")
