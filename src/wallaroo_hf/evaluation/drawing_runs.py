"""`draw_benchmark`: draws what a benchmark asks for, by one process or many, and goes on after interruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..files.whole import new_file
from ..layout.grid import check_size, nearest_bucket
from ..layout.prompt_texts import fill_template, prompt_language
from ..pictures.opening import open_image
from ..processing.processor import WallarooProcessor
from ..processing.refused_words import refuse_special_tokens, refused_tokens
from .drawing_files import missing_samples, publish, sample_path
from .drawing_manifest import IMAGES, Drawing, Manifest, digest
from .drawing_plans import Plan
from .identity import checkpoint_hash, versions
from .item_outputs import evaluation_mode
from .recipes import Recipe
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
    model: Any,
    processor: WallarooProcessor,
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
    `batch_size` by rounding (see [`WallarooForConditionalGeneration.generate`]), so it is one of the settings.

    Args:
        model: a `WallarooForConditionalGeneration`, on its device.
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
    batches = cut_batches(_groups(manifest.drawings, processor, recipe), batch_size)
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
    model: Any,
    processor: WallarooProcessor,
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
        model: a `WallarooForConditionalGeneration`.
        processor: its processor.
        prompts: what to draw, or how to edit.
        seeds: one per prompt.
        recipe: how.
        template: of all prompts; the recipe's own is not looked at.
        sources: one per prompt, or None.
        resolution: of drawings.
    """
    size: dict[str, Any] = {} if resolution is None else {"height": resolution[0], "width": resolution[1]}
    inputs = processor(
        text=list(prompts),
        images=None if sources is None else list(sources),
        generation_mode="image",
        prompt_template=template,
        return_tensors="pt",
        **size,
        **recipe.preparation(),
    ).to(model.device, dtype=model.dtype)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens = model.generate(**inputs, generation_mode="image", generator=generators, **recipe.sampling())
    grids = inputs["target_grid_hw"]
    # one by one, so that equal codes are equal bytes: the image tokenizer rounds differently in a batch
    pixels = [model.decode_image_tokens(tokens[row, None], grids[row, None])[0] for row in range(len(tokens))]
    images = processor.post_process_multimodal_output(pixels, generation_mode="image")
    if sources is not None and recipe.source_fit == "pad":
        images = processor.fit_back(images, sources, "pad")
    return images


def _draw_anew(
    model: Any,
    processor: WallarooProcessor,
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


def _groups(drawings: Sequence[Drawing], processor: WallarooProcessor, recipe: Recipe) -> list[list[Drawing]]:
    """Those that may share a batch, similar sizes side by side.

    They have one template, for the processor takes one per batch. With the published padding, which is attended to, they
    also have prompts of one length: so each is drawn as if alone, which is how the authors' scripts draw.
    """
    groups: dict[tuple[str, str], list[Drawing]] = {}
    for drawing in sorted(drawings, key=lambda drawing: (drawing.height * drawing.width, drawing.height)):
        padding = _padding(drawing, processor, recipe) if recipe.published_eval else ""
        groups.setdefault((str(drawing.template), padding), []).append(drawing)
    return [groups[key] for key in sorted(groups)]


def _padding(drawing: Drawing, processor: WallarooProcessor, recipe: Recipe) -> str:
    """Equal for drawings that need no padding beside each other; edits are always alone."""
    if drawing.source is not None:
        return drawing.name
    inputs = processor(
        text=[drawing.prompt],
        generation_mode="image",
        height=drawing.height,
        width=drawing.width,
        prompt_template=drawing.template,
        return_tensors="pt",
        **recipe.preparation(),
    )
    return str(inputs["input_ids"].shape[1])


def _make_manifest(
    model: Any,
    processor: WallarooProcessor,
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
    if edits and not processor.has_editing:
        raise ValueError(
            "This checkpoint has no editing parts (it was trained up to stage 3); use a stage 4 checkpoint."
        )
    drawings = _settle(processor, plan, recipe, sources, resolution, seed)
    settings = {
        **asdict(recipe),
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
    del settings["name"]
    used = {name: version for name, version in versions().items() if name != "scenes"}
    return Manifest(plan.benchmark, settings, used, model.name_or_path, drawings, plan.files)


def _settle(
    processor: WallarooProcessor,
    plan: Plan,
    recipe: Recipe,
    sources: str | Path | None,
    resolution: int | None,
    seed: int,
) -> list[Drawing]:
    """Seeds, templates and sizes of all pictures, checked before anything is drawn."""
    square = nearest_bucket(1, 1, processor.buckets) if resolution is None else (resolution, resolution)
    check_size(*square, processor.image_token_size, plain_grid=not processor.line_breaks)
    if square[0] != square[1] and plan.benchmark != "imgedit":
        raise ValueError(f"The checkpoint's most square size is {square[0]}x{square[1]}; give a --resolution.")
    special_tokens = refused_tokens(processor.tokenizer)
    drawings = []
    for index, picture in enumerate(plan.pictures):
        task = "generation" if picture.source is None else "editing"
        templates = processor.prompt_templates[task]
        template = recipe.choose_template(picture.name, picture.prompt, seed, templates)
        try:
            refuse_special_tokens("prompt", picture.prompt, special_tokens)
            fill_template(template, templates, prompt_language(picture.prompt), picture.prompt, *square)
            height, width = square
            if picture.source is not None:
                height, width = _edit_size(open_image(_source_path(sources, picture.source)), processor, recipe)
        except ValueError as error:
            raise ValueError(f"Picture {picture.name} of the prompts: {error}") from error
        drawings.append(Drawing(picture.name, picture.prompt, picture.source, seed + index, template, height, width))
    return drawings


def _edit_size(source: Image.Image, processor: WallarooProcessor, recipe: Recipe) -> tuple[int, int]:
    """Height and width of an edit's file."""
    if recipe.source_fit == "pad":
        return source.height, source.width
    return nearest_bucket(source.height, source.width, processor.buckets)


def _source_path(sources: str | Path | None, source: str | None) -> Path:
    """Raises ValueError if the folder of sources was not given."""
    if sources is None or source is None:
        raise ValueError("it is an edit, so give the folder of sources (--sources)")
    return Path(sources) / source


def _hash_sources(sources: str | Path | None, plan: Plan) -> str:
    """SHA-256 of all sources' bytes."""
    files = sorted({picture.source for picture in plan.pictures if picture.source is not None})
    return digest([hashlib.sha256(_source_path(sources, file).read_bytes()).hexdigest() for file in files])
