"""`wallaroo evaluate paradigms`: ways to unify understanding and drawing, side by side."""

from typing import Annotated, Any

import typer

from ..files.whole import require_folder
from .evaluate import Json, Output, listed, print_result, progress_bar
from .options import CheckWeights, Device, quiet

__all__ = ["paradigms"]


def paradigms(
    output: Output,
    budget: Annotated[
        str,
        typer.Option(
            help="Time that each family and seed is trained for: 2h, 1h30m, 90s; of the process on a CPU, of the clock on "
            "an accelerator. The small language model gets as much, once, if need be."
        ),
    ] = "2h",
    seeds: Annotated[int, typer.Option(min=1, help="How often each family is trained.")] = 3,
    families: Annotated[
        str | None,
        typer.Option(
            help="Some families by their types, with commas. Default: all that take part.", show_default=False
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of a Qwen2.5-VL that all grow from. Default: a small one, which is trained first.",
            show_default=False,
        ),
    ] = None,
    dit: Annotated[
        str | None, typer.Option(help="A diffusers pipeline, for families that steer one.", show_default=False)
    ] = None,
    vision: Annotated[
        str | None, typer.Option(help="A SigLIP, for families that see by one.", show_default=False)
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Image tokenizer or codec in place of the family's own.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Own rows, as `wallaroo train --data` takes them. Default: the scenes.", show_default=False),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Own prompts to judge, as `evaluate scenes --prompts` takes them.", show_default=False),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Of the pictures to draw, HEIGHTxWIDTH. Default: 64x64.", show_default=False)
    ] = None,
    judged: Annotated[
        int,
        typer.Option(min=1, help="Pictures that each run draws and is judged by; half as many edits and questions."),
    ] = 240,
    looks: Annotated[int, typer.Option(min=1, help="How often a run is looked at while it is trained.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per training step.")] = 32,
    together: Annotated[int, typer.Option(min=1, help="Rows in one forward; they divide the batch.")] = 8,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only look whether the files are still those that were judged.")
    ] = False,
    json_output: Json = False,
    device: Device = None,
    check_weights: CheckWeights = True,
) -> None:
    """Train every family from one language model on the same rows for the same time, and judge all alike.

    Drawings, edits and answers are scored with intervals over seeds, with what is wrong first, what was forgotten, and what
    training and drawing cost. Run it again to go on after an interruption, or with more seeds or families.
    """
    require_folder(output)
    from .. import _registration  # noqa: F401  the command line postpones it
    from ..evaluation.paradigms import compare_paradigms, paradigms_table, verify_paradigms
    from ..evaluation.paradigms.paradigm_reports import TABLE_FILE
    from ..training.scenes.scene_builder import OutOfTime
    from ..training.stopping import StopWhenAsked
    from .progress import say_at_once

    quiet()
    if verify:
        typer.echo(f"{verify_paradigms(output)} runs in {output} are as they were judged.")
        return
    given = {
        name: value for name, value in {"dit": dit, "vision": vision, "codec": codec}.items() if value is not None
    }
    own = {"base": base, "data": data, "prompts": prompts, "size": None if size is None else _size(size)}
    settings = _settings(budget, given, own, judged, looks, batch_size, together)
    chosen = None if families is None else tuple(listed(families))
    with StopWhenAsked(say_at_once) as stop, progress_bar(output) as bar:
        try:
            found = compare_paradigms(output, settings, chosen, seeds, device, bar, stop, check_weights)
        except OutOfTime:
            typer.echo(f"Stopped; the same command goes on from {output}.", err=True)
            raise typer.Exit(130) from None
    if json_output:
        print_result(found.to_dict())
        return
    print_result(paradigms_table(found))
    typer.echo(f"Results: {output / 'results.json'}; all of it: {output / TABLE_FILE}; curves.png, pictures.png")


def _settings(
    budget: str,
    given: dict[str, str],
    own: dict[str, Any],
    judged: int,
    looks: int,
    batch_size: int,
    together: int,
) -> Any:
    from ..evaluation.paradigms import ParadigmSettings, read_budget

    said = {name: value for name, value in own.items() if value is not None}
    return ParadigmSettings(
        budget=read_budget(budget),
        given=given,
        judged=judged,
        looks=looks,
        batch_size=batch_size,
        together=together,
        **said,
    )


def _size(text: str) -> tuple[int, int]:
    """A size as it is typed.

    Raises:
        ValueError: for something else.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size is {text!r}, but must be HEIGHTxWIDTH in pixels, such as 64x64.")
    return int(height), int(width)
