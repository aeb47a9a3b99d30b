"""`WallarooPipeline`: drawing and editing in one call, with the keywords that people know from diffusers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..generation import ImageStreamer, NullPromptCache
from ..processing.image_processor import open_image
from ..processing.refused_words import refuse_special_tokens, refused_tokens
from .pipeline_model import RefusingMixin
from .saving import WholeCheckpointMixin

__all__ = ["WallarooPipeline", "WallarooPipelineOutput"]

OUTPUT_TYPES = ("pil", "pt", "tokens")
StepCallback = Callable[["WallarooPipeline", int, int, dict[str, Any]], Any]


@dataclass
class WallarooPipelineOutput:
    """What [`WallarooPipeline`] returns.

    Attributes:
        images: one per prompt and copy, copies of a prompt side by side: pictures (`output_type="pil"`), pixels
            `(3, H, W)` in [0, 1] (`"pt"`), or the ids of `generate` as one tensor (`"tokens"`).
        complete: whether all were drawn to their end; otherwise `images` hold the rows that were, and an image without a
            complete row is None.
    """

    images: list[Any] | torch.Tensor
    complete: bool = True


class WallarooPipeline(RefusingMixin, WholeCheckpointMixin):
    r"""Draws pictures from prompts, or edits pictures. Importing the package registers it with transformers, so that
    `pipeline("text-to-image")` and `pipeline("image-editing")` make one, of the built-in checkpoint unless `model=` says
    otherwise. A checkpoint whose weights are damaged is refused then; `model_kwargs={"check_weights": False}` takes those
    that are not finite as they are.

    ```python
    pipe = pipeline("text-to-image", model=folder)  # or WallarooPipeline(model=model, processor=processor)
    image = pipe("a red fox in the snow", height=384, width=640).images[0]
    winter = pipe("make it winter", image=photo).images[0]  # of the photo's size
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    _streamer: ImageStreamer | None = None  # of the drawing that is being followed

    def __call__(self, prompt: str | Sequence[str], image: Any = None, **kwargs: Any) -> WallarooPipelineOutput:
        """Draws or edits.

        Args:
            prompt: what to draw or to change; one, or a list that is drawn as one batch.
            image: the picture to edit: one for all prompts, or one per prompt (None for a prompt without). Pictures,
                paths or URLs.
            negative_prompt: what to steer away from; one or one per prompt.
            height, width: in pixels, multiples of 16; one or one per prompt. Default: the square bucket; an edit comes back
                at its source's size.
            aspect_ratio: width to height (`"16:9"`); picks a listed size.
            num_images_per_prompt: copies of each prompt.
            guidance_scale: 1 switches guidance off; default: the checkpoint's.
            source_guidance_scale: second scale for edits; untrained by the released recipe.
            guidance_min_p: guide only to codes that have at least this share of the likeliest one's probability without
                guidance (0: to all); default: the checkpoint's.
            generator: one `torch.Generator`, or one per image.
            do_sample, temperature, top_k, top_p: sampling of codes; defaults of the checkpoint.
            prompt_template: index or text with {prompt} in it.
            source_fit: `"pad"` (default) keeps the whole source, `"crop"` cuts it to the listed size as in training.
            published_eval: token layout, padding and cropping of the released evaluation scripts.
            null_prompt_cache: a [`NullPromptCache`] of yours, which saves work from edit to edit.
            window: how many codes of each image a forward may decide (a number, or `"auto"`): the same images in fewer
                forwards, which is faster on a GPU at a few images; see docs/windows.md.
            callback_on_step_end: called as `callback(pipe, step, num_steps, kwargs)` after each row of each image;
                `kwargs` holds `image` (its index) and `preview` (a function that gives the rows so far as a picture).
                Returning False, or `pipe.interrupt()`, stops: the output then has what is there and `complete=False`.
            output_type: `"pil"`, `"pt"` or `"tokens"`.

        Raises:
            ValueError: see `WallarooProcessor` and `generate`.
            TypeError: for an unknown keyword.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        images = image if isinstance(image, (list, tuple)) else [image] * len(prompts)
        if len(images) != len(prompts):
            raise ValueError(
                f"{len(images)} images were given for {len(prompts)} prompts; give one for all or one each."
            )
        if self.task == "image-editing" and any(item is None for item in images):
            raise ValueError('The task "image-editing" needs the picture to edit; pass it as `image`.')
        sources = [None if item is None else open_image(item) for item in images]
        return super().__call__({"prompt": prompts, "image": sources}, **kwargs)

    def interrupt(self) -> None:
        """Stops the drawing that is going on, after the current token; call it from `callback_on_step_end`.

        Without that callback a drawing is not followed, so there is nothing to stop.
        """
        if self._streamer is not None:
            self._streamer.stop()

    def _sanitize_parameters(
        self,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | Sequence[int] | None = None,
        width: int | Sequence[int] | None = None,
        aspect_ratio: str | float | None = None,
        num_images_per_prompt: int | None = None,
        guidance_scale: float | None = None,
        source_guidance_scale: float | None = None,
        guidance_min_p: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt_template: int | str | None = None,
        source_fit: str | None = None,
        published_eval: bool = False,
        null_prompt_cache: NullPromptCache | None = None,
        window: int | str | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if output_type not in (None, *OUTPUT_TYPES):
            raise ValueError(f"`output_type` is {output_type!r}, but must be one of {OUTPUT_TYPES}.")
        fit = source_fit or ("crop" if published_eval else "pad")
        prepare = {
            "negative_prompt": negative_prompt,
            "height": height,
            "width": width,
            "aspect_ratio": aspect_ratio,
            "prompt_template": prompt_template,
            "source_fit": fit,
            "layout": "published_eval" if published_eval else None,
            "source_guidance": True if source_guidance_scale is not None else None,
        }
        draw = {
            "num_return_sequences": num_images_per_prompt,
            "guidance_scale": guidance_scale,
            "source_guidance_scale": source_guidance_scale,
            "guidance_min_p": guidance_min_p,
            "generator": generator,
            "do_sample": do_sample,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "attend_padding": True if published_eval else None,
            "null_prompt_cache": null_prompt_cache,
            "window": window,
        }
        # an edit comes back at its source's size, unless another size (or the published one) was asked for
        fit_back = fit if height is None and aspect_ratio is None and not published_eval else None
        finish = {"output_type": output_type or "pil", "fit_back": fit_back}
        forward = {"generate_arguments": _given(draw), "callback_on_step_end": callback_on_step_end}
        return {"arguments": _given(prepare)}, forward, finish

    def preprocess(self, inputs: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """Prompts and pictures to tensors."""
        sources = inputs["image"]
        refused = refused_tokens(self.processor.tokenizer)
        for prompt in inputs["prompt"]:
            refuse_special_tokens("prompt", str(prompt), refused)  # the processor would take it for a rendered chat
        batch = self.processor(
            text=inputs["prompt"],
            images=sources if any(source is not None for source in sources) else None,
            generation_mode="image",
            return_tensors="pt",
            **arguments,
        ).to(dtype=self.model.dtype)
        return {"batch": batch.data, "sources": sources}

    def _forward(
        self,
        model_inputs: dict[str, Any],
        generate_arguments: dict[str, Any],
        callback_on_step_end: StepCallback | None,
    ) -> dict[str, Any]:
        batch = model_inputs["batch"]
        grids = batch["target_grid_hw"]

        def on_row(streamer: ImageStreamer, image: int, rows: int) -> bool | None:
            if callback_on_step_end is None:
                return None
            details = {"image": image, "preview": lambda: streamer.preview(image)}
            return callback_on_step_end(self, rows - 1, streamer.grid(image)[0], details) is not False

        streamer = None
        if callback_on_step_end is not None:  # following a drawing costs a look per code
            streamer = ImageStreamer(self.model, self.processor, grids, on_row=on_row)
        self._streamer = streamer
        tokens = self.model.generate(**batch, generation_mode="image", streamer=streamer, **generate_arguments)
        return {
            "tokens": tokens,
            "grids": grids.repeat_interleave(len(tokens) // len(grids), dim=0),
            "sources": [s for s in model_inputs["sources"] for _ in range(len(tokens) // len(grids))],
            "complete": streamer is None or not streamer.stopped,
        }

    def postprocess(
        self, model_outputs: dict[str, Any], output_type: str, fit_back: str | None
    ) -> WallarooPipelineOutput:
        """Ids to pictures."""
        complete = model_outputs["complete"]
        if output_type == "tokens":
            return WallarooPipelineOutput(images=model_outputs["tokens"], complete=complete)
        images: list[Any] = []
        for tokens, grid, source in zip(
            *(model_outputs[name] for name in ("tokens", "grids", "sources")), strict=True
        ):
            pixels = self._decode(tokens, grid, complete)
            if pixels is not None and output_type == "pt":
                images.append((pixels[0] / 2 + 0.5).clamp(0, 1))
                continue
            picture = None
            if pixels is not None:
                picture = self.processor.post_process_multimodal_output(pixels, generation_mode="image")[0]
            if complete and fit_back is not None and isinstance(source, Image.Image):
                picture = self.processor.fit_back([picture], [source], fit_back)[0]
            images.append(picture)
        return WallarooPipelineOutput(images=images, complete=complete)

    def _decode(self, tokens: torch.Tensor, grid: torch.Tensor, complete: bool) -> torch.Tensor | None:
        """Pixels `(1, 3, H, W)` of one image, or None if it was stopped before its first row was complete."""
        try:
            return self.model.decode_image_tokens(tokens[None], grid[None], allow_partial=not complete)
        except ValueError:
            if complete:
                raise
            return None


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
