import numpy as np
import pytest
from PIL import Image

from helpers import picture
from wallaroo_hf.pictures.masks import composite, grow, open_mask, read_growth, read_sides, repaint_cells, with_masks

SOURCE = picture(1, 48, 32)


def half(mode="L", white=255):
    """The right half is painted anew."""
    mask = np.zeros((32, 48), np.uint8)
    mask[:, 24:] = white
    return Image.fromarray(mask).convert(mode)


def hole():
    """A copy of the source that is transparent in its right half, as OpenAI's clients send masks."""
    return Image.merge("RGBA", [*SOURCE.split(), Image.eval(half(), lambda value: 255 - value)])


@pytest.mark.parametrize(
    "form", [half, lambda: half("RGB"), hole, lambda: np.asarray(half()), lambda: np.asarray(half()) > 0]
)
def test_masks_come_in_many_forms(form, tmp_path):
    mask = open_mask(form(), SOURCE)
    assert mask.mode == "L" and mask.tobytes() == half().tobytes()
    if isinstance(form(), Image.Image):
        form().save(tmp_path / "mask.png")
        assert open_mask(str(tmp_path / "mask.png"), SOURCE).tobytes() == half().tobytes()


def test_an_opaque_alpha_says_nothing():
    opaque = half("RGBA")
    assert open_mask(opaque, SOURCE).tobytes() == half().tobytes()


def test_masks_that_cannot_be():
    with pytest.raises(ValueError, match=r"has 24x32 pixels .* has 48x32; give a mask of the picture's size"):
        open_mask(half().resize((24, 32)), SOURCE)
    with pytest.raises(ValueError, match="black all over"):
        open_mask(half(white=0), SOURCE)
    with pytest.raises(ValueError, match="needs the picture that it masks"):
        with_masks([None], half(), None)
    with pytest.raises(ValueError, match="2 masks were given for 1 prompts"):
        with_masks([SOURCE], [half(), half()], None)
    with pytest.raises(ValueError, match="give one"):
        with_masks([SOURCE], half(), 3)
    with pytest.raises(ValueError, match="needs the picture that grows"):
        with_masks([SOURCE, None], None, 3)


def test_composite_is_exact_where_the_mask_is_black_or_white():
    drawn, mask = picture(2, 48, 32), half()
    mask.paste(128, (22, 0, 26, 32))
    together = np.asarray(composite(SOURCE, drawn, mask)).astype(int)
    source, new = np.asarray(SOURCE).astype(int), np.asarray(drawn).astype(int)
    assert (together[:, :22] == source[:, :22]).all() and (together[:, 26:] == new[:, 26:]).all()
    assert (abs(together - (source + new) / 2)[:, 22:26] <= 1.5).all()


def test_cells_grow_to_their_borders():
    pixels = np.full((3, 32, 48), -1.0, np.float32)
    pixels[:, 15:17, 20] = -0.99  # hardly grey, on the border between two rows of cells
    assert repaint_cells(pixels, 16).tolist() == [[False, True, False], [False, True, False]]


def test_a_picture_grows_by_its_edges():
    sides = read_sides({"left": 2, "bottom": 3})
    canvas, mask = grow(SOURCE, sides)
    pixels, white, source = np.asarray(canvas), np.asarray(mask), np.asarray(SOURCE)
    assert canvas.size == mask.size == (50, 35)
    assert (pixels[:32, 2:] == source).all() and (pixels[:32, :2] == source[:, :1]).all()
    assert (pixels[32:, 2:] == source[-1:]).all()
    assert (white[:32, 2:] == 0).all() and (white[32:] == 255).all() and (white[:, :2] == 255).all()
    assert read_sides(5) == {"left": 5, "top": 5, "right": 5, "bottom": 5}


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        ({"up": 3}, "names the side 'up'"),
        ({"left": -1}, "-1 at the side 'left'"),
        ({"left": 1.5}, "1.5 at the side 'left'"),
        (True, "True at the side"),
        (0, "0 at every side"),
        ({}, "0 at every side"),
    ],
)
def test_growth_that_cannot_be(sides, says):
    with pytest.raises(ValueError, match=says):
        read_sides(sides)


def test_growth_as_it_is_written():
    assert read_growth(" 64 ", "--outpaint") == 64
    assert read_growth("left=64, bottom = 0", "--outpaint") == {"left": 64, "bottom": 0}
    for wrong in ("64px", "left", "left=", "left=-1", "left=1,left=2", "", "1" * 5000):
        with pytest.raises(ValueError, match=r"^--outpaint is '.*', but must be a number of pixels") as caught:
            read_growth(wrong, "--outpaint")
        assert len(str(caught.value)) < 400


def test_pictures_do_not_grow_without_end():
    with pytest.raises(ValueError, match=r"would grow to 48x1000000032 pixels .* let it grow less"):
        grow(SOURCE, read_sides({"top": 10**9}))
    with pytest.raises(ValueError, match="may have 2,000"):
        grow(SOURCE, read_sides(8), 2000)
    with pytest.raises(ValueError, match="names the side") as caught:
        read_sides({"x" * 10**6: 1})
    assert len(str(caught.value)) < 200
