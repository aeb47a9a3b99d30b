"""Fetching images by URL from hosts that the operator listed, and from nowhere else.

Every hop of a redirect is checked anew: its scheme, its host and port against the list, and all addresses that the host
resolves to, which must be public. The connection then goes to an address that was checked, so that a name cannot change its
mind in between (DNS rebinding). Bytes, redirects and the time for all of it are limited; no proxies, cookies or credentials
are used.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from .addresses import is_public

MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 65536

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
Connect = Callable[..., socket.socket]


class UrlFetcher:
    """Fetches bytes from listed hosts.

    Args:
        hosts: names, `images.example.org` (on the scheme's own port) or `images.example.org:8443`. Subdomains are other
            hosts.
        max_bytes: largest answer.
        timeout: seconds for all of a fetch.
        resolve, connect: `socket.getaddrinfo` and `socket.create_connection`, or what stands for them in tests.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        max_bytes: int,
        timeout: float,
        resolve: Resolve = socket.getaddrinfo,
        connect: Connect = socket.create_connection,
    ) -> None:
        self.hosts = {host.lower() for host in hosts}
        self.max_bytes, self.timeout = max_bytes, timeout
        self._resolve, self._connect = resolve, connect

    def fetch(self, url: str) -> bytes:
        """The body of the answer.

        Raises:
            ValueError: if the URL, or one that it leads to, must not be fetched, or if fetching fails.
        """
        deadline = time.monotonic() + self.timeout
        for _ in range(MAX_REDIRECTS + 1):
            parts, port = self._check_url(url)
            address = self._check_address(str(parts.hostname), port)
            try:
                body, location = self._get(parts, port, address, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() >= deadline:
                    raise ValueError(
                        f"The image's URL took longer than {self.timeout:g} seconds; send the image itself."
                    ) from error
                raise ValueError(f"The image's URL could not be fetched ({_first_line(error)}).") from error
            if location is None:
                return body
            url = urljoin(url, location)
        raise ValueError(f"The image's URL redirects more than {MAX_REDIRECTS} times; give the last one.")

    def _check_url(self, url: str) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise ValueError(f"The image's URL cannot be read ({_first_line(error)}).") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("The image's URL must begin with https://, http:// or data:.")
        if parts.username is not None or parts.password is not None:
            raise ValueError("The image's URL holds a user name or password; leave them out.")
        if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
            raise ValueError("The image's URL holds characters that must be percent-encoded; encode them.")
        named = parts.hostname.lower()
        listed = f"{named}:{port}" in self.hosts or (named in self.hosts and port == _PORTS[parts.scheme])
        if not listed:
            raise ValueError(
                f"The host '{named}' (port {port}) is not one that this server fetches images from; send the image itself "
                "as a data: URI."
            )
        return parts, port

    def _check_address(self, host: str, port: int) -> str:
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ValueError(f"The host '{host}' of the image's URL has no address.") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(is_public(address) for address in addresses):
            raise ValueError(f"The host '{host}' of the image's URL has an address that is not public.")
        return addresses[0]

    def _get(self, parts: SplitResult, port: int, address: str, deadline: float) -> tuple[bytes, str | None]:
        """One request to a checked address: the body, or where it redirects to."""
        connected = [self._connect((address, port), timeout=max(deadline - time.monotonic(), 0.001))]
        watchdog = threading.Timer(max(deadline - time.monotonic(), 0), _hang_up, [connected])  # bytes may drip in
        watchdog.daemon = True
        watchdog.start()
        try:
            if parts.scheme == "https":
                secure = ssl.create_default_context().wrap_socket(
                    connected[0], server_hostname=parts.hostname, do_handshake_on_connect=False
                )
                connected[0] = secure
                secure.do_handshake()
            connection = http.client.HTTPConnection(str(parts.hostname), port)
            connection.sock = connected[0]  # connected already: no name is looked up again
            target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            connection.request("GET", target, headers={"Accept": "image/*", "Connection": "close"})
            response = connection.getresponse()
            if response.status in _REDIRECTS:
                location = response.getheader("Location")
                if location is None:
                    raise ValueError("it redirects without saying where to")
                return b"", location
            if response.status != 200:
                raise ValueError(f"its host answers with status {response.status}")
            body = self._read(response)
            if time.monotonic() >= deadline:  # the watchdog may have cut it short
                raise TimeoutError
            return body, None
        finally:
            watchdog.cancel()
            connected[0].close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        while len(body) <= self.max_bytes and (response.length or 0) <= self.max_bytes:
            chunk = response.read1(_CHUNK)
            if not chunk:
                return bytes(body)
            body += chunk
        raise ValueError(f"it is larger than {self.max_bytes} bytes")


def _hang_up(connected: list[socket.socket]) -> None:
    """Wakes whoever reads from the socket; not through an `SSLSocket`'s own method, which is for the reader's thread."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected[0], socket.SHUT_RDWR)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
