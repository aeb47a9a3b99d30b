"""ImgEdit: one edit per key.

What its `Benchmark/Basic/basic_bench.py` reads: for every key of the table that it is given, `<key>.png` of one folder and
the source `<origin_img_root>/<id>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..files.parsing import parse_json
from .drawing_plans import Benchmark, Picture, Plan, ScoredFile, check_name, check_prompt, read_text, refuse_twins


def read_imgedit(path: Path, pictures_per_prompt: int = 1) -> Plan:
    """The plan of ImgEdit's `basic_edit.json`, `singleturn.json` or a table like them.

    Args:
        path: one JSON object: key -> object with `id` (the source, relative to the folder of sources) and `prompt`.
        pictures_per_prompt: ImgEdit has one.

    Raises:
        ValueError: naming the key, for an entry that is not so.
    """
    if pictures_per_prompt != 1:
        raise ValueError(f"ImgEdit has one picture per key, but {pictures_per_prompt} were asked for.")
    text = read_text(path, "prompts")
    try:
        table = parse_json(text)
    except ValueError as error:
        raise ValueError(f"The prompts '{path}' are no JSON ({error}); give ImgEdit's basic_edit.json.") from error
    if not isinstance(table, dict) or not table:
        raise ValueError(
            f"The prompts '{path}' must be a JSON object of key to edit, as in ImgEdit's basic_edit.json."
        )
    refuse_twins(list(table), path)
    pictures = []
    for key, entry in table.items():
        where = f"Key {key!r} of '{path}'"
        check_name(key, where)
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise ValueError(f'{where} must be an object with "id", its source, and "prompt".')
        source = PurePosixPath(entry["id"])
        if source.is_absolute() or ".." in source.parts or not source.name:
            raise ValueError(f"{where} has the source {entry['id']!r}, which leads out of the folder of sources.")
        pictures.append(Picture(key, check_prompt(entry.get("prompt"), where), str(source)))
    return Plan("imgedit", tuple(pictures), tuple(ScoredFile(f"{key}.png", (key,)) for key in table))


def scored_by_mistake(paths: Sequence[str], files: Sequence[ScoredFile]) -> list[str]:
    """None: the scorer goes by the table's keys."""
    return []


IMGEDIT = Benchmark("imgedit", read_imgedit, 1, scored_by_mistake)
