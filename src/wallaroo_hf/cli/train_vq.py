"""`wallaroo train vq`: torch is imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files.whole import require_folder

if TYPE_CHECKING:
    from ..training.vq.vq_training import VQTrainer


def train_vq(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the run; the result is in its `final`.", show_default=False),
    ],
    images: Annotated[
        str, typer.Option(help="A folder of images, searched through, or `scenes`: the built-in pictures.")
    ] = "scenes",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the whole run. Default: the recipe's.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after so long; --resume goes on from there.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="config.json of the tokenizer to build. Default: the small one of the built-in checkpoint.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 8,
    image_size: Annotated[
        int, typer.Option(min=1, help="Side of the square crops in pixels; `scenes` has its own sizes.")
    ] = 128,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak. Default: the recipe's.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**30, help="Equal seeds train equal tokenizers.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="Where to train, e.g. cpu or cuda:0. Default: an accelerator if there is one.")
    ] = None,
) -> None:
    """Train an image tokenizer (VQ) from scratch.

    Writes checkpoints every two minutes, the losses (log.jsonl, losses.png) and pictures above their reconstructions
    (previews/). The same command with --resume goes on after a stop, as if there had been none.
    """
    require_folder(output)
    changes = {"max_steps": steps, "learning_rate": learning_rate, "max_minutes": minutes, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    trainer = _build(images, output, config, batch_size, image_size, changes, device)
    final, was_asked = _train_with_progress(trainer, resume)
    _report(trainer, final)
    if final is None and was_asked:
        raise typer.Exit(130)


def _build(
    images: str,
    output: Path,
    config: Path | None,
    batch_size: int,
    image_size: int,
    changes: dict[str, Any],
    device: str | None,
) -> VQTrainer:
    from dataclasses import replace

    import torch
    from transformers.utils import logging

    from ..modeling.configuration import WallarooVQConfig
    from ..training.vq.vq_data import image_files, random_crops, scene_canvases
    from ..training.vq.vq_recipe import scenes_arguments, small_tokenizer_config
    from ..training.vq.vq_training import VQTrainer, VQTrainingArguments, new_tokenizer

    logging.disable_progress_bar()  # ours is enough
    vq_config = WallarooVQConfig.from_pretrained(config) if config else small_tokenizer_config()
    if images == "scenes":
        source, arguments = scene_canvases(batch_size), scenes_arguments()
    else:
        if image_size % vq_config.image_token_size:
            raise ValueError(
                f"--image-size is {image_size}, but one image token has {vq_config.image_token_size} pixels; give a "
                "multiple of that."
            )
        source, arguments = random_crops(image_files(images), image_size, batch_size), VQTrainingArguments()
    if device is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = accelerator.type if accelerator is not None else "cpu"
    try:
        model = new_tokenizer(vq_config, changes["seed"]).to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The device '{device}' cannot be used ({str(error).splitlines()[0][:200]}).") from error
    return VQTrainer(model, replace(arguments, **changes), source, output)


def _train_with_progress(trainer: VQTrainer, resume: bool) -> tuple[Path | None, bool]:
    """The finished tokenizer's folder, if it was finished, and whether somebody asked to stop."""
    from ..training.stopping import StopWhenAsked
    from .progress import StepDisplay, say_at_once

    arguments = trainer.arguments
    with StepDisplay(arguments.max_steps) as display, StopWhenAsked(say_at_once) as stop:

        def show(step: int, losses: dict[str, float]) -> None:
            words = f"reconstruction {losses['reconstruction_loss']:.4f}, {losses['codes_used']:.0f} codes"
            display.step(step, words)
            if step % arguments.log_interval == 0:
                display.line(step, words)

        return trainer.train(resume, show, lambda: stop.was_asked), stop.was_asked


def _report(trainer: VQTrainer, final: Path | None) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib"):
        typer.echo(f"Losses: {trainer.plot()}")
    else:
        typer.echo(f"Losses: {trainer.log_path} (install matplotlib for a plot)")
    if final is None:
        typer.echo(f"Stopped after step {trainer.step} of {trainer.arguments.max_steps}; go on with --resume.")
    else:
        typer.echo(f"Tokenizer: {final}")
