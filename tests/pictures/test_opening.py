"""What is read as an image, and what it looks like then."""

import base64
import functools
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

import hostile
from helpers import picture
from wallaroo_hf.pictures import opening
from wallaroo_hf.pictures.opening import ImageError
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


def _forms(path):
    """One file in every form in which a picture is given."""
    data = path.read_bytes()
    text = base64.b64encode(data).decode()
    quoted = "".join(f"%{byte:02x}" for byte in data)
    return {
        "path": path,
        "text": str(path),
        "file URL": path.as_uri(),
        "file URL with a host": path.as_uri().replace("file:///", "FILE://localhost/"),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "BytesIO": io.BytesIO(data),
        "base64": text,
        "base64 on lines": "\n".join(text[start : start + 60] for start in range(0, len(text), 60)),
        "data URL": f"data:image/png;base64,{text}",
        "data URL in capitals": f"DATA:image/png;BASE64,{text}",
        "percent-encoded data URL": f"data:,{quoted}",
        "stored bytes": {"bytes": data, "path": None},
        "stored bytes with a name": {"bytes": data, "path": "elsewhere.png"},
        "stored path": {"bytes": None, "path": str(path)},
        "PIL": Image.open(io.BytesIO(data)),
    }


@pytest.mark.parametrize("name", ["a ü 100%.png", "a.jpg"])
def test_every_form_of_a_file(tmp_path, name):
    path = tmp_path / name
    picture(1, 24, 16).save(path)
    expected = open_image(path.read_bytes())
    for form, given in _forms(path).items():
        assert open_image(given).tobytes() == expected.tobytes(), form
    with path.open("rb") as file:
        file.read(7)  # wherever it stands
        assert open_image(file).tobytes() == expected.tobytes() and not file.closed
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a") as file:
        assert open_image(file).tobytes() == expected.tobytes()


def test_short_base64(tmp_path):
    """A picture of a few bytes, whose text could be the name of a file."""
    path = tmp_path / "1x1.gif"
    Image.new("P", (1, 1)).save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    assert len(text) < 100 and open_image(text).size == (1, 1)


def test_opening_again_changes_nothing(tmp_path):
    """What came out holds no entry that could be read a second time, and is not copied."""
    for name, path in hostile.write_accepted(tmp_path).items():
        opened = open_image(path)
        assert opened.info == {} and open_image(opened) is opened, name
    given = picture(1).convert("RGBA")
    assert open_image(given).mode == "RGB" and given.mode == "RGBA"


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    """As a file, as Pillow opened it, and from one hand to the next."""
    for kind in ("JPEG", "PNG", "WEBP"):
        data = hostile.damaged_exif(kind)
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            for given in (data, opened, opened.copy()):
                assert open_image(open_image(given)).size == (128, 96), kind


def test_an_orientation_without_a_file():
    """Set by hand, or of no known kind."""
    given = picture(1)
    given.getexif()[0x0112] = 6
    assert open_image(given).size == (96, 128) and given.size == (128, 96)
    for odd in (0, 9, 2**16 - 1, "upright", (6, 6)):
        given = picture(1)
        given.getexif()[0x0112] = odd
        assert open_image(given).tobytes() == picture(1).tobytes()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "it has nothing"),
        ({"type": "image", "url": "x"}, "it has 'type', 'url'"),
        ({"bytes": None, "path": None}, "without 'bytes'"),
        ({"bytes": None, "path": "nowhere.png"}, "does not exist"),
        (io.StringIO("text"), "opened as text"),
        ("file://elsewhere/a.png", "another computer"),
        ("file:///nowhere.png", "does not exist"),
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,????", "cannot be decoded"),
        ("data:,half a character\ud83d", "cannot be decoded"),
        ("data:,hello", "no PNG"),
        ("a\nb", "'a b' does not exist"),
        ("\ud800.png", "does not exist"),
        (3, "of type int"),
    ],
)
def test_what_is_said_of_other_forms(given, says):
    with pytest.raises(ImageError, match=f"^The [^\n]*{says}[^\n]*; [^\n]*\\.$") as caught:
        open_image(given)
    str(caught.value).encode()  # it can be shown


def test_a_closed_picture(tmp_path):
    picture(1).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as given:
        pass
    with pytest.raises(ImageError, match="could not be read"):
        open_image(given)


def test_importing_needs_no_torch():
    """A process that only opens pictures starts at once."""
    program = (
        "import sys, io; from PIL import Image; from wallaroo_hf.pictures.opening import open_image; "
        "open_image(Image.new('L', (2, 2))); sys.exit({'torch', 'transformers'} & set(sys.modules) != set())"
    )
    environment = {**os.environ, "_WALLAROO_HF_REGISTER_LATER": "1"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
