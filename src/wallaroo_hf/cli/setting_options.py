"""Options of commands made from the families' settings, so that both say the same. Imports nothing that takes time."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from ..families.abilities import Abilities
from ..families.registry import FAMILIES, read_abilities
from ..families.settings import Setting
from ..files.checkpoint_files import find_checkpoint
from .options import SAMPLING

__all__ = ["family_settings", "parse_settings", "read_checkpoint_abilities", "read_pairs", "takes_settings"]

_FURTHER = "further"  # the parameter behind --set


def family_settings(
    stages: Sequence[str] = ("prepare", "draw", "both"), of_answers: bool = False
) -> dict[str, Setting]:
    """The settings of all families that an option can stand for, by name; or those of answers alone."""
    found: dict[str, Setting] = {}
    for family in FAMILIES.values():
        for setting in family.resolve("abilities")({}, {}, {}).settings:
            if setting.is_offered and setting.stage in stages and (setting.of_answers or not of_answers):
                found.setdefault(setting.name, setting)
    return found


def takes_settings(*without: str, of_answers: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each setting of a family, and --set for those of others.

    The command takes them as one keyword, `settings`: by name what was given, not yet checked against a checkpoint.

    Args:
        without: names of settings that make no sense for the command.
        of_answers: only those that change answers.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        offered = family_settings(of_answers=of_answers)
        settings = {name: one for name, one in offered.items() if name not in without}
        own = inspect.signature(command).parameters
        hints = get_type_hints(command, include_extras=True)
        own_parameters = [
            parameter.replace(annotation=hints[name]) for name, parameter in own.items() if name != "settings"
        ]
        more = [_parameter(setting) for setting in settings.values()]
        more.append(
            inspect.Parameter(
                _FURTHER,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    list[str] | None,
                    typer.Option(
                        "--set",
                        metavar="NAME=VALUE",
                        help="Another setting of the checkpoint's family; may be repeated. wallaroo info lists them.",
                        rich_help_panel=SAMPLING,
                    ),
                ],
            )
        )

        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in settings}
            further = given.pop(_FURTHER) or []
            command(**given, settings={**chosen, **dict(read_pairs(further))})

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own_parameters] + more
        shown: Any = wrapped
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del shown.__wrapped__
        return shown

    return decorate


def _parameter(setting: Setting) -> inspect.Parameter:
    """The option of a setting; a text such as "auto" may be given where a number has words beside it."""
    kind: Any = setting.type if setting.choices is None else str
    metavar = {float: "X", int: "N"}.get(setting.type) if setting.choices is None else None
    default, help_text = None, setting.help
    if setting.type is bool or (setting.type is str and setting.choices is None):
        default = setting.default  # these are written down as they are
    else:
        help_text += " Default: the checkpoint's."
    flags = [f"--{setting.name.replace('_', '-')}"]
    option = typer.Option(
        *flags, metavar=metavar, help=help_text, show_default=default is not None, rich_help_panel=SAMPLING
    )
    annotation: Any = Annotated[kind if default is not None else kind | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def read_pairs(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and texts of what `--set` says.

    Raises:
        ValueError: for something that is no NAME=VALUE.
    """
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--set is {pair[:80]!r}, but takes NAME=VALUE, such as num_inference_steps=30.")
        yield name.strip().replace("-", "_"), value.strip()


def read_checkpoint_abilities(model: str) -> Abilities:
    """What a checkpoint can do, before it is loaded.

    Args:
        model: folder or Hub id.

    Raises:
        ValueError: if there is no such checkpoint.
    """
    folder = find_checkpoint(model, weights=False)
    return read_abilities(folder, model)


def parse_settings(given: Mapping[str, Any], abilities: Abilities) -> dict[str, Any]:
    """Settings as the checkpoint takes them.

    Args:
        given: by name; texts are read as what the setting is.
        abilities: of the checkpoint.

    Raises:
        ValueError: for one that it does not have, or a value that cannot be.
    """
    parsed = {}
    for name, value in given.items():
        setting = abilities.setting(name)
        if setting is None and value == _defaults().get(name):
            continue  # an option that this family lacks, and that was not given
        if setting is not None and setting.type is object:
            raise ValueError(f"`{name}` cannot be told as text, so only Python takes it; leave it out.")
        if setting is not None and isinstance(value, str):
            value = setting.parse(value)
        parsed[name] = value
    return abilities.check_settings(parsed)


@functools.cache
def _defaults() -> dict[str, Any]:
    """What options of settings are where they are not given."""
    return {name: _parameter(setting).default for name, setting in family_settings().items()}
