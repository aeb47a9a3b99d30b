"""From single pictures to the folder that a scorer is given, and the check that all of it is there."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..files.whole import new_folder
from ..pictures.opening import open_image
from .benchmarks import BENCHMARKS
from .drawing_manifest import IMAGES, SAMPLES, Drawing, Manifest
from .drawing_plans import ScoredFile


def sample_path(folder: Path, name: str) -> Path:
    """Where a picture is kept as it was drawn."""
    return folder / SAMPLES / f"{name}.png"


def missing_samples(folder: Path, manifest: Manifest) -> list[str]:
    """Names of pictures that are not drawn yet."""
    present = set(os.listdir(folder / SAMPLES)) if (folder / SAMPLES).is_dir() else set()
    return [drawing.name for drawing in manifest.drawings if f"{drawing.name}.png" not in present]


def publish(folder: Path, manifest: Manifest) -> bool:
    """Makes the scorer's folder, `images`, once all pictures are drawn; it appears as a whole.

    Returns:
        Whether it is there.

    Raises:
        ValueError: naming a picture that is damaged.
    """
    target = folder / IMAGES
    if target.is_dir():
        return True
    if missing_samples(folder, manifest):
        return False
    faults = _sample_faults(folder, manifest)
    if faults:
        raise ValueError(f"{faults[0]}; remove the file and run the same command to draw it again.")
    try:
        with new_folder(target) as partial:
            for file in manifest.files:
                _write(file, folder, partial / file.path)
    except (OSError, ValueError):
        if not target.is_dir():
            raise
    for litter in folder.glob(f".{IMAGES}-partial-*"):  # of a process that was killed here, or is beaten to it
        shutil.rmtree(litter, ignore_errors=True)
    return True  # by this process, or by another that was a moment earlier


def find_faults(folder: Path, manifest: Manifest) -> list[str]:
    """Everything that keeps a folder from being scored, one sentence each; empty if nothing does."""
    target = folder / IMAGES
    if not target.is_dir():
        faults = [f"{SAMPLES}/{name}.png is missing" for name in missing_samples(folder, manifest)]
        return [*faults, f"{IMAGES} is not there yet: run the same command again to go on"]
    sizes = _sizes(manifest.drawings)
    faults = [fault for file in manifest.files for fault in _file_faults(file, folder, sizes)]
    there = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    extra = BENCHMARKS[manifest.benchmark].scored_by_mistake(there, manifest.files)
    return faults + [f"{IMAGES}/{path} does not belong there, but would be scored" for path in extra]


def _sizes(drawings: Sequence[Drawing]) -> dict[str, tuple[int, int]]:
    """Width and height by name."""
    return {drawing.name: (drawing.width, drawing.height) for drawing in drawings}


def _sample_faults(folder: Path, manifest: Manifest) -> list[str]:
    return [
        f"{SAMPLES}/{name}.png {fault}"
        for name, size in _sizes(manifest.drawings).items()
        if (fault := _picture_fault(sample_path(folder, name), size))
    ]


def _file_faults(file: ScoredFile, folder: Path, sizes: dict[str, tuple[int, int]]) -> list[str]:
    path = folder / IMAGES / file.path
    fault = ""
    if not path.is_file():
        fault = "is missing"
    elif file.text is not None:
        fault = "" if path.read_bytes() == file.text.encode() else "is not what was written"
    else:
        width, height = sizes[file.pictures[0]]
        across = 2 if len(file.pictures) > 1 else 1
        fault = _picture_fault(path, (across * width, across * height))
        drawn = sample_path(folder, file.pictures[0])
        if not fault and across == 1 and drawn.is_file() and not filecmp.cmp(path, drawn, shallow=False):
            fault = f"is another picture than {SAMPLES}/{drawn.name}"
    return [f"{IMAGES}/{file.path} {fault}"] if fault else []


def _picture_fault(path: Path, size: tuple[int, int]) -> str:
    """What is wrong with a picture's file, or ""."""
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.size != size:
                return f"is {picture.width}x{picture.height} (width x height), but should be {size[0]}x{size[1]}"
            return "" if picture.format == "PNG" and picture.mode == "RGB" else "is no RGB picture in PNG format"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"is damaged ({error})"


def _write(file: ScoredFile, folder: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.text is not None:
        path.write_bytes(file.text.encode())
    elif len(file.pictures) == 1:
        _link(sample_path(folder, file.pictures[0]), path)
    else:
        grid([open_image(sample_path(folder, name)) for name in file.pictures]).save(path)


def grid(cells: Sequence[Image.Image]) -> Image.Image:
    """Four pictures of one size as one, two by two: left to right, then down."""
    width, height = cells[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for index, cell in enumerate(cells):
        whole.paste(cell, (index % 2 * width, index // 2 * height))
    return whole


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where a disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
