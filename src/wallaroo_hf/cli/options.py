"""What the files of the command line share. Imports nothing that takes time."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..files.built_in import FOLDER

MAX_SEED = 2**62
MODEL, SIZE, SAMPLING, OUTPUT = "Model", "Size", "Sampling", "Output"  # panels of help texts


def _check_seed(seed: int | None) -> int | None:
    """Not typer's own range, which help texts would show with all of its digits."""
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise typer.BadParameter(f"{seed} is not in the range 0 to 2**62.")
    return seed


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="WALLAROO_MODEL",
        show_envvar=False,
        help="Folder of a converted checkpoint, or a Hub id. Default: the built-in one, or $WALLAROO_MODEL.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
BUILT_IN = str(FOLDER)
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute, e.g. cpu or cuda:0. Default: an accelerator if there is one.", rich_help_panel=MODEL
    ),
]
ON_CPU_OR = typer.Option(
    help="Where to train: cpu, or cuda (CUDA_VISIBLE_DEVICES chooses a GPU). Default: an accelerator if there is one."
)
Dtype = Annotated[
    str,
    typer.Option(help="Precision of the weights: auto, bfloat16, float16 or float32.", rich_help_panel=MODEL),
]
CheckWeights = Annotated[
    bool,
    typer.Option(
        "--check-weights/--no-check-weights",
        help="Look at every weight after loading, and refuse a checkpoint with some that are not finite numbers.",
        rich_help_panel=MODEL,
    ),
]
Height = Annotated[int | None, typer.Option(help="Height in pixels, a multiple of 16.", rich_help_panel=SIZE)]
Width = Annotated[int | None, typer.Option(help="Width in pixels, a multiple of 16.", rich_help_panel=SIZE)]
AspectRatio = Annotated[
    str | None, typer.Option(help="Width to height, e.g. 16:9; picks a listed size.", rich_help_panel=SIZE)
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Folder to write to, or a .png file for a single image.",
        rich_help_panel=OUTPUT,
    ),
]
NumImages = Annotated[
    int, typer.Option("-n", "--num-images", metavar="N", min=1, help="Images per prompt.", rich_help_panel=OUTPUT)
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=_check_seed,
        help="Image k gets seed + k. Default: a random one, which is printed.",
        rich_help_panel=OUTPUT,
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Images drawn at once.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON for scripts: one object per line.", rich_help_panel=OUTPUT)
]
Mask = Annotated[
    str | None,
    typer.Option(
        help="What to paint anew, a picture of the image's size: white, or transparent. All else stays as it is.",
        rich_help_panel=SIZE,
    ),
]
Outpaint = Annotated[
    str | None,
    typer.Option(
        help="Grow the image and paint what is new: pixels for all sides, or left=64,top=0,right=64,bottom=0 (some).",
        rich_help_panel=SIZE,
    ),
]
Negative = Annotated[str | None, typer.Option(help="What to steer away from.", rich_help_panel=SAMPLING)]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance; 1 switches it off. Default: the checkpoint's.", rich_help_panel=SAMPLING
    ),
]
GuidanceMinP = Annotated[
    float | None,
    typer.Option(
        help="Guide only to codes that have at least this share of the likeliest one's probability without guidance; 0: to "
        "all. Default: the checkpoint's.",
        rich_help_panel=SAMPLING,
    ),
]


def quiet() -> None:
    """Keeps transformers' progress bars and notes out of the way of ours."""
    from transformers.utils import logging as transformers_logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
