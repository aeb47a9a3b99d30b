"""What a run was begun with, kept in its folder, so that it is not resumed as another one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..families.training_stages import TrainingStage
from ..files.parsing import parse_json
from ..files.whole import new_file
from .run import RunOptions

__all__ = ["SETTINGS_FILE", "check_settings", "run_settings", "write_settings"]

SETTINGS_FILE = "settings.json"
# What a resumed run may change: how long it goes on, what it writes when, and how the same steps are computed.
_MAY_CHANGE = (
    *("max_steps", "output", "force", "skip_bad_rows", "device"),
    *("previews", "preview_steps", "save_steps", "logging_steps", "report_to"),
    *("batch_size", "workers", "gradient_checkpointing", "padding_free", "check_weights"),
)


def run_settings(options: RunOptions, chosen: TrainingStage, data: str) -> dict[str, Any]:
    """What must stay as it is when a run is resumed, as JSON has it.

    Args:
        data: what it trains on, as [`wallaroo_hf.training.run.load_training_data`] takes it.
    """
    stage = {"stage" if name == "name" else name: value for name, value in chosen.to_dict().items()}
    del stage["follows"]  # says no more than the name
    settings = stage | {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    settings |= {"model": _resolved(options.model), "data": _resolved(data)}
    if options.replay is not None:
        settings["replay"] = _resolved(options.replay)
    else:
        del settings["replay_share"]
    if not options.lora:
        del settings["lora_rank"]
    kept = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    return json.loads(json.dumps(kept))


def _resolved(name: str) -> str:
    """A local path wherever the command is called from; anything else as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Makes sure that the run in a folder may be resumed with these settings; a folder without a record says nothing.

    Args:
        settings: from [`run_settings`].

    Raises:
        ValueError: if the run was begun with others, or its record cannot be read.
    """
    path = output / SETTINGS_FILE
    if not path.exists():
        return  # of an earlier version
    try:
        begun = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(begun, dict):
            raise ValueError("it holds no settings by name")
    except ValueError as error:
        raise ValueError(
            f"'{path}' is damaged ({error}), so nothing says what the run was begun with; begin anew (`--no-resume`), or "
            "delete the file to resume it with the settings that you give now."
        ) from error
    changed = [
        f"`{name}` {begun[name]!r}, not {value!r}"
        for name, value in settings.items()
        if name in begun and begun[name] != value  # a setting that is newer than the run has not changed
    ]
    if changed:
        raise ValueError(
            f"The run in '{output}' was begun with {', '.join(changed)}; resume it with the same, begin anew "
            "(`--no-resume`), or train into another folder."
        )


def write_settings(output: Path, settings: dict[str, Any]) -> None:
    """Keeps the settings in the run's folder."""
    with new_file(output / SETTINGS_FILE) as partial:
        partial.write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
