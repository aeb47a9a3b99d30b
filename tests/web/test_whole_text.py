"""Halves of characters, and other bytes that are no text, wherever a client can put them: 400 in JSON that is valid."""

from __future__ import annotations

import json
import socket

import pytest

from helpers import picture
from running_server import data_uri, png
from wallaroo_hf.web.bodies import parse_json
from wallaroo_hf.web.errors import ApiError
from wallaroo_hf.web.server_settings import ServerSettings

HALF = "\ud83d"
IMAGE = data_uri(png(picture(1, 32, 32)))
DRAW, EDIT, CHAT = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"
USER = {"role": "user", "content": "Hi."}


@pytest.fixture(autouse=True)
def still_serving(server):
    """Nothing went wrong inside."""
    yield
    assert server.draw("a cat", 1).size == (32, 32)
    assert 'status="500"' not in server.request("/metrics")[1]


def _raw(server, path: str, body: bytes, content_type: str = "application/json") -> tuple[int, dict]:
    """Status and JSON of an answer, which must be UTF-8 and hold whole text."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(server.address, timeout=600) as connection:
        connection.sendall(head.encode() + b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    answer = json.loads(body.decode())
    json.dumps(answer, ensure_ascii=False).encode()
    return int(head.split()[1]), answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (DRAW, {"prompt": "a", HALF: 1}),
        (DRAW, {"prompt": f"a{HALF}"}),
        (DRAW, {"prompt": "a", "model": HALF}),
        (DRAW, {"prompt": "a", "size": HALF}),
        (DRAW, {"prompt": "a", "negative_prompt": HALF}),
        (DRAW, {"prompt": "a", "quality": HALF}),
        (DRAW, {"prompt": "a", "response_format": HALF}),
        (DRAW, {"prompt": "a", "user": HALF}),
        (DRAW, {"prompt": "a", "metadata": {"x": [{HALF: 1}]}}),
        (DRAW, {"prompt": "a", "seed": HALF}),
        (DRAW, HALF),
        (DRAW, [HALF]),
        (EDIT, {"prompt": "a", "image": IMAGE, HALF: 1}),
        (EDIT, {"prompt": HALF, "image": IMAGE}),
        (EDIT, {"prompt": "a", "image": HALF}),
        (EDIT, {"prompt": "a", "image": f"data:image/png;base64,{HALF}"}),
        (EDIT, {"prompt": "a", "images": [{"image_url": HALF}]}),
        (EDIT, HALF),
        (CHAT, {"messages": [{"role": "user", "content": f"Hi.{HALF}"}]}),
        (CHAT, {"messages": [{"role": HALF, "content": "Hi."}]}),
        (CHAT, {"messages": [{**USER, HALF: 1}]}),
        (CHAT, {"messages": [{**USER, "name": HALF}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": HALF}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": HALF}}]}]}),
        (CHAT, {"messages": [USER], "stop": [HALF]}),
        (CHAT, {"messages": [USER], "model": HALF}),
        (CHAT, {"messages": [USER], "modalities": [HALF]}),
        (CHAT, {"messages": [USER], "tools": [HALF]}),
        (CHAT, {"messages": [USER], "stream": True, "aspect_ratio": HALF}),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)
def test_halves_of_characters(server, path, body):
    """As an escape, and as bytes that are no UTF-8."""
    for encoded in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")):
        status, answer = _raw(server, path, encoded)
        assert status == 400, answer
        message = answer["error"]["message"]
        assert "half of a character" in message or "utf-8 text" in message, message


def test_which_field_is_named(server):
    assert _raw(server, DRAW, b'{"prompt": "a", "model": "\\ud800"}')[1]["error"]["param"] == "model"
    assert _raw(server, DRAW, b'{"prompt": "a", "\\ud800": 1}')[1]["error"]["param"] is None


def test_whole_characters_pass(server):
    """Escaped in two halves, as JSON has it; and the escape of a backslash before what looks like one."""
    for prompt in (b'"a \\ud83e\\udd98"', b'"a \\\\ud800"', '"🦘"'.encode()):
        status, _ = _raw(server, DRAW, b'{"size": "32x32", "prompt": ' + prompt + b"}")
        assert status == 200


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_bodies_in_unicode(encoding):
    assert parse_json('{"prompt": "袋鼠 🦘"}'.encode(encoding)) == {"prompt": "袋鼠 🦘"}
    with pytest.raises(ApiError, match="is no"):
        parse_json(f'{{"prompt": "a{HALF}"}}'.encode(encoding, "surrogatepass"))


@pytest.mark.parametrize(
    "charset",
    ["utf-7", "unicode_escape", "raw_unicode_escape", "undefined", "idna", "punycode", "rot13", "zlib", "\xff", ""],
)
def test_charsets_of_forms(server, charset):
    """Python knows many, which decode to halves of characters, or not at all."""
    body = (
        b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na +2AA- \\ud800\r\n'
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nx\r\n--B--\r\n'
    )
    status, answer = _raw(server, EDIT, body, f"multipart/form-data; boundary=B; charset={charset}")
    assert status == 400 and (charset[:1] in answer["error"]["message"] or charset == ""), answer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"prompt\xed\xa0\x80", b"a"),
        (b"\xff\xfe", b"a"),
        (b"model", b"\xed\xa0\x80"),
        (b"size", b"\xff"),
        (b"pr\x00mpt", b"a"),
        (b"seed", b"\xf0\x9f"),
    ],
)
def test_forms_that_are_no_text(server, field, value):
    image = b'--B\r\nContent-Disposition: form-data; name="image"; filename="\xed\xa0\x80"\r\n\r\n' + png(
        picture(1, 32, 32)
    )
    fields = [(b"prompt", b"a cat"), (field, value)]
    parts = [b'--B\r\nContent-Disposition: form-data; name="' + n + b'"\r\n\r\n' + v for n, v in fields]
    status, answer = _raw(server, EDIT, b"\r\n".join([*parts, image, b"--B--\r\n"]), "multipart/form-data; boundary=B")
    assert status in (400, 404), answer


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/models/%ED%A0%80 HTTP/1.1",
        b"GET /v1/models/%FF?%ED%A0%80=%ED%A0%80 HTTP/1.1",
        b"GET /%ED%A0%80 HTTP/1.1",
        b"GET /v1/models/?\\ud800 HTTP/1.1",
        b"DELETE /%00 HTTP/1.1",
    ],
)
@pytest.mark.parametrize(
    "header",
    [
        b"Host: [",
        b"Host: \xed\xa0\x80",
        b"Host: localhost\r\nOrigin: http://\xed\xa0\x80",
        b"Host: localhost\r\nAuthorization: Bearer \xed\xa0\x80",
        b"Host: localhost\r\nX-Forwarded-For: \xed\xa0\x80, [\r\nX-Forwarded-Proto: \xff",
        b"Host: localhost\r\nContent-Length: \xb2",
        b"Host: localhost\r\nContent-Length: " + b"9" * 5000,
    ],
)
def test_request_lines_and_headers(server, line, header):
    with socket.create_connection(server.address, timeout=600) as connection:
        connection.sendall(line + b"\r\n" + header + b"\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    assert 300 <= int(head.split()[1]) < 500, data
    if b"application/json" in head:
        assert json.loads(body.decode())["error"]["message"]


def test_an_error_can_always_be_sent():
    body = ApiError(400, f"It is {HALF}.", f"field{HALF}").body()
    assert json.dumps(body, ensure_ascii=False).encode()
    assert body["error"]["message"] == "It is \\ud83d." and body["error"]["param"] == "field\\ud83d"


@pytest.mark.parametrize("settings", [{"name": f"tiny{HALF}"}, {"api_keys": (f"secret{HALF}",)}, {"name": "a\nb"}])
def test_settings_are_text(settings):
    with pytest.raises(ValueError, match="cannot be printed"):
        ServerSettings(**settings)


@pytest.mark.parametrize("name", ["a\nb", "\u202ea", "\x00", "\x1b[2J", "x\u2028"], ids=ascii)
@pytest.mark.parametrize(
    "fields",
    [
        lambda name: (DRAW, {"prompt": "a", name: 1}),
        lambda name: (DRAW, {"prompt": "a", "model": name}),
        lambda name: (DRAW, {"prompt": "a", "size": name}),
        lambda name: (CHAT, {"messages": [{**USER, name: 1}]}),
    ],
    ids=["field", "model", "size", "within"],
)
def test_what_is_quoted_stays_on_one_line(server, name, fields):
    """An error is one sentence that can be printed, whatever a client calls its fields."""
    path, body = fields(name)
    status, answer = _raw(server, path, json.dumps(body).encode())
    assert status in (400, 404)
    assert answer["error"]["message"].isprintable()
    assert answer["error"]["param"] is None or answer["error"]["param"].isprintable()


@pytest.mark.parametrize(
    "form",
    [
        b"--B\r\nX Y: z\r\n\r\n\r\n--B--\r\n",
        b"--B\r\n: x\r\n\r\n\r\n--B--\r\n",
        b"nonsense",
        b"--Bx",
        b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--B--\r\nmore",
    ],
)
def test_forms_write_no_log(server, form, caplog):
    """What a client sends is refused, and does not fill the server's disk."""
    with caplog.at_level("WARNING"):
        assert _raw(server, EDIT, form, "multipart/form-data; boundary=B")[0] == 400
    assert not caplog.records
