"""`wallaroo build`: a new checkpoint from models of others. torch is imported when the command runs."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from ..families.registry import FAMILIES
from ..files.whole import require_new
from .options import CheckWeights, quiet

_BUILT = {name: family for name, family in FAMILIES.items() if family.builder is not None}


def build(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help=f"What to build: {', '.join(_BUILT)}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)],
    mllm: Annotated[
        str | None,
        typer.Option(
            help="The language model: a Qwen2.5-VL, or a Wallaroo checkpoint ('built-in' = ours). Folder or Hub id, as all "
            "below."
        ),
    ] = None,
    dit: Annotated[
        str | None,
        typer.Option(
            help="The diffusion transformer: a diffusers pipeline, of which transformer, vae and scheduler are read."
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="Image codec in place of the pipeline's: another pipeline, a Wallaroo checkpoint ('built-in'), or pixels."
        ),
    ] = None,
    connector: Annotated[
        str | None,
        typer.Option(
            help="A Qwen2 to begin with, or layers x width of a new one (2x192). Default: as large as Qwen2.5-0.5B, new."
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            help="Grids of queries and shares of the picture's edge. Default: 4x4:0.25,8x8:0.5,16x16:1.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Height x width where none is asked for. Default: the transformer's, at most 512x512.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is new. Default: 0.", show_default=False)] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16 (default), float16 or float32; the image codec stays float32.", show_default=False
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Of the pipeline's weights, such as fp16.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another setting of the configuration; may be repeated."),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Largest weight file. Default: 5GB.", show_default=False)
    ] = None,
    check_weights: CheckWeights = True,
) -> None:
    """Build a new checkpoint, to be trained, from models of others."""
    if family not in _BUILT:
        raise ValueError(f"'{family}' cannot be built; give one of {', '.join(_BUILT)}.")
    options: dict[str, Any] = {
        "mllm": mllm,
        "dit": dit,
        "codec": codec,
        "connector": connector,
        "scales": scales,
        "size": size,
    }
    options |= {"seed": seed, "dtype": dtype, "variant": variant, "max_shard_size": max_shard_size}
    given = {name: value for name, value in options.items() if value is not None}
    require_new(output)
    from rich.progress import Progress

    from .. import _registration  # noqa: F401
    from ..training.overrides import read_overrides

    quiet()
    if settings:
        given["settings"] = read_overrides(assignments=settings)
    builder = _BUILT[family].resolve("builder")
    _check(family, builder, given)
    with Progress(transient=True) as bar:
        task = bar.add_task("Writing weights", total=None)
        folder = builder(
            output=output,
            progress=lambda written, total: bar.update(task, completed=written, total=total),
            check_weights=check_weights,
            **given,
        )
    typer.echo(f"Built {folder}; what is new in it was not trained yet. What it is: wallaroo info {folder}")


def _check(family: str, builder: Any, given: dict[str, Any]) -> None:
    """Refuses options that a family does not take, and names those that it needs."""
    arguments = inspect.signature(builder).parameters
    names = {name: "--set" if name == "settings" else f"--{name.replace('_', '-')}" for name in (*arguments, *given)}
    unknown = [names[name] for name in given if name not in arguments]
    if unknown:
        raise ValueError(f"Building {_BUILT[family].title} takes no {', '.join(unknown)}; leave it out.")
    needed = [name for name, one in arguments.items() if one.default is one.empty and name not in ("output", *given)]
    if needed:
        raise ValueError(f"Building {_BUILT[family].title} needs {', '.join(names[name] for name in needed)} as well.")
