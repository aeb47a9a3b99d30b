"""Sources in, edits out: bringing images to a size and back."""

import numpy as np
import pytest
from PIL import Image

from helpers import picture
from wallaroo_hf.layout.grid import contain_and_pad


def test_padding_keeps_everything():
    (height, width), (top, left) = contain_and_pad(100, 300, 64, 64)
    assert (height, width) == (21, 64) and (top, left) == (21, 0)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (128, 96), (333, 777)])
def test_pad_and_back_gives_the_source(processor, size):
    """What goes in padded comes back at its own size, whole: only resampling is lost."""
    source = picture(1, *size)
    pixels = processor.image_processor.to_vq_pixels(source, 416, 576, fit="pad")
    assert pixels.shape == (3, 416, 576) and pixels.min() >= -1 and pixels.max() <= 1
    shown = processor.image_processor.from_vq_pixels([_tensor(pixels)])[0]
    back = processor.fit_back([shown], [source], "pad")[0]
    assert back.size == source.size
    assert np.abs(np.asarray(back, dtype=float) - np.asarray(source, dtype=float)).mean() < 3


def test_crop_and_back_has_the_sources_scale(processor):
    source = picture(1, 640, 480)
    pixels = processor.image_processor.to_vq_pixels(source, 416, 576)
    shown = processor.image_processor.from_vq_pixels([_tensor(pixels)])[0]
    back = processor.fit_back([shown], [source], "crop")[0]
    assert back.size == (640, 462)
    middle = source.crop((0, 9, 640, 471))
    assert np.abs(np.asarray(back, dtype=float) - np.asarray(middle, dtype=float)).mean() < 3


@pytest.mark.parametrize("form", ["path", "bytes", "PIL"])
def test_called_by_itself_it_opens_as_the_processor_does(processor, tmp_path, form):
    """transformers' own opening would clip mode I, and refuse bytes; what is transparent would turn black."""
    dark = np.asarray(picture(1).convert("L")).astype(np.int32)
    clear = picture(2).convert("RGBA")
    clear.putalpha(0)
    for image, expected in ((Image.fromarray(dark), dark), (clear, np.full(dark.shape, 255))):
        path = tmp_path / f"a{image.mode}.tiff"
        image.save(path)
        given = {"path": str(path), "bytes": path.read_bytes(), "PIL": image}[form]
        shown = Image.fromarray(np.repeat(expected[..., None], 3, axis=2).astype(np.uint8))
        pixels = processor.image_processor(given, return_tensors="np")["pixel_values"]
        assert (pixels == processor.image_processor(shown, return_tensors="np")["pixel_values"]).all()


def test_called_by_itself_with_arrays_it_is_told_their_range(processor):
    shares = np.asarray(picture(1), np.float32) / 255
    told = processor.image_processor(shares, do_rescale=False, return_tensors="np")["pixel_values"]
    same = processor.image_processor(picture(1), return_tensors="np")["pixel_values"]
    assert np.abs(told - same).max() < 0.05  # resized as numbers, not as bytes


def test_unknown_fit(processor):
    with pytest.raises(ValueError, match="but must be 'crop'"):
        processor(text="blue", images=[picture(1)], generation_mode="image", source_fit="squeeze")


def _tensor(pixels):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(pixels)
