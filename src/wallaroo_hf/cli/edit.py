"""`wallaroo edit`: changes a picture by an instruction. torch is imported when the command runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .given import names_a_picture, require_picture_output, require_words
from .setting_options import takes_settings


@takes_settings()
def edit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="The image to edit: a path or URL. Of several the last one is changed; those before it are references.",
            show_default=False,
        ),
    ],
    instruction: Annotated[str, typer.Argument(help="What to change.", show_default=False)],
    output: options.Output = Path("."),
    num_images: options.NumImages = 1,
    seed: options.Seed = None,
    batch_size: options.BatchSize = 4,
    as_json: options.AsJson = False,
    height: options.Height = None,
    width: options.Width = None,
    aspect_ratio: options.AspectRatio = None,
    negative_prompt: options.Negative = None,
    mask: options.Mask = None,
    outpaint: options.Outpaint = None,
    model: options.Model = options.BUILT_IN,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    check_weights: options.CheckWeights = True,
    *,
    settings: dict[str, Any],
) -> None:
    """Edit an image by an instruction, all of it or within a mask, or paint beyond its edges; or take from other images.

    The result has the image's size, unless another one is asked for; outside of a mask it is the image, to the bit.
    """
    example = "wallaroo edit picture.png 'make it blue'"
    if names_a_picture(instruction) and not all(map(names_a_picture, images)):
        raise ValueError(f"The picture comes first, then what to change, such as {example}")
    require_words(instruction, "what to change", example)
    require_picture_output(output, num_images)
    if mask is not None and outpaint is not None:
        raise ValueError("Both --mask and --outpaint were given; give one, as what is outpainted is the mask.")
    from ..pictures.masks import read_growth, with_masks
    from ..pictures.opening import open_image
    from . import running

    options.quiet()
    area = {"mask_image": mask, "outpaint": None if outpaint is None else read_growth(outpaint, "--outpaint")}
    sources = [open_image(image) for image in images]
    with_masks(sources[-1:], mask, area["outpaint"])  # looked at before anything is loaded
    wishes = running.read_options(
        model,
        settings,
        num_sources=len(sources),
        prompts=[instruction],
        height=height,
        width=width,
        aspect_ratio=aspect_ratio,
        negative_prompt=negative_prompt,
        area={name: value for name, value in area.items() if value is not None},
    )
    checkpoint = running.load_checkpoint(model, device, dtype, check_weights)
    for drawn in running.draw_images(checkpoint, [instruction], sources, wishes, num_images, seed, batch_size, output):
        typer.echo(drawn.report(as_json))
