"""`WallarooPipeline`: one call from words to pictures."""

import numpy
import pytest
import torch
from PIL import Image

from helpers import generators, picture, same_picture
from wallaroo_hf import WallarooPipeline
from wallaroo_hf.families.settings import Notice
from wallaroo_hf.generation import NullPromptCache

SIZE = {"height": 64, "width": 96}


@pytest.fixture
def pipe(model, processor):
    return WallarooPipeline(model=model, processor=processor, device="cpu")


def test_draws(pipe, model, processor):
    image = pipe("a cat", generator=generators(1), **SIZE).images[0]
    inputs = processor(text="a cat", generation_mode="image", return_tensors="pt", **SIZE)
    tokens = model.generate(**inputs, generation_mode="image", generator=generators(1))
    pixels = model.decode_image_tokens(tokens)
    assert image.size == (96, 64)
    assert same_picture(image, processor.post_process_multimodal_output(pixels, generation_mode="image")[0])


def test_batches_and_copies(pipe):
    prompts = ["a cat", "蓝色的星星"]
    together = pipe(prompts, num_images_per_prompt=2, generator=generators(1, 2, 3, 4), **SIZE)
    assert together.complete and len(together.images) == 4
    alone = pipe(prompts[1], generator=generators(4), **SIZE).images[0]
    assert same_picture(together.images[3], alone)


def test_an_edit_has_its_sources_size(pipe, tmp_path):
    source = picture(1, 60, 45)
    source.save(tmp_path / "source.png")
    buckets = {"generator": generators(1)}
    pipe.processor.buckets = [(48, 64)]
    assert pipe("make it blue", image=source, **buckets).images[0].size == (60, 45)
    assert pipe("make it blue", image=tmp_path / "source.png", published_eval=True).images[0].size == (64, 48)
    assert pipe("make it blue", image=source, height=32, width=32).images[0].size == (32, 32)


def test_edits_of_several_pictures(pipe, model, processor):
    """The last one is changed; the processor gets them all."""
    first, second = picture(1, 60, 45), picture(2, 45, 60)
    prompts = ["put the star into the second picture", "make it blue"]
    with pytest.warns(Notice, match="was not trained on edits of several pictures"):
        both = pipe(prompts, image=[[first, second], second], generator=generators(1, 2), height=64, width=48)
    assert [image.size for image in both.images] == [(48, 64)] * 2
    edited = pipe(prompts[0], image=[[first, second]], generator=generators(1)).images[0]
    assert edited.size == second.size
    assert edited != pipe(prompts[0], image=second, generator=generators(1)).images[0]
    mask = Image.new("L", second.size, 0)
    mask.paste(255, (0, 0, 20, 60))
    within = pipe(prompts[0], image=[[first, second]], mask_image=mask, generator=generators(1)).images[0]
    assert within.crop((20, 0, 45, 60)) == second.crop((20, 0, 45, 60))
    with pytest.raises(ValueError, match=r"a list of several for each: image=\[\[first, second\]\]"):
        pipe(prompts[0], image=[first, second])


def test_outside_of_a_mask_nothing_changes(pipe):
    source = picture(1, 60, 45)
    mask = Image.new("L", source.size, 0)
    mask.paste(255, (0, 0, 20, 45))
    options = {"mask_image": mask, "height": 48, "width": 64}
    edited = pipe("make it blue", image=source, generator=generators(1), **options).images[0]
    assert edited.size == source.size
    assert edited.crop((20, 0, 60, 45)) == source.crop((20, 0, 60, 45))
    assert edited.crop((0, 0, 20, 45)) != source.crop((0, 0, 20, 45))
    pixels = pipe("make it blue", image=source, generator=generators(1), output_type="pt", **options).images[0]
    assert torch.equal((pixels * 255).round().byte(), torch.from_numpy(numpy.array(edited)).permute(2, 0, 1))
    both = pipe(["make it blue"] * 2, image=source, mask_image=[mask, None], generator=generators(1, 1)).images
    assert both[0].crop((20, 0, 60, 45)) == source.crop((20, 0, 60, 45)) and both[1].size == source.size
    assert both[1].crop((20, 0, 60, 45)) != source.crop((20, 0, 60, 45))


def test_what_is_stopped_within_a_mask_is_whole(pipe):
    """One of two sizes: rows of the other one are ready at other times."""
    sources = [picture(1, 64, 96), picture(2, 64, 64)]
    masks = [Image.new("L", source.size, 255) for source in sources]
    seen = []

    def callback(own, step, of, details):
        seen.append((details["image"], details["preview"]().size))
        return (details["image"], step) != (1, 1)

    options = {"height": [96, 64], "width": [64, 64], "mask_image": masks, "generator": generators(1, 2)}
    output = pipe(["make it blue"] * 2, image=sources, callback_on_step_end=callback, **options)
    assert not output.complete and {size for image, size in seen if image == 0} == {(64, 96)}
    for picture_, source, rows in zip(output.images, sources, (2, 2), strict=True):
        assert picture_.size == source.size
        below = (0, 16 * (rows + 1), 64, source.height)
        assert picture_.crop(below) == source.crop(below) and picture_.crop((0, 0, 64, 16)) != source.crop(
            (0, 0, 64, 16)
        )


def test_a_picture_grows(pipe):
    source = picture(1, 60, 45)
    grown = pipe("make it wider", image=source, outpaint={"left": 10, "bottom": 5}, generator=generators(1)).images[0]
    assert grown.size == (70, 50) and grown.crop((10, 0, 70, 45)) == source


def test_masks_are_refused_where_they_cannot_be(pipe):
    source, mask = picture(1, 60, 45), Image.new("L", (60, 45), 255)
    with pytest.raises(ValueError, match="needs the picture that it masks"):
        pipe("a cat", mask_image=mask)
    for setting in ({"source_fit": "crop"}, {"published_eval": True}):
        with pytest.raises(ValueError, match="would cut it"):
            pipe("make it blue", image=source, mask_image=mask, **setting)


def test_an_array_can_be_edited(model, processor):
    pipe = WallarooPipeline(model=model, processor=processor, device="cpu", task="image-editing")
    source = picture(1)
    options = {"output_type": "tokens", **SIZE}
    edits = [
        pipe("make it blue", image=image, generator=generators(1), **options).images
        for image in (source, numpy.asarray(source), [numpy.asarray(source)])
    ]
    assert torch.equal(edits[0], edits[1]) and torch.equal(edits[0], edits[2])
    with pytest.raises(ValueError, match="needs the picture to edit"):
        pipe(["blue", "red"], image=[numpy.asarray(source), None], **options)


def test_drawings_and_edits_in_one_batch(pipe):
    output = pipe(["a cat", "make it blue"], image=[None, picture(1)], generator=generators(1, 2), **SIZE)
    assert same_picture(output.images[0], pipe("a cat", generator=generators(1), **SIZE).images[0])


def test_output_types(pipe):
    options = {"generator": torch.Generator().manual_seed(1), **SIZE}
    pixels = pipe("a cat", output_type="pt", **options).images[0]
    assert pixels.shape == (3, 64, 96) and pixels.min() >= 0 and pixels.max() <= 1
    assert pipe("a cat", output_type="tokens", **options).images.shape[0] == 1
    with pytest.raises(ValueError, match="output_type"):
        pipe("a cat", output_type="latent", **options)


def test_windows_draw_the_same(pipe):
    rows = []
    options = {"generator": torch.Generator().manual_seed(1), "output_type": "tokens", **SIZE}
    alone = pipe("a cat", **options).images
    options["generator"].manual_seed(1)

    def note(pipe, step, num_steps, details):
        rows.append(step)

    assert torch.equal(pipe("a cat", window=6, callback_on_step_end=note, **options).images, alone)
    assert rows == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="'auto'"):
        pipe("a cat", window="wide", **options)


def test_callback_sees_each_row(pipe):
    seen = []

    def callback(pipeline, step, num_steps, details):
        seen.append((step, num_steps, details["image"], details["preview"]().size))

    pipe("a cat", callback_on_step_end=callback, **SIZE)
    assert seen == [(row, 4, 0, (96, 16 * (row + 1))) for row in range(4)]


def test_interrupt_with_nothing_to_stop(pipe):
    pipe.interrupt()
    assert pipe("a cat", height=64, width=64).complete


@pytest.mark.parametrize("way", ["return", "interrupt"])
def test_callback_can_stop(pipe, way):
    def callback(pipeline, step, num_steps, details):
        if step == 1:
            if way == "interrupt":
                pipeline.interrupt()
            return way != "return"
        return None

    whole = pipe("a cat", generator=generators(1), **SIZE).images[0]
    output = pipe("a cat", generator=generators(1), callback_on_step_end=callback, **SIZE)
    assert not output.complete and output.images[0].size == (96, 32)
    assert whole.size == (96, 64)
    again = pipe("a cat", generator=generators(1), **SIZE)
    assert again.complete and same_picture(again.images[0], whole)


def test_callback_that_raises(pipe):
    def callback(pipeline, step, num_steps, details):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        pipe("a cat", callback_on_step_end=callback, **SIZE)
    assert pipe("a cat", **SIZE).complete


def test_guidance_options(pipe):
    source = picture(1)
    pipe("blue", image=source, source_guidance_scale=1.5, negative_prompt="blurry", **SIZE)
    store = NullPromptCache()
    pipe("blue", image=source, null_prompt_cache=store, **SIZE)
    assert len(store) == 1
    images = [pipe("a cat", guidance_scale=scale, do_sample=False, **SIZE).images[0] for scale in (1.0, 5.0)]
    assert not same_picture(*images)
    options = {"guidance_scale": 5.0, "do_sample": False, **SIZE}
    plausible = [pipe("a cat", guidance_min_p=share, **options).images[0].tobytes() for share in (None, 0, 1)]
    assert plausible[0] == plausible[1] == images[1].tobytes() != plausible[2]


def test_refused(pipe):
    with pytest.raises(ValueError, match="one for all or one each"):
        pipe(["a", "b", "c"], image=[picture(1), picture(2)], **SIZE)
    with pytest.raises(TypeError, match="heigth"):
        pipe("a cat", heigth=64)
    with pytest.raises(ValueError, match="empty"):
        pipe("", **SIZE)
