"""Running commands as a terminal does, in this process."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from wallaroo_hf.cli import app

runner = CliRunner()


def run(*arguments, code=0):
    """Runs a command and returns what it printed; progress bars apart."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def json_lines(*arguments):
    """What a command with --json prints for scripts; bars and notes go elsewhere."""
    result = runner.invoke(app, [str(argument) for argument in (*arguments, "--json")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]
