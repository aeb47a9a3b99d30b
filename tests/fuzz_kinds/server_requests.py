"""Requests that are made up: every route and method, bodies, forms and headers, most with something wrong."""

from __future__ import annotations

import base64
import json
import math
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hostile
from helpers import picture

from .made_up import some_ratio, some_words
from .server_fields import CHATTING, DRAWING, FIELDS, ROLES, SIZES

ROUTES = ("/v1/images/generations", "/v1/images/edits", "/v1/chat/completions")
OTHERS = (
    "/v1/models",
    "/v1/models/tiny",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/images/variations",
    "/",
    "/docs",
)
ODD_PATHS = (
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1/models/a/b",
    "/v1//models",
    "/v1/../../etc/passwd",
    "/%ed%a0%80",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY")
KEY, HOST, ORIGIN = "a key", "tiny.example", "https://chat.example"


@dataclass
class Made:
    """A request; a body is JSON, a form or anything."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


class Requests:
    """Makes requests up, with pictures that are fine, unusual or made to do damage."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            places = [writer(Path(folder)) for writer in (hostile.write_accepted, hostile.write_refused)]
            self.files = [path.read_bytes() for place in places for path in place.values()]
        self.fine = [hostile.encoded(picture(seed, 40, 32), kind) for seed, kind in enumerate(("PNG", "JPEG", "WEBP"))]

    def request(self, rng: random.Random) -> Made:
        """One of any kind."""
        if rng.random() < 0.1:
            made = Made(rng.choice(METHODS), rng.choice((*ROUTES, *OTHERS, *OTHERS, *ODD_PATHS)))
            made.body = rng.choice((b"", b"{}", rng.randbytes(20)))
        else:
            made = self._asking(rng)
        if rng.random() < 0.15:
            made.headers += [self._header(rng) for _ in range(rng.randint(1, 3))]
        return made

    # ---------------------------------------------------------------------------------------------------- bodies

    def _asking(self, rng: random.Random) -> Made:
        path = rng.choice(ROUTES)
        made = Made("POST", path)
        if path == ROUTES[1] and rng.random() < 0.5:
            made.body, kind = self._form(rng)
        else:
            fields = self._chat(rng) if path == ROUTES[2] else self._drawing(rng, path == ROUTES[1])
            made.body, kind = self._json(rng, fields), b"application/json"
        if rng.random() < 0.05:
            odd = (b"text/plain", b"", b"application/json; charset=utf-16", b"multipart/form-data", b"\xff", b"a/b")
            kind = rng.choice(odd)
        made.headers.append((b"content-type", kind))
        return made

    def _json(self, rng: random.Random, fields: dict[str, Any]) -> bytes:
        """Fields as JSON, of which some became something else, or that is spoiled as text."""
        for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 2))):
            fields[rng.choice([*fields, *FIELDS, some_words(rng)])] = _odd_value(rng, 3)
        text = json.dumps(fields, ensure_ascii=rng.random() < 0.7)
        kind = rng.random()
        if kind < 0.04:
            name = rng.choice(list(fields))
            text = f"{text[:-1]}, {json.dumps(name)}: {json.dumps(_odd_value(rng, 1))}}}"  # the same key again
        elif kind < 0.1:
            place = rng.randrange(len(text))
            odd = ("\\ud800", "\\u0000", '"', "{", "]", "NaN", "-Infinity", "1e999", "\ufeff", "\x00", "9" * 5000)
            text = text[:place] + rng.choice((*odd, "[" * 3000)) + text[place + rng.randint(0, 3) :]
        elif kind < 0.13:
            deep = ("[" * 50_000, '{"a":' * 5000 + "1" + "}" * 5000)
            text = rng.choice(("", "null", "[]", "7", '"a"', "{}", "{'a': 1}", *deep))
        data = text.encode("utf-8", "surrogatepass")
        if rng.random() < 0.03:
            data = rng.choice(
                (text.encode("utf-16", "surrogatepass"), b"\xff" + data, data[: len(data) // 2], data + b"\0")
            )
        return data

    def _drawing(self, rng: random.Random, edit: bool) -> dict[str, Any]:
        fields: dict[str, Any] = {"prompt": some_words(rng) or "a cat", "seed": rng.randint(0, 9)}
        fields |= _some_of(rng, DRAWING, 0.03)
        if rng.random() < 0.8:
            fields["size"] = rng.choice(SIZES)
        if edit:
            uri = self._uri(rng)
            forms: tuple[dict[str, Any], ...] = (
                {"image": uri},
                {"image": [uri]},
                {"images": [{"image_url": uri}]},
                {"image": [uri, uri]},
                {"images": {"image_url": uri}},
                {"images": [{"file_id": "x"}]},
                {},
            )
            fields |= rng.choices(forms, (8, 3, 3, 1, 1, 1, 1))[0]
            fields |= {"mask": uri} if rng.random() < 0.03 else {}
        return fields

    def _chat(self, rng: random.Random) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        for place in range(rng.choice((1, 1, 1, 2, 3))):
            role = rng.choice(ROLES) if rng.random() < 0.1 else ("user", "assistant")[place % 2]
            message: dict[str, Any] = {"role": role, "content": some_words(rng)}
            if rng.random() < 0.6:
                message["content"] = [self._part(rng) for _ in range(rng.randint(0, 3))]
            if rng.random() < 0.1 or (role == "assistant" and rng.random() < 0.3):
                message["images"] = [{"type": "image_url", "image_url": {"url": self._uri(rng)}}]
            if rng.random() < 0.1:
                name = ("name", "id", "tool_calls", "refusal", "audio", "reasoning")
                message[rng.choice(name)] = rng.choice((None, "x", [], [{}], {}))
            messages.append(message)
        if len(messages) == 2:
            messages.append({"role": "user", "content": "Why?"})
        if rng.random() < 0.2:
            messages.insert(0, {"role": rng.choice(("system", "developer")), "content": some_words(rng)})
        return {"messages": messages, "max_tokens": rng.randint(1, 4)} | _some_of(rng, CHATTING, 0.04)

    def _part(self, rng: random.Random) -> Any:
        kind = rng.random()
        if kind < 0.5:
            return {"type": "text", "text": some_words(rng)}
        if kind < 0.85:
            url = self._uri(rng)
            shapes = ({"url": url}, {"url": url, "detail": "low"}, url, {"url": url, "x": 1}, {"url": 7}, {}, None)
            return {"type": "image_url", "image_url": rng.choices(shapes, (9, 2, 3, 1, 1, 1, 1))[0]}
        odd = ("input_audio", "video_url", "file", "refusal", "image", "", None, 7, ["text"])
        return rng.choice(
            ({"type": rng.choice(odd), "text": "x"}, _odd_value(rng, 2), {"text": "x"}, {"type": "text"})
        )

    # -------------------------------------------------------------------------------------------------- pictures

    def _file(self, rng: random.Random) -> bytes:
        """A picture, a hostile one, or one that is damaged."""
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(self.fine)
        data = bytearray(rng.choice(self.files if kind < 0.8 else self.fine))
        for _ in range(rng.choice((0, 0, 1, 3)) if data else 0):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data) if rng.random() < 0.95 else bytes(data[: len(data) // 2])

    def _uri(self, rng: random.Random) -> str:
        encoded = base64.b64encode(self._file(rng)).decode()
        odd = (
            *("", "data:", "data:,", "data:image/png;base64", "data:image/png;base64,", "data:image/png;base64,===="),
            *(
                encoded,
                f"data:text/html;base64,{encoded}",
                f"data:;base64,{encoded[:-3]}é",
                f"data:;base64, {encoded} ",
            ),
            *("data:image/png;base64,AA\ud800", f"data:image/png;charset=\ud800;base64,{encoded}", "a.png"),
            *("http://127.0.0.1/x.png", "file:///etc/passwd", "ftp://x", "http://[", "\x00", "/etc/passwd"),
            "data:image/png;base64," + "A" * 100_000,
        )
        return f"data:image/png;base64,{encoded}" if rng.random() < 0.85 else rng.choice(odd)

    # ----------------------------------------------------------------------------------------------------- forms

    def _form(self, rng: random.Random) -> tuple[bytes, bytes]:
        """A form and its content type, of which anything may be odd."""
        fields = {
            name: value for name, value in self._drawing(rng, False).items() if not isinstance(value, (dict, list))
        }
        parts = [self._form_part(rng, name, str(value).encode("utf-8", "replace")) for name, value in fields.items()]
        for _ in range(rng.choices((1, 0, 2, 3), (16, 1, 1, 1))[0]):
            name = rng.choices(("image", "image[]", "mask", "prompt"), (12, 4, 1, 1))[0]
            parts.append(self._form_part(rng, name, self._file(rng), "../../a.png"))
        if rng.random() < 0.1:
            name, value = (
                rng.choice(("x", "prompt", some_words(rng))),
                some_words(rng).encode("utf-8", "surrogatepass"),
            )
            parts.append(self._form_part(rng, name, value))
        rng.shuffle(parts)
        if rng.random() < 0.02:
            parts *= 30
        boundary = rng.choices((b"B", b"", b"x" * 300, b"\xff", b"a b"), (30, 1, 1, 1, 1))[0]
        body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
        body += rng.choices((b"--" + boundary + b"--\r\n", b"", b"--" + boundary, b"\r\n\r\n"), (20, 1, 1, 1))[0]
        if rng.random() < 0.1:
            place = rng.randrange(len(body) + 1)
            body = rng.choice(
                (body[:place], body[:place] + rng.randbytes(5) + body[place:], body.replace(b"\r\n", b"\n"))
            )
        charset = rng.choices((b"", b"; charset=utf-8", b"; charset=utf-7", b"; charset=\xff"), (20, 2, 1, 1))[0]
        return body, b"multipart/form-data; boundary=" + boundary + charset

    def _form_part(self, rng: random.Random, name: str, value: bytes, filename: str | None = None) -> bytes:
        head = f'Content-Disposition: form-data; name="{name}"'.encode("utf-8", "surrogatepass")
        if filename is not None:
            head += f'; filename="{filename}"'.encode()
        if rng.random() < 0.08:
            more = (b"\r\nContent-Type: text/plain; charset=utf-7", b"\r\nContent-Transfer-Encoding: base64")
            odd = (*more, b"; filename*=x''%ff", b"; name=other", b'; filename=""', b"\r\n: x", b"\r\nno colon")
            odd = (*odd, b"\r\nX: " + b"y" * 9000)
            head = rng.choice((*(head + addition for addition in odd), b"Content-Disposition: x", b"X: y", b""))
        return head + b"\r\n\r\n" + value

    # --------------------------------------------------------------------------------------------------- headers

    def _header(self, rng: random.Random) -> tuple[bytes, bytes]:
        values: dict[bytes, tuple[bytes, ...]] = {
            b"host": (HOST.encode(), b"", b"[", b"[::1", b"\xff", b"a" * 5000, b"tiny.example:99999", b"evil.example"),
            b"origin": (ORIGIN.encode(), b"null", b"http://[", b"\xff", b"https://evil.example", b"*"),
            b"authorization": (
                f"Bearer {KEY}".encode(),
                b"Bearer",
                b"Basic \xff",
                b"bearer  a key ",
                b"\xff\xfe",
                b"",
            ),
            b"content-length": (b"-1", b"0", b"9" * 30, b"x", b"\xb2", b"7, 7", b"+3", b"1e3"),
            b"access-control-request-method": (b"POST", b"\xff", b""),
            b"accept": (b"text/event-stream", b"\xff"),
            b"accept-encoding": (b"br;q=x", b"gzip"),
            b"content-encoding": (b"gzip", b"zstd"),
            b"cookie": (b"a=b; \xff", b"=" * 3000),
            b"x-forwarded-for": (b"1.2.3.4", b"\xff", b"[::"),
            b"expect": (b"100-continue", b"x"),
            b"range": (b"bytes=0-1", b"x"),
        }
        name = rng.choice(list(values))
        return name, rng.choice(values[name])


def _some_of(rng: random.Random, choices: dict[str, tuple[Any, ...]], share: float) -> dict[str, Any]:
    fields = {name: rng.choice(values) for name, values in choices.items() if rng.random() < share}
    if rng.random() < 0.05:
        fields["aspect_ratio"] = some_ratio(rng)
    return fields


def _odd_value(rng: random.Random, depth: int) -> Any:
    """Anything that Python writes as JSON: wrong types, nesting, huge and no numbers, halves of characters."""
    simple = (
        *(None, True, False, 0, -1, 1, 2**63, 10**400, -(10**30), 1.5, 1e308, 5e-324, math.nan, math.inf, -math.inf),
        *("", "a", some_words(rng), "\ud800", "\udfff\ud800", "\x00", "x" * 20_000, "32x32", "null", "é" * 300),
    )
    if depth == 0 or rng.random() < 0.6:
        return rng.choice(simple)
    if rng.random() < 0.05:
        deep: Any = "x"
        for _ in range(rng.choice((50, 300))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    items = [_odd_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return items if rng.random() < 0.5 else {some_words(rng) or "type": item for item in items}
