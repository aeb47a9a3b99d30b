"""Pictures to pixels as the authors prepare them, and back."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from golden_showo2 import details, recorded, recorded_file
from helpers import picture, same_picture
from wallaroo_hf.showo2 import ShowO2ImageProcessor


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("index", [0, 1])
def test_pixels_are_the_authors(index, fit):
    side = details("preprocess/preprocess")["resolution"]
    golden = recorded("preprocess/preprocess")[f"{index}_{fit}"]
    processor = ShowO2ImageProcessor(sizes=[(side, side)], fit=fit)
    pixels = processor(str(recorded_file(f"preprocess/in{index}.png")), return_tensors="pt")["pixel_values"]
    assert len(pixels) == 1 and torch.equal(pixels[0], golden)
    if fit == "pad":
        shown = Image.open(recorded_file(f"preprocess/pad{index}.png")).convert("RGB")
        assert same_picture(processor.to_pictures(pixels)[0], shown)  # which loses what is truncated


def test_pixels_become_the_authors_pictures():
    golden = recorded("preprocess/preprocess")
    pictures = ShowO2ImageProcessor().to_pictures(golden["denorm_in"])
    assert np.array_equal(np.stack([np.asarray(one) for one in pictures]), golden["denorm_out"].numpy())


def test_pictures_survive_the_way_there_and_back():
    processor, image = ShowO2ImageProcessor(sizes=[(96, 128)]), picture(1, 128, 96)
    pixels = processor([[image], [image]], return_tensors="pt")["pixel_values"]
    assert [tuple(one.shape) for one in pixels] == [(3, 96, 128)] * 2
    assert pixels[0].dtype == torch.float32 and float(pixels[0].abs().max()) <= 1
    back = processor.to_pictures(pixels)[0]
    assert same_picture(back, image)  # which loses what is truncated
    assert np.array_equal(np.asarray(processor.to_pictures(torch.stack(pixels))[1]), np.asarray(back))


def test_each_picture_takes_the_size_nearest_to_its_shape():
    processor = ShowO2ImageProcessor(sizes=[(96, 96), (64, 128), (128, 64)])
    pixels = processor([picture(1, 90, 100), picture(2, 300, 100), picture(3, 20, 60)])["pixel_values"]
    assert [one.shape for one in pixels] == [(3, 96, 96), (3, 64, 128), (3, 128, 64)]
    assert processor(picture(1, 300, 100), sizes=[(32, 32)])["pixel_values"][0].shape == (3, 32, 32)
    padded = processor(picture(2, 300, 100), return_tensors="pt")["pixel_values"][0]
    assert (padded[:, 0] == -1).all() and (padded[:, -1] == -1).all()  # black
    assert not (processor(picture(2, 300, 100), fit="crop", return_tensors="pt")["pixel_values"][0][:, 0] == -1).all()


def test_saving_and_loading(tmp_path):
    processor = ShowO2ImageProcessor(sizes=[(96, 96), (64, 128)], fit="crop")
    processor.save_pretrained(tmp_path)
    for kind in (ShowO2ImageProcessor, AutoImageProcessor):
        again = kind.from_pretrained(tmp_path)
        assert isinstance(again, ShowO2ImageProcessor)
        assert (list(map(tuple, again.sizes)), again.fit) == ([(96, 96), (64, 128)], "crop")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "stretch"}, "'crop' .* or 'pad'"),
        ({"sizes": [96, 96]}, r"`sizes` is \[96, 96\], but must be a list of \(height, width\)"),
        ({"sizes": []}, "`sizes` is"),
        ({"sizes": [(96, 0)]}, "`sizes` is"),
        ({"do_resize": False}, "`do_resize` changes nothing"),
        ({"size": {"height": 32, "width": 32}}, "`size` changes nothing"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        ShowO2ImageProcessor()(picture(1), **settings)


def test_bad_pictures_and_pixels():
    processor = ShowO2ImageProcessor()
    with pytest.raises(ValueError, match="does not exist"):
        processor("nowhere.png")
    with pytest.raises(ValueError, match="values that are not finite"):
        processor(np.full((4, 4, 3), np.nan))
    with pytest.raises(ValueError, match=r"Pixels of shape \(16, 8, 8\)"):
        processor.to_pictures([torch.zeros(16, 8, 8)])
