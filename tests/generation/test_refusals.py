"""What cannot be drawn is refused in one sentence that says what to do."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig

from helpers import generators, picture


@pytest.fixture
def inputs(processor):
    return processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_beams": 3}, "num_beams=1"),
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens"),
        ({"use_cache": False}, "use_cache"),
        ({"custom_generate": lambda *args: None}, "custom_generate"),
        ({"stop_strings": ["x"]}, "stop_strings"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"negative_prompt_ids": torch.ones(1, 3).long()}, "negative_input_ids"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "one per image"),
        ({"generation_config": GenerationConfig(num_beams=3)}, "num_beams=1"),
        ({"labels": torch.ones(1, 3).long()}, "`labels` is an argument of `forward`"),
        ({"generation_mode": "video"}, "generation_mode"),
        ({"pixel_values_videos": torch.ones(1)}, "`pixel_values_videos` is an argument of `forward`"),
        ({"guidence_scale": 3.0}, "guidence_scale"),
        ({"num_return_sequences": 0}, "`num_return_sequences` is 0, but must be a whole number from 1 on"),
        ({"num_return_sequences": 1.5}, "whole number"),
        ({"guidance_scale": float("nan")}, "`guidance_scale` is nan, but must be a finite number"),
        ({"guidance_scale": float("inf")}, "finite"),
        ({"guidance_scale": "3"}, "`guidance_scale` is '3', but must be a number"),
        ({"source_guidance_scale": float("nan")}, "`source_guidance_scale` is nan"),
        ({"top_p": float("nan")}, "`top_p` is nan"),
        ({"image_guidance_scale": 2.0}, "as an argument it is `guidance_scale`"),
        ({"generation_mode": "text", "guidance_scale": float("nan")}, "`guidance_scale` is nan"),
        ({"generation_mode": "text", "num_return_sequences": 0}, "`num_return_sequences` is 0"),
    ],
)
def test_refused_arguments(model, inputs, kwargs, words):
    kwargs = {"generation_mode": "image", **kwargs}
    with pytest.raises(ValueError, match=words):
        model.generate(**inputs, **kwargs)


def test_prompt_not_prepared_for_drawing(model, processor):
    """The error names the keyword that stock pipelines need."""
    with pytest.raises(ValueError, match=r'processor_kwargs=\{"generation_mode": "image"\}'):
        model.generate(**processor(text="a cat", return_tensors="pt"), generation_mode="image")


def test_guidance_needs_the_unconditional_branch(model, inputs):
    conditional = {key: value for key, value in inputs.items() if not key.startswith("negative_")}
    with pytest.raises(ValueError, match="guidance_scale=1"):
        model.generate(**conditional, generation_mode="image")
    drawn = model.generate(**conditional, generation_mode="image", guidance_scale=1.0)
    assert model.decode_image_tokens(drawn).shape == (1, 3, 64, 64)


def test_target_grid_is_needed_and_counted(model, inputs):
    grid = inputs.pop("target_grid_hw")
    with pytest.raises(ValueError, match="target_grid_hw"):
        model.generate(**inputs, generation_mode="image")
    with pytest.raises(ValueError, match="one per prompt"):
        model.generate(**inputs, target_grid_hw=grid.repeat(2, 1), generation_mode="image")


def test_branches_must_have_equal_rows(model, inputs):
    for name in ("negative_input_ids", "negative_attention_mask"):
        inputs[name] = inputs[name].repeat(2, 1)
    with pytest.raises(ValueError, match="one row per prompt"):
        model.generate(**inputs, generation_mode="image")


def test_sizes_beyond_the_position_range(model, inputs):
    model.config.text_config.max_position_embeddings = 50
    with pytest.raises(ValueError, match="smaller image"):
        model.generate(**inputs, generation_mode="image")


def test_cache_must_be_empty(model, inputs):
    cache = DynamicCache(config=model.config.get_text_config())
    fresh = model.generate(**inputs, generation_mode="image", cache=cache, do_sample=False)
    assert fresh.shape[0] == 1
    with pytest.raises(ValueError, match="not empty"):
        model.generate(**inputs, generation_mode="image", cache=cache)


def test_source_tensors_must_match(model, processor):
    inputs = processor(
        text="blue", images=[picture(1)], generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    without = {key: value for key, value in inputs.items() if key != "source_pixel_values"}
    with pytest.raises(ValueError, match="source_pixel_values"):
        model.generate(**without, generation_mode="image")
    inputs["source_pixel_values"] = inputs["source_pixel_values"] * 2
    with pytest.raises(ValueError, match="16 source codes"):
        model.generate(**inputs, generation_mode="image")


def test_drawing_arguments_in_text_mode(model, processor):
    inputs = processor(text="Hello", return_tensors="pt")
    with pytest.raises(ValueError, match="generation_mode='image'"):
        model.generate(**inputs, generator=torch.Generator())
    with pytest.raises(ValueError, match="`pixel_values_videos` needs `video_grid_thw`"):
        model.generate(**inputs, pixel_values_videos=torch.ones(1))


def test_decoding_needs_a_whole_image(model, processor, inputs):
    drawn = model.generate(**inputs, generation_mode="image")
    with pytest.raises(ValueError, match="holds no image"):
        model.decode_image_tokens(processor(text="Hello", return_tensors="pt")["input_ids"])
    with pytest.raises(ValueError, match="incomplete"):
        model.decode_image_tokens(drawn[:, :-3])
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        model.decode_image_tokens(drawn[0])
    with pytest.raises(ValueError, match="target_grid_hw"):
        model.decode_image_tokens(drawn, target_grid_hw=[[2, 8]])


def test_images_without_line_breaks(model, processor):
    """Square ones explain themselves; others need their grid."""
    for height, width in ((64, 64), (32, 128)):
        inputs = processor(text="a cat", generation_mode="image", height=height, width=width, return_tensors="pt")
        drawn = model.generate(**inputs, generation_mode="image", line_breaks=False)
        grid = inputs["target_grid_hw"]
        assert model.decode_image_tokens(drawn, target_grid_hw=grid).shape == (1, 3, height, width)
    odd = processor(text="a cat", generation_mode="image", height=32, width=48, return_tensors="pt")
    with pytest.raises(ValueError, match="target_grid_hw"):
        model.decode_image_tokens(model.generate(**odd, generation_mode="image", line_breaks=False))


@pytest.mark.parametrize("copies", [1, 2])
def test_the_whole_output_knows_its_grids(model, processor, copies):
    """Nothing that `generate` knows need be handed in again: neither of odd sizes, nor of several, nor of copies."""
    odd = processor(
        text=["a cat", "a dog"], generation_mode="image", height=[32, 16], width=[48, 64], return_tensors="pt"
    )
    options = {"generation_mode": "image", "line_breaks": False, "num_return_sequences": copies}
    output = model.generate(**odd, **options, generator=generators(*range(2 * copies)), return_dict_in_generate=True)
    assert output.target_grid_hw.tolist() == [[2, 3]] * copies + [[1, 4]] * copies
    pixels = model.decode_image_tokens(output)
    assert [tuple(image.shape) for image in pixels] == [(3, 32, 48)] * copies + [(3, 16, 64)] * copies
    given = model.decode_image_tokens(output.sequences, target_grid_hw=output.target_grid_hw)
    assert all(torch.equal(*pair) for pair in zip(pixels, given, strict=True))


def test_what_is_too_long_is_named(model, processor):
    """A prompt that is longer than its picture is to be shortened; a picture that is larger, to be smaller."""
    long = processor(text="a cat " * 40, generation_mode="image", height=32, width=32, return_tensors="pt")
    large = processor(text="a cat", generation_mode="image", height=128, width=128, return_tensors="pt")
    model.config.text_config.max_position_embeddings = 60
    with pytest.raises(ValueError, match="shorten the prompt"):
        model.generate(**long, generation_mode="image")
    with pytest.raises(ValueError, match="60; ask for a smaller image"):
        model.generate(**large, generation_mode="image")
