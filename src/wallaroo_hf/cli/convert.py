"""`wallaroo convert`: released files to a folder of transformers. torch is imported when the command runs."""

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files.whole import require_new
from . import options

_WALLAROO, _SHOW_O2 = "Of Wallaroo alone", "Of Show-o2 alone"


def convert(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="What the authors released, file or folder: path or Hub id (org/name, org/name/file)."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The Qwen2.5(-VL) it was trained from: folder or Hub id (no weights needed).")
    ] = None,
    vq: Annotated[
        str | None,
        typer.Option(help="LlamaGen's tokenizer, vq_ds16_t2i.pt: path or Hub id.", rich_help_panel=_WALLAROO),
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Wan2.1_VAE.pth: path or Hub id.", rich_help_panel=_SHOW_O2)] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            help="The SigLIP of its semantic layers: folder or Hub id (no weights needed).", rich_help_panel=_SHOW_O2
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16 (default), float16 or float32; the image tokenizer stays float32.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Training stage 1, 2, 3a, 3b or 4. Default: 4 with editing parts, else 2.", rich_help_panel=_WALLAROO
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Largest weight file. Default: 5GB.", show_default=False)
    ] = None,
    vq_only: Annotated[
        bool, typer.Option("--vq-only", help="Convert the image tokenizer alone.", rich_help_panel=_WALLAROO)
    ] = False,
) -> None:
    """Convert a released checkpoint into a transformers folder."""
    sources = {"base": base, "vq": vq, "vae": vae, "vision": vision}
    others = {"dtype": dtype, "stage": stage, "max_shard_size": max_shard_size}
    given = {name: value for name, value in {**sources, **others}.items() if value is not None}
    if vq_only:
        extra = [*(["checkpoint"] if checkpoint is not None else []), *(name for name in given if name != "vq")]
        if extra:
            raise ValueError(f"--vq-only converts the image tokenizer alone; leave out {_options(extra)}.")
        if vq is None:
            raise ValueError("--vq-only converts the image tokenizer alone; give it as --vq.")
    elif checkpoint is None:
        raise ValueError(
            "Give --checkpoint and what belongs to it, or --vq and --vq-only for the image tokenizer alone."
        )
    require_new(output)
    from .. import _registration  # noqa: F401
    from ..conversion import convert_vq

    options.quiet()
    if vq_only and vq is not None:
        folder = convert_vq(vq, output)
    elif checkpoint is not None:
        folder = _convert(checkpoint, output, given)
    typer.echo(f"Converted to {folder}")


def _convert(checkpoint: str, output: Path, given: Mapping[str, str]) -> Any:
    """Converts with what the family has for it, whose arguments are the options that it takes."""
    from rich.progress import Progress

    from ..conversion.recognition import recognise_family

    family = recognise_family(checkpoint)
    converter = family.resolve("converter")
    arguments = inspect.signature(converter).parameters
    unknown = [name for name in given if name not in arguments]
    if unknown:
        raise ValueError(
            f"The checkpoint is {family.title}, whose conversion has no {_options(unknown)}; leave it out."
        )
    needed = [name for name, argument in arguments.items() if argument.default is argument.empty]
    missing = [name for name in needed if name not in {"checkpoint", "output", *given}]
    if missing:
        raise ValueError(f"The checkpoint is {family.title}, which needs {_options(missing)} as well; see --help.")
    with Progress(transient=True) as bar:
        task = bar.add_task("Writing weights", total=None)
        return converter(
            checkpoint=checkpoint,
            output=output,
            progress=lambda written, total: bar.update(task, completed=written, total=total),
            **given,
        )


def _options(names: Collection[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
