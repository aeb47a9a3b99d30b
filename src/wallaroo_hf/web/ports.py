"""Addresses to listen at: taken, or made sure of before a model is loaded."""

import os
import socket

__all__ = ["BACKLOG", "cannot_listen", "listen", "require_free"]

BACKLOG = 2048  # connections that the system keeps for us


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket that listens, and its address as a URL.

    Raises:
        ValueError: if the address cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    name, bound = listener.getsockname()[:2]
    return listener, f"http://[{name}]:{bound}" if ":" in name else f"http://{name}:{bound}"


def require_free(host: str, port: int) -> None:
    """Makes sure that an address can be listened on, for who will do so by itself.

    Raises:
        ValueError: if it cannot.
    """
    listen(host, port)[0].close()


def cannot_listen(host: str, port: int | str, error: OSError) -> ValueError:
    """What is raised for an address that cannot be listened on."""
    # Python's own words repeat the address
    known = isinstance(error.errno, int) and error.errno > 0 and not isinstance(error, socket.gaierror)
    reason = os.strerror(error.errno) if known and error.errno is not None else error.strerror or str(error)
    return ValueError(f"Cannot listen on {host}, port {port} ({reason}); choose another --host or --port.")
