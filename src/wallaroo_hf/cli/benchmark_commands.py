"""`wallaroo evaluate geneval`, `dpg`, `imgedit` and `verify`: pictures for the scorers of the paper's benchmarks."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..families.abilities import EDITING, GENERATION
from ..families.benchmark_recipe import Recipe
from ..families.registry import Checkpoint, find_family
from ..files.whole import require_folder
from .evaluation_options import Further, flag_option, further_settings, setting_option
from .options import BUILT_IN, CheckWeights, Device, Dtype, Model, quiet
from .setting_options import read_checkpoint_abilities

_LISTED_FAULTS = 20

Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder for the pictures: a new one, or one to go on in.", show_default=False),
]
Prompts = Annotated[Path, typer.Option(show_default=False, help="The benchmark's prompts; see above.")]
Resolution = Annotated[
    int | None, typer.Option(min=16, help="Edge of a picture in pixels. Default: the checkpoint's square size.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**62, help="Picture k of the list gets seed + k.")]
_RECIPES = "the recipe's"
Guidance = Annotated[float | None, setting_option("guidance_scale", _RECIPES)]
GuidanceMinP = Annotated[float | None, setting_option("guidance_min_p", _RECIPES)]
Temperature = Annotated[float | None, setting_option("temperature", f"{_RECIPES} 1")]
TopK = Annotated[int | None, setting_option("top_k", f"{_RECIPES} 1000")]
TopP = Annotated[float | None, setting_option("top_p", _RECIPES)]
Template = Annotated[
    str,
    typer.Option(
        help="Index of a template, text with {prompt} in it, or random: one of the listed ones for each picture, chosen by "
        "--seed, as in the authors' scripts."
    ),
]
PublishedEval = Annotated[bool, flag_option("published_eval")]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Pictures at once; one of the settings, for it moves results by rounding.")
]


@dataclass(frozen=True)
class Asked:
    """What a command draws; see its options."""

    prompts: Path
    output: Path
    seed: int
    batch_size: int
    template: str
    published_eval: bool
    further: list[str] | None
    sources: Path | None = None
    resolution: int | None = None
    num_images: int | None = None


@dataclass(frozen=True)
class Machine:
    """What draws; see the options of commands."""

    model: str
    device: str | None
    dtype: str
    check_weights: bool

    def load(self, place: tuple[int, int]) -> Checkpoint:
        """The checkpoint, on this process's own accelerator where there are several."""
        import torch

        from . import running

        device = self.device
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if device is None and place[1] > 1 and accelerator is not None:
            local = int(os.environ.get("LOCAL_RANK", place[0])) % torch.accelerator.device_count()
            device = f"{accelerator.type}:{local}"
        return running.load_checkpoint(self.model, device, self.dtype, self.check_weights)


def geneval(
    prompts: Prompts,
    output: Output,
    model: Model = BUILT_IN,
    num_images: Annotated[int, typer.Option("-n", "--num-images", min=1, help="Pictures per prompt.")] = 4,
    resolution: Resolution = None,
    seed: Seed = 0,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    template: Template = "0",
    published_eval: PublishedEval = False,
    further: Further = None,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Draw GenEval's pictures, four per prompt with guidance 3, into the folders that its scorer reads.

    --prompts is GenEval's prompts/evaluation_metadata.jsonl. Give the scorer OUTPUT/images, which appears when all is
    drawn. Run the same command again to go on; start it with `torchrun --no-python` to share the work among processes.
    """
    _draw(
        "geneval",
        "paper",
        Asked(
            prompts,
            output,
            seed,
            batch_size,
            template,
            published_eval,
            further,
            resolution=resolution,
            num_images=num_images,
        ),
        Machine(model, device, dtype, check_weights),
        guidance_scale=guidance_scale,
        guidance_min_p=guidance_min_p,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )


def dpg(
    prompts: Prompts,
    output: Output,
    model: Model = BUILT_IN,
    recipe: Annotated[
        str, typer.Option(help="paper: guidance 2.5; released: the authors' script, guidance 4 and top-p 0.95.")
    ] = "paper",
    resolution: Resolution = None,
    seed: Seed = 0,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    template: Template = "0",
    published_eval: PublishedEval = False,
    further: Further = None,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Draw DPG-Bench's pictures, as one grid of two by two per prompt, as its scorer reads them.

    --prompts is DPG-Bench's folder of .txt files, or its dpg_bench.csv. Give the scorer OUTPUT/images, which appears when
    all is drawn. Run the same command again to go on; start it with `torchrun --no-python` to share the work among
    processes.
    """
    _draw(
        "dpg",
        recipe,
        Asked(prompts, output, seed, batch_size, template, published_eval, further, resolution=resolution),
        Machine(model, device, dtype, check_weights),
        guidance_scale=guidance_scale,
        guidance_min_p=guidance_min_p,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )


def imgedit(
    prompts: Prompts,
    sources: Annotated[Path, typer.Option(help="Folder of the pictures to edit.", show_default=False)],
    output: Output,
    model: Model = BUILT_IN,
    source_fit: Annotated[
        str | None,
        typer.Option(
            help="crop: edits have the listed size nearest to their source, as in the authors' script; pad: their "
            "source's size, and nothing is cut off. Default: the recipe's crop."
        ),
    ] = None,
    seed: Seed = 0,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    template: Template = "0",
    published_eval: PublishedEval = False,
    further: Further = None,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Draw ImgEdit's edits with guidance 3, one <key>.png for every key of its table.

    --prompts is ImgEdit's basic_edit.json (or a table like it), --sources the folder that the ids in it lead from. Give the
    scorer OUTPUT/images, which appears when all is drawn. Run the same command again to go on; start it with `torchrun
    --no-python` to share the work among processes.
    """
    _draw(
        "imgedit",
        "paper",
        Asked(prompts, output, seed, batch_size, template, published_eval, further, sources=sources),
        Machine(model, device, dtype, check_weights),
        guidance_scale=guidance_scale,
        guidance_min_p=guidance_min_p,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        source_fit=source_fit,
    )


def verify(
    folder: Annotated[Path, typer.Argument(help="The --output of geneval, dpg or imgedit.", show_default=False)],
) -> None:
    """Check that a folder of benchmark pictures is whole; exit with 1 and name what is missing or damaged if not."""
    from ..evaluation.drawing_files import find_faults
    from ..evaluation.drawing_manifest import IMAGES, read_manifest

    manifest = read_manifest(folder)
    faults = find_faults(folder, manifest)
    for fault in faults[:_LISTED_FAULTS]:
        typer.echo(fault, err=True)
    if len(faults) > _LISTED_FAULTS:
        typer.echo(f"... and {len(faults) - _LISTED_FAULTS} more", err=True)
    if faults and (folder / IMAGES).is_dir():
        typer.echo(
            f"Remove {folder / IMAGES} and run the command that drew it: it is made anew from the samples.", err=True
        )
    if faults:
        raise typer.Exit(1)
    typer.echo(f"{folder / IMAGES} is complete: {manifest.benchmark}, {len(manifest.drawings)} pictures.")


def _draw(benchmark: str, recipe_name: str, asked: Asked, machine: Machine, **changes: Any) -> None:
    """Draws what a command was asked for; `changes` are settings by name, None = those of the recipe."""
    require_folder(asked.output)
    from ..evaluation.benchmarks import BENCHMARKS
    from ..evaluation.drawing_manifest import IMAGES
    from ..evaluation.drawing_runs import draw_benchmark
    from .processes import place_in_world

    quiet()
    recipe = _recipe(benchmark, recipe_name, asked, machine.model, changes)
    rules = BENCHMARKS[benchmark]
    plan = rules.read(asked.prompts, asked.num_images or rules.pictures_per_prompt)
    place = place_in_world()
    checkpoint = machine.load(place)
    if place[0] == 0:
        for notice in checkpoint.abilities.notices(recipe.given(), " ".join(one.prompt for one in plan.pictures)):
            typer.echo(f"Note: {notice}", err=True)
    with _progress_bar(asked.output, place) as bar:
        run = draw_benchmark(
            checkpoint.model,
            checkpoint.processor,
            plan,
            asked.output,
            recipe,
            sources=asked.sources,
            resolution=asked.resolution,
            seed=asked.seed,
            batch_size=asked.batch_size,
            place=place,
            progress=bar,
        )
    if run.complete:
        typer.echo(
            f"{asked.output / IMAGES} is complete: {benchmark}, {len(run.manifest.drawings)} pictures ({recipe.name})."
        )
    else:
        typer.echo(f"This process is done; {run.num_missing} pictures are still with the others.")


def _recipe(benchmark: str, name: str, asked: Asked, model: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of the checkpoint's family with what is changed, checked before anything is loaded."""
    from ..evaluation.recipes import check_recipe, find_recipe

    abilities = read_checkpoint_abilities(model)
    abilities.check_task(GENERATION if asked.sources is None else EDITING)
    template = asked.template
    recipe = find_recipe(find_family(model), benchmark, name).changed(
        **{**changes, **further_settings(asked.further, abilities)},
        template=int(template) if template.isdigit() else template,
        published_eval=asked.published_eval or None,
    )
    check_recipe(recipe, abilities, edits=asked.sources is not None)
    return recipe


@contextlib.contextmanager
def _progress_bar(output: Path, place: tuple[int, int]) -> Iterator[Any]:
    """A bar on standard error, of the first process; says how to go on after Ctrl-C."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=place[0] > 0)
    task = progress.add_task("", total=None)

    def update(name: str, done: int, total: int) -> None:
        progress.start()  # not before there is something to follow
        progress.update(task, description=name, completed=done, total=total)

    try:
        yield update
    except KeyboardInterrupt:
        typer.echo(f"What was drawn is kept in {output}; run the same command to go on.", err=True)
        raise
    finally:
        if progress.live.is_started:
            progress.stop()


COMMANDS: dict[str, Callable[..., None]] = {"geneval": geneval, "dpg": dpg, "imgedit": imgedit, "verify": verify}
