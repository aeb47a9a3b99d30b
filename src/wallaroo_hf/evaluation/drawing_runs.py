"""`draw_benchmark`: draws what a benchmark asks for, by one process or many, and goes on after interruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..families.abilities import EDITING, GENERATION, Abilities
from ..families.benchmark_recipe import Recipe
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.registry import abilities_of
from ..files.whole import new_file
from ..pictures.opening import open_image
from .drawing_files import missing_samples, publish, sample_path
from .drawing_manifest import IMAGES, Drawing, Manifest, digest
from .drawing_plans import Plan
from .identity import checkpoint_hash, versions
from .item_outputs import evaluation_mode
from .recipes import check_recipe
from .shares import cut_batches

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DrawingRun:
    """How a call of [`draw_benchmark`] ended.

    Attributes:
        complete: whether the scorer's folder is there.
        num_missing: pictures that are not, because other processes are still drawing them.
        manifest: what the output folder holds.
    """

    complete: bool
    num_missing: int
    manifest: Manifest


def draw_benchmark(
    model: DrawingModel,
    processor: DrawingProcessor,
    plan: Plan,
    output_dir: str | Path,
    recipe: Recipe,
    *,
    sources: str | Path | None = None,
    resolution: int | None = None,
    seed: int = 0,
    batch_size: int = 4,
    place: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> DrawingRun:
    """Draws a benchmark's pictures, or what is left of them, and then makes the folder that its scorer reads.

    The output folder holds `manifest.json` (settings, seeds, templates, checkpoint hash, versions), every picture in
    `samples` as soon as it is drawn, and `images`, what the scorer is given, once all are there: an incomplete run cannot
    be scored.

    Batches are cut from the whole list before processes share them, and a batch of which a picture is missing is drawn
    again as a whole; so pictures depend neither on the number of processes nor on interruptions. They do depend on
    `batch_size` by rounding (see the model's `draw`), so it is one of the settings.

    Args:
        model: of any family, on its device.
        processor: its processor.
        plan: what to draw.
        output_dir: a new folder, or one to go on in.
        recipe: how.
        sources: folder of the pictures to edit.
        resolution: edge of drawings in pixels; default: the checkpoint's most square size. Edits have no such choice.
        seed: picture k gets `seed + k`.
        batch_size: pictures at once.
        place: this process's number and how many there are.
        progress: called with the benchmark's name, pictures done and their number, of this process's share.

    Raises:
        ValueError: before anything is drawn, for prompts, sources or settings that cannot be, or a folder of another run.
    """
    folder = Path(output_dir)
    manifest = _make_manifest(model, processor, plan, recipe, sources, resolution, seed, batch_size)
    batches = cut_batches(_groups(manifest.drawings, processor, abilities_of(model, processor), recipe), batch_size)
    manifest.write(folder)
    missing = set() if (folder / IMAGES).is_dir() else set(missing_samples(folder, manifest))
    share = batches[place[0] :: place[1]]
    total, done = sum(map(len, share)), 0
    with evaluation_mode(model):
        for batch in share:
            if any(drawing.name in missing for drawing in batch):
                _draw_anew(model, processor, batch, folder, recipe, sources)
            done += len(batch)
            if progress is not None:
                progress(plan.benchmark, done, total)
    complete = publish(folder, manifest)
    return DrawingRun(complete, 0 if complete else len(missing_samples(folder, manifest)), manifest)


def draw_pictures(
    model: DrawingModel,
    processor: DrawingProcessor,
    prompts: Sequence[str],
    seeds: Sequence[int],
    recipe: Recipe,
    template: int | str,
    *,
    sources: Sequence[Image.Image] | None = None,
    resolution: tuple[int, int] | None = None,
) -> list[Image.Image]:
    """One batch: drawings of `(height, width)`, or edits of sources, by a recipe.

    Args:
        model: of any family.
        processor: its processor.
        prompts: what to draw, or how to edit.
        seeds: one per prompt.
        recipe: how.
        template: of all prompts; the recipe's own is not looked at.
        sources: one per prompt, or None.
        resolution: of drawings.
    """
    abilities = abilities_of(model, processor)
    settings = check_recipe(recipe, abilities, edits=sources is not None)
    if abilities.setting("do_sample") is not None:
        settings["do_sample"] = True  # published scores are of sampled pictures
    size: dict[str, Any] = {} if resolution is None else {"height": resolution[0], "width": resolution[1]}
    inputs = processor(
        text=list(prompts),
        images=None if sources is None else list(sources),
        generation_mode="image",
        return_tensors="pt",
        **size,
        **_prepared(settings, abilities, template),
    ).to(model.device, dtype=model.dtype)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = model.draw(inputs, generators=generators, **abilities.for_stage(settings, "draw"))
    images = processor.pictures([pixels for pixels in drawn.pixels if pixels is not None])
    fit = settings.get("source_fit")
    if sources is None or fit == "crop":  # what was cropped keeps the listed size
        return images
    return processor.fit_back(images, sources) if fit is None else processor.fit_back(images, sources, fit)


def _prepared(settings: Mapping[str, Any], abilities: Abilities, template: int | str) -> dict[str, Any]:
    """What the processor takes of a recipe; a family without templates is not asked for one."""
    templates = {} if abilities.setting("prompt_template") is None else {"prompt_template": template}
    return abilities.for_stage(settings, "prepare") | templates


def _draw_anew(
    model: DrawingModel,
    processor: DrawingProcessor,
    batch: Sequence[Drawing],
    folder: Path,
    recipe: Recipe,
    sources: str | Path | None,
) -> None:
    """Draws a batch; what there was of it goes first, so that its pictures are complete only when all are new."""
    for drawing in batch:
        sample_path(folder, drawing.name).unlink(missing_ok=True)
    edits = batch[0].source is not None
    images = draw_pictures(
        model,
        processor,
        [drawing.prompt for drawing in batch],
        [drawing.seed for drawing in batch],
        recipe,
        batch[0].template,
        sources=[open_image(_source_path(sources, drawing.source)) for drawing in batch] if edits else None,
        resolution=None if edits else (batch[0].height, batch[0].width),
    )
    for drawing, image in zip(batch, images, strict=True):
        with new_file(sample_path(folder, drawing.name)) as partial:
            image.save(partial)


def _groups(
    drawings: Sequence[Drawing], processor: DrawingProcessor, abilities: Abilities, recipe: Recipe
) -> list[list[Drawing]]:
    """Those that may share a batch, similar sizes side by side.

    They have one template, for the processor takes one per batch. With the published padding, which is attended to, they
    also have prompts of one length: so each is drawn as if alone, which is how the authors' scripts draw.
    """
    groups: dict[tuple[str, str], list[Drawing]] = {}
    for drawing in sorted(drawings, key=lambda drawing: (drawing.height * drawing.width, drawing.height)):
        padding = _padding(drawing, processor, abilities, recipe) if recipe.settings.get("published_eval") else ""
        groups.setdefault((str(drawing.template), padding), []).append(drawing)
    return [groups[key] for key in sorted(groups)]


def _padding(drawing: Drawing, processor: DrawingProcessor, abilities: Abilities, recipe: Recipe) -> str:
    """Equal for drawings that need no padding beside each other; edits are always alone."""
    if drawing.source is not None:
        return drawing.name
    inputs = processor(
        text=[drawing.prompt],
        generation_mode="image",
        height=drawing.height,
        width=drawing.width,
        return_tensors="pt",
        **_prepared(check_recipe(recipe, abilities, edits=False), abilities, drawing.template),
    )
    return str(inputs["input_ids"].shape[1])


def _make_manifest(
    model: DrawingModel,
    processor: DrawingProcessor,
    plan: Plan,
    recipe: Recipe,
    sources: str | Path | None,
    resolution: int | None,
    seed: int,
    batch_size: int,
) -> Manifest:
    edits = any(picture.source is not None for picture in plan.pictures)
    if edits and resolution is not None:
        raise ValueError("A resolution is for drawings; an edit's size follows its source.")
    abilities = abilities_of(model, processor)
    abilities.check_task(EDITING if edits else GENERATION)
    check_recipe(recipe, abilities, edits)
    drawings = _settle(abilities, plan, recipe, sources, resolution, seed)
    settings = {
        **recipe.settings,
        "recipe": recipe.name,
        "seed": seed,
        "batch_size": batch_size,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "checkpoint": checkpoint_hash(model, processor),
        "drawings": digest([asdict(drawing) for drawing in drawings]),
        "files": digest([asdict(file) for file in plan.files]),
        "sources": _hash_sources(sources, plan) if edits else None,
    }
    used = {name: version for name, version in versions().items() if name != "scenes"}
    return Manifest(plan.benchmark, settings, used, model.name_or_path, drawings, plan.files)


def _settle(
    abilities: Abilities,
    plan: Plan,
    recipe: Recipe,
    sources: str | Path | None,
    resolution: int | None,
    seed: int,
) -> list[Drawing]:
    """Seeds, templates and sizes of all pictures, checked before anything is drawn."""
    square = abilities.pick_size(resolution, resolution)
    abilities.check_size(*square)
    if square[0] != square[1] and plan.benchmark != "imgedit":
        raise ValueError(f"The checkpoint's most square size is {square[0]}x{square[1]}; give a --resolution.")
    drawings = []
    for index, picture in enumerate(plan.pictures):
        edits = picture.source is not None
        listed = abilities.prompt_templates(picture.prompt, edits)
        template = recipe.choose_template(picture.name, seed, listed)
        try:
            abilities.check_prompt(picture.prompt)
            abilities.write_prompt(picture.prompt, template, *square, edits)
            height, width = square
            if edits:
                height, width = _edit_size(open_image(_source_path(sources, picture.source)), abilities, recipe)
        except ValueError as error:
            raise ValueError(f"Picture {picture.name} of the prompts: {error}") from error
        drawings.append(Drawing(picture.name, picture.prompt, picture.source, seed + index, template, height, width))
    return drawings


def _edit_size(source: Image.Image, abilities: Abilities, recipe: Recipe) -> tuple[int, int]:
    """Height and width of an edit's file."""
    if recipe.settings.get("source_fit") == "crop":
        return abilities.pick_size(like=source)
    return source.height, source.width


def _source_path(sources: str | Path | None, source: str | None) -> Path:
    """Raises ValueError if the folder of sources was not given."""
    if sources is None or source is None:
        raise ValueError("it is an edit, so give the folder of sources (--sources)")
    return Path(sources) / source


def _hash_sources(sources: str | Path | None, plan: Plan) -> str:
    """SHA-256 of all sources' bytes."""
    files = sorted({picture.source for picture in plan.pictures if picture.source is not None})
    return digest([hashlib.sha256(_source_path(sources, file).read_bytes()).hexdigest() for file in files])
