"""`wallaroo info`: what a checkpoint can do, without loading it (and without torch)."""

import json
from typing import Annotated, Any

import typer

from .options import BUILT_IN, AsJson, Model


def info(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Folder or Hub id. Default: as --model.", show_default=False),
    ] = None,
    named: Model = BUILT_IN,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a checkpoint on the Hub.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint can do, its sizes, parameters and memory. Reads no weights."""
    from ..families.description import describe
    from ..files.checkpoint_files import find_checkpoint

    name = model or named
    facts, shown = describe(name, find_checkpoint(name, revision))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        _show(facts, shown)


def _show(facts: dict[str, Any], shown: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    parameters = dict(facts["parameters"])
    total = parameters.pop("total")
    rows = {
        "checkpoint": facts["folder"],
        "family": facts["family"],
        "does": ", ".join(task for task in facts["tasks"] if task not in facts["untrained"]),
        **({"never learned": ", ".join(facts["untrained"])} if facts["untrained"] else {}),
        "languages": ", ".join(facts["languages"]),
        "sizes": _sizes(facts),
        **shown,
        "positions": f"{facts['positions']:,}",
        "parameters": f"{_short(total)}: " + ", ".join(f"{part} {_short(n)}" for part, n in parameters.items()),
        "weights": f"{_bytes(facts['weights_bytes'])} ("
        + ", ".join(f"{dtype} {_bytes(size)}" for dtype, size in facts["dtypes"].items())
        + ")",
        "memory": f"weights and {_bytes(facts['cache_bytes_per_image'])} of cache per image drawn at once",
        "settings": ", ".join(facts["settings"]),
        "sampling": ", ".join(f"{key} {value}" for key, value in facts["sampling"].items()) or "defaults",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table, soft_wrap=True)


def _sizes(facts: dict[str, Any]) -> str:
    listed = ", ".join(f"{height}x{width}" for height, width in facts["sizes"])
    return f"{listed} (height x width){'' if facts['any_size'] else '; square only'}"


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
