"""`wallaroo evaluate`."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files.whole import require_folder
from .evaluation_options import Further, further_settings, further_values, setting_option, swept_option
from .options import BUILT_IN, CheckWeights, Device, Dtype, Model, quiet

# Shown below the options of `scenes`. A backslash keeps a bracket from being taken for markup; lines are joined because the
# help breaks them by itself.
_PROMPT_FORMAT = r"""
A file for --prompts has one JSON object per line, with the keys task (generation, understanding or editing), prompt (the
words) and spec (what is judged); and, if you like, category (any word) and language (en or zh) to group scores by.

generation: spec has objects, a list of {"shape", "colour", "count", "place"} of which any may be left out; and if they
matter relations, a list of \[first, direction, second] with indices into objects, and background. height and width are the
size to draw (multiples of 32; 96 by default). The picture must show these objects and no more.

{"task": "generation", "prompt": "a circle above two blue rings", "spec": {"objects": \[{"shape": "circle"},
{"shape": "ring", "colour": "blue", "count": 2}], "relations": \[\[0, "above", 1]]}}

understanding and editing: scene is the picture shown, its objects in slots of 32 pixels, counted from 0 at the top left:
{"height": 96, "width": 96, "background": "white", "objects": \[{"shape": "star", "colour": "red", "row": 0, "col": 2}]}

understanding: spec has kind (shape, colour, place, direction, number, yes_no, exists, objects) and value, or for objects a
list like that of generation: {"kind": "colour", "value": "red"}

editing: spec has operation and what belongs to it: recolour (object, colour), add (shape, colour), remove (object),
replace (object, shape, perhaps colour), move (object), background (background); add and move may have place, or direction
and anchor. object and anchor pick one object by shape, colour, row, col. All else must stay as it is.

{"operation": "move", "object": {"shape": "star"}, "direction": "below", "anchor": {"shape": "ring"}}

shapes: circle square triangle star heart diamond ring cross; colours: red green blue yellow orange purple pink cyan;
backgrounds: white black grey beige; directions: left_of right_of above below; places: top_left top_middle top_right
middle_left centre middle_right bottom_left bottom_middle bottom_right, and left right top bottom for anywhere along a side.
"""
PROMPT_HELP = re.sub(r"(?<!\n)\n(?!\n)", " ", _PROMPT_FORMAT.strip())

_OWN = "the checkpoint's"
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder for the results: a new one, or one to continue.", show_default=False),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**62, help="Of the items, and of the noise that pictures are drawn with.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Items at once; results do not depend on it, up to rounding.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of a table.")]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with what the output folder holds, or start over.")
]


def scenes(
    output: Output,
    model: Model = BUILT_IN,
    items: Annotated[int | None, typer.Option(min=1, help="Items per task. Default: 300.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Some of reconstruction, generation, understanding, editing, chat and composition (edits of two "
            "pictures), with commas. Default: all that the checkpoint does, but composition."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, or validation to choose settings on. Default: test.", metavar="SPLIT")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON lines of prompts to use instead of the built-in ones; format below.")
    ] = None,
    seed: Seed = 0,
    guidance_scale: Annotated[float | None, setting_option("guidance_scale", _OWN)] = None,
    temperature: Annotated[float | None, setting_option("temperature", _OWN)] = None,
    top_k: Annotated[int | None, setting_option("top_k", _OWN)] = None,
    guidance_min_p: Annotated[float | None, setting_option("guidance_min_p", _OWN)] = None,
    further: Further = None,
    batch_size: BatchSize = 16,
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Write scores and model card into the checkpoint's own folder too.")
    ] = False,
    json_output: Json = False,
    resume: Resume = True,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Score a checkpoint on the built-in scenes: rebuilding, drawing, editing and questions, in English and Chinese.

    Each output is judged exactly, without another model. Run it again to go on with an evaluation that was interrupted.
    """
    require_folder(output)
    from ..scenes import read_prompts

    if split not in (None, "test", "validation"):
        raise ValueError(f"--split is {split!r}, but must be test or validation.")
    if update_card and (prompts is not None or tasks is not None or split is not None):
        raise ValueError("--update-card tells of the whole benchmark; leave --prompts, --tasks and --split out.")
    own_prompts = None if prompts is None else read_prompts(prompts)
    checkpoint = load_checkpoint(model, device, dtype, check_weights)
    settings = {"guidance_scale": guidance_scale, "temperature": temperature, "top_k": top_k}
    settings |= {"guidance_min_p": guidance_min_p, **further_settings(further, checkpoint.abilities)}
    for notice in checkpoint.abilities.notices(settings):
        typer.echo(f"Note: {notice}", err=True)
    from ..evaluation import evaluate_scenes
    from ..evaluation.scene_reports import SCORES_FILE, scores_table
    from ..evaluation.scenes import possible_tasks

    chosen = None if tasks is None else listed(tasks)
    if update_card:  # the whole benchmark is what it can do
        chosen = possible_tasks(checkpoint.abilities)
    with progress_bar(output) as bar:
        scores = evaluate_scenes(
            checkpoint.model,
            checkpoint.processor,
            output,
            prompts=own_prompts,
            num_items_per_task=items,
            split=split,
            seed=seed,
            tasks=chosen,
            batch_size=batch_size,
            settings=settings,
            resume=resume,
            progress=bar,
        )
    print_result(scores.to_dict() if json_output else scores_table(scores))
    if update_card:
        from ..evaluation.model_card import update_checkpoint

        update_checkpoint(checkpoint.model.name_or_path, scores.to_dict())
    if not json_output:
        typer.echo(f"Results: {output / SCORES_FILE}; sheets: {', '.join(f'{task}.png' for task in scores.tasks)}")


def sweep(
    output: Output,
    model: Model = BUILT_IN,
    guidance_scale: Annotated[str | None, swept_option("guidance_scale")] = None,
    temperature: Annotated[str | None, swept_option("temperature")] = None,
    top_k: Annotated[str | None, swept_option("top_k")] = None,
    guidance_min_p: Annotated[str | None, swept_option("guidance_min_p")] = None,
    further: Further = None,
    items: Annotated[int, typer.Option(min=1, help="Items per task and setting.")] = 216,
    tasks: Annotated[str, typer.Option(help="generation, editing or both.")] = "generation,editing",
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    save: Annotated[
        bool, typer.Option("--save", help="Write the choice into the checkpoint's generation_config.json.")
    ] = False,
    json_output: Json = False,
    resume: Resume = True,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Choose guidance, temperature and top-k on the scenes' validation split.

    Every combination draws the same items with the same noise; the best ends up in sweep.json. Values that are not given
    are those of the checkpoint's family; --set NAME=VALUE,VALUE tries those of another setting.
    """
    require_folder(output)
    grid: dict[str, list[Any]] = {}
    for name, values, kind in (
        ("guidance_scale", guidance_scale, float),
        ("temperature", temperature, float),
        ("top_k", top_k, int),
        ("guidance_min_p", guidance_min_p, float),
    ):
        if values is not None:
            grid[name] = _numbers(values, f"--{name.replace('_', '-')}", kind)
    checkpoint = load_checkpoint(model, device, dtype, check_weights)
    grid |= further_values(further, checkpoint.abilities)
    from ..evaluation import sweep_sampling
    from ..evaluation.sweep import SWEEP_FILE

    with progress_bar(output) as bar:
        found = sweep_sampling(
            checkpoint.model,
            checkpoint.processor,
            output,
            settings=grid,
            tasks=listed(tasks),
            num_items_per_task=items,
            seed=seed,
            batch_size=batch_size,
            resume=resume,
            progress=lambda done, total: bar("settings", done, total),
            item_progress=bar,
        )
    print_result(found.to_dict() if json_output else found.table())
    if save:
        from ..evaluation.sweep import save_choice

        save_choice(found, checkpoint.model.name_or_path)
    if not json_output:
        typer.echo(f"Choice: {json.dumps(found.best.generation_config())} ({output / SWEEP_FILE})")


def load_checkpoint(model: str, device: str | None, dtype: str, check_weights: bool) -> Any:
    """The checkpoint that a command scores."""
    from . import running

    quiet()
    return running.load_checkpoint(model, device, dtype, check_weights)


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part) for part in listed(text)]
    except ValueError as error:
        raise ValueError(f"{option} is {text!r}, but must be numbers with commas between them.") from error


def print_result(result: Any) -> None:
    """A table, or JSON for dictionaries."""
    from rich.console import Console

    if isinstance(result, dict):
        typer.echo(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        Console().print(result)


@contextlib.contextmanager
def progress_bar(output: Path) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per task, on standard error; says how to go on after Ctrl-C."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    bars: dict[str, Any] = {}

    def update(name: str, done: int, total: int) -> None:
        if name not in bars:
            progress.start()  # nothing is shown if there is nothing to follow
            bars[name] = progress.add_task(name, total=total)
        progress.update(bars[name], completed=done, total=total)

    try:
        yield update
    except KeyboardInterrupt:
        typer.echo(f"What was judged is kept in {output}; run the same command to go on.", err=True)
        raise
    finally:
        if bars:
            progress.stop()
