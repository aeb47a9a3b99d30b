"""The model card of a checkpoint trained on the scenes, made of the numbers of its run and of its evaluation."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..families.abilities import EDITING, GENERATION, UNDERSTANDING, Abilities
from ..families.registry import Family, find_family, read_abilities
from ..files.built_in import FOLDER
from ..files.whole import new_file
from .scene_reports import SCORES_FILE, write_json

RUN_FILE = "run.json"

TASK_NAMES = {
    "reconstruction": "image tokenizer: picture read back",
    "generation": "text-to-image",
    "understanding": "questions",
    "editing": "editing",
    "chat": "chats in auto mode",
}
LANGUAGE_NAMES = {"all": "", "en": "English", "zh": "Chinese"}


def write_model_card(folder: str | Path, run: Mapping[str, Any], scores: Mapping[str, Any] | None = None) -> Path:
    """Writes `README.md` into a checkpoint's folder.

    Args:
        folder: of the checkpoint; one without a `config.json` yet is told of as the built-in one.
        run: `run.json` of [`wallaroo_hf.training.scenes.scenes_run.SceneRun`].
        scores: `scores.json` of `wallaroo evaluate scenes`; None = not scored yet, and the card says so.

    Returns:
        The card's path.
    """
    checkpoint = Path(folder) if (Path(folder) / "config.json").is_file() else FOLDER
    family, abilities = find_family(checkpoint), read_abilities(checkpoint, checkpoint)
    tasks = [task for task in (GENERATION, EDITING) if task in abilities.tasks]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="any-to-any",
        language=list(abilities.languages),
        license="apache-2.0",
        tags=[family.model_type, *tasks, *(["autoregressive"] if abilities.progress_unit == "row" else [])],
    )
    sections = [_introduction(family, abilities), _scores(scores), _recipe(run), _use(family, abilities)]
    content = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    path = Path(folder) / "README.md"
    with new_file(path) as partial:
        ModelCard(content).save(partial)
    return path


def update_checkpoint(folder: str | Path, scores: Mapping[str, Any]) -> Path:
    """Writes scores and a card that tells them into the folder of a checkpoint that the scenes recipe trained.

    Args:
        folder: holds `run.json`; gets `scores.json` and `README.md`, each whole or not at all.
        scores: `SceneScores.to_dict()`.

    Returns:
        The card's path.

    Raises:
        ValueError: for a folder without `run.json`.
    """
    record = Path(folder) / RUN_FILE
    if not record.is_file():
        raise ValueError(
            f"'{folder}' has no {RUN_FILE}, so there is no run to tell of; give the `checkpoint` folder of `wallaroo train "
            "scenes`."
        )
    run = json.loads(record.read_text(encoding="utf-8"))
    write_json(scores, Path(folder) / SCORES_FILE)
    return write_model_card(folder, run, scores)


_WIDTH = 124  # characters of a line
_LANGUAGES = {"en": "English", "zh": "Chinese"}
_DRAW = 'pipe("a red circle to the left of a blue star").images[0].save("scene.png")\n'
_SHIPS = f"""from wallaroo_hf import {{model}}, WallarooPipeline, {{processor}}, default_checkpoint

folder = default_checkpoint()
pipe = WallarooPipeline(
    model={{model}}.from_pretrained(folder, dtype="auto"),
    processor={{processor}}.from_pretrained(folder),
)
{_DRAW}"""
_PIPELINE = f"""import wallaroo_hf  # makes the family known to transformers
from transformers import pipeline

pipe = pipeline("text-to-image", model="this folder")
{_DRAW}"""
_DOES = {GENERATION: "draws", EDITING: "edits", UNDERSTANDING: "answers about"}  # such scenes


def _introduction(family: Family, abilities: Abilities) -> str:
    ships = ""
    if family.built_in is not None:
        ships = " ships with `wallaroo-hf` so that the first command draws a picture on any laptop. It"
    paper = family.title if family.paper is None else f"[{family.title}]({family.paper})"
    languages = _listed(_LANGUAGES[one] for one in abilities.languages)
    does = _listed(does for task, does in _DOES.items() if task in abilities.tasks)
    words = (
        f"This checkpoint{ships} has the classes and the layout of the full model ({paper}) with smaller numbers, and went "
        "through the paper's stages on procedural scenes: flat shapes (circle, square, triangle, star, heart, diamond, "
        f"ring, cross) in eight colours on four backgrounds, in {languages}. It {does} such scenes, and knows nothing else."
    )
    return f"# A small {family.title}, trained from nothing\n\n{textwrap.fill(words, _WIDTH, break_on_hyphens=False)}"


def _use(family: Family, abilities: Abilities) -> str:
    """How to draw with it: a checkpoint that ships by its classes, another one by transformers' pipeline."""
    sizes = _listed(f"{height}x{width}" for height, width in abilities.sizes)
    model, processor = (address.partition(":")[2] for address in (family.model, family.processor))
    code = _SHIPS.format(model=model, processor=processor) if family.built_in else _PIPELINE
    return f"## Use\n\n```python\n{code}```\n\nPictures of {sizes} pixels (height x width) were trained."


def _listed(words: Iterable[str]) -> str:
    """a, b and c."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _scores(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "## Scores\n\nIt was not scored yet: `wallaroo evaluate scenes` does."
    settings = scores["settings"]
    lines = [
        "## Scores",
        "",
        "Prompts whose combinations of shape, colour and relation were never trained, judged by an exact reader of the",
        "pictures (`wallaroo evaluate scenes`); means over categories, with 95 % bootstrap intervals.",
        "",
        "| task | language | score | items |",
        "|---|---|---|---|",
    ]
    for task, by_language in scores["tasks"].items():
        for language, breakdown in by_language.items():
            overall = breakdown["overall"]
            interval = f"{overall['value']:.3f} ({overall['low']:.3f}–{overall['high']:.3f})"
            name = TASK_NAMES.get(task, task) if language == "all" else ""
            lines.append(f"| {name} | {LANGUAGE_NAMES[language]} | {interval} | {overall['num_items']} |")
    lines += ["", "By category:", "", "| task | category | score |", "|---|---|---|"]
    for task, by_language in scores["tasks"].items():
        categories = by_language["all"]["categories"]
        if len(categories) > 1:
            for category, score in categories.items():
                lines.append(f"| {task} | {category.replace('_', ' ')} | {score['value']:.3f} |")
    sampling = {key: value for key, value in settings.items() if isinstance(value, int | float | str | dict)}
    lines += ["", f"Settings: `{json.dumps(sampling, ensure_ascii=False)}`."]
    return "\n".join(lines)


def _recipe(run: Mapping[str, Any]) -> str:
    lines = [
        "## How it was made",
        "",
        "| part | trains | steps | rows | learning rate | understanding : drawing : editing : interleaved | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in run["parts"].items():
        if not name.startswith("stage"):
            continue
        stage = part["stage"]
        tasks = ("understanding", "generation", "editing", "interleaved")
        ratio = " : ".join(f"{stage['task_ratio'].get(task, 0):g}" for task in tasks)
        minutes = part["process_seconds"] / 60
        named = stage["trains"]  # a word, or beginnings of parameters' names
        trains = named.replace("_", " ") if isinstance(named, str) else ", ".join(f"`{name}`" for name in named)
        rate = f"{stage['learning_rate']:g}"
        lines.append(f"| {name} | {trains} | {part['steps']} | {part['rows']:,} | {rate} | {ratio} | {minutes:.0f} |")
    vq = run["parts"].get("vq", {})
    if run.get("note"):
        lines += ["", run["note"]]
    lines += ["", f"The image tokenizer took {vq.get('steps', '?')} steps. All numbers: `run.json`."]
    if vq.get("note"):
        lines.append(vq["note"])
    return "\n".join(lines)
