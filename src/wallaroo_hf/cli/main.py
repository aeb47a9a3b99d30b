"""The `wallaroo` command. torch is imported by the commands that need it, so that `--help` answers at once."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..files.whole import full_disk_said
from . import evaluate
from .ablation import ablation
from .app import serve_page
from .ask import ask
from .benchmark_commands import COMMANDS as BENCHMARK_COMMANDS
from .build import build
from .chat import chat
from .convert import convert
from .edit import edit
from .encode import encode
from .export import export
from .generate import PROMPTS_HELP, generate
from .info import info
from .merge import merge
from .panels import in_panels
from .paradigms import paradigms
from .serve import serve
from .train import COMMANDS as TRAIN_COMMANDS
from .train import train, train_app

app = typer.Typer(
    name="wallaroo",
    help="Models that understand, draw and edit images, in one command each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_EPILOGS = {"generate": PROMPTS_HELP}
_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Use": {"generate": generate, "edit": edit, "ask": ask, "chat": chat, "app": serve_page, "serve": serve},
    "Train": {"build": build, "encode": encode, "merge": merge},
    "Share": {"info": info, "convert": convert, "export": export},
}


def _one_sentence_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns what a user can do wrong into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with full_disk_said():
                command(*args, **kwargs)
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; by name, as torch may not be imported here
                raise
            typer.echo("Error: The device's memory is full; use a smaller --batch-size or smaller images.", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(130) from error

    return wrapped


for _group, _commands in _GROUPS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_group, epilog=_EPILOGS.get(_name))(
            _one_sentence_errors(in_panels(_name, _command))
        )
app.add_typer(train_app, rich_help_panel="Train")
train_app.callback()(_one_sentence_errors(in_panels("train", train)))
for _name, _command in TRAIN_COMMANDS.items():
    train_app.command(_name)(_one_sentence_errors(in_panels(_name, _command)))

evaluate_app = typer.Typer(help="Score a checkpoint.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate", rich_help_panel="Measure")
evaluate_app.command(epilog=evaluate.PROMPT_HELP)(_one_sentence_errors(in_panels("scenes", evaluate.scenes)))
evaluate_app.command()(_one_sentence_errors(in_panels("sweep", evaluate.sweep)))
evaluate_app.command()(_one_sentence_errors(ablation))
evaluate_app.command()(_one_sentence_errors(in_panels("paradigms", paradigms)))
for _name, _command in BENCHMARK_COMMANDS.items():
    evaluate_app.command(_name)(_one_sentence_errors(in_panels(_name, _command)))


def _version(wanted: bool) -> None:
    if wanted:
        from .._version import __version__

        typer.echo(f"wallaroo-hf {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `wallaroo` command."""
    app()
