"""GenEval: four pictures per prompt, in numbered folders beside their prompt's metadata.

What its `evaluation/evaluate_images.py` reads of the folder it is given: every subfolder whose name is all digits, in it
`metadata.jsonl`, one JSON object, and of `samples` every file whose name begins like `0000.png`. It scores what there is
and misses nothing that is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.parsing import parse_json
from .drawing_plans import Benchmark, Picture, Plan, ScoredFile, check_prompt, read_text


def read_geneval(path: Path, pictures_per_prompt: int = 4) -> Plan:
    """The plan of GenEval's `prompts/evaluation_metadata.jsonl`, or of a file like it.

    Args:
        path: one JSON object per line, with `prompt` and `tag`, and what the scorer looks for (`include`, `exclude`). The
            N-th line becomes folder N, as in GenEval's own scripts.
        pictures_per_prompt: GenEval has four.

    Raises:
        ValueError: naming file and line, for what is no such object.
    """
    entries = [
        _entry(line, f"Line {number} of '{path}'")
        for number, line in enumerate(read_text(path, "prompts").split("\n"), start=1)
        if line.strip()
    ]
    if not entries:
        raise ValueError(f"The file '{path}' holds no prompts; give GenEval's evaluation_metadata.jsonl.")
    pictures, files = [], []
    for number, entry in enumerate(entries):
        files.append(ScoredFile(f"{number:05d}/metadata.jsonl", text=json.dumps(entry)))
        for copy in range(pictures_per_prompt):
            name = f"{number:05d}-{copy:04d}"
            pictures.append(Picture(name, entry["prompt"].strip()))
            files.append(ScoredFile(f"{number:05d}/samples/{copy:04d}.png", (name,)))
    return Plan("geneval", tuple(pictures), tuple(files))


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON object ({error}); give GenEval's evaluation_metadata.jsonl.") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("tag"), str):
        raise ValueError(f'{where} must be a JSON object with "prompt" and "tag", which GenEval\'s scorer groups by.')
    check_prompt(entry.get("prompt"), where)
    return entry


def scored_by_mistake(paths: Sequence[str], files: Sequence[ScoredFile]) -> list[str]:
    """Pictures that the scorer would count although they are not of the plan."""
    known = {file.path for file in files}
    counted = re.compile(r"\d+/samples/\d+\.png[^/]*")  # the scorer matches the beginning of the file's name only
    return [path for path in paths if path not in known and counted.fullmatch(path)]


GENEVAL = Benchmark("geneval", read_geneval, 4, scored_by_mistake)
