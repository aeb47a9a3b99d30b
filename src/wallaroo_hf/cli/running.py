"""What the commands do, once torch may be imported."""

import json
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TextStreamer

from .. import _registration  # noqa: F401  the command line postpones it
from ..families.abilities import COMPOSITION, GENERATION, Abilities
from ..families.registry import Checkpoint
from ..families.registry import load as load_checkpoint  # noqa: F401  for the commands
from ..families.settings import Notice
from ..files.saved_pictures import save_png, slug
from ..pipelines import DrawingPipeline
from .given import frames_in, is_folder, is_picture_file, names_a_video
from .setting_options import parse_settings, read_checkpoint_abilities

_ASKED = ("num_frames", "fps")  # options of `wallaroo ask` about videos
_FOLDER_RATE = 2.0  # frames a second in a folder of them, as Qwen2.5-VL's own code takes lists of frames


@dataclass(frozen=True)
class DrawingOptions:
    """What `wallaroo generate` and `edit` were asked for, beside prompts and pictures; None = the checkpoint's default.

    Attributes:
        height, width, aspect_ratio, negative_prompt: see [`wallaroo_hf.pipelines.DrawingPipeline`].
        area: of an edit, `mask_image` or `outpaint` of the pipeline, if one was given.
        settings: of the checkpoint's family, checked; see [`wallaroo_hf.cli.setting_options.parse_settings`].
        all_settings: the names of all that could have been given, which records of runs list.
        told_as_text: those of them that records keep as the text that was given, such as a window.
    """

    height: int | None = None
    width: int | None = None
    aspect_ratio: str | None = None
    negative_prompt: str | None = None
    area: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    all_settings: tuple[str, ...] = ()
    told_as_text: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """All of it by name, None where nothing was given."""
        told = {name: str(value) if name in self.told_as_text else value for name, value in self.settings.items()}
        return self.size_and_words() | dict(self.area) | dict.fromkeys(self.all_settings) | told

    def size_and_words(self) -> dict[str, Any]:
        """What a line of a file of prompts may say otherwise."""
        return {name: getattr(self, name) for name in ("negative_prompt", "height", "width", "aspect_ratio")}

    def pipeline_arguments(self) -> dict[str, Any]:
        """The same for the pipeline; a prompt template that is a number is an index."""
        settings = dict(self.settings)
        template = settings.get("prompt_template")
        if isinstance(template, str) and template.isdigit():
            settings["prompt_template"] = int(template)
        return self.size_and_words() | dict(self.area) | settings


def read_options(
    model: str, given: Mapping[str, Any], num_sources: int = 0, prompts: Sequence[str] = (), **size_and_words: Any
) -> DrawingOptions:
    """Options as a checkpoint takes them, looked at before it is loaded; what people should know of them is said.

    Args:
        model: folder or Hub id.
        given: settings by name.
        num_sources: how many pictures are to be edited together; 0 = it is drawn from words alone.
        prompts: to look for words that it does not know.
        size_and_words: see [`DrawingOptions`].

    Raises:
        ValueError: for what this checkpoint cannot do, or a setting that it lacks.
    """
    abilities = read_checkpoint_abilities(model)
    if num_sources:
        abilities.check_sources(num_sources)
    else:
        abilities.check_task(GENERATION)
    settings = parse_settings(given, abilities)
    if size_and_words.get("area"):
        abilities.check_inpainting(settings)
    tasks = [COMPOSITION] if num_sources > 1 else []
    notices = [notice for prompt in prompts for notice in abilities.notices(settings, prompt, tasks)]
    for notice in dict.fromkeys(notices):
        typer.echo(f"Note: {notice}", err=True)
    offered = [setting for setting in abilities.settings if setting.is_offered]
    return DrawingOptions(
        settings=settings,
        all_settings=tuple(setting.name for setting in offered),
        told_as_text=tuple(setting.name for setting in offered if setting.is_number and setting.choices),
        **size_and_words,
    )


def images_at_once(options: DrawingOptions, batch_size: int) -> int:
    """How many images are drawn together.

    With the padding of the published evaluation attended, an image would depend on the length of the other prompts of its
    batch; so one at a time, as the authors draw.
    """
    return 1 if options.settings.get("published_eval") else batch_size


@dataclass(frozen=True)
class Drawn:
    """One image that was saved."""

    path: Path
    prompt: str
    seed: int
    width: int
    height: int
    complete: bool = True

    def report(self, as_json: bool) -> str:
        """A line about it, for people or for scripts."""
        if as_json:
            return json.dumps({**asdict(self), "path": str(self.path)}, ensure_ascii=False)
        return f"{self.path} (seed {self.seed})"


def draw_images(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    sources: Sequence[Image.Image],
    options: DrawingOptions,
    num_images: int,
    seed: int | None,
    batch_size: int,
    output: Path,
) -> Iterator[Drawn]:
    """Draws `num_images` per prompt and saves each as soon as it is there; image k gets seed `seed + k`.

    Args:
        sources: what is edited, see the pipeline; none = it is drawn from words alone.
        output: a .png file for one image, or a folder; see [`require_picture_output`].

    Yields:
        Each image that was saved.

    Raises:
        ValueError: see the processor and `generate`.
    """
    total, batch_size = len(prompts) * num_images, images_at_once(options, batch_size)
    first_seed = secrets.randbelow(2**31) if seed is None else seed
    jobs = [(prompt, first_seed + index) for index, prompt in enumerate(p for p in prompts for _ in range(num_images))]
    for start in range(0, total, batch_size):
        batch = jobs[start : start + batch_size]
        with warnings.catch_warnings(), progress_bar() as progress:
            warnings.simplefilter("ignore", Notice)  # they were given before
            images, complete = _draw_batch(checkpoint, batch, sources, options, progress)
        for (prompt, image_seed), image in zip(batch, images, strict=True):
            path = output if is_picture_file(output) else output / f"{slug(prompt)}-{image_seed}.png"
            metadata = {"model": checkpoint.name, **options.record()}
            if not complete:
                path = path.with_stem(f"{path.stem}-partial")
            if image is not None:
                saved = save_png(image, path, prompt, image_seed, metadata)
                yield Drawn(saved, prompt, image_seed, image.width, image.height, complete)
        if not complete:
            raise KeyboardInterrupt


def progress_bar(disable: bool = False) -> Progress:
    """A bar on standard error, so that standard output holds results only; none where nobody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, console=console, disable=disable or not console.is_terminal)


def _draw_batch(
    checkpoint: Checkpoint,
    batch: Sequence[tuple[str, int]],
    sources: Sequence[Image.Image],
    options: DrawingOptions,
    progress: Progress,
) -> tuple[Sequence[Image.Image | None], bool]:
    """Images of a batch, and whether they are complete; Ctrl-C leaves the rows that were drawn."""
    pipe = DrawingPipeline(model=checkpoint.model, processor=checkpoint.processor, device=checkpoint.model.device)
    tasks = [progress.add_task(f"seed {seed}", total=None) for _, seed in batch]
    previews: dict[int, Callable[[], Image.Image | None]] = {}

    def report(pipe: DrawingPipeline, step: int, num_steps: int, details: dict[str, Any]) -> None:
        previews[details["image"]] = details["preview"]
        progress.update(tasks[details["image"]], completed=step + 1, total=num_steps)

    try:
        output = pipe(
            [prompt for prompt, _ in batch],
            image=[list(sources) or None] * len(batch),
            generator=[torch.Generator().manual_seed(seed) for _, seed in batch],
            callback_on_step_end=report,
            **options.pipeline_arguments(),
        )
    except KeyboardInterrupt:
        return [previews[image]() if image in previews else None for image in range(len(batch))], False
    return list(output.images), True


@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled; 0 as temperature takes the likeliest words."""

    temperature: float
    seed: int

    @classmethod
    def choose(cls, temperature: float | None, seed: int | None) -> "Sampling":
        """As given; by default at temperature 1, with a random seed."""
        return cls(1.0 if temperature is None else temperature, secrets.randbelow(2**31) if seed is None else seed)

    def generate_arguments(self) -> dict[str, Any]:
        """The same for `generate`, in place of what the checkpoint says: that of Qwen2.5-VL is as good as greedy."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}


def _video_arguments(
    abilities: Abilities, videos: Sequence[str | list[str]], num_frames: int | None, fps: float | None
) -> dict[str, Any]:
    """Videos as a processor takes them: files, and lists of frames whose rate is said where the processor asks for it.

    Args:
        abilities: of the checkpoint.
        videos: files and lists of frames.
        num_frames, fps: see [`answer`].

    Raises:
        ValueError: for what its family cannot be told.
    """
    wished: dict[str, Any] = {"num_frames": num_frames, "fps": fps}
    given = {name: value for name, value in wished.items() if value is not None}
    asked = {name: f"--{name.replace('_', '-')}" for name in _ASKED}
    for name in given:
        if name not in abilities.video_options:
            others = " or ".join(option for one, option in asked.items() if one in abilities.video_options)
            raise ValueError(f"A {abilities.family} checkpoint takes no {asked[name]}; say {others}, or leave it out.")
    if videos and "video_metadata" in abilities.video_options:
        rate = fps or _FOLDER_RATE
        given["video_metadata"] = [{} if isinstance(one, str) else {"fps": rate} for one in videos]
    return given | ({"videos": list(videos)} if videos else {})


def answer(
    checkpoint: Checkpoint,
    images: Sequence[str],
    question: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    show: bool = True,
    settings: Mapping[str, Any] | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
) -> str:
    """Answers a question about images and videos, printing as it goes (unless not to `show`).

    Args:
        checkpoint: who answers.
        images: paths or URLs; a video is a file of one, or a folder of frames.
        question: about them.
        max_new_tokens: of the longest answer.
        sampling: None takes the likeliest words. torch's random numbers go on afterwards as if nothing had been sampled.
        show: whether to print.
        settings: of the checkpoint's family, checked; see [`wallaroo_hf.families.abilities.Abilities.check_answers`].
        num_frames: how many of each video are seen; default: the processor's.
        fps: in its place, how many are seen a second; of a folder of frames, how many there are.

    Returns:
        The whole answer.
    """
    pictures = [path for path in images if not names_a_video(path)]
    videos = [frames_in(path) if is_folder(path) else path for path in images if names_a_video(path)]
    content = [{"type": "video" if names_a_video(path) else "image"} for path in images]
    content.append({"type": "text", "text": question})
    abilities, given = checkpoint.abilities, dict(settings or {})
    shown = _video_arguments(checkpoint.abilities, videos, num_frames, fps)
    text = checkpoint.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = checkpoint.processor(
        text=[text], images=pictures or None, return_tensors="pt", **shown, **abilities.for_stage(given, "prepare")
    )
    model = checkpoint.model
    streamer = TextStreamer(checkpoint.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    devices = range(torch.accelerator.device_count())  # all, as seeding does
    with torch.random.fork_rng(devices, enabled=sampling is not None):
        if sampling is not None:
            torch.manual_seed(sampling.seed)
        tokens = model.generate(
            **inputs.to(model.device, dtype=model.dtype),
            **({"do_sample": False} if sampling is None else sampling.generate_arguments()),
            **abilities.for_stage(given, "draw"),
            generation_mode="text",
            max_new_tokens=max_new_tokens,
            streamer=streamer if show else None,
        )
    return checkpoint.processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]
