"""Two runs never write into one folder; what a killed one left is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from wallaroo_hf.files.run_lock import LOCK_FILE, only_run

HOLD = """
import sys, time
from pathlib import Path
from wallaroo_hf.files.run_lock import only_run
try:
    with only_run(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read(1)
except ValueError as error:
    print(error, flush=True)
"""


def hold(folder):
    """Another process that holds a folder until it is told to stop, or cannot; and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_the_second_run_says_who_has_the_folder(tmp_path):
    folder = tmp_path / "deep" / "run"
    process, said = hold(folder)
    try:
        assert said == "held"
        words = rf"Another run is writing into '.*run' \(process {process.pid}\); wait"
        with pytest.raises(ValueError, match=words), only_run(folder):
            raise AssertionError("must not begin")
        with only_run(tmp_path / "other"):
            pass
    finally:
        end(process)
    assert os.listdir(folder) == []
    with only_run(folder):
        assert json.loads((folder / LOCK_FILE).read_text())["pid"] == os.getpid()
        other, said = hold(folder)
        end(other)
        assert f"(process {os.getpid()})" in said
        with only_run(folder):  # the same process may
            pass
        assert (folder / LOCK_FILE).exists()
    assert os.listdir(folder) == []


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    process, said = hold(tmp_path)
    assert said == "held"
    process.send_signal(signal.SIGKILL)
    end(process)
    assert (tmp_path / LOCK_FILE).exists()
    with only_run(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_FILE).exists()


def gone():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("text", "is_held"),
    [
        ("", False),
        ("{", False),
        ("[]", False),
        ('{"pid": "x"}', False),
        ('{"pid": -1}', False),
        ('{"pid": 99999999999999999999}', False),
        (str(os.getppid()), True),
        (json.dumps({"pid": os.getppid(), "host": socket.gethostname()}), True),
        (json.dumps({"pid": os.getppid(), "host": socket.gethostname(), "started": "1"}), False),  # its number only
        (json.dumps({"pid": 1 << 21, "host": "elsewhere"}), True),
    ],
)
def test_whose_lock_counts(tmp_path, text, is_held):
    if '"started"' in text and not os.path.exists("/proc/self/stat"):
        pytest.skip("the system does not say when a process began")
    (tmp_path / LOCK_FILE).write_text(text)
    if is_held:
        with pytest.raises(ValueError, match=r"delete '.*run.lock'"), only_run(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).read_text() == text
    else:
        with only_run(tmp_path):
            pass
        assert os.listdir(tmp_path) == []


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
    (tmp_path / LOCK_FILE).write_text(json.dumps({"pid": gone(), "host": socket.gethostname()}))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(hold, [tmp_path] * 4))
    assert sorted(said == "held" for _, said in found) == [False, False, False, True]
    (holder,) = [process.pid for process, said in found if said == "held"]
    assert all(f"(process {holder})" in said for _, said in found if said != "held")
    for process, _ in found:
        end(process)


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    (tmp_path / "previews").mkdir()
    left = [tmp_path / ".losses-0a1b2c3d.png", tmp_path / "previews" / ".step-9-00ff00ff.png"]
    for path in left:
        path.touch()
    (tmp_path / ".final-partial-0a1b2c3d").mkdir()
    others = [tmp_path / name for name in ("losses.png", ".hidden.png", ".notes-0a1b2c3.txt")]
    for path in others:
        path.touch()
    with only_run(tmp_path):
        assert not any(path.exists() for path in left) and not (tmp_path / ".final-partial-0a1b2c3d").exists()
    assert all(path.exists() for path in others)
