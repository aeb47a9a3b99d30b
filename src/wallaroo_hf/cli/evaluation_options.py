"""Options of `wallaroo evaluate` about drawing, made from the families' settings. Imports nothing that takes time.

At `--help` no checkpoint is known, so an option has the help of the first family that has such a setting; values are
checked against the settings of the checkpoint that is given.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ..families.abilities import Abilities
from .options import SAMPLING
from .setting_options import family_settings, parse_settings, read_pairs

__all__ = ["Further", "flag_option", "further_settings", "further_values", "setting_option", "swept_option"]

Further = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another setting of the checkpoint's family; may be repeated. wallaroo info lists them.",
        rich_help_panel=SAMPLING,
    ),
]


def setting_option(name: str, default: str) -> Any:
    """The option of a setting.

    Args:
        name: the setting's.
        default: what holds where it is not given, such as "the checkpoint's".
    """
    setting = family_settings()[name]
    metavar = {float: "X", int: "N"}.get(setting.type)
    return typer.Option(help=f"{setting.help} Default: {default}.", metavar=metavar, rich_help_panel=SAMPLING)


def flag_option(name: str) -> Any:
    """The option of a setting that is on or off, and off where it is not given."""
    help_text = family_settings()[name].help
    return typer.Option(f"--{name.replace('_', '-')}", help=help_text, rich_help_panel=SAMPLING)


def swept_option(name: str) -> Any:
    """The option for values of a setting to try."""
    setting = family_settings()[name]
    tried = ",".join(f"{value:g}" for value in setting.tried)
    return typer.Option(
        help=f"Values to try, with commas. {setting.help} Default: {tried}.",
        metavar="VALUES",
        rich_help_panel=SAMPLING,
    )


def further_settings(given: Sequence[str] | None, abilities: Abilities) -> dict[str, Any]:
    """What `--set` says.

    Args:
        given: each NAME=VALUE.
        abilities: of the checkpoint.

    Raises:
        ValueError: for another form, a setting that the checkpoint does not have, or a value that cannot be.
    """
    return parse_settings(dict(read_pairs(given or ())), abilities)


def further_values(given: Sequence[str] | None, abilities: Abilities) -> Mapping[str, list[Any]]:
    """The same for several values of each, with commas between them."""
    found: dict[str, list[Any]] = {}
    for name, values in read_pairs(given or ()):
        setting = abilities.setting(name)
        if setting is None:
            abilities.check_settings({name: values})  # says what there is
        else:
            found[name] = [setting.parse(value.strip()) for value in values.split(",")]
    return found
