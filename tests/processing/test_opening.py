"""What is read as an image, and what it looks like then."""

import base64
import functools
import http.server
import threading

import numpy as np
import pytest
from PIL import Image

import hostile
from helpers import picture
from wallaroo_hf.processing import opening
from wallaroo_hf.processing.image_processor import open_image


def test_every_form_gives_the_same_picture(tmp_path):
    source = picture(1)
    path = tmp_path / "source.png"
    source.save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    array = np.asarray(source)
    forms = [source, path, str(path), path.read_bytes(), text, f"data:image/png;base64,{text}", array]
    assert all(open_image(form).tobytes() == source.tobytes() for form in forms)
    assert open_image(array.transpose(2, 0, 1)).tobytes() == source.tobytes()


def test_hostile_files_are_refused_in_a_sentence(tmp_path, recwarn):
    for name, path in hostile.write_refused(tmp_path).items():
        for form in (path, path.read_bytes()):
            with pytest.raises(ValueError, match=r"^The image .*; .*\.$") as caught:
                open_image(form)
            assert len(str(caught.value)) < 500 and "\n" not in str(caught.value), name


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(hostile.bomb(9_000, 9_000))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="9000x9000 pixels"):
        open_image(path)


def test_unusual_files_are_read(tmp_path):
    files = hostile.write_accepted(tmp_path)
    opened = {name: open_image(path) for name, path in files.items()}
    assert all(image.mode == "RGB" for image in opened.values())
    assert opened["exif.jpg"].size == (96, 128)
    assert opened["1x1.png"].size == (1, 1) and opened["1x1.png"].getpixel((0, 0)) == (255, 0, 0)
    assert opened["alpha.png"].getpixel((5, 5)) == (255, 255, 255)
    assert opened["16 bits.png"].getpixel((5, 5)) == (117,) * 3
    with Image.open(files["animated.gif"]) as first:
        assert opened["animated.gif"].tobytes() == first.convert("RGB").tobytes()
    transparent = np.asarray(Image.open(files["palette with alpha.png"])) == 0
    assert transparent.any() and (np.asarray(opened["palette with alpha.png"])[transparent] == 255).all()


@pytest.mark.parametrize(
    "given", ["nowhere.png", "ftp://host/x.png", "x" * 5000, "a\0b", object(), np.zeros((2, 2, 7))]
)
def test_what_is_no_image(given):
    with pytest.raises(ValueError, match=r"^The image"):
        open_image(given)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ValueError, match="could not be read"):
        open_image(tmp_path)


def test_downloads_are_limited(tmp_path, monkeypatch):
    """From a server on this machine: the picture, a file that is too large, and one that is not there."""
    picture(1).save(tmp_path / "source.png")
    handler = functools.partial(_Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert open_image(f"{url}/source.png").tobytes() == picture(1).tobytes()
        with pytest.raises(ValueError, match="404"):
            open_image(f"{url}/nowhere.png")
        monkeypatch.setattr(opening, "MAX_DOWNLOAD_BYTES", 100)
        with pytest.raises(ValueError, match="larger than 100 bytes"):
            open_image(f"{url}/source.png")
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Tests print nothing."""
