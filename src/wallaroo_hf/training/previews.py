"""`PreviewCallback`: what the model draws, edits and answers while it is trained, from a fixed list of prompts."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, WandbCallback

from ..families.abilities import check_words
from ..families.contract import DrawingModel, DrawingProcessor
from ..files.parsing import parse_json
from ..pictures.opening import open_image
from .reports import contact_sheet

__all__ = ["Preview", "PreviewCallback", "read_previews"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Preview:
    """One thing to try: a prompt to draw, an instruction to edit `image` by, or a question (about `image`).

    Attributes:
        prompt: what to draw or to change; None for a question.
        question: what to answer; None for a drawing.
        image: picture or path.
        height, width: of the drawing in pixels; None = as the processor chooses.
    """

    prompt: str | None = None
    question: str | None = None
    image: Any = None
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.question is None):
            raise ValueError("A preview needs either a `prompt` to draw or a `question` to answer, and not both.")


def read_previews(path: str | Path) -> list[Preview]:
    """Previews from JSON lines: `{"prompt": …}`, `{"prompt": …, "image": …}` or `{"question": …, "image": …}`.

    Drawings may have `height` and `width`. Images are relative to the file.

    Raises:
        ValueError: naming the line that is none.
    """
    path = Path(path)
    previews = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The previews in {path} could not be read ({error}); give a file of JSON lines.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            if isinstance(entry.get("image"), str):
                entry["image"] = str(path.parent / entry["image"])
            previews.append(Preview(**entry))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Line {number} of {path} is no preview ({error}); write "
                '{"prompt": "…"}, {"prompt": "…", "image": "…"} or {"question": "…", "image": "…"}.'
            ) from error
    return previews


class PreviewCallback(TrainerCallback):
    """Draws and answers a fixed list every so many steps.

    Pictures go to `previews/step-000100.png` in the run's folder, beside a JSON file with prompts and answers, and to
    TensorBoard and Weights & Biases where the trainer reports to them. Seeds are fixed and the global random generators are
    not touched, so a run trains the same with and without previews.

    Args:
        processor: the checkpoint's.
        previews: what to try.
        every: steps between two looks; the first is before training.
        guidance_scale: default: the checkpoint's.
        max_new_tokens: longest answer.

    Raises:
        ValueError: for an `every` below 1, or a preview that spells a special token.
    """

    def __init__(
        self,
        processor: DrawingProcessor,
        previews: Sequence[Preview],
        every: int,
        guidance_scale: float | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        if every < 1:
            raise ValueError(f"`every` is {every}, but must be at least 1.")
        for preview in previews:
            check_words(preview.prompt or preview.question or "", "preview", processor.special_words)
        self.processor = processor
        self.drawings = [preview for preview in previews if preview.prompt is not None]
        self.questions = [preview for preview in previews if preview.question is not None]
        self.every = every
        self.guidance_scale = guidance_scale
        self.max_new_tokens = max_new_tokens
        self._trainer: Any = None

    def bind_trainer(self, trainer: Any) -> None:
        """Called by `WallarooTrainer`, whose model and trackers are used."""
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first look, unless the run is resumed."""
        if state.global_step == 0:
            self._look(args, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A look every `every` steps and at the end."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._look(args, state)

    @torch.no_grad()
    def _look(self, args: TrainingArguments, state: TrainerState) -> None:
        trainer = self._trainer
        if trainer is None:
            raise RuntimeError("`PreviewCallback` works with `WallarooTrainer`; give it to that.")
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        if not state.is_world_process_zero and not sharded:
            return  # with sharded weights every process takes part
        model = trainer.wallaroo
        was_training = model.training
        model.eval()
        try:
            pictures = [self._draw(model, preview, index) for index, preview in enumerate(self.drawings)]
            answers = [self._answer(model, preview) for preview in self.questions]
        finally:
            model.train(was_training)
        if state.is_world_process_zero:
            self._write(Path(args.output_dir) / "previews", state.global_step, pictures, answers)
            self._report(state.global_step, pictures, answers)

    def _draw(self, model: DrawingModel, preview: Preview, seed: int) -> Image.Image:
        inputs = self.processor(
            text=preview.prompt,
            images=None if preview.image is None else [open_image(preview.image)],
            generation_mode="image",
            height=preview.height,
            width=preview.width,
            return_tensors="pt",
        ).to(model.device)
        settings: dict[str, Any] = {} if self.guidance_scale is None else {"guidance_scale": self.guidance_scale}
        drawn = model.draw(inputs, generators=torch.Generator().manual_seed(seed), **settings)
        return self.processor.pictures(drawn.pixels)[0]

    def _answer(self, model: DrawingModel, preview: Preview) -> str:
        content: list[dict[str, Any]] = [{"type": "text", "text": preview.question}]
        if preview.image is not None:
            content.insert(0, {"type": "image", "image": open_image(preview.image)})
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        ).to(model.device)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens, use_cache=True)
        return self.processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]

    def _write(self, folder: Path, step: int, pictures: list[Image.Image], answers: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{step:06d}"
        images: list[Image.Image | None] = []
        captions: list[str] = []
        for preview, picture in zip(self.drawings, pictures, strict=True):
            if preview.image is not None:
                images.append(open_image(preview.image))
                captions.append("source")
            images.append(picture)
            captions.append(preview.prompt or "")
        if images:
            contact_sheet(images, captions, folder / f"{name}.png")
        tried = [dataclasses.asdict(preview) | {"image": _image_name(preview.image)} for preview in self.drawings]
        asked = [
            {"question": preview.question, "image": _image_name(preview.image), "answer": answer}
            for preview, answer in zip(self.questions, answers, strict=True)
        ]
        record: Mapping[str, Any] = {"step": step, "drawings": tried, "answers": asked}
        (folder / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

    def _report(self, step: int, pictures: list[Image.Image], answers: list[str]) -> None:
        """To the trackers that the trainer has."""
        said = "\n\n".join(f"{preview.question} → {answer}" for preview, answer in zip(self.questions, answers))
        for tracker in self._trainer.callback_handler.callbacks:
            writer = getattr(tracker, "tb_writer", None) if isinstance(tracker, TensorBoardCallback) else None
            if writer is not None:
                for preview, picture in zip(self.drawings, pictures, strict=True):
                    writer.add_image(f"previews/{preview.prompt}", np.asarray(picture), step, dataformats="HWC")
                if said:
                    writer.add_text("previews/answers", said, step)
            wandb = getattr(tracker, "_wandb", None) if isinstance(tracker, WandbCallback) else None
            if wandb is not None:
                logged: dict[str, Any] = {
                    "previews/drawings": [
                        wandb.Image(picture, caption=preview.prompt)
                        for preview, picture in zip(self.drawings, pictures, strict=True)
                    ]
                }
                if said:
                    logged["previews/answers"] = wandb.Html(f"<pre>{said}</pre>")
                wandb.log(logged)


def _image_name(image: Any) -> str | None:
    return None if image is None else image if isinstance(image, str) else type(image).__name__
