"""`wallaroo ask`: answers a question about pictures. torch is imported when the command runs."""

import json
from typing import Annotated, Any

import typer

from ..families.abilities import VIDEO
from . import options
from .given import names_a_video, require_words
from .setting_options import parse_settings, read_checkpoint_abilities, takes_settings

HOTTEST = 10


@takes_settings(of_answers=True)
def ask(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... QUESTION",
            help="Images, then the question. A video is its file, or a folder of frames, where the checkpoint's family "
            "understands videos.",
            show_default=False,
        ),
    ],
    model: options.Model = options.BUILT_IN,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample the answer instead of taking the likeliest.")
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --sample: its temperature. Default: 1, whatever the checkpoint's is."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**62, help="With --sample: repeats an answer. Default: a random one, which is printed."
        ),
    ] = None,
    num_frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many frames of a video are seen. Default: the family's."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="In its place, how many are seen a second; of a folder of frames, how many it has. Default: the family's.",
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    check_weights: options.CheckWeights = True,
    as_json: options.AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Ask a question about images."""
    for name, value in (("--temperature", temperature), ("--seed", seed)):
        if value is not None and not sample:
            raise ValueError(f"{name} is for --sample; add it, or leave {name} out.")
    if temperature is not None and not 0 <= temperature <= HOTTEST:
        raise ValueError(f"`--temperature` is {temperature:g}, but must be a number from 0 to {HOTTEST}.")
    *paths, question = images
    require_words(question, "the question", "wallaroo ask picture.png 'What is it?'")
    videos = any(names_a_video(path) for path in paths)
    for name, value in (("--num-frames", num_frames), ("--fps", fps)):
        if value is not None and not videos:
            raise ValueError(f"{name} is for videos; give one, or leave {name} out.")
    from . import running

    options.quiet()
    abilities = read_checkpoint_abilities(model)
    given = abilities.check_answers(parse_settings(settings, abilities), videos)
    for notice in abilities.notices(tasks=[VIDEO] if videos else []):
        typer.echo(f"Note: {notice}", err=True)
    checkpoint = running.load_checkpoint(model, device, dtype, check_weights)
    sampling = running.Sampling.choose(temperature, seed) if sample else None
    said = running.answer(
        checkpoint,
        paths,
        question,
        max_new_tokens,
        sampling,
        show=not as_json,
        settings=given,
        num_frames=num_frames,
        fps=fps,
    )
    used = None if sampling is None else sampling.seed
    if as_json:
        record = {"images": paths, "question": question, "answer": said, "seed": used}
        typer.echo(json.dumps(record, ensure_ascii=False))
    elif used is not None:
        typer.echo(f"(seed {used})", err=True)
