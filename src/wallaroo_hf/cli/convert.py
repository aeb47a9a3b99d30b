"""`wallaroo convert`: released files to a folder of transformers. torch is imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from . import options


def convert(
    vq: Annotated[str, typer.Option(help="LlamaGen's tokenizer, vq_ds16_t2i.pt: path or Hub id.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)],
    checkpoint: Annotated[
        str | None, typer.Option(help="The authors' .ckpt file: path or Hub id (org/name/file).")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The Qwen2.5-VL it was trained from: folder or Hub id (no weights needed).")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16 (default), float16 or float32; the image tokenizer stays float32.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Training stage 1, 2, 3a, 3b or 4. Default: 4 with editing parts, else 2.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Largest weight file. Default: 5GB.", show_default=False)
    ] = None,
    vq_only: Annotated[bool, typer.Option("--vq-only", help="Convert the image tokenizer alone.")] = False,
) -> None:
    """Convert a released checkpoint into a transformers folder."""
    others = {"--checkpoint": checkpoint, "--base": base, "--dtype": dtype, "--stage": stage}
    given = [name for name, value in {**others, "--max-shard-size": max_shard_size}.items() if value]
    if vq_only and given:
        raise ValueError(f"--vq-only converts the image tokenizer alone; leave out {', '.join(given)}.")
    if not vq_only and not (checkpoint and base):
        raise ValueError("Give --checkpoint and --base as well, or --vq-only to convert the image tokenizer alone.")
    from rich.progress import Progress

    from .. import _registration  # noqa: F401
    from ..conversion import convert_checkpoint, convert_vq

    options.quiet()
    if checkpoint is None or base is None:
        typer.echo(f"Converted to {convert_vq(vq, output)}")
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("Writing weights", total=None)
        folder = convert_checkpoint(
            checkpoint,
            vq,
            base,
            output,
            dtype or "bfloat16",
            stage,
            max_shard_size or "5GB",
            progress=lambda written, total: bar.update(task, completed=written, total=total),
        )
    typer.echo(f"Converted to {folder}")
