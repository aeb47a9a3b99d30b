"""The `wallaroo` command. torch is imported by the commands that need it, so that `--help` answers at once."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files.whole import full_disk_said
from . import evaluate
from .app import serve_page
from .benchmark_commands import COMMANDS as BENCHMARK_COMMANDS
from .chat import chat
from .encode import encode
from .export import export
from .given import names_a_picture, require_picture_output, require_prompt, require_words
from .info import info
from .merge import merge
from .options import BUILT_IN, AsJson, CheckWeights, Device, Guidance, GuidanceMinP, Model, quiet
from .serve import serve
from .train import COMMANDS as TRAIN_COMMANDS
from .train import train, train_app

app = typer.Typer(
    name="wallaroo",
    help="Wallaroo: one autoregressive model that understands, draws and edits images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Dtype = Annotated[str, typer.Option(help="Precision of the weights: auto, bfloat16, float16 or float32.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to, or a .png file for a single image.")]
Height = Annotated[int | None, typer.Option(help="Height in pixels, a multiple of 16.")]
Width = Annotated[int | None, typer.Option(help="Width in pixels, a multiple of 16.")]
AspectRatio = Annotated[str | None, typer.Option(help="Width to height, e.g. 16:9; picks a listed size.")]
NumImages = Annotated[int, typer.Option("-n", "--num-images", min=1, help="Images per prompt.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**62, help="Image k gets seed + k. Default: a random one, which is printed."),
]
Negative = Annotated[str | None, typer.Option(help="What to steer away from.")]
Temperature = Annotated[
    float | None, typer.Option(help="Sampling temperature; 0 takes the likeliest codes. Default: the checkpoint's.")
]
TopK = Annotated[int | None, typer.Option(help="Sample from the k likeliest codes. Default: the checkpoint's.")]
TopP = Annotated[float | None, typer.Option(help="Sample from the likeliest codes that make up this probability.")]
Template = Annotated[str, typer.Option("--prompt-template", help="Index of a template, or text with {prompt} in it.")]
PublishedEval = Annotated[
    bool, typer.Option("--published-eval", help="Token layout and padding of the released evaluation scripts.")
]
Window = Annotated[
    str | None,
    typer.Option(help="Codes a forward may decide: a number, or auto; the same image in fewer forwards. Default: 1."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images drawn at once.")]


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


def _draw(arguments: dict[str, Any], prompts: list[str], image: str | None) -> None:
    """Draws what `generate` or `edit` was asked for; their options, in `arguments`, are the same."""
    require_picture_output(arguments["output"], len(prompts) * arguments["num_images"])
    from ..processing.image_processor import open_image
    from . import running

    quiet()
    source = None if image is None else open_image(image)
    options = running.DrawingOptions.__dataclass_fields__
    settings = {name: value for name, value in arguments.items() if name in options}
    checkpoint = running.load_checkpoint(*(arguments[name] for name in ("model", "device", "dtype", "check_weights")))
    job = {name: arguments[name] for name in ("num_images", "seed", "batch_size", "output")}
    for drawn in running.draw_images(checkpoint, prompts, source, running.DrawingOptions(**settings), **job):
        typer.echo(drawn.report(arguments["as_json"]))


def _draw_file(arguments: dict[str, Any]) -> None:
    """Draws what `generate --prompts` was asked for."""
    from . import drawing_prompts, running

    quiet()
    options = running.DrawingOptions.__dataclass_fields__
    settings = running.DrawingOptions(**{name: value for name, value in arguments.items() if name in options})
    checkpoint = ("model", "device", "dtype", "check_weights")
    job = {name: arguments[name] for name in (*checkpoint, "num_images", "batch_size", "output")}
    seed = arguments["seed"] or 0
    for drawn in drawing_prompts.draw_prompts(arguments["prompts_file"], options=settings, seed=seed, **job):
        typer.echo(drawn.report(arguments["as_json"]))


@app.command()
@_one_sentence_errors
def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.", show_default=False)
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Draw every line of a file; with .jsonl each is an object with a prompt and, if need be, name, seed, "
            "negative_prompt, height, width, aspect_ratio. The same command again goes on where it stopped; torchrun and "
            "accelerate launch share the work. --seed is 0 here unless given.",
        ),
    ] = None,
    model: Model = BUILT_IN,
    output: Output = Path("."),
    num_images: NumImages = 1,
    seed: Seed = None,
    height: Height = None,
    width: Width = None,
    aspect_ratio: AspectRatio = None,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    negative_prompt: Negative = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    prompt_template: Template = "0",
    published_eval: PublishedEval = False,
    window: Window = None,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
    as_json: AsJson = False,
) -> None:
    """Draw images from prompts, in English or Chinese."""
    if bool(prompts) == (prompts_file is not None):
        raise ValueError("Give either prompts or --prompts with a file of them.")
    if prompts_file is not None:
        _draw_file(locals())
    else:
        for prompt in prompts or ():
            require_prompt(prompt)
        _draw(locals(), prompts or [], image=None)


@app.command()
@_one_sentence_errors
def edit(
    image: Annotated[str, typer.Argument(help="The image to edit: a path or URL.", show_default=False)],
    instruction: Annotated[str, typer.Argument(help="What to change.", show_default=False)],
    model: Model = BUILT_IN,
    output: Output = Path("."),
    num_images: NumImages = 1,
    seed: Seed = None,
    height: Height = None,
    width: Width = None,
    aspect_ratio: AspectRatio = None,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    negative_prompt: Negative = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    prompt_template: Template = "0",
    published_eval: PublishedEval = False,
    source_guidance_scale: Annotated[
        float | None,
        typer.Option(help="Second scale, for keeping to the source; untrained by the released recipe."),
    ] = None,
    source_fit: Annotated[
        str | None,
        typer.Option(
            help="pad keeps the whole image and its size; crop cuts it to a listed size, as in training. Default: pad, or "
            "crop with --published-eval."
        ),
    ] = None,
    window: Window = None,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
    as_json: AsJson = False,
) -> None:
    """Edit an image by an instruction. The result has the image's size, unless another one is asked for."""
    example = "wallaroo edit picture.png 'make it blue'"
    if names_a_picture(instruction) and not names_a_picture(image):
        raise ValueError(f"The picture comes first, then what to change, such as {example}")
    require_words(instruction, "what to change", example)
    _draw(locals(), [instruction], image)


@app.command()
@_one_sentence_errors
def ask(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE... QUESTION", help="Images, then the question.", show_default=False)
    ],
    model: Model = BUILT_IN,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample the answer instead of taking the likeliest.")
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="With --sample: its temperature. Default: 1, whatever the checkpoint's is."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**62, help="With --sample: repeats an answer. Default: a random one, which is printed."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    check_weights: CheckWeights = True,
    as_json: AsJson = False,
) -> None:
    """Ask a question about images."""
    for name, value in (("--temperature", temperature), ("--seed", seed)):
        if value is not None and not sample:
            raise ValueError(f"{name} is for --sample; add it, or leave {name} out.")
    *paths, question = images
    require_words(question, "the question", "wallaroo ask picture.png 'What is it?'")
    from . import running

    quiet()
    checkpoint = running.load_checkpoint(model, device, dtype, check_weights)
    sampling = running.Sampling.choose(temperature, seed) if sample else None
    said = running.answer(checkpoint, paths, question, max_new_tokens, sampling, show=not as_json)
    used = None if sampling is None else sampling.seed
    if as_json:
        record = {"images": paths, "question": question, "answer": said, "seed": used}
        typer.echo(json.dumps(record, ensure_ascii=False))
    elif used is not None:
        typer.echo(f"(seed {used})", err=True)


@app.command()
@_one_sentence_errors
def convert(
    vq: Annotated[str, typer.Option(help="LlamaGen's tokenizer, vq_ds16_t2i.pt: path or Hub id.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must be new.", show_default=False)],
    checkpoint: Annotated[
        str | None, typer.Option(help="The authors' .ckpt file: path or Hub id (org/name/file).")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The Qwen2.5-VL it was trained from: folder or Hub id (no weights needed).")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16 (default), float16 or float32; the image tokenizer stays float32.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Training stage 1, 2, 3a, 3b or 4. Default: 4 with editing parts, else 2.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Largest weight file. Default: 5GB.", show_default=False)
    ] = None,
    vq_only: Annotated[bool, typer.Option("--vq-only", help="Convert the image tokenizer alone.")] = False,
) -> None:
    """Convert a released checkpoint into a transformers folder."""
    others = {"--checkpoint": checkpoint, "--base": base, "--dtype": dtype, "--stage": stage}
    given = [name for name, value in {**others, "--max-shard-size": max_shard_size}.items() if value]
    if vq_only and given:
        raise ValueError(f"--vq-only converts the image tokenizer alone; leave out {', '.join(given)}.")
    if not vq_only and not (checkpoint and base):
        raise ValueError("Give --checkpoint and --base as well, or --vq-only to convert the image tokenizer alone.")
    from rich.progress import Progress

    from .. import _registration  # noqa: F401
    from ..conversion import convert_checkpoint, convert_vq

    quiet()
    if checkpoint is None or base is None:
        typer.echo(f"Converted to {convert_vq(vq, output)}")
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("Writing weights", total=None)
        folder = convert_checkpoint(
            checkpoint,
            vq,
            base,
            output,
            dtype or "bfloat16",
            stage,
            max_shard_size or "5GB",
            progress=lambda written, total: bar.update(task, completed=written, total=total),
        )
    typer.echo(f"Converted to {folder}")


app.add_typer(train_app)
train_app.callback()(_one_sentence_errors(train))
for _name, _command in TRAIN_COMMANDS.items():
    train_app.command(_name)(_one_sentence_errors(_command))
app.command()(_one_sentence_errors(encode))
app.command()(_one_sentence_errors(merge))
app.command()(_one_sentence_errors(serve))
app.command()(_one_sentence_errors(export))
app.command()(_one_sentence_errors(info))
app.command()(_one_sentence_errors(chat))
app.command("app")(_one_sentence_errors(serve_page))

evaluate_app = typer.Typer(help="Score a checkpoint.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")
evaluate_app.command(epilog=evaluate.PROMPT_HELP)(_one_sentence_errors(evaluate.scenes))
evaluate_app.command()(_one_sentence_errors(evaluate.sweep))
evaluate_app.command()(_one_sentence_errors(evaluate.ablation))
for _name, _command in BENCHMARK_COMMANDS.items():
    evaluate_app.command(_name)(_one_sentence_errors(_command))


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
