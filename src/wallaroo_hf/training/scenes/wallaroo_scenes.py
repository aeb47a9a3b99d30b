"""What Wallaroo's built-in checkpoint is built of before its stages are trained: image tokenizer, codes, a new model."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from ...families.loading import load_model
from ...modeling.model import WallarooForConditionalGeneration
from ...modeling.vq import WallarooVQModel
from ...processing.processor import WallarooProcessor
from ...scenes import SceneDataset
from ...scenes.known_words import known_words
from ..data.encoding import encode_rows
from ..data.mixing import TaskMixture
from ..previews import Preview
from ..vq.vq_data import scene_canvases
from ..vq.vq_recipe import scenes_arguments, small_tokenizer_config
from ..vq.vq_training import VQTrainer, new_tokenizer
from .scene_builder import OutOfTime, Run
from .scenes_data import LESSONS, Lessons, SceneRows, mixture, text_corpus
from .scenes_recipe import INDICATOR_SIZES, PROMPT_TEMPLATES, SceneRecipe, SceneStep
from .small_model import add_layers, install_image_tokenizer, new_small_model, train_tokenizer

__all__ = ["WallarooSceneBuilder"]

VQ_BATCH_SIZE = 8


class WallarooSceneBuilder:
    """See [`wallaroo_hf.training.scenes.scene_builder.SceneBuilder`]. Folders: `vq`, `rows`.

    Args:
        run: whose parts it makes.
        recipe: the run's.
    """

    family = "wallaroo"

    def __init__(self, run: Run, recipe: SceneRecipe) -> None:
        self.run, self.recipe = run, recipe

    def parts(self) -> list[str]:
        """The image tokenizer, and rows with its codes."""
        return ["vq", "rows"]

    def make(self, part: str) -> None:
        """Trains the image tokenizer, or encodes rows.

        Raises:
            OutOfTime: when the time is over.
        """
        if part == "vq":
            self._train_image_tokenizer()
        else:
            self._encode()

    def result(self, part: str) -> Path:
        """Where they are."""
        return self.run.output / part / "final" if part == "vq" else self.run.output / part

    def is_done(self, part: str) -> bool:
        """Whether they are there."""
        if part == "rows":
            return all((self.result(part) / task / "state.json").exists() for task in self.recipe.encoded_rows)
        return (self.result(part) / "config.json").exists()

    def rows(self, step: SceneStep, seed: int) -> TaskMixture:
        """See [`mixture`]."""
        rows = self.run.output / "rows"
        return mixture(step.stage, rows, seed, self.recipe.questions, step.question_weights, step.folders)

    def starting_point(self, step: SceneStep) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
        """Model and processor that a step starts from.

        Raises:
            ValueError: if the step before is not finished.
        """
        if step.base is None:
            # the image tokenizer has no part in understanding; the trained one comes in at stage 1
            untrained = new_tokenizer(small_tokenizer_config(), self.recipe.seed)
            return new_small_model(
                self._tokenizer(),
                untrained,
                step.stage,
                prompt_templates=PROMPT_TEMPLATES,
                num_hidden_layers=self.recipe.num_hidden_layers // 2,
                seed=self.recipe.seed,
                known_words=known_words(),
            )
        base = self.run.result(step.base)
        if not base.exists():
            raise ValueError(f"{step.name} starts from {step.base}, which is not finished in '{self.run.output}'.")
        model = load_model(WallarooForConditionalGeneration, base)
        if step.stage.name == "1":
            install_image_tokenizer(model, self._image_tokenizer())
        if step.num_hidden_layers is not None:
            add_layers(model, step.num_hidden_layers)
        return model, WallarooProcessor.from_pretrained(base)

    def previews(self, step: SceneStep) -> list[Preview]:
        """Some validation rows of what the step trains, square ones for the plain grid."""
        previews: list[Preview] = []
        layout = step.stage.named_layout()
        square = not layout.line_breaks
        for task in ("generation", "editing", "understanding"):
            if not step.stage.task_ratio.get(task):
                continue
            rows = iter(SceneDataset("validation", 1000, self.recipe.seed, [task], balanced=True))
            chosen = 0
            while chosen < self.recipe.previewed:
                row = next(rows)
                scene = row["scene"] or row["target_scene"]
                if square and scene["height"] != scene["width"] and task != "understanding":
                    continue
                chosen += 1
                image = row["images"][0] if task != "generation" else None
                if task == "understanding":
                    previews.append(Preview(question=row["prompt"], image=image))
                else:
                    height, width = layout.buckets[0] if square else (scene["height"], scene["width"])
                    previews.append(Preview(row["prompt"], None, image, height, width))
        return previews

    def _train_image_tokenizer(self) -> None:
        arguments = dataclasses.replace(
            scenes_arguments(self.recipe.vq_steps), seed=self.recipe.seed, save_minutes=self.run.save_minutes
        )
        if self.run.deadline is not None:
            left = max(0.0, self.run.deadline - time.monotonic()) / 60
            arguments = dataclasses.replace(arguments, max_minutes=left)
        model = new_tokenizer(small_tokenizer_config(), self.recipe.seed).to(self.run.device)
        trainer = VQTrainer(model, arguments, scene_canvases(VQ_BATCH_SIZE), self.run.output / "vq")
        if trainer.train(resume=True, should_stop=self.run.is_out_of_time) is None:
            raise OutOfTime
        trainer.plot()
        self.run.note("vq", {"steps": trainer.step, "arguments": dataclasses.asdict(arguments)})

    def _encode(self) -> None:
        """Encodes drawn pictures and sources ahead, so that training need not."""
        vq_model, processor = self._image_tokenizer(), self._processor_for_encoding()
        for task, count in self.recipe.encoded_rows.items():
            seed = self.recipe.seed
            rows: Any = Lessons(task, count, seed) if task in LESSONS else SceneRows(task, count, seed)

            def show(done: int, task: str = task, count: int = count) -> None:
                if self.run.is_out_of_time():
                    raise OutOfTime
                if done % 1000 < 32 or done == count:
                    self.run.report(f"rows: {task} {done}/{count}")

            words = f"scenes: {task}, {count} rows, seed {self.recipe.seed}"
            encode_rows(
                rows, vq_model, processor, self.run.output / "rows" / task, source=words, batch_size=32, progress=show
            )
        self.run.note("rows", {"rows": dict(self.recipe.encoded_rows)})

    def _image_tokenizer(self) -> WallarooVQModel:
        return load_model(WallarooVQModel, self.run.result("vq"), what="image tokenizer").eval().to(self.run.device)

    def _processor_for_encoding(self) -> WallarooProcessor:
        """A processor with the sizes of the last stage."""
        step = self.recipe.training()[-1]
        return new_small_model(self._tokenizer(), self._image_tokenizer(), step.stage)[1]

    def _tokenizer(self) -> Any:
        texts = text_corpus(self.recipe.tokenizer_rows, self.recipe.seed, PROMPT_TEMPLATES)
        return train_tokenizer(texts, INDICATOR_SIZES, self.recipe.vocabulary)
