"""`wallaroo export`: a checkpoint for the Hub or for other engines. torch is imported when the command runs."""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..files.whole import require_new
from .given import require_prompt
from .options import BUILT_IN, CheckWeights, Model, quiet


class Target(StrEnum):
    """What a checkpoint can become."""

    HUB = "hub"
    QWEN = "qwen2.5-vl"


def export(
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="hub: a folder with a card and a module for people without this package. qwen2.5-vl: the half that "
            "understands, for any engine that runs Qwen2.5-VL.",
            show_default=False,
        ),
    ],
    model: Model = BUILT_IN,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a checkpoint on the Hub.")] = None,
    push: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="hub: upload there instead of writing.")] = None,
    private: Annotated[bool, typer.Option("--private", help="hub: make a new repository private.")] = False,
    base_model: Annotated[str | None, typer.Option(help="hub: Hub id of what it was trained from.")] = None,
    license: Annotated[str | None, typer.Option(help="hub: licence of the weights, such as apache-2.0.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="hub: a file that says how it was made. Default: what the trainer left in its folder."),
    ] = None,
    sample: Annotated[
        list[str] | None, typer.Option(metavar="PROMPT", help="hub: draw this for the card; may be repeated.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="qwen2.5-vl: largest weight file. Default: 5GB.", show_default=False)
    ] = None,
    check_weights: CheckWeights = True,
) -> None:
    """Write a checkpoint for the Hub, or its understanding half for other engines."""
    only_hub: dict[str, object] = {
        "--push": push,
        "--private": private,
        "--base-model": base_model,
        "--license": license,
    }
    only_hub |= {"--recipe": recipe, "--sample": sample}
    if to is Target.QWEN:
        for name in [name for name, value in only_hub.items() if value]:
            raise ValueError(f"{name} is for --to hub; leave it out.")
    elif max_shard_size is not None:
        raise ValueError("--max-shard-size is for --to qwen2.5-vl; leave it out.")
    for prompt in sample or ():
        require_prompt(prompt)
    if (output is None) == (push is None):
        raise ValueError("Give either --output with the folder to write, or --push with the repository to upload to.")
    from .. import _registration  # noqa: F401

    quiet()
    if output is not None:
        require_new(output)
    if to is Target.QWEN:
        assert output is not None
        _export_qwen(model, output, revision, max_shard_size or "5GB", check_weights)
        return
    from ..conversion.hub import CardEntries, export_hub, push_to_hub
    from ..files.checkpoint_files import find_checkpoint

    checkpoint = find_checkpoint(model, revision)
    with tempfile.TemporaryDirectory(prefix="wallaroo-samples-") as folder:
        samples = _draw_samples(str(checkpoint), sample, Path(folder), check_weights) if sample else None
        entries = CardEntries(base_model, license, recipe, samples, sample or ())
        if push is not None:
            commit = push_to_hub(
                checkpoint, push, entries=entries, private=private or None, check_weights=check_weights
            )
            typer.echo(f"Uploaded: {commit}")
        else:
            assert output is not None
            written = export_hub(checkpoint, output, entries=entries, check_weights=check_weights)
            typer.echo(f"Exported to {written}")


def _export_qwen(model: str, output: Path, revision: str | None, max_shard_size: str, check_weights: bool) -> None:
    from rich.progress import Progress

    from ..conversion.qwen_export import export_qwen

    with Progress(transient=True) as bar:
        task = bar.add_task("Writing weights", total=None)
        folder = export_qwen(
            model,
            output,
            revision,
            max_shard_size,
            progress=lambda written, total: bar.update(task, completed=written, total=total),
            check_weights=check_weights,
        )
    typer.echo(f"Exported to {folder}; transformers, vLLM and others load it as Qwen2.5-VL.")


def _draw_samples(model: str, prompts: list[str], folder: Path, check_weights: bool) -> Path:
    """A sheet with one drawing per prompt, seeds 1, 2, ..."""
    import torch

    from ..pipelines import WallarooPipeline
    from ..training.reports import contact_sheet
    from .running import load_checkpoint

    checkpoint = load_checkpoint(model, None, "auto", check_weights)
    pipe = WallarooPipeline(model=checkpoint.model, processor=checkpoint.processor, device=checkpoint.model.device)
    images = [
        pipe(prompt, generator=torch.Generator().manual_seed(seed)).images[0] for seed, prompt in enumerate(prompts, 1)
    ]
    return contact_sheet(images, prompts, folder / "samples.png", columns=min(4, len(prompts)))
