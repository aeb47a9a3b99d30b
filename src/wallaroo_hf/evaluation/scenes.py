"""`evaluate_scenes`: the benchmark over the built-in scenes, or over prompts of one's own, with the exact judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..families.abilities import EDITING, GENERATION, UNDERSTANDING, Abilities
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.registry import abilities_of
from ..scenes import Prompt
from ..scenes.dataset import DATA_VERSION
from . import scene_reports
from .drawing_settings import read_sampling
from .identity import checkpoint_hash, versions
from .item_outputs import Subject, evaluation_mode, make_outputs
from .items import ALL_TASKS, TASKS, Item, items_hash, prompt_items, scene_items
from .results import ResultsFile
from .scores import SceneScores, score_task

NUM_ITEMS = 300  # per task
MAX_NEW_TOKENS = 64  # three times the longest description in the tokens of the built-in checkpoint
# What each task needs of a checkpoint.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "reconstruction": (GENERATION,),
    "generation": (GENERATION,),
    "understanding": (UNDERSTANDING,),
    "editing": (EDITING,),
    "chat": (UNDERSTANDING, GENERATION, EDITING),
    "composition": (EDITING,),
}
DRAWING = ("generation", "editing", "chat", "composition")  # tasks whose items ask for pictures of a size

Progress = Callable[[str, int, int], None]


def evaluate_scenes(
    model: DrawingModel,
    processor: DrawingProcessor,
    output_dir: str | Path,
    *,
    prompts: Sequence[Prompt] | None = None,
    num_items_per_task: int | None = None,
    split: str | None = None,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    batch_size: int = 16,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    guidance_min_p: float | None = None,
    settings: Mapping[str, Any] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    resume: bool = True,
    progress: Progress | None = None,
) -> SceneScores:
    """Has a model rebuild, draw, answer about and edit scenes, and judges each output exactly.

    Results are kept item by item, so an evaluation that was interrupted goes on where it stopped when it is called again
    with the same settings; it is scored once all items are judged. The folder then holds `scores.json`, for each task a
    sheet of successes and failures (`editing.png`), every verdict (`items.jsonl`) and every picture made (`pictures`).

    Results do not depend on `batch_size`, up to rounding (see the model's `draw`).

    Args:
        model: of any family, on its device.
        processor: its processor.
        output_dir: folder for the results; a new one, or one to continue.
        prompts: prompts of one's own instead of the benchmark's (`scenes.read_prompts` reads a file of them).
        num_items_per_task: of the benchmark; default 300.
        split: of the benchmark: "test" (default), "validation" or "train".
        seed: of the items and of the noise that drawings are sampled with.
        tasks: some of "reconstruction", "generation", "understanding", "editing", "chat" and "composition" (edits of two
            pictures); default all but the last, or all that the prompts have, which are generation, understanding and
            editing at most.
        batch_size: items at a time.
        guidance_scale, temperature, top_k, guidance_min_p: of drawings and edits, where the checkpoint's family has such a
            setting; default the checkpoint's own.
        settings: further ones of its family, see [`wallaroo_hf.families.abilities.Abilities.settings`].
        max_new_tokens: longest answer.
        resume: False starts over where `output_dir` holds an evaluation.
        progress: called as `progress(task, done, total)` before the first and after every batch of a task.

    Raises:
        ValueError: for arguments that cannot be, a checkpoint that cannot do a task, or an `output_dir` with an evaluation
            of other settings.
    """
    items = _choose_items(prompts, num_items_per_task, split, seed, tasks)
    named = {"guidance_scale": guidance_scale, "temperature": temperature, "top_k": top_k}
    named["guidance_min_p"] = guidance_min_p
    abilities = abilities_of(model, processor)
    subject = Subject(model, processor, read_sampling(abilities, {**named, **(settings or {})}), max_new_tokens)
    check_tasks(abilities, items)
    origin = {
        "checkpoint": checkpoint_hash(model, processor),
        "split": None if prompts is not None else split or "test",
        "seed": seed,
    }
    return judge_items(subject, items, Path(output_dir), origin, batch_size, resume, progress)


def check_tasks(abilities: Abilities, items: Mapping[str, Sequence[Item]]) -> None:
    """Refuses tasks that a checkpoint cannot do, so that none is begun.

    Args:
        abilities: of the checkpoint.
        items: by task.

    Raises:
        ValueError: naming those that can be left out, and what is left.
    """
    lacking = [task for task in items if _missing(abilities, task)]
    if lacking:
        missing = dict.fromkeys(need for task in lacking for need in _missing(abilities, task))
        others = [task for task in items if task not in lacking]
        raise ValueError(
            f"This {abilities.family} checkpoint does not do {' and '.join(missing)}, so leave {' and '.join(lacking)} out "
            f"({_only(others or possible_tasks(abilities))})."
        )
    sizes = dict.fromkeys((item.height, item.width) for task in DRAWING for item in items.get(task, ()))
    for height, width in sizes:
        try:
            abilities.check_size(height, width)
        except ValueError as error:
            raise ValueError(
                f"{error} It is among the sizes to draw: give --prompts of other sizes, or leave drawing out "
                f"({_only([task for task in TASKS if task not in DRAWING])})."
            ) from error


def possible_tasks(abilities: Abilities) -> list[str]:
    """The tasks that a checkpoint can be scored on, and is unless others are named."""
    return [task for task in TASKS if not _missing(abilities, task)]


def _missing(abilities: Abilities, task: str) -> list[str]:
    """What a checkpoint lacks for a task."""
    missing = [need for need in NEEDS[task] if need not in abilities.tasks]
    if not missing and task == "chat" and not abilities.draws_in_chats:
        return ["drawing in chats"]
    if not missing and task == "composition" and not abilities.several_sources:
        return ["edits of several pictures"]
    return missing


def _only(tasks: Sequence[str]) -> str:
    """The option that leaves the others out."""
    return f"--tasks {','.join(tasks)}" if tasks else "it can do none of them"


def judge_items(
    subject: Subject,
    items: Mapping[str, Sequence[Item]],
    folder: Path,
    origin: Mapping[str, Any],
    batch_size: int,
    resume: bool,
    progress: Progress | None,
) -> SceneScores:
    """Has a subject do what items ask, or what is left of it, and writes everything that [`evaluate_scenes`] promises.

    Args:
        subject: who does it, and how.
        items: by task.
        folder: for the results.
        origin: the checkpoint's hash, and where the items come from; recorded with the other settings.
        batch_size: see [`evaluate_scenes`].
        resume: likewise.
        progress: likewise.

    Raises:
        ValueError: see [`evaluate_scenes`].
    """
    if batch_size < 1 or subject.max_new_tokens < 1:
        raise ValueError(
            f"Batch size and longest answer must be at least 1, but are {batch_size} and {subject.max_new_tokens}."
        )
    settings = {
        **origin,
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "tasks": list(items),
        "num_items": {task: len(chosen) for task, chosen in items.items()},
        "items": items_hash(item for chosen in items.values() for item in chosen),
        **subject.sampling.settings,
        "max_new_tokens": subject.max_new_tokens,
        "wallaroo_hf": __version__,
        "scenes": DATA_VERSION,
    }
    results = ResultsFile(folder, settings, resume)
    if any(item.name not in results for chosen in items.values() for item in chosen):
        scene_reports.remove_reports(folder)
    with evaluation_mode(subject.model):
        for chosen in items.values():
            _judge_task(subject, chosen, results, batch_size, progress)
    good = {name: result.ok for name, result in results.items()}
    scores = SceneScores(settings, versions(), {task: score_task(chosen, good) for task, chosen in items.items()})
    for task, chosen in items.items():
        scene_reports.write_sheet(chosen, results, folder / f"{task}.png")
    scene_reports.write_json(scores.to_dict(), folder / scene_reports.SCORES_FILE)
    return scores


def _choose_items(
    prompts: Sequence[Prompt] | None,
    num_items: int | None,
    split: str | None,
    seed: int,
    tasks: Sequence[str] | None,
) -> dict[str, list[Item]]:
    """The items of each task, in the order of `ALL_TASKS`."""
    unknown = [task for task in tasks or () if task not in ALL_TASKS]
    if unknown or (tasks is not None and not tasks):
        raise ValueError(f"The tasks are {', '.join(tasks or ()) or 'none'}; choose from {', '.join(ALL_TASKS)}.")
    if prompts is None:
        count = NUM_ITEMS if num_items is None else num_items
        chosen = TASKS if tasks is None else [task for task in ALL_TASKS if task in tasks]
        return {task: scene_items(task, count, split or "test", seed) for task in chosen}
    if num_items is not None or split is not None:
        raise ValueError("A number of items and a split are for the built-in items; leave them out with own prompts.")
    items = prompt_items(prompts, seed)
    missing = [task for task in tasks or () if task not in items]
    if missing or not items:
        has = ", ".join(items) or "nothing"
        raise ValueError(f"The prompts have no items for {', '.join(missing) or 'any task'}; they have {has}.")
    return {task: chosen for task, chosen in items.items() if tasks is None or task in tasks}


def _judge_task(
    subject: Subject, items: Sequence[Item], results: ResultsFile, batch_size: int, progress: Progress | None
) -> None:
    """Judges those items of a task that have no verdict yet."""
    todo = [item for item in items if item.name not in results]

    def report() -> None:
        if progress is not None:
            progress(items[0].task, sum(item.name in results for item in items), len(items))

    report()
    for batch in _batches(todo, batch_size):
        outputs = make_outputs(subject, batch)
        results.add(batch, outputs, [item.judge(output) for item, output in zip(batch, outputs, strict=True)])
        report()


def _batches(items: Sequence[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """Batches with equal sizes side by side, so that no drawing waits for a larger one."""
    by_size = sorted(items, key=lambda item: (item.height * item.width, item.height))
    for start in range(0, len(by_size), batch_size):
        yield by_size[start : start + batch_size]
