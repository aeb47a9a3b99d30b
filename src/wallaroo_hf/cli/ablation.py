"""`wallaroo evaluate ablation`: of Wallaroo's paper by their names, and those that other families bring by the family's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..families.registry import FAMILIES, Family
from ..files.whole import require_folder
from .evaluate import Json, Output, listed, load_checkpoint, print_result, progress_bar
from .options import BUILT_IN, CheckWeights, Device

__all__ = ["ablation"]


def ablation(
    name: Annotated[
        str,
        typer.Argument(
            help="mask_ratio, edit_head, source_order, source_positions, indicators or tokenizer, of Wallaroo's paper; or "
            "the type of a model family that brings variants of its own, see its page.",
            show_default=False,
        ),
    ],
    output: Output,
    base: Annotated[
        str,
        typer.Option(
            help="Folder of the Wallaroo checkpoint that every variant starts from, best one of stage 3b (for indicators: "
            "of 3a; for a family: see its page). Default: the built-in one, whose backbone has seen edits in the "
            "released arrangement.",
            show_default=False,
        ),
    ] = BUILT_IN,
    variants: Annotated[
        str | None, typer.Option(help="Some variants of a family, with commas. Default: all.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training steps of each variant and seed. Default: 900; tokenizers: 600; a family's own number.",
        ),
    ] = None,
    cpu_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Of a family, instead of --steps: process seconds of training; a variant's step is measured once.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How often each variant is trained. Default: 3; of a family 2.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows per training step. Default: 16; a family's own number.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Different rows of each task to learn from. Default: 4096; of a family as many as are trained on.",
        ),
    ] = None,
    judged: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures drawn and judged, of each task. Default: 96; of a family 240."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of a family: the scenes' split that is drawn. Default: test.", metavar="SPLIT"),
    ] = None,
    json_output: Json = False,
    device: Device = None,
    check_weights: CheckWeights = True,
) -> None:
    """Train and score variants of a model at a small scale, on the scenes: choices of its paper, one against the other.

    Run it again to go on after an interruption. Ablations of Wallaroo's paper may share an output folder, and then share
    rows and the runs of the released arrangement; a family's folder takes further variants and seeds.
    """
    require_folder(output)
    given = {"steps": steps, "seeds": seeds, "batch_size": batch_size, "rows": rows, "judged": judged}
    of_families: dict[str, Any] = {"variants": variants, "cpu_seconds": cpu_seconds, "split": split}
    family = FAMILIES.get(name)
    if family is not None and family.ablation is not None:
        of_families["variants"] = None if variants is None else tuple(listed(variants))
        settings = {key: value for key, value in (given | of_families).items() if value is not None}
        _compare_family(family, output, base, settings, device, check_weights, json_output)
        return
    for option, value in of_families.items():
        if value is not None:
            raise ValueError(
                f"--{option.replace('_', '-')} is for the variants of a family ({', '.join(_families())}); leave it out."
            )
    _compare_released(name, output, base, given, device, check_weights, json_output)


def _families() -> list[str]:
    return [name for name, family in FAMILIES.items() if family.ablation is not None]


def _compare_family(
    family: Family,
    output: Path,
    base: str,
    settings: Mapping[str, Any],
    device: str | None,
    check_weights: bool,
    json_output: bool,
) -> None:
    from ..evaluation.family_ablations import FamilySettings, run_family_ablation
    from ..evaluation.family_ablations.family_reports import TABLE_FILE, claims_table, comparison_table

    chosen = FamilySettings(**settings)
    load_checkpoint(base, "cpu", "float32", check_weights)  # says at once, in a sentence, if it cannot be used
    with progress_bar(output) as bar:
        found = run_family_ablation(family, output, base, chosen, device, bar)
    if json_output:
        print_result(found.to_dict())
        return
    print_result(comparison_table(found))
    print_result(claims_table(found))
    typer.echo(f"Results: {output / 'results.json'}; all columns: {output / TABLE_FILE}; drawing: comparison.png")


def _compare_released(
    name: str,
    output: Path,
    base: str,
    given: Mapping[str, Any],
    device: str | None,
    check_weights: bool,
    json_output: bool,
) -> None:
    from ..evaluation.ablations import ABLATIONS, AblationSettings, check_base, run_ablation

    if name not in ABLATIONS:
        raise ValueError(f"There is no ablation {name!r}; there are {', '.join([*ABLATIONS, *_families()])}.")
    check_base(base)
    load_checkpoint(
        base, device, "float32", check_weights
    )  # says at once, in a sentence, if base or device cannot be used
    settings = {key: value for key, value in given.items() if value is not None}
    judged = settings.get("judged", AblationSettings.judged)
    chosen = AblationSettings(**settings, validation_rows=max(AblationSettings.validation_rows, judged))
    with progress_bar(output) as bar:
        found = run_ablation(name, output, base, chosen, device, bar, check_weights)
    print_result(found.to_dict() if json_output else found.table())
    plot = found.plot(output / name / "comparison.png")
    if not json_output:
        typer.echo(f"Results: {output / name / 'results.json'}; plot: {plot}")
