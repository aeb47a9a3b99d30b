"""DPG-Bench: four pictures per prompt, as one grid of two by two.

What its `dpg_bench/compute_dpg_bench.py` reads: every file of the one folder it is given. A file's name up to the first dot
is the item's id; `--pic-num 4 --resolution R` has it cut four cells of R x R pixels out of the grid, left to right, then
down. Other files are reported and skipped, so single pictures must be elsewhere; missing items are not missed.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from .drawing_plans import Benchmark, Picture, Plan, ScoredFile, check_name, check_prompt, read_text, refuse_twins

CELLS = 4  # of a grid


def read_dpg(path: Path, pictures_per_prompt: int = CELLS) -> Plan:
    """The plan of DPG-Bench's folder of prompts, one `<item_id>.txt` each, or of its `dpg_bench.csv`.

    Items are in the order of their ids, so that both give the same pictures. Quotes around a whole prompt are dropped, as
    the authors' script does.

    Args:
        path: the folder, or the table with columns `item_id` and `text` (an item has several rows; the first one counts).
        pictures_per_prompt: DPG-Bench has four; a grid has no other number.

    Raises:
        ValueError: for anything else in `path`, an item without prompt, or another number of pictures.
    """
    if pictures_per_prompt != CELLS:
        raise ValueError(f"A grid of DPG-Bench has {CELLS} pictures, but {pictures_per_prompt} were asked for.")
    prompts = _read_folder(path) if path.is_dir() else _read_table(path)
    if not prompts:
        raise ValueError(f"'{path}' holds no prompts; give DPG-Bench's folder of .txt files or its dpg_bench.csv.")
    refuse_twins(list(prompts), path)
    pictures, files = [], []
    for item in sorted(prompts):
        where = f"Item {item!r} of '{path}'"
        if "." in check_name(item, where):
            raise ValueError(
                f"{where} has a dot in its name, but the scorer reads names up to the first dot; rename it."
            )
        names = tuple(f"{item}-{cell}" for cell in range(CELLS))
        prompt = check_prompt(prompts[item].strip().strip('"').strip("'"), where)
        pictures += [Picture(name, prompt) for name in names]
        files.append(ScoredFile(f"{item}.png", names))
    return Plan("dpg", tuple(pictures), tuple(files))


def _read_folder(folder: Path) -> dict[str, str]:
    return {path.stem: read_text(path, "prompt") for path in folder.glob("[!.]*.txt")}


def _read_table(path: Path) -> dict[str, str]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a prompt is longer than some defaults
    table = csv.DictReader(io.StringIO(read_text(path, "prompts"), newline=""))
    if not {"item_id", "text"} <= set(table.fieldnames or ()):
        raise ValueError(
            f"The table '{path}' has the columns {', '.join(table.fieldnames or ()) or 'none'}, but item_id and text are "
            "needed; give DPG-Bench's dpg_bench.csv or its folder of .txt files."
        )
    prompts: dict[str, str] = {}
    for row in table:
        prompts.setdefault(row["item_id"] or "", row["text"] or "")
    return prompts


def scored_by_mistake(paths: Sequence[str], files: Sequence[ScoredFile]) -> list[str]:
    """Files that the scorer would count for an item a second time."""
    known = {file.path for file in files}
    items = {Path(path).stem for path in known}
    return [path for path in paths if path not in known and "/" not in path and path.split(".")[0] in items]


DPG = Benchmark("dpg", read_dpg, CELLS, scored_by_mistake)
