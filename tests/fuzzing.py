"""Random input for whatever reads input: it is refused in one sentence, or read right.

`python tests/fuzzing.py --seconds 60 --seed 1` tries every kind for so long, `--kind server` that one (it may come again);
`tests/test_fuzzing.py` tries a few rounds of each. A round follows from its kind, seed and number alone, so what is
reported can be run again (`--rounds 1 --first NUMBER`).
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from fuzz_kinds import KINDS, make_kind
from golden import GoldenSet

COMPACT = Path(__file__).parent / "assets" / "compact"


def _rounds(first: int, count: int | None, seconds: float) -> Iterator[int]:
    end, number = time.monotonic() + seconds, first
    while (count is None or number < first + count) and time.monotonic() < end:
        yield number
        number += 1


def _say(words: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(f"{words}\n".encode("utf-8", "backslashreplace").decode())
    sys.stdout.flush()


def try_kind(golden: GoldenSet, folder: Path, name: str, seed: int, numbers: Iterator[int]) -> int:
    """Runs rounds, says which went wrong and how many there were of each outcome; returns how many went wrong."""
    kind = make_kind(name, golden, folder)
    found: collections.Counter[str] = collections.Counter(accepted=0, refused=0, wrong=0)
    slowest = (0.0, 0)
    for number in numbers:
        began = time.process_time()
        try:
            found["accepted" if kind.run(seed, number) else "refused"] += 1
        except Exception:  # what is looked for
            found["wrong"] += 1
            _say(f"{name}, seed {seed}, round {number}:\n{traceback.format_exc(limit=-6)}")
        slowest = max(slowest, (time.process_time() - began, number))
    kind.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    said = ", ".join(f"{count} {outcome}" for outcome, count in found.items())
    _say(f"{name}, seed {seed}: {sum(found.values())} rounds, {said}; slowest: {slowest[0]:.1f} s of computing (round")
    _say(f"  {slowest[1]}); most memory: {memory} MB")
    return found["wrong"]


def main() -> int:
    """Tries kinds for a while each; 1 if any round went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind")
    parser.add_argument("--rounds", type=int, help="of each kind, at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wrong = 0
    with tempfile.TemporaryDirectory() as workspace:
        golden = GoldenSet("compact", COMPACT, Path(workspace))
        for name in options.kind or KINDS:
            folder = Path(workspace) / f"rounds of {name}"
            folder.mkdir(exist_ok=True)
            numbers = _rounds(options.first, options.rounds, options.seconds)
            wrong += try_kind(golden, folder, name, options.seed, numbers)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
