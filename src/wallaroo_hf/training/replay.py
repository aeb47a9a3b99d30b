"""Replay: rows of what a checkpoint knows already, mixed into fine-tuning so that it is not forgotten."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..families.abilities import UNDERSTANDING as UNDERSTANDS
from ..families.abilities import Abilities
from ..families.registry import find_family, read_abilities
from ..families.training_stages import TrainingStage
from ..files.checkpoint_files import find_checkpoint
from .data.mixing import Source
from .data.training_rows import EDITING, GENERATION, INTERLEAVED, UNDERSTANDING
from .run import RunOptions, load_training_data
from .scenes.scene_rows import Conversations, Lessons, SceneRows
from .sources import are_map_style

__all__ = ["SCENES", "mix_in", "scene_sources", "with_replay"]

SCENES = "scenes"  # stands for the built-in checkpoint's own data
_NUM_ROWS = 1_000_000  # made as they are needed; no run comes to the end of them
_QUESTIONS = 4  # about one picture, at most
# How often the built-in checkpoint's tasks are replayed, in those that it has
_SHARES = {GENERATION: 0.4, EDITING: 0.3, UNDERSTANDING: 0.2, INTERLEAVED: 0.1}


def scene_sources(model: str, abilities: Abilities, tasks: Sequence[str], seed: int) -> dict[str, list[Source]]:
    """The scenes' rows of what a checkpoint does, by task.

    Args:
        model: what it is called, for the message.
        abilities: the checkpoint's.
        tasks: that its family is trained on.
        seed: another seed gives other rows.

    Raises:
        ValueError: for a checkpoint that never learned the scenes.
    """
    if not abilities.known_words:
        raise ValueError(
            f"--replay alone mixes in the scenes of the built-in checkpoint, which '{model}' did not learn; name data that "
            "keep what it knows: --replay DATA."
        )
    does = {
        GENERATION: abilities.draws,
        EDITING: abilities.edits,
        UNDERSTANDING: UNDERSTANDS in abilities.tasks,
        INTERLEAVED: abilities.draws_in_chats,
    }
    rows: dict[str, list[Any]] = {
        GENERATION: [SceneRows("generation", _NUM_ROWS, seed), Lessons("lessons", _NUM_ROWS, seed)],
        EDITING: [SceneRows("editing", _NUM_ROWS, seed), Lessons("edit_lessons", _NUM_ROWS, seed)],
        UNDERSTANDING: [Conversations(_NUM_ROWS, _QUESTIONS, seed)],
        INTERLEAVED: [Lessons("chats", _NUM_ROWS, seed)],
    }
    return {
        task: [Source(one, f"replayed {task}", _SHARES[task] / len(found)) for one in found]
        for task, found in rows.items()
        if does[task] and task in tasks
    }


def mix_in(
    own: Mapping[str, Sequence[Source]],
    ratio: Mapping[str, float],
    replayed: Mapping[str, Sequence[Source]],
    share: float = 0.5,
) -> tuple[dict[str, list[Source]], dict[str, float]]:
    """Sources and ratio of a mixture of both: `share` of its rows are replayed.

    The own rows keep their ratio among themselves; replayed ones have that of their weights, and where these are not given
    of their numbers.

    Args:
        own: rows of one's own, by task.
        ratio: share of each task among them; those without are left out.
        replayed: what is known already, by task.
        share: above 0 and below 1.

    Raises:
        ValueError: for another share, and for streams, whose rows have no number.
    """
    if not 0 < share < 1:
        raise ValueError(f"The share of replayed rows is {share:g}, but must be above 0 and below 1, such as 0.5.")
    if not are_map_style(own, ratio) or not are_map_style(replayed):
        raise ValueError("Rows cannot be replayed beside streams; load the data, or leave --replay out.")
    own = {task: found for task, found in own.items() if ratio.get(task)}
    amounts = {task: sum(_amount(source) for source in found) for task, found in replayed.items()}
    wanted = {task: (1 - share) * ratio[task] / sum(ratio[one] for one in own) for task in own}
    again = {task: share * amount / sum(amounts.values()) for task, amount in amounts.items() if amount}
    mixed: dict[str, list[Source]] = {}
    for sources, shares in ((own, wanted), (replayed, again)):
        for task, amount in shares.items():
            total = sum(_amount(source) for source in sources[task])
            mixed.setdefault(task, []).extend(
                Source(source.rows, source.name, amount * _amount(source) / total) for source in sources[task]
            )
    return mixed, {task: wanted.get(task, 0.0) + again.get(task, 0.0) for task in mixed}


def _amount(source: Source) -> float:
    return float(len(source.rows)) if source.weight is None else source.weight


def with_replay(
    options: RunOptions, chosen: TrainingStage, sources: Mapping[str, Sequence[Source]], encoded: Sequence[str] = ()
) -> tuple[TrainingStage, dict[str, list[Source]], list[str]]:
    """Stage, sources and encoded folders of a run, with what its options say is replayed.

    Args:
        options: `replay` and `replay_share` count; without `replay` all stays as it is.
        chosen: the stage, whose ratio is that of one's own rows.
        sources, encoded: from [`wallaroo_hf.training.run.load_training_data`].

    Raises:
        ValueError: see [`scene_sources`] and [`mix_in`]; also for data with tasks that the family is not trained on.
    """
    found = {task: list(rows) for task, rows in sources.items()}
    if options.replay is None:
        return chosen, found, list(encoded)
    family = find_family(options.model)
    tasks = family.training_kit().tasks
    more: list[str] = []
    if options.replay == SCENES:
        abilities = read_abilities(find_checkpoint(options.model, weights=False), options.model)
        replayed = scene_sources(options.model, abilities, tasks, options.seed)
    else:
        replayed, more = load_training_data(options.replay)
        others = [task for task in replayed if task not in tasks]
        if others:
            raise ValueError(
                f"The replayed data has {others[0]} rows, but {family.title} models are trained on {' and '.join(tasks)} "
                "here; leave these rows out."
            )
    mixed, ratio = mix_in(found, chosen.task_ratio, replayed, options.replay_share)
    return chosen.override({"task_ratio": ratio}), mixed, [*encoded, *more]
