"""A lock file in a run's folder, so that two runs never write into one."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .whole import remove_leftovers

__all__ = ["LOCK_FILE", "only_run"]

LOCK_FILE = "run.lock"
_held: dict[Path, int] = {}  # by this process: how often


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process while the block runs; the same process may take it again meanwhile.

    The lock of a process that is no more, killed for example, is taken over, and what it was writing is removed. Whether
    one on another machine still runs cannot be told from here: it counts as running.

    Raises:
        ValueError: if another process has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK_FILE
    if not _held.get(path):
        _take(path, folder)
        for one in (folder, folder / "previews"):
            remove_leftovers(one)
    _held[path] = _held.get(path, 0) + 1
    try:
        yield
    finally:
        _held[path] -= 1
        if not _held[path]:
            del _held[path]
            if _read(path) == _identity():  # nobody takes it from one that lives
                path.unlink(missing_ok=True)


def _take(path: Path, folder: Path) -> None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for_turn(descriptor)
            if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
                continue  # given back in between
            holder = _read(path)
            if _lives(holder):
                raise ValueError(_said(holder, path, folder))
            text = json.dumps(_identity()).encode()
            os.ftruncate(descriptor, 0)
            os.write(descriptor, text)
            os.fsync(descriptor)
            return
        finally:
            os.close(descriptor)


def _wait_for_turn(descriptor: int) -> None:
    """Has processes that look at a lock at the same time do so one after the other, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError):  # a file system without such locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _identity() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())}


def _start_of(pid: int) -> str | None:
    """When a process began, in the system's own ticks, which tells it from a later one of its number; None if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _read(path: Path) -> dict[str, Any]:
    """Who wrote a lock; {} if nobody finished writing it."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    holder = {"pid": holder} if isinstance(holder, int) else holder
    pid = holder.get("pid") if isinstance(holder, dict) else None
    return holder if isinstance(pid, int) and pid > 0 else {}


def _lives(holder: dict[str, Any]) -> bool:
    if not holder:
        return False
    if holder.get("host", socket.gethostname()) != socket.gethostname():
        return True
    if os.name == "nt":  # where a look at a process by `os.kill` would end it
        return holder["pid"] != os.getpid()
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    started, now = holder.get("started"), _start_of(holder["pid"])
    return started is None or now is None or started == now


def _said(holder: dict[str, Any], path: Path, folder: Path) -> str:
    there = holder.get("host", socket.gethostname())
    process = f"process {holder['pid']}" + ("" if there == socket.gethostname() else f" on {there}")
    return (
        f"Another run is writing into '{folder}' ({process}); wait for its end, stop it, or choose another folder (if "
        f"there is no such run any more, delete '{path}')."
    )
