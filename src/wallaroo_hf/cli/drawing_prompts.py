"""`wallaroo generate --prompts`: many prompts, in one process or several, with resume."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from ..families.settings import Notice
from ..files.saved_pictures import save_png
from ..files.whole import require_folder
from ..pipelines import DrawingPipeline
from .given import is_picture_file
from .processes import place_in_world
from .prompt_files import PromptJob, check_manifest, plan_batches, read_prompts
from .running import Checkpoint, DrawingOptions, Drawn, images_at_once, load_checkpoint, progress_bar


def draw_prompts(
    path: Path,
    model: str,
    device: str | None,
    dtype: str,
    check_weights: bool,
    options: DrawingOptions,
    num_images: int,
    seed: int,
    batch_size: int,
    output: Path,
) -> Iterator[Drawn]:
    """Draws every prompt of a file once; what an earlier, interrupted command has drawn already is skipped.

    Batches are cut from the whole list, then dealt out among the processes that `torchrun` or `accelerate launch` started.
    A batch of which an image is missing is drawn again as a whole, so that pictures depend neither on how many processes
    there are nor on interruptions.

    Args:
        path: the file of prompts.
        model: folder or Hub id.
        device, dtype, check_weights: how it is loaded, see [`wallaroo_hf.families.registry.load`].
        options: of all prompts; lines may say otherwise.
        num_images: copies of each prompt.
        seed: of the first image.
        batch_size: images drawn at once.
        output: the folder of the images.

    Yields:
        Each image that this process drew.

    Raises:
        ValueError: for a file, a prompt, settings or an output folder that will not do; before anything is drawn.
    """
    if is_picture_file(output):
        raise ValueError(f"A file of prompts cannot be drawn into the one file '{output}'; give a folder as --output.")
    require_folder(output)
    batch_size = images_at_once(options, batch_size)
    batches = plan_batches(read_prompts(path), num_images, seed, batch_size)
    rank, world = place_in_world()
    if device is None and world > 1 and torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        local = int(os.environ.get("LOCAL_RANK", rank)) % torch.accelerator.device_count()
        device = f"{accelerator.type if accelerator is not None else 'cpu'}:{local}"
    output.mkdir(parents=True, exist_ok=True)
    settings = {**options.record(), "dtype": dtype, "batch_size": batch_size, "num_images": num_images, "seed": seed}
    check_manifest(output, batches, model, settings)
    mine = [batch for batch in batches[rank::world] if not all((output / job.file).is_file() for job in batch)]
    if not mine:
        return
    checkpoint = load_checkpoint(model, device, dtype, check_weights)
    for batch in mine:
        _check(checkpoint, batch, options, path)
    prompts = [job.prompt for batch in mine for job in batch]
    for notice in dict.fromkeys(
        notice for prompt in prompts for notice in checkpoint.abilities.notices(options.settings, prompt)
    ):
        typer.echo(f"Note: {notice}", err=True)
    pipe = DrawingPipeline(model=checkpoint.model, processor=checkpoint.processor, device=checkpoint.model.device)
    name = "Drawing" if world == 1 else f"Drawing, process {rank + 1} of {world}"
    with progress_bar(disable=rank > 0) as progress:
        task = progress.add_task(name, total=sum(map(len, mine)))
        for batch in mine:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Notice)  # they were given before
                images = pipe(
                    [job.prompt for job in batch],
                    generator=[torch.Generator().manual_seed(job.seed) for job in batch],
                    **_arguments(batch, options),
                ).images
            for job, image in zip(batch, images, strict=True):
                metadata = {"model": checkpoint.name, **options.record(), **job.settings}
                saved = save_png(image, output / job.file, job.prompt, job.seed, metadata, replace=True)
                progress.advance(task)
                yield Drawn(saved, job.prompt, job.seed, *image.size)


def _arguments(batch: Sequence[PromptJob], options: DrawingOptions) -> dict[str, Any]:
    """The pipeline's arguments: the command's options, row by row overridden by what a line says."""
    arguments = options.pipeline_arguments()
    rows = [_row(job, options) for job in batch]
    for name in ("negative_prompt", "height", "width", "aspect_ratio"):
        values = [row[name] for row in rows]
        # none where every line replaces it: the command's height must not meet the lines' aspect ratios
        arguments[name] = values if any(value is not None for value in values) else None
    return arguments


def _row(job: PromptJob, options: DrawingOptions) -> dict[str, Any]:
    row = options.size_and_words()
    if {"height", "width", "aspect_ratio"} & set(job.settings):
        row |= {"height": None, "width": None, "aspect_ratio": None}  # the line's size replaces the command's
    return row | dict(job.settings)


def _check(checkpoint: Checkpoint, batch: Sequence[PromptJob], options: DrawingOptions, path: Path) -> None:
    """Prepares every prompt once, so that a bad line is found before hours of drawing."""
    stages = {setting.name: setting.stage for setting in checkpoint.abilities.settings}
    arguments = {
        name: value for name, value in options.pipeline_arguments().items() if stages.get(name) in ("prepare", "both")
    }
    for job in batch:
        try:
            checkpoint.abilities.check_words(job.prompt)
            checkpoint.processor(
                text=[job.prompt],
                generation_mode="image",
                return_tensors="pt",
                **arguments,
                **_row(job, options),
            )
        except ValueError as error:
            raise ValueError(f"Line {job.line} of '{path}': {error}") from error
