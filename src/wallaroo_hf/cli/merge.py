"""`wallaroo merge`: an adapter becomes part of the weights. torch is imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from .options import CheckWeights, quiet


def merge(
    base: Annotated[str, typer.Argument(help="Checkpoint that the adapter was trained from: folder or Hub id.")],
    adapter: Annotated[str, typer.Argument(help="The adapter: what `wallaroo train --lora` wrote, or a Hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)],
    dtype: Annotated[
        str,
        typer.Option(help="auto (as in BASE), bfloat16, float16 or float32; the image tokenizer stays float32."),
    ] = "auto",
    max_shard_size: Annotated[str, typer.Option(help="Largest weight file.")] = "5GB",
    check_weights: CheckWeights = True,
) -> None:
    """Merge a LoRA adapter into its base: one checkpoint that every command and transformers load."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from .. import _registration  # noqa: F401
    from ..families.precision import read_dtype
    from ..training.lora import merge_adapter

    dtype = read_dtype(dtype)
    quiet()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as bar:
        task = bar.add_task("Reading", total=None)
        folder = merge_adapter(
            base,
            adapter,
            output,
            dtype,
            max_shard_size,
            progress=lambda step: bar.update(task, description=step),
            check_weights=check_weights,
        )
    typer.echo(f"Merged into {folder}; draw with it: wallaroo generate 'a cat' --model {folder}")
