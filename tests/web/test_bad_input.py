"""Everything wrong that a client may send gives a 4xx of one sentence, and the server goes on."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib

import pytest
from PIL import Image

import hostile
from helpers import picture
from running_server import data_uri, picture_in, png

DRAWING = {"prompt": "a cat", "size": "32x32", "seed": 1}


@pytest.fixture(autouse=True)
def still_serving(server):
    """After each test the server draws the same image as before, and nothing went wrong inside."""
    yield
    assert server.draw("a cat", 1).size == (32, 32)
    assert 'status="500"' not in server.request("/metrics")[1]


def _refused(answer, status=400):
    """Checks an error's form and returns its message and field."""
    assert answer[0] == status, answer
    error = answer[1]["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    message = error["message"]
    assert 10 < len(message) < 400 and "\n" not in message and message.endswith((".", "?")), message
    assert "Traceback" not in message and "/site-packages/" not in message
    return message, error["param"]


def _generate(server, **fields):
    return server.request("/v1/images/generations", {**DRAWING, **fields})


def _chat(server, messages, **fields):
    return server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 3, **fields})


def _form(fields: dict[str, str], files: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    parts = [f'--B\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    for name, data in files:
        head = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="../../a.png"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + b"--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"}


def _edit(server, data: bytes, as_form: bool):
    if as_form:
        return server.request("/v1/images/edits", *_form({"prompt": "bluer", "seed": "1"}, [("image", data)]))
    return server.request("/v1/images/edits", {"prompt": "bluer", "seed": 1, "image": data_uri(data)})


# --------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("x" * 100_000, "100000 characters"),
        ("猫" * 100_000, "100000 characters"),
        ("a cat<|im_end|>", "special token"),
        ("<|generate_start|>", "special token"),
        (None, "missing"),
        (7, "string"),
        (["a cat"], "string"),
    ],
)
def test_prompts(server, prompt, says):
    message, param = _refused(_generate(server, prompt=prompt))
    assert says in message and param == "prompt"
    if isinstance(prompt, str):
        assert says in _refused(_chat(server, [{"role": "user", "content": prompt}]))[0] or len(prompt) > 1000


def test_half_of_a_character(server):
    body = b'{"prompt": "\\ud800", "size": "32x32"}'
    _refused(server.request("/v1/images/generations", body, {"Content-Type": "application/json"}))


def test_odd_but_fine_prompts(server):
    for prompt in ("\x00", "a\x00cat", "🦘" * 50, "{prompt} {0} %s", "\u202e cat", "'\"; DROP TABLE cats"):
        assert _generate(server, prompt=prompt)[0] == 200


def test_words_that_are_no_special_tokens(server):
    for text in ("<tool_call>", "<|fim_prefix|>", "\x00source\x00", "a<|im_ end|>"):
        assert _chat(server, [{"role": "user", "content": text}], max_tokens=1)[0] == 200


def test_negative_prompts(server):
    assert _refused(_generate(server, negative_prompt="<|im_end|>"))[1] == "negative_prompt"
    assert _refused(_generate(server, negative_prompt="x" * 5000))[1] == "negative_prompt"


# ---------------------------------------------------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"size": "33x32"}, "size", "multiple of 16"),
        ({"size": "0x0"}, "size", "multiple of 16"),
        ({"size": "100x100"}, "size", "`size` is '100x100' (width x height in pixels), but each edge"),
        ({"size": "100x100"}, "size", "ask for 32x32 or 64x32 or 32x64"),
        ({"size": "98304x16"}, "size", "such as 32x32 or 64x32 or 32x64"),
        ({"size": "-16x16"}, "size", "width x height"),
        ({"size": "16"}, "size", "width x height"),
        ({"size": "१६x१६"}, "size", "width x height"),
        ({"size": "9999999999x16"}, "size", "width x height"),
        ({"size": "8192x8192"}, "size", "smaller"),
        ({"size": 512}, "size", "string"),
        ({"aspect_ratio": "2:1"}, "size", "not both"),
        ({"size": "auto", "aspect_ratio": "wide"}, "aspect_ratio", "16:9"),
        ({"size": "auto", "aspect_ratio": "0:1"}, "aspect_ratio", "16:9"),
        ({"n": 0}, "n", "greater"),
        ({"n": 1000}, "n", "at most"),
        ({"n": "many"}, "n", "integer"),
        ({"seed": -1}, "seed", "greater"),
        ({"seed": 2**70}, "seed", "less"),
        ({"temperature": -1}, "temperature", "greater"),
        ({"top_p": 0}, "top_p", "greater"),
        ({"guidance_scale": "strong"}, "guidance_scale", "number"),
        ({"guidance_min_p": -0.1}, "guidance_min_p", "greater"),
        ({"guidance_min_p": 1.5}, "guidance_min_p", "less"),
        ({"guidance_min_p": True}, "guidance_min_p", "number"),
        ({"response_format": "url"}, "response_format", "b64_json"),
        ({"output_format": "tiff"}, "output_format", "png"),
        ({"quality": "hd"}, "quality", "leave it out"),
        ({"background": "transparent"}, "background", "leave it out"),
        ({"promt": "a cat"}, "promt", "did you mean `prompt`"),
        ({"num_inference_steps": 50}, "num_inference_steps", "leave it out"),
        ({"partial_images": 9, "stream": True}, "partial_images", "less"),
        ({"partial_images": 1}, "partial_images", "stream"),
    ],
)
def test_fields(server, fields, param, says):
    message, named = _refused(_generate(server, **fields))
    assert named == param and says in message


def test_models(server):
    _refused(_generate(server, model="dall-e-3"), 404)
    _refused(_chat(server, [{"role": "user", "content": "Hi."}], model="gpt-4o"), 404)


def test_fields_that_ask_for_what_happens_anyway(server):
    neutral = {"user": "me", "quality": "auto", "background": "opaque", "moderation": "low", "style": None}
    assert _generate(server, **neutral)[0] == 200
    neutral = {"frequency_penalty": 0, "tools": [], "response_format": {"type": "text"}, "logprobs": False}
    assert _chat(server, [{"role": "user", "content": "Hi.", "name": "me"}], **neutral, store=False)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"n": ' + b"9" * 5000 + b"}",
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"a"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"prompt": }',
        b'{"a": NaN}',
        b"prompt=a",
    ],
)
@pytest.mark.parametrize("path", ["images/generations", "images/edits", "chat/completions"])
def test_bodies(server, path, body):
    _refused(server.request(f"/v1/{path}", body, {"Content-Type": "application/json"}))


def test_floods(server):
    """Bodies that are made to cost more than they are worth: many errors, deep nesting, long names."""
    start = time.monotonic()
    many = {f"f{k}": 0 for k in range(100_000)}
    assert "not a field" in _refused(_generate(server, **many))[0]
    for fields in ({"messages": [0] * 100_000}, {"messages": [{"role": "user", "content": [0] * 100_000}]}):
        _refused(server.request("/v1/chat/completions", fields))
    _refused(_chat(server, [{"role": "user", "content": "Hi."}], stop=[0] * 100_000))
    name, param = _refused(_generate(server, **{"x" * 1_000_000: 0}))
    assert len(name) < 200 and len(param) < 100
    for field in ("prompt", "size", "quality", "seed"):
        deep = b'{"prompt": "a cat", "' + field.encode() + b'": ' + b"[" * 900 + b"]" * 900 + b"}"
        _refused(server.request("/v1/images/generations", deep, {"Content-Type": "application/json"}))
    assert time.monotonic() - start < 60


def test_not_a_number(server):
    body = b'{"prompt": "a cat", "size": "32x32", "temperature": NaN, "guidance_scale": Infinity}'
    _refused(server.request("/v1/images/generations", body, {"Content-Type": "application/json"}))


def test_content_types_and_methods(server):
    body = json.dumps(DRAWING).encode()
    _refused(server.request("/v1/images/generations", body, {"Content-Type": "text/plain"}))
    _refused(server.request("/v1/images/edits", body, {"Content-Type": "text/plain"}), 415)
    _refused(server.request("/v1/images/generations", method="GET"), 405)
    _refused(server.request("/v1/images/variations", b""), 404)
    _refused(server.request("/v1/../../etc/passwd"), 404)


def test_headers(server):
    for headers in (
        {"Host": "["},
        {"Host": ""},
        {"Origin": "http://["},
        {"Authorization": "\xff"},
        {"Content-Length": "-1"},
    ):
        assert server.request("/v1/models", headers=headers)[0] in (200, 400, 403)
    assert server.request("/openapi.json")[0] == 200


def test_forms(server):
    image = png(picture(1))
    edits = "/v1/images/edits"
    assert _refused(server.request(edits, *_form({"prompt": "bluer"}, [])))[1] == "image"
    assert _refused(server.request(edits, *_form({"prompt": "bluer", "image": "words"}, [])))[1] == "image"
    assert _refused(server.request(edits, *_form({}, [("image", image)])))[1] == "prompt"
    assert _refused(server.request(edits, *_form({"prompt": "bluer", "n": "x"}, [("image", image)])))[1] == "n"
    _refused(server.request(edits, *_form({"prompt": "bluer"}, [("prompt", image), ("image", image)])))
    _refused(server.request(edits, *_form({"prompt": "bluer"}, [("image", image)] * 9)))
    _refused(server.request(edits, *_form({f"f{k}": "x" for k in range(100)}, [("image", image)])))
    _refused(server.request(edits, b"--B\r\nnonsense", {"Content-Type": "multipart/form-data; boundary=B"}))
    _refused(server.request(edits, b"", {"Content-Type": "multipart/form-data"}))


# ---------------------------------------------------------------------------------------------------------- images


def _bomb(width=50_000, height=50_000) -> bytes:
    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes((width // 8 + 1) * min(height, 2000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "bomb": _bomb(),
    "smaller bomb": _bomb(6000, 6000),
    "truncated": png(picture(1))[:-200],
    "empty": b"",
    "text": b"hello",
    "wrong type": png(picture(1), format="TIFF"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "20000x1": png(Image.new("RGB", (20_000, 1))),
    "many scans": hostile.many_scans(200),
    "many scans, two pictures": hostile.many_scans(200, kind="MPO"),
}


@pytest.mark.parametrize("as_form", [True, False], ids=["form", "json"])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_images_that_cannot_be_used(server, name, as_form):
    assert _refused(_edit(server, BAD_IMAGES[name], as_form))[1] == "image"
    content = [{"type": "image_url", "image_url": {"url": data_uri(BAD_IMAGES[name])}}, {"type": "text", "text": "?"}]
    assert _refused(_chat(server, [{"role": "user", "content": content}]))[1] == "messages.0.content.0"


def _turned() -> tuple[bytes, tuple[int, int]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(picture(1, 64, 48), format="JPEG", exif=exif), (48, 64)


def _palette() -> tuple[bytes, tuple[int, int]]:
    return png(picture(1, 64, 48).convert("P"), transparency=3), (64, 48)


def _animated() -> tuple[bytes, tuple[int, int]]:
    return png(picture(1, 64, 48), format="GIF", save_all=True, append_images=[picture(2, 64, 48)]), (64, 48)


ODD_IMAGES = {
    "EXIF-rotated": _turned(),
    "CMYK": (png(picture(1, 64, 48).convert("CMYK"), format="JPEG"), (64, 48)),
    "palette with alpha": _palette(),
    "animated": _animated(),
    "1x1": (png(Image.new("RGB", (1, 1))), (1, 1)),
    "16 bits": (png(Image.new("I;16", (64, 48))), (64, 48)),
    "damaged EXIF": (hostile.damaged_exif("JPEG"), (128, 96)),
    "film behind": (hostile.motion_photo(), (128, 96)),
    "two pictures": (hostile.many_scans(0, kind="MPO"), (128, 96)),
}


@pytest.mark.parametrize("as_form", [True, False], ids=["form", "json"])
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_images_that_are_only_odd(server, name, as_form):
    """They are read as people see them; the result has the size that is seen."""
    data, size = ODD_IMAGES[name]
    status, answer, _ = _edit(server, data, as_form)
    assert status == 200 and picture_in(answer["data"][0]["b64_json"]).size == size


def test_large_files(serve):
    with serve(max_image_bytes=10_000) as small:
        data = b"\x89PNG\r\n\x1a\n" + bytes(20_000)
        for as_form in (True, False):
            status, answer, _ = _edit(small, data, as_form)
            assert status == 413 and answer["error"]["code"] == "image_too_large"
        assert _edit(small, png(picture(1, 32, 32)), True)[0] == 200


@pytest.mark.parametrize(
    "uri",
    ["data:", "data:image/png", "data:image/png;base64,?", "data:image/png;base64,abc", "data:,hello", "", "x" * 5000],
)
def test_uris(server, uri):
    assert _refused(server.request("/v1/images/edits", {"prompt": "bluer", "image": uri}))[1] == "image"


def test_uris_that_are_fine(server):
    encoded = data_uri(png(picture(1, 32, 32))).partition(",")[2]
    folded = "\n".join(encoded[k : k + 60] for k in range(0, len(encoded), 60))
    for uri in (f"DATA:image/png;base64,{encoded}", f"data:;base64,{encoded}", f"data:image/png;base64,{folded}"):
        assert server.request("/v1/images/edits", {"prompt": "bluer", "image": uri})[0] == 200


# ----------------------------------------------------------------------------------------------------------- chats

TEXT = {"type": "text"}
TURNS = ("user", "assistant", "user")
IMAGE = {"type": "image_url", "image_url": {"url": data_uri(png(picture(1)))}}


@pytest.mark.parametrize(
    ("messages", "fields", "says"),
    [
        ([], {}, "at least 1"),
        ([{"role": "assistant", "content": "Hi."}], {}, "role 'user'"),
        ([{"role": "user", "content": []}], {}, "empty"),
        ([{"role": "user"}], {}, "empty"),
        ([{"role": "tool", "content": "Hi."}], {}, "system"),
        ([{"role": "user", "content": [{"type": "video", "video": "x"}]}], {}, "text"),
        ([{"role": "user", "content": [{"type": "text"}]}], {}, "missing"),
        ([{"role": "user", "content": {"text": "Hi."}}], {}, "list"),
        ([{"role": "system", "content": [IMAGE]}, {"role": "user", "content": "Hi."}], {}, "only messages of role"),
        ([{"role": "user", "content": [IMAGE] * 9}], {}, "9 images"),
        ([{"role": "user", "content": "x" * 70_000}], {}, "characters"),
        ([{"role": "user", "content": [{"type": "text", "text": "x" * 17_000}] * 4}], {}, "68000 characters"),
        ([{"role": "user", "content": "x" * 35_000}] * 2, {}, "70000 characters"),
        ([{"role": "user", "content": "k j " * 10_000}], {}, "tokens"),
        ([{"role": "user", "content": "x"}] * 9000, {}, "9000 tokens"),
        ([{"role": "user", "content": "<|im_start|>system"}], {}, "special token"),
        ([{"role": "user", "content": [TEXT | {"text": "a<|im_"}, TEXT | {"text": "end|>b"}]}], {}, "special token"),
        ([{"role": "system", "content": "<|endoftext|>"}, {"role": "user", "content": "Hi."}], {}, "special token"),
        (
            [{"role": role, "content": text} for role, text in zip(TURNS, ("Hi.", "<|generate_start|>", "Why?"))],
            {"modalities": ["text", "image"]},
            "special token",
        ),
        ([{"role": "user", "content": "Hi.", "tool_calls": [{}]}], {}, "leave it out"),
        ([{"role": "user", "content": "Hi."}], {"max_tokens": 0}, "greater"),
        ([{"role": "user", "content": "Hi."}], {"max_tokens": 10**9}, "may be 4096"),
        ([{"role": "user", "content": "Hi."}], {"tools": [{"type": "function"}]}, "leave it out"),
        ([{"role": "user", "content": "Hi."}], {"logprobs": True}, "leave it out"),
        ([{"role": "user", "content": "Hi."}], {"stop": [""]}, "stop"),
        ([{"role": "user", "content": "Hi."}], {"n": 99}, "at most"),
        ([{"role": "user", "content": "Hi."}], {"modalities": []}, "modalities"),
        ([{"role": "user", "content": "Hi."}], {"modalities": ["audio"]}, "image"),
        ([{"role": "user", "content": "Hi."}], {"size": "32x32"}, "modalities"),
        ([{"role": "user", "content": "Hi."}], {"modalities": ["text", "image"], "size": "33x32"}, "multiple of 16"),
        ([{"role": "user", "content": [IMAGE] * 9}], {"modalities": ["image"]}, "9 images"),
        ([{"role": "user", "content": [IMAGE]}], {"modalities": ["image"]}, "empty"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_chats(server, messages, fields, says, stream):
    message, _ = _refused(_chat(server, messages, **fields, stream=stream))
    assert says in message.lower() or says in message


def test_uploads_leave_no_files(server, tmp_path, monkeypatch):
    """Names in forms are never used, and what is spooled is gone afterwards."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    noise = Image.frombytes("RGB", (700, 700), bytes(io.BytesIO(bytearray(range(256)) * 5743).read(700 * 700 * 3)))
    assert _edit(server, png(noise, format="BMP"), True)[0] == 200
    _refused(_edit(server, png(noise, format="BMP")[:-100], True))
    assert list(tmp_path.iterdir()) == []
