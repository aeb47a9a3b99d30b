"""`DrawingPipeline`: drawing and editing in one call, with the keywords that people know from diffusers."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from ..families.abilities import COMPOSITION, EDITING, Abilities
from ..families.contract import DrawnImages, Follow, Step
from ..families.registry import abilities_of
from ..families.settings import Notice, UnknownSettingError
from ..pictures.masks import with_masks
from ..pictures.opening import flatten_images
from .pipeline_model import RefusingMixin
from .saving import WholeCheckpointMixin
from .within_masks import within_mask

__all__ = ["DrawingPipeline", "DrawingPipelineOutput", "WallarooPipeline", "WallarooPipelineOutput"]

OUTPUT_TYPES = ("pil", "pt", "native", "tokens")
StepCallback = Callable[["DrawingPipeline", int, int, dict[str, Any]], Any]


@dataclass
class DrawingPipelineOutput:
    """What [`DrawingPipeline`] returns.

    Attributes:
        images: one per prompt and copy, copies of a prompt side by side: pictures (`output_type="pil"`), pixels
            `(3, H, W)` in [0, 1] (`"pt"`), or the family's own form (`"native"`; Wallaroo's are the ids of `generate` as
            one tensor, which `"tokens"` says too).
        complete: whether all were drawn to their end; otherwise `images` hold what is there of them, and an image of which
            nothing is there is None.
    """

    images: list[Any] | torch.Tensor
    complete: bool = True


class DrawingPipeline(RefusingMixin, WholeCheckpointMixin):
    r"""Draws pictures from prompts, or edits pictures. Importing the package registers it with transformers, so that
    `pipeline("text-to-image")` and `pipeline("image-editing")` make one, of the built-in checkpoint unless `model=` says
    otherwise. A checkpoint whose weights are damaged is refused then; `model_kwargs={"check_weights": False}` takes those
    that are not finite as they are.

    ```python
    pipe = pipeline("text-to-image", model=folder)  # or DrawingPipeline(model=model, processor=processor)
    image = pipe("a red fox in the snow", height=384, width=640).images[0]
    winter = pipe("make it winter", image=photo).images[0]  # of the photo's size
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    _is_stopped = False  # the drawing that is being followed

    @functools.cached_property
    def abilities(self) -> Abilities:
        """What the checkpoint can do, its settings among it."""
        return abilities_of(self.model, self.processor)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Any = None,
        *,
        mask_image: Any = None,
        outpaint: Any = None,
        **kwargs: Any,
    ) -> DrawingPipelineOutput:
        """Draws or edits.

        Args:
            prompt: what to draw or to change; one, or a list that is drawn as one batch.
            image: the picture to edit: one for all prompts, or one per prompt (None for a prompt without), or for a prompt
                a list of several, `[[reference, picture]]`: the last one is changed, and what stands before it is what the
                edit takes from. Pictures, paths or URLs.
            mask_image: inpainting: what of the picture is painted anew, a picture of its size: white is painted, black
                stays as it is to the bit, grey is a blend of both. One for all, or one per prompt (None = all of it). The
                result has the picture's size, whatever size it is painted at.
            outpaint: the picture grows by so many pixels, a number for all sides or a mapping of some of "left", "top",
                "right" and "bottom" to numbers, and what is new is painted; the picture itself stays as it is.
            negative_prompt: what to steer away from; one or one per prompt.
            height, width: in pixels, multiples of 16; one or one per prompt. Default: the square bucket; an edit comes back
                at its source's size.
            aspect_ratio: width to height (`"16:9"`); picks a listed size.
            num_images_per_prompt: copies of each prompt.
            generator: one `torch.Generator`, or one per image.
            callback_on_step_end: called as `callback(pipe, step, num_steps, kwargs)` after each row or step of each image;
                `kwargs` holds `image` (its index) and `preview` (a function that gives what is there as a picture; within
                a mask it is the whole picture, in which rows that are missing are the source's).
                Returning False, or `pipe.interrupt()`, stops: the output then has what is there and `complete=False`.
            output_type: `"pil"`, `"pt"`, `"native"` or `"tokens"`.
            kwargs: settings of the checkpoint's family (`pipe.abilities.settings` lists them). Wallaroo's are

                - guidance_scale: 1 switches guidance off; default: the checkpoint's.
                - source_guidance_scale: second scale for edits; untrained by the released recipe.
                - guidance_min_p: guide only to codes that have at least this share of the likeliest one's probability
                  without guidance (0: to all); default: the checkpoint's.
                - do_sample, temperature, top_k, top_p: sampling of codes; defaults of the checkpoint.
                - prompt_template: index or text with {prompt} in it.
                - source_fit: `"pad"` (default) keeps the whole source, `"crop"` cuts it to the listed size as in training.
                - published_eval: token layout, padding and cropping of the released evaluation scripts.
                - null_prompt_cache: a [`NullPromptCache`] of yours, which saves work from edit to edit.
                - window: how many codes of each image a forward may decide (a number, or `"auto"`): the same images in
                  fewer forwards, which is faster on a GPU at a few images; see docs/windows.md.

        Raises:
            ValueError: for what cannot be drawn, or a setting that cannot be.
            TypeError: for an unknown keyword.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        images = image if isinstance(image, (list, tuple)) else [image] * len(prompts)
        if len(images) != len(prompts):
            raise ValueError(
                f"{len(images)} images were given for {len(prompts)} prompts; give one for all or one each, or a list of "
                "several for each: image=[[first, second]]."
            )
        if self.task == EDITING and any(item is None for item in images):
            raise ValueError('The task "image-editing" needs the picture to edit; pass it as `image`.')
        shown = [flatten_images(item) for item in images]
        for row in shown:
            self.abilities.check_sources(len(row))
        sources, references = [row[-1] if row else None for row in shown], [row[:-1] for row in shown]
        masks: list[Any] = [None] * len(prompts)
        if mask_image is not None or outpaint is not None:
            self.abilities.check_inpainting(kwargs)
            sources, masks = with_masks(sources, mask_image, outpaint)
        inputs = {"prompt": prompts, "image": sources, "references": references, "mask": masks}
        return super().__call__(inputs, **kwargs)

    def interrupt(self) -> None:
        """Stops the drawing that is going on, after the current token or step; call it from `callback_on_step_end`.

        Without that callback a drawing is not followed, so there is nothing to stop.
        """
        self._is_stopped = True

    def _sanitize_parameters(
        self,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | Sequence[int] | None = None,
        width: int | Sequence[int] | None = None,
        aspect_ratio: str | float | None = None,
        num_images_per_prompt: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: str | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if output_type not in (None, *OUTPUT_TYPES):
            raise ValueError(f"`output_type` is {output_type!r}, but must be one of {OUTPUT_TYPES}.")
        if num_images_per_prompt is not None and num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` is {num_images_per_prompt}, but must be at least 1.")
        try:
            given = self.abilities.check_settings(settings)
        except UnknownSettingError as error:
            raise TypeError(str(error)) from error
        published = given.get("published_eval", False)
        fit = given.get("source_fit") or ("crop" if published else "pad")
        prepare = {
            "negative_prompt": negative_prompt,
            "height": height,
            "width": width,
            "aspect_ratio": aspect_ratio,
            **({"source_fit": fit} if self.abilities.edits else {}),
            **self._of_stage(given, "prepare"),
        }
        # an edit comes back at its source's size, unless another size (or the published one) was asked for
        fit_back = fit if height is None and aspect_ratio is None and not published else None
        forward = {
            "copies": 1 if num_images_per_prompt is None else num_images_per_prompt,
            "generator": generator,
            "settings": self._of_stage(given, "draw"),
            "callback_on_step_end": callback_on_step_end,
        }
        prepare = {name: value for name, value in prepare.items() if value is not None}
        finish = {"output_type": output_type or "pil", "fit_back": fit_back}
        return {"arguments": prepare, "given": given}, forward, finish

    def _of_stage(self, given: Mapping[str, Any], stage: str) -> dict[str, Any]:
        """The settings that the processor ("prepare") or the model ("draw") takes."""
        stages = {setting.name: setting.stage for setting in self.abilities.settings}
        return {name: value for name, value in given.items() if stages[name] in (stage, "both")}

    def preprocess(
        self, inputs: dict[str, Any], arguments: dict[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Prompts and pictures to tensors."""
        sources, masks = inputs["image"], inputs["mask"]
        batch = self.prepare_batch(inputs["prompt"], sources, masks, inputs["references"], arguments, given)
        return {"batch": batch.data, "sources": sources, "masks": masks}

    def prepare_batch(
        self,
        prompts: Sequence[str],
        sources: Sequence[Any],
        masks: Sequence[Any],
        references: Sequence[Sequence[Any]],
        arguments: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> BatchFeature:
        """Prompts and pictures as the processor's tensors.

        Args:
            prompts: what to draw or to change.
            sources: one picture to edit per prompt, or None.
            masks: what of each is painted anew; None = all.
            references: further pictures of each, which are shown before it.
            arguments: for the processor.
            given: settings that were given, for what should be said of them.
        """
        for prompt in prompts:
            # here, as the processor would take a prompt with tokens of a chat for a rendered one
            self.abilities.check_words(str(prompt))
        tasks = [COMPOSITION] if any(references) else []
        for notice in dict.fromkeys(
            notice for prompt in prompts for notice in self.abilities.notices(given, str(prompt), tasks)
        ):
            self._notify(notice)
        if any(mask is not None for mask in masks):
            arguments = {**arguments, "mask_images": masks}
        return self.processor(
            text=list(prompts),
            images=_images(sources, references),
            generation_mode="image",
            return_tensors="pt",
            **arguments,
        ).to(dtype=self.model.dtype)

    def _notify(self, notice: str) -> None:
        """Says what whoever called should know; doors that say it elsewhere override it."""
        warnings.warn(notice, Notice, stacklevel=7)  # where the pipeline was called

    def _forward(
        self,
        model_inputs: dict[str, Any],
        copies: int,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        settings: Mapping[str, Any],
        callback_on_step_end: StepCallback | None,
    ) -> dict[str, Any]:
        self._is_stopped = False
        sources, masks = ([one for one in model_inputs[name] for _ in range(copies)] for name in ("sources", "masks"))
        follow: Follow | None = None
        heights: list[int | None] = [None] * len(sources)
        if callback_on_step_end is not None:  # following a drawing costs a look per code
            follow = functools.partial(self._told, callback_on_step_end, sources, masks, heights)
        drawn: DrawnImages = self.model.draw(
            model_inputs["batch"], copies=copies, generators=generator, follow=follow, **settings
        )
        return {
            "pixels": drawn.pixels,
            "native": drawn.native,
            "sources": sources,
            "masks": masks,
            "heights": heights,
            "complete": drawn.complete,
        }

    def _told(
        self,
        callback: StepCallback,
        sources: Sequence[Image.Image | None],
        masks: Sequence[Image.Image | None],
        heights: list[int | None],
        step: Step,
    ) -> bool:
        image = step.image
        heights[image] = self._height(step)
        preview = functools.partial(self._preview, step, sources[image], masks[image], heights[image])
        details = {"image": image, "preview": preview}
        return callback(self, step.done - 1, step.total, details) is not False and not self._is_stopped

    def _height(self, step: Step) -> int | None:
        """Of the whole picture, in pixels, where previews are the first rows of it."""
        return step.total * self.abilities.size_multiple if self.abilities.progress_unit == "row" else None

    def _preview(
        self, step: Step, source: Image.Image | None, mask: Image.Image | None, height: int | None
    ) -> Image.Image | None:
        pixels = step.preview()
        if pixels is None:
            return None
        picture: Image.Image = self.processor.pictures([pixels])[0]
        if source is None or mask is None:
            return picture
        return within_mask(self.processor, picture, source, mask, height)

    def postprocess(
        self, model_outputs: dict[str, Any], output_type: str, fit_back: str | None
    ) -> DrawingPipelineOutput:
        """Pixels to pictures."""
        complete = model_outputs["complete"]
        if output_type in ("native", "tokens"):
            return DrawingPipelineOutput(images=model_outputs["native"], complete=complete)
        images: list[Any] = []
        names = ("pixels", "sources", "masks", "heights")
        for pixels, source, mask, height in zip(*(model_outputs[name] for name in names), strict=True):
            if mask is not None and pixels is not None:
                picture = within_mask(self.processor, self.processor.pictures([pixels])[0], source, mask, height)
                images.append(picture if output_type == "pil" else _as_pixels(picture))
                continue
            if pixels is not None and output_type == "pt":
                images.append((pixels / 2 + 0.5).clamp(0, 1))
                continue
            picture = None if pixels is None else self.processor.pictures([pixels])[0]
            if complete and fit_back is not None and isinstance(source, Image.Image):
                picture = self.processor.fit_back([picture], [source], fit_back)[0]
            images.append(picture)
        return DrawingPipelineOutput(images=images, complete=complete)


def _images(sources: Sequence[Any], references: Sequence[Sequence[Any]]) -> list[Any] | None:
    """What the processor takes: the picture of each prompt, or all of them where some are references."""
    if any(references):
        return [[*others, *(() if source is None else (source,))] for others, source in zip(references, sources)]
    return list(sources) if any(source is not None for source in sources) else None


def _as_pixels(picture: Image.Image) -> torch.Tensor:
    """`(3, H, W)` in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


# The names from before there were several families.
WallarooPipeline: TypeAlias = DrawingPipeline
WallarooPipelineOutput: TypeAlias = DrawingPipelineOutput
