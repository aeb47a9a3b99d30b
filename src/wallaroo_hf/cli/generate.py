"""`wallaroo generate`: draws from prompts. torch is imported when the command runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .given import require_picture_output, require_prompt
from .setting_options import takes_settings

PROMPTS_HELP = (
    "--prompts FILE draws a file of prompts, one a line. In a .jsonl file each line is an object with a prompt and, if "
    "need be, name, seed, negative_prompt, height, width, aspect_ratio. The same command again goes on where it stopped; "
    "torchrun and accelerate launch share the work. --seed is 0 there unless given."
)


@takes_settings("source_guidance_scale", "source_fit")
def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.", show_default=False)
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Draw every line of a file instead, or every object of a .jsonl file; see below.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    output: options.Output = Path("."),
    num_images: options.NumImages = 1,
    seed: options.Seed = None,
    batch_size: options.BatchSize = 4,
    as_json: options.AsJson = False,
    height: options.Height = None,
    width: options.Width = None,
    aspect_ratio: options.AspectRatio = None,
    negative_prompt: options.Negative = None,
    model: options.Model = options.BUILT_IN,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    check_weights: options.CheckWeights = True,
    *,
    settings: dict[str, Any],
) -> None:
    """Draw images from prompts, in English or Chinese."""
    if bool(prompts) == (prompts_file is not None):
        raise ValueError("Give either prompts or --prompts with a file of them.")
    for prompt in prompts or ():
        require_prompt(prompt)
    if prompts_file is None:
        require_picture_output(output, len(prompts or ()) * num_images)
    from . import running
    from .drawing_prompts import draw_prompts

    options.quiet()
    wishes = running.read_options(
        model,
        settings,
        prompts=prompts or (),
        height=height,
        width=width,
        aspect_ratio=aspect_ratio,
        negative_prompt=negative_prompt,
    )
    if prompts_file is not None:
        drawn = draw_prompts(
            prompts_file, model, device, dtype, check_weights, wishes, num_images, seed or 0, batch_size, output
        )
    else:
        checkpoint = running.load_checkpoint(model, device, dtype, check_weights)
        drawn = running.draw_images(checkpoint, prompts or (), (), wishes, num_images, seed, batch_size, output)
    for one in drawn:
        typer.echo(one.report(as_json))
