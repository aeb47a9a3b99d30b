"""What a model makes of items: pictures rebuilt, drawn and edited, and answers, a batch at a time."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from ..generation.logits_processors import check_guidance_min_p
from ..generation.mixin import DEFAULT_GUIDANCE_SCALE
from ..processing.processor import WallarooProcessor
from ..scenes import Scene, render
from .answers import answer
from .items import Item, Output


@dataclass(frozen=True)
class Sampling:
    """How image codes are sampled.

    Attributes:
        guidance_scale: classifier-free guidance; off at 1 and below.
        temperature: above 0; None leaves logits as they are.
        top_k: only the likeliest codes; 0 or None takes all.
        do_sample: False takes the likeliest code always.
        guidance_min_p: only guide to codes whose conditional probability is at least this share of the largest; 0: to all.
    """

    guidance_scale: float
    temperature: float | None
    top_k: int | None
    do_sample: bool
    guidance_min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"The temperature must be above 0, but is {self.temperature}; --top-k 1 is greedy.")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"Top-k must be 0 (all codes) or more, but is {self.top_k}.")
        check_guidance_min_p(self.guidance_min_p)

    def arguments(self) -> dict[str, Any]:
        """The same for `generate`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_sampling(
    model: Any,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    guidance_min_p: float | None = None,
) -> Sampling:
    """The settings given, else those of the checkpoint's generation config, so that a record says what was used.

    Raises:
        ValueError: for a temperature, top-k or share out of range.
    """
    own = model.generation_config

    def choose(given: Any, entry: str, default: Any = None) -> Any:
        value = given if given is not None else getattr(own, entry, None)
        return default if value is None else value

    return Sampling(
        guidance_scale=choose(guidance_scale, "image_guidance_scale", DEFAULT_GUIDANCE_SCALE),
        temperature=choose(temperature, "image_temperature"),
        top_k=choose(top_k, "image_top_k"),
        do_sample=choose(None, "do_sample", True),
        guidance_min_p=choose(guidance_min_p, "image_guidance_min_p", 0.0),
    )


@dataclass(frozen=True)
class Subject:
    """Who is examined, and how it samples and answers.

    Attributes:
        model: a `WallarooForConditionalGeneration` in evaluation mode.
        processor: its processor.
        sampling: for drawing and editing; answers are greedy.
        max_new_tokens: longest answer.
    """

    model: Any
    processor: WallarooProcessor
    sampling: Sampling
    max_new_tokens: int


@contextlib.contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Switches dropout and the like off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def make_outputs(subject: Subject, items: Sequence[Item]) -> Sequence[Output]:
    """What the subject makes of items of one task: an RGB picture of the item's size, an answer, or a chat's answer in
    pieces, for each."""
    makers: dict[str, Callable[[Subject, Sequence[Item]], Sequence[Output]]]
    makers = {"reconstruction": _reconstruct, "understanding": _answer, "chat": _reply}
    make = makers.get(items[0].task, _draw)
    return make(subject, items)


def _pictures(items: Sequence[Item]) -> list[Image.Image]:
    """What is shown with each item."""
    return [render(item.scene) for item in items if item.scene is not None]


@torch.no_grad()
def _reconstruct(subject: Subject, items: Sequence[Item]) -> list[Image.Image]:
    vq_model, processor = subject.model.model.vq_model, subject.processor
    decoded = []
    for item, picture in zip(items, _pictures(items), strict=True):  # sizes may differ
        pixels = torch.from_numpy(processor.image_processor.to_vq_pixels(picture, item.height, item.width))
        decoded.append(vq_model.decode(vq_model.encode(pixels[None]).image_tokens))
    return processor.post_process_multimodal_output(decoded, generation_mode="image")


def _draw(subject: Subject, items: Sequence[Item]) -> list[Image.Image]:
    """Drawings, and edits of what is shown."""
    model, processor = subject.model, subject.processor
    inputs = processor(
        text=_words(items),
        images=_pictures(items) or None,
        generation_mode="image",
        height=[item.height for item in items],
        width=[item.width for item in items],
        return_tensors="pt",
    ).to(model.device, dtype=model.dtype)
    tokens = model.generate(
        **inputs,
        generation_mode="image",
        generator=[torch.Generator().manual_seed(item.seed) for item in items],
        **subject.sampling.arguments(),
    )
    pixels = model.decode_image_tokens(tokens, inputs["target_grid_hw"])
    return processor.post_process_multimodal_output(pixels, generation_mode="image")


def _answer(subject: Subject, items: Sequence[Item]) -> list[str]:
    questions = list(zip(_pictures(items), _words(items), strict=True))
    return answer(subject.model, subject.processor, questions, do_sample=False, max_new_tokens=subject.max_new_tokens)


def _reply(subject: Subject, items: Sequence[Item]) -> list[Output]:
    """Answers in auto mode, in pieces; text is greedy."""
    model, processor, sampling = subject.model, subject.processor, subject.sampling
    chats = [item.chat for item in items if item.chat is not None]
    inputs = processor(
        text=[processor.apply_chat_template(chat["messages"][:-1], add_generation_prompt=True) for chat in chats],
        images=[render(Scene.from_dict(scene)) for chat in chats for scene in chat["shown"]] or None,
        generation_mode="auto",
        height=[item.height for item in items],
        width=[item.width for item in items],
        return_tensors="pt",
    ).to(model.device, dtype=model.dtype)
    settings = copy.deepcopy(model.generation_config)
    settings.image_temperature, settings.image_top_k = sampling.temperature, sampling.top_k
    tokens = model.generate(
        **inputs,
        generation_config=settings,
        generation_mode="auto",
        guidance_scale=sampling.guidance_scale,
        do_sample=sampling.do_sample,
        top_k=1,  # of the text
        max_new_tokens=subject.max_new_tokens,
        generator=[torch.Generator().manual_seed(item.seed) for item in items],
    )
    return [_pieces(subject, row[inputs["input_ids"].shape[1] :]) for row in tokens]


@torch.no_grad()
def _pieces(subject: Subject, tokens: torch.Tensor) -> Output:
    pieces: list[str | Image.Image] = []
    for piece in subject.processor.split_output(tokens):
        if isinstance(piece, str):
            pieces.append(piece)
            continue
        codes = torch.from_numpy(piece)[None].to(subject.model.device)
        decoded = subject.model.vq_model.decode(codes)
        pieces += subject.processor.post_process_multimodal_output(decoded, generation_mode="image")
    return pieces


def _words(items: Sequence[Item]) -> list[str]:
    return [item.prompt.prompt for item in items if item.prompt is not None]
