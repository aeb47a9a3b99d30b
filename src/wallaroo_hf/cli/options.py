"""What the files of the command line share. Imports nothing that takes time."""

import logging
import sys
from typing import Annotated

import typer

from ..files.built_in import FOLDER

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="WALLAROO_MODEL",
        help="Folder of a converted checkpoint, or a Hub id. Default: the small built-in checkpoint.",
        show_default=False,
    ),
]
BUILT_IN = str(FOLDER)
Device = Annotated[
    str | None, typer.Option(help="Where to compute, e.g. cpu or cuda:0. Default: an accelerator if there is one.")
]
CheckWeights = Annotated[
    bool,
    typer.Option(
        "--check-weights/--no-check-weights",
        help="Look at every weight after loading, and refuse a checkpoint with some that are not finite numbers.",
    ),
]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance; 1 switches it off. Default: the checkpoint's.")
]
GuidanceMinP = Annotated[
    float | None,
    typer.Option(
        help="Guide only to codes that have at least this share of the likeliest one's probability without guidance; 0: to "
        "all. Default: the checkpoint's."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts: one object per line.")]


def quiet() -> None:
    """Keeps transformers' progress bars and notes out of the way of ours."""
    from transformers.utils import logging as transformers_logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
