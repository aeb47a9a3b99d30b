"""Images by URL: only from listed hosts, never from private addresses, whatever redirects and names say."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time

import pytest

from helpers import picture
from running_server import RunningServer, data_uri, png
from wallaroo_hf.web.addresses import is_public
from wallaroo_hf.web.fetching import UrlFetcher
from wallaroo_hf.web.images import ImageReader
from wallaroo_hf.web.server_settings import ServerSettings

PUBLIC = "93.184.215.14"
IMAGE = png(picture(1))


class Site:
    """An HTTP server on loopback that counts who comes, and a fetcher for which it is out in the internet.

    `names` says what hosts resolve to; a connection to PUBLIC arrives at the site, others go where they say.
    """

    def __init__(self, names, hosts=("images.example",), **options):
        self.hits, self.connected, self.names = [], [], names
        self.answers = {"/image.png": (200, {}, IMAGE)}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.hits.append((self.headers["Host"], self.path))
                status, headers, body = site.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                length = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
                for name, value in (length | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in [body] if isinstance(body, bytes) else body:
                    with contextlib.suppress(OSError):
                        self.wfile.write(piece)
                        self.wfile.flush()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        settings = {"max_bytes": 100_000, "timeout": 5.0} | options
        self.fetcher = UrlFetcher(hosts, **settings, resolve=self.resolve, connect=self.connect)

    def resolve(self, host, port, **_):
        addresses = self.names.get(host)
        if addresses is None:
            raise socket.gaierror("no such host")
        if callable(addresses):
            addresses = addresses()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def connect(self, address, timeout):
        self.connected.append(address)
        here = address[0] == PUBLIC
        return socket.create_connection(("127.0.0.1", self.port) if here else address, timeout=timeout)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    sites = []

    def start(names=None, **options):
        sites.append(Site({"images.example": [PUBLIC]} if names is None else names, **options))
        return sites[-1]

    yield start
    for each in sites:
        each.close()


def test_a_listed_host(site):
    here = site()
    here.answers["/image.png?size=1"] = (200, {}, IMAGE)
    assert here.fetcher.fetch("http://images.example/image.png?size=1#top") == IMAGE
    assert here.hits[-1] == ("images.example", "/image.png?size=1") and here.connected[-1] == (PUBLIC, 80)


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/image.png",
        "http://images.example.evil.example/image.png",
        "http://sub.images.example/image.png",
        "http://images.example:8080/image.png",
        "https://images.example:80/image.png",
        "http://images.example@evil.example/image.png",
        "http://user:word@images.example/image.png",
        "http://127.0.0.1/image.png",
        "http://[::1]/image.png",
        "http://2130706433/image.png",
        "file:///etc/passwd",
        "ftp://images.example/image.png",
        "//images.example/image.png",
        "/etc/passwd",
        "http://images.example/image.png\r\nX: y",
        "http://images.example/a b",
        "http://images.example:99999/",
        "http://[images.example/",
        "http:///image.png",
        "",
    ],
)
def test_everything_else(site, url):
    names = {name: [PUBLIC] for name in ("images.example", "other.example", "evil.example", "sub.images.example")}
    here = site(names)
    with pytest.raises(ValueError, match=r"URL|host"):
        here.fetcher.fetch(url)
    assert not here.hits and not here.connected


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "::127.0.0.1", "fe80::1%eth0", "255.255.255.255", "192.0.2.1", "fec0::1", "64:ff9b:1::1"),
        "::ffff:0:127.0.0.1",
    ],
)
def test_private_addresses(site, address):
    """Even of a listed host, and even as one address among public ones."""
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address]):
        here = site({"images.example": addresses})
        with pytest.raises(ValueError, match="not public"):
            here.fetcher.fetch("http://images.example/image.png")
        assert not here.hits and not here.connected


def test_public_addresses():
    assert is_public(PUBLIC) and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c") and is_public("::ffff:8.8.8.8")


def test_a_name_that_changes_its_mind(site):
    """It is looked up once, and the connection goes to the address that was checked."""
    looked_up = []

    def rebind():
        looked_up.append(1)
        return [PUBLIC] if len(looked_up) == 1 else ["127.0.0.1"]

    here = site({"images.example": rebind})
    assert here.fetcher.fetch("http://images.example/image.png") == IMAGE
    assert len(looked_up) == 1 and here.connected == [(PUBLIC, 80)]


def test_redirects_are_checked_like_the_first_url(site):
    secret = site()  # a server that must never be reached
    names = {"images.example": [PUBLIC], "inside.example": ["127.0.0.1"], "other.example": [PUBLIC]}
    here = site(names, hosts=("images.example", "inside.example", f"inside.example:{secret.port}"))
    for target in (
        f"http://127.0.0.1:{secret.port}/image.png",
        f"http://inside.example:{secret.port}/image.png",
        "http://other.example/image.png",
        "file:///etc/passwd",
        "//other.example/image.png",
    ):
        here.answers["/go"] = (302, {"Location": target}, b"")
        with pytest.raises(ValueError, match=r"not public|not one that this server|must begin with"):
            here.fetcher.fetch("http://images.example/go")
    assert not secret.hits
    assert {path for _, path in here.hits} == {"/go"} and set(here.connected) == {(PUBLIC, 80)}


def test_redirects_that_are_fine_and_those_that_never_end(site):
    here = site()
    here.answers["/go"] = (301, {"Location": "image.png"}, b"")
    assert here.fetcher.fetch("http://images.example/go") == IMAGE
    here.answers["/round"] = (302, {"Location": "/round"}, b"")
    here.hits.clear()
    with pytest.raises(ValueError, match="more than 3 times"):
        here.fetcher.fetch("http://images.example/round")
    assert len(here.hits) == 4
    here.answers["/nowhere"] = (302, {}, b"")
    with pytest.raises(ValueError, match="where to"):
        here.fetcher.fetch("http://images.example/nowhere")


def test_sizes(site):
    here = site()
    here.answers["/just"] = (200, {}, bytes(100_000))
    assert len(here.fetcher.fetch("http://images.example/just")) == 100_000
    here.answers["/announced"] = (200, {"Content-Length": "100001"}, b"")
    here.answers["/endless"] = (200, {}, (bytes(10_000) for _ in range(50)))
    for path in ("announced", "endless"):
        with pytest.raises(ValueError, match="larger than 100000 bytes"):
            here.fetcher.fetch(f"http://images.example/{path}")


def test_other_answers(site):
    here = site()
    with pytest.raises(ValueError, match="status 404"):
        here.fetcher.fetch("http://images.example/none")
    with pytest.raises(ValueError, match="no address"):
        site({}).fetcher.fetch("http://images.example/none")
    with pytest.raises(ValueError, match="could not be fetched"):  # it speaks no TLS
        here.fetcher.fetch("https://images.example/image.png")


def test_time(site):
    """A host that sends a byte now and then cannot keep us."""
    here = site(timeout=0.3)

    def drip():
        for _ in range(100):
            time.sleep(0.1)
            yield b"x"

    here.answers["/drip"] = (200, {"Content-Length": "100"}, drip())
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"longer than 0\.3 seconds"):
        here.fetcher.fetch("http://images.example/drip")
    assert time.monotonic() - start < 9


# ------------------------------------------------------------------------------------------------- at the server's door


def _ask(server, url):
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return server.request(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
    )


def test_the_server_fetches_nothing_by_default(server, site):
    here = site()
    for url in (f"http://127.0.0.1:{here.port}/image.png", "file:///etc/passwd", "/etc/passwd", "image.png"):
        status, answer, _ = _ask(server, url)
        assert status == 400 and answer["error"]["code"] == "url_not_allowed"
        status, answer, _ = server.request("/v1/images/edits", {"prompt": "bluer", "image": url})
        assert status == 400 and answer["error"]["code"] == "url_not_allowed"
    assert not here.hits
    assert _ask(server, data_uri(IMAGE))[0] == 200


def test_a_server_with_listed_hosts(compact, small_processor, site):
    here = site(
        {"images.example": [PUBLIC], "inside.example": ["10.0.0.1"]}, hosts=("images.example", "inside.example")
    )
    server = RunningServer(compact.model, small_processor, ImageReader(ServerSettings(), here.fetcher))
    try:
        by_url, by_value = _ask(server, "http://images.example/image.png"), _ask(server, data_uri(IMAGE))
        assert by_url[0] == 200 and by_url[1]["choices"] == by_value[1]["choices"]
        here.answers["/image.png"] = (200, {}, b"no image")
        status, answer, _ = _ask(server, "http://images.example/image.png")
        assert status == 400 and "it is no PNG" in answer["error"]["message"]
        assert _ask(server, "http://inside.example/image.png")[0] == 400
        assert len(here.hits) == 2
    finally:
        server.stop()


def test_hosts_make_a_fetcher():
    assert ImageReader(ServerSettings()).fetcher is None
    assert ImageReader(ServerSettings(url_hosts=("Images.example",))).fetcher.hosts == {"images.example"}
