"""The model that lmms-eval asks and has draw. Imported by lmms-eval alone; needs it installed."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from PIL import Image

from ..families.abilities import Abilities
from ..families.benchmark_recipe import Recipe
from ..families.registry import abilities_of, find_family, load, read_abilities
from ..files.built_in import FOLDER
from ..files.checkpoint_files import find_checkpoint
from ..files.whole import new_file
from ..pictures.opening import open_image
from ..pictures.video_files import VIDEO_SUFFIXES
from .answers import Piece, Video, answer
from .drawing_runs import draw_pictures
from .recipes import check_recipe, find_recipe, recipes_of

MODES = ("understanding", "drawing")
IMAGE_MARK = "<image>"  # where a task's words have their pictures
_ANSWERING = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams")
_SAMPLING = ("temperature", "top_p", "top_k")
_DEFAULT_STOP = "\n\n"  # lmms-eval's own where a task names none; answers have paragraphs

logger = logging.getLogger(__name__)


class WallarooLmmsEval(lmms):
    """A checkpoint of any family for lmms-eval: answers, or with `mode=drawing` the JSON text that its image tasks expect.

    Drawings are `{"text": "", "images": [path]}`; a task with a picture has it edited, one without has its words drawn.

    Args:
        pretrained: folder of a converted checkpoint of any family, or a Hub id; default: the built-in one.
        mode: "understanding" or "drawing".
        device: where to compute; default: an accelerator if there is one. Several processes take one each.
        dtype: of the weights: auto, bfloat16, float16 or float32.
        batch_size: requests at once.
        max_new_tokens: longest answer where a task does not say.
        output_dir: folder of drawings.
        resolution: edge of drawings; default: the checkpoint's most square size. Edits follow their source.
        seed: of drawings; document k gets `seed + k`.
        guidance_scale, top_k, top_p, temperature, template, published_eval, source_fit, guidance_min_p: of drawings, not
            those of the family's recipe for ImgEdit; see [`Recipe`]. The sampling settings of tasks are about text and not
            used for them. Answers have those that say something of them too, such as Show-o2's `published_eval`.
        check_weights: whether to look for weights that are not finite.
        num_frames, fps, max_frames: how videos are seen, of families that take it; see
            [`wallaroo_hf.families.abilities.Abilities.video_options`].

    Raises:
        ValueError: for another mode or settings that cannot be, and for a checkpoint that is damaged.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = str(FOLDER),
        mode: str = "understanding",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        max_new_tokens: int = 512,
        output_dir: str = "wallaroo_lmms_eval_images",
        resolution: int | None = None,
        seed: int = 0,
        guidance_scale: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        template: int | str | None = None,
        published_eval: bool | None = None,
        source_fit: str | None = None,
        guidance_min_p: float | None = None,
        check_weights: bool = True,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"The mode is {mode!r}, but must be one of {', '.join(MODES)}.")
        changes = {
            "guidance_scale": guidance_scale,
            "guidance_min_p": guidance_min_p,
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "template": template,
            "published_eval": published_eval,
            "source_fit": source_fit,
        }
        self.recipe = _read_recipe(pretrained, mode, changes)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        alone = self._world_size == 1 and device is not None
        self.device = torch.device(device) if alone and device is not None else self.accelerator.device
        checkpoint = load(pretrained, str(self.device), dtype, check_weights)
        self.model, self.processor = checkpoint.model, checkpoint.processor
        self.mode, self.batch_size, self.max_new_tokens = mode, int(batch_size), max_new_tokens
        self.output_dir, self.resolution, self.seed = Path(output_dir), resolution, seed
        self.video_options = self._check_videos({"num_frames": num_frames, "fps": fps, "max_frames": max_frames})
        self._told: set[str] = set()

    def _check_videos(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was said of videos, without what is None.

        Raises:
            ValueError: for what the checkpoint's family does not take.
        """
        abilities = abilities_of(self.model, self.processor)
        options = {name: value for name, value in given.items() if value is not None}
        unknown = [name for name in options if name not in abilities.video_options]
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` says nothing to a {abilities.family} checkpoint, whose videos take "
                f"{', '.join(abilities.video_options) or 'nothing'}; leave it out."
            )
        return options

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers requests, or draws what they ask for; one text per request, in their order."""
        work = self._draw if self.mode == "drawing" else self._answer
        results: dict[int, str] = {}
        for chunk in self._chunks(requests):
            for index, result in zip(chunk, work([requests[index].args for index in chunk]), strict=True):
                results[index] = result
                context, settings = requests[index].args[:2]
                self.cache_hook.add_partial("generate_until", (context, settings), result)
        return [results[index] for index in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Asked for by lmms-eval's interface, but no task can be done so: Wallaroo answers by generating.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("Wallaroo answers by generating; choose a task of type generate_until.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Asked for by lmms-eval's interface, but tasks of several rounds are not supported.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("Tasks of several rounds are not supported; choose one of type generate_until.")

    def _chunks(self, requests: Sequence[Any]) -> Iterable[list[int]]:
        """Indices of requests that can be done as one batch."""
        abilities = abilities_of(self.model, self.processor)

        def kind(index: int) -> str:
            context, settings, _, doc_id, task, _ = requests[index].args
            if self.mode == "understanding":
                return json.dumps(settings, sort_keys=True, default=str)
            edits = bool(self._shown(requests[index].args))
            # its padding is attended to, so there must be none
            alone = index if self.recipe.settings.get("published_eval") else ""
            return f"{edits} {self._template(abilities, context, task, doc_id, edits)} {alone}"

        kinds = [kind(index) for index in range(len(requests))]
        for _, group in itertools.groupby(sorted(range(len(requests)), key=kinds.__getitem__), key=kinds.__getitem__):
            indices = list(group)
            for start in range(0, len(indices), self.batch_size):
                yield indices[start : start + self.batch_size]

    def _shown(self, request: Sequence[Any]) -> list[Any]:
        """The pictures of a request, as its task gives them."""
        _, _, doc_to_visual, doc_id, task, split = request
        return list(doc_to_visual(self.task_dict[task][split][doc_id]) or [])

    def _visuals(self, request: Sequence[Any]) -> list[Image.Image]:
        return [open_image(visual) for visual in self._shown(request)]

    def _seen(self, request: Sequence[Any]) -> list[Image.Image | Video]:
        """The pictures and videos of a request; tasks give videos as the names of their files, or as their frames."""
        return [_video_or_picture(visual) for visual in self._shown(request)]

    def _answer(self, batch: Sequence[Sequence[Any]]) -> list[str]:
        settings = batch[0][1]
        questions = [_interleave(request[0], self._seen(request)) for request in batch]
        if any(isinstance(piece, Video) for question in questions for piece in question):
            abilities_of(self.model, self.processor).check_answers({}, videos=True)
        told = abilities_of(self.model, self.processor).for_answers(self.recipe.given())
        answers = answer(self.model, self.processor, questions, told, self.video_options, **self._answering(settings))
        stops = settings.get("until") or []
        stops = [stops] if isinstance(stops, str) else stops
        return [_cut(text, [stop for stop in stops if stop and stop != _DEFAULT_STOP]) for text in answers]

    def _answering(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A task's settings as arguments of `generate`; those that it does not know are told of, once."""
        unknown = {name for name in settings if name not in (*_ANSWERING, "until")} - self._told
        if unknown:
            logger.warning("Settings of the task that are not known here: %s.", ", ".join(sorted(unknown)))
            self._told |= unknown
        given = {name: settings[name] for name in _ANSWERING if settings.get(name) is not None}
        given.setdefault("max_new_tokens", self.max_new_tokens)
        given["do_sample"] = (
            bool(given.get("do_sample", given.get("temperature", 0) > 0)) and given.get("temperature") != 0
        )
        return given if given["do_sample"] else {name: given[name] for name in given if name not in _SAMPLING}

    def _template(self, abilities: Abilities, context: str, task: str, doc_id: int, edits: bool) -> int | str:
        return self.recipe.choose_template(f"{task}_{doc_id}", self.seed, abilities.prompt_templates(context, edits))

    def _draw(self, batch: Sequence[Sequence[Any]]) -> list[str]:
        sources = [self._visuals(request) for request in batch]
        if any(len(visuals) > 1 for visuals in sources):
            raise ValueError(
                f"A task gives {max(map(len, sources))} pictures to draw from, but an edit has one; use mode=understanding."
            )
        prompts = [request[0].replace(IMAGE_MARK, "").strip() for request in batch]
        _, _, _, doc_id, task, _ = batch[0]
        images = draw_pictures(
            self.model,
            self.processor,
            prompts,
            [self.seed + request[3] for request in batch],
            self.recipe,
            self._template(abilities_of(self.model, self.processor), batch[0][0], task, doc_id, bool(sources[0])),
            sources=[visuals[0] for visuals in sources] if sources[0] else None,
            resolution=None if sources[0] or self.resolution is None else (self.resolution, self.resolution),
        )
        return [self._keep(image, request) for image, request in zip(images, batch, strict=True)]

    def _keep(self, image: Image.Image, request: Sequence[Any]) -> str:
        _, _, _, doc_id, task, _ = request
        path = (self.output_dir / f"{task}_{doc_id}.png").resolve()
        with new_file(path) as partial:
            image.save(partial)
        return json.dumps({"text": "", "images": [str(path)]}, ensure_ascii=False)


def _read_recipe(pretrained: str, mode: str, changes: Mapping[str, Any]) -> Recipe:
    """How a checkpoint draws, told from its JSON files alone; answers need no recipe, but what is said must be possible.

    Raises:
        ValueError: for settings that cannot be, or a family that has no recipe to draw with.
    """
    family = find_family(pretrained)
    if mode == "understanding" and "imgedit" not in recipes_of(family):
        recipe = Recipe("own", {})
    else:
        recipe = find_recipe(family, "imgedit", "paper")
    recipe = recipe.changed(**changes)
    abilities = read_abilities(find_checkpoint(pretrained, weights=False), pretrained)
    check_recipe(recipe, abilities, edits=abilities.edits or changes["source_fit"] is not None)
    return recipe


def _video_or_picture(visual: Any) -> Image.Image | Video:
    """What a task gives, as a question has it."""
    if isinstance(visual, (str, os.PathLike)) and Path(visual).suffix.lower().lstrip(".") in VIDEO_SUFFIXES:
        return Video(os.fspath(visual))
    is_frames = isinstance(visual, (list, tuple)) or getattr(visual, "ndim", 0) == 4
    return Video(visual) if is_frames else open_image(visual)


def _interleave(words: str, pictures: Sequence[Image.Image | Video]) -> list[Piece]:
    """A question's pieces: pictures where its words mark them, else before the words.

    Raises:
        ValueError: if marks and pictures do not match.
    """
    parts = words.split(IMAGE_MARK)
    if len(parts) == 1:
        return [*pictures, words.strip()]
    if len(parts) != len(pictures) + 1:
        raise ValueError(f"A question marks {len(parts) - 1} pictures, but has {len(pictures)}: {words[:200]!r}")
    pieces: list[Piece] = []
    for part, picture in itertools.zip_longest(parts, pictures):
        pieces += [piece for piece in (part.strip(), picture) if piece]
    return pieces


def _cut(text: str, stops: Sequence[str]) -> str:
    """An answer up to the first text that a task stops at."""
    for stop in stops:
        text = text.split(stop)[0]
    return text.strip()
