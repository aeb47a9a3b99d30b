"""Help texts at 80x24: the first panel of each command's options fits the screen, and nothing is cut off."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from commands import runner
from wallaroo_hf.cli import app
from wallaroo_hf.cli.benchmark_commands import COMMANDS
from wallaroo_hf.cli.build import build
from wallaroo_hf.cli.chat import chat
from wallaroo_hf.cli.encode import encode
from wallaroo_hf.cli.evaluate import scenes, sweep
from wallaroo_hf.cli.export import export
from wallaroo_hf.cli.panels import PANELS
from wallaroo_hf.cli.serve import serve
from wallaroo_hf.cli.train import train

SHOWN = (
    *("generate", "edit", "ask", "chat", "app", "serve", "train", "encode", "merge", "info", "convert", "export"),
    "build",
    *("train vq", "train scenes", "evaluate scenes", "evaluate sweep", "evaluate geneval", "evaluate imgedit"),
)
SCREEN = 24


@pytest.mark.parametrize("name", SHOWN)
def test_the_first_panels_fit_a_screen(name):
    out = runner.invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    lines = out.splitlines()
    ends = [index for index, line in enumerate(lines) if line.startswith("╰")]
    begins = [index for index, line in enumerate(lines) if line.startswith("╭") and "Arguments" not in line]
    assert begins and ends[0] < SCREEN
    first = begins[0]
    assert next(end for end in ends if end > first) - first < SCREEN - 1
    assert "…" not in out and max(map(len, lines)) <= 80


def test_options_in_panels_are_there():
    """A name that a command no longer has would be forgotten in silence; the evaluations share theirs."""
    commands = {"train": train, "serve": serve, "chat": chat, "encode": encode, "export": export, "build": build}
    for name, command in commands.items():
        parameters = inspect.signature(command).parameters
        assert {option for options in PANELS[name].values() for option in options} <= parameters.keys()
    shared = {
        option
        for name in ("scenes", "sweep", *COMMANDS)
        for panel in PANELS.get(name, {}).values()
        for option in panel
    }
    known = {option for command in (scenes, sweep, *COMMANDS.values()) for option in get_type_hints(command)}
    assert shared <= known
