"""`wallaroo encode`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..files.whole import require_folder
from .options import BUILT_IN, CheckWeights, Device, Model, quiet


def encode(
    data: Annotated[
        str, typer.Argument(help="What to encode: a file, pattern, folder or Hub id.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder: a new one, or one to continue.", show_default=False),
    ],
    model: Model = BUILT_IN,
    format: Annotated[
        str, typer.Option(help="messages, columns, sharegpt, show_o2 or omnigen2; auto looks at each record.")
    ] = "auto",
    column: Annotated[
        list[str] | None,
        typer.Option(help="What a column is called, e.g. caption=long_text; may be repeated.", show_default=False),
    ] = None,
    image_folder: Annotated[
        Path | None, typer.Option(help="Where relative image paths begin. Default: the data file's folder.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split on the Hub. Default: train.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration on the Hub.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read as needed, instead of into the cache first.")
    ] = False,
    stage: Annotated[
        str | None, typer.Option(help="Sizes of training stage 1, 2, 3a, 3b or 4. Default: the checkpoint's.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave broken rows out and name them, instead of stopping.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")] = 8,
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Rows per file.")] = 512,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read pictures.")] = 4,
    part: Annotated[
        str, typer.Option(help="k/n: this is the k-th of n processes that fill the folder together.")
    ] = "1/1",
    device: Device = None,
    check_weights: CheckWeights = True,
) -> None:
    """Compute image codes of training data ahead, so that training need not; continues where it was interrupted."""
    require_folder(output)
    from rich.console import Console

    quiet()
    columns = dict(_split_pair(item, "=", "--column") for item in column or ())
    number, count = _split_pair(part, "/", "--part")
    if not (number.isdigit() and count.isdigit() and 0 < int(number) <= int(count)):
        raise ValueError(f"--part is {part!r}, but must be k/n with k from 1 to n, such as 1/8.")
    source = {
        "format": format,
        "columns": columns,
        "image_folder": image_folder,
        "split": split,
        "config": config,
        "streaming": streaming,
    }
    options = {
        "batch_size": batch_size,
        "rows_per_shard": rows_per_shard,
        "on_error": "skip" if skip_broken else "raise",
        "num_workers": workers,
        "part": (int(number) - 1, int(count)),
    }
    report, is_whole = _encode(data, source, model, stage, device, check_weights, output, options)
    Console(stderr=True).print(report)
    typer.echo(f"Encoded {data} to {output}" if is_whole else f"Encoded part {part} of {data} to {output}")


def _split_pair(text: str, sign: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise ValueError(f"{option} is {text!r}, but must be two values with {sign!r} between them.")
    return left, right


def _encode(
    data: str,
    source: dict[str, Any],
    model: str,
    stage: str | None,
    device: str | None,
    check_weights: bool,
    output: Path,
    options: dict[str, Any],
) -> tuple[Any, bool]:
    """Loads what is needed and encodes; returns the report, and whether all is there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .. import _registration  # noqa: F401  the command line postpones it
    from ..families.loading import reading_checkpoint, to_device
    from ..families.registry import find_family
    from ..training.data.encoding import encode_rows
    from ..training.datasets import load_rows, require_datasets
    from ..training.run import choose_stage

    require_datasets().disable_progress_bars()
    family = find_family(model, "image tokenizer")
    kit = family.training_kit("encode")
    codec = to_device(kit.load_codec(model, check_weights), device)
    with reading_checkpoint(model):
        processor = family.resolve("processor").from_pretrained(model)
    if stage is not None:
        kit.take_sizes(processor, choose_stage(model, stage))
    rows = load_rows(data, **source)
    total = None if source["streaming"] else len(rows)
    words = " ".join([data, *(f"{name}={value}" for name, value in source.items() if value not in (None, False, {}))])
    columns = (TextColumn("Encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("rows", total=total)
        report = encode_rows(
            rows,
            codec,
            processor,
            output,
            source=words,
            progress=lambda done: bar.update(task, completed=done),
            **options,
        )
    return report, (output / "state.json").exists()
