"""`wallaroo train scenes`: torch is imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files.run_lock import only_run
from ..files.whole import require_folder
from .options import ON_CPU_OR, quiet


def train_scenes(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the run; see its `checkpoint`.", show_default=False),
    ],
    family: Annotated[str, typer.Option(help="Family whose recipe it is.")] = "wallaroo",
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Stop, saved, after so long; the same command goes on.", show_default=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Only one part: vq, rows, stage-0 ... stage-4, checkpoint.", show_default=False),
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Two steps of everything, to see that it runs; it learns nothing.")
    ] = False,
    device: Annotated[str | None, ON_CPU_OR] = None,
) -> None:
    """Train a built-in checkpoint from nothing: image codec, backbone, and the paper's stages on the scenes.

    Takes hours on one CPU core; the same command goes on after a stop.
    Each part has a folder with losses and pictures; run.json has all numbers.
    """
    require_folder(output)
    from .. import _registration  # noqa: F401  the command line postpones it
    from ..families.registry import FAMILIES
    from ..training.scenes.scenes_run import OutOfTime, SceneRun
    from ..training.stopping import StopWhenAsked
    from .progress import TrainingProgress, say_at_once

    with_recipes = [name for name, one in FAMILIES.items() if one.scenes is not None]
    if family not in with_recipes:
        raise ValueError(f"--family is '{family}', but must be one of {', '.join(with_recipes)}.")
    quiet()
    progress, stop = TrainingProgress(None), StopWhenAsked(say_at_once)
    try:
        with only_run(output), progress, stop:
            run = SceneRun(
                output,
                FAMILIES[family].resolve("scenes")(tiny),
                minutes,
                report=lambda line: typer.echo(line, err=True),
                callbacks=[progress],
                device=device,
                stop=stop,
            )
            folder = run.run(only)
    except OutOfTime:
        if stop.was_asked:
            typer.echo(f"Stopped; the same command goes on from {output}.", err=True)
            raise typer.Exit(130) from None
        typer.echo(f"Time is over; the same command goes on from {output}.")
        return
    typer.echo(f"Trained {folder}")
