"""What the small HieraQuery is built of before its stages are trained: a language model, encoded rows, a new model."""

from pathlib import Path
from typing import Any

import torch

from ...families.loading import load_model
from ...families.registry import family_of
from ...files.built_in import FOLDER
from ...scenes import SceneDataset
from ...scenes.known_words import known_words
from ...scenes.scene import SIZES
from ...training.data.encoding import encode_rows
from ...training.data.mixing import Source, TaskMixture
from ...training.datasets import load_rows
from ...training.previews import Preview
from ...training.scenes.scene_builder import OutOfTime, Run
from ...training.scenes.scenes_data import LESSONS, Lessons, SceneRows
from ..hieraquery_model import HieraQueryForConditionalGeneration
from ..processing.hieraquery_processor import HieraQueryProcessor
from .hieraquery_kit import KIT
from .hieraquery_scenes import HieraQuerySceneRecipe, HieraQuerySceneStep
from .hieraquery_small_model import new_small_hieraquery

__all__ = ["HieraQuerySceneBuilder"]

_LANGUAGE_MODEL, _ROWS = "language-model", "rows"
_TOGETHER = 32  # pictures that are encoded together


class HieraQuerySceneBuilder:
    """See [`wallaroo_hf.training.scenes.scene_builder.SceneBuilder`]. Folders: `language-model`, the built-in checkpoint's
    understanding half as a Qwen2.5-VL, and `rows`, with what its vision encoder and image tokenizer see in pictures.

    Args:
        run: whose parts it makes.
        recipe: the run's.
    """

    family = "hieraquery"

    def __init__(self, run: Run, recipe: HieraQuerySceneRecipe) -> None:
        self.run, self.recipe = run, recipe
        self.wallaroo = family_of("wallaroo", str(FOLDER))

    def parts(self) -> list[str]:
        """The language model, and encoded rows."""
        return [_LANGUAGE_MODEL, _ROWS]

    def make(self, part: str) -> None:
        """Takes the language model out of the built-in checkpoint, or encodes rows.

        Raises:
            OutOfTime: when the time is over.
        """
        if part == _LANGUAGE_MODEL:
            self.wallaroo.resolve("export_language_model")(FOLDER, self.result(part))
            self.run.note(part, {"from": "the built-in checkpoint"})
        else:
            self._encode()

    def result(self, part: str) -> Path:
        """Where it is."""
        return self.run.output / part

    def is_done(self, part: str) -> bool:
        """Whether it is there."""
        if part == _ROWS:
            return all((self.result(part) / name / "state.json").exists() for name in self.recipe.encoded_rows)
        return (self.result(part) / "config.json").exists()

    def starting_point(
        self, step: HieraQuerySceneStep
    ) -> tuple[HieraQueryForConditionalGeneration, HieraQueryProcessor]:
        """Model and processor that a step starts from.

        Raises:
            ValueError: if what it starts from is not finished.
        """
        before = _LANGUAGE_MODEL if step.base is None else step.base
        if not self.run.result(before).exists():
            raise ValueError(f"{step.name} starts from {before}, which is not finished in '{self.run.output}'.")
        if step.base is None:
            return self._new()
        base = self.run.result(step.base)
        model = load_model(HieraQueryForConditionalGeneration, base, dtype=torch.float32)
        return model, HieraQueryProcessor.from_pretrained(base)

    def rows(self, step: HieraQuerySceneStep, seed: int) -> TaskMixture:
        """Rows of a step in training order; within an optimizer step rows of a source stand together."""
        stage = step.stage
        sources = {
            task: [Source(load_rows(self.result(_ROWS) / name), name, share) for name, share in folders.items()]
            for task, folders in step.folders.items()
        }
        length = stage.max_steps * stage.global_batch_size
        return TaskMixture(sources, stage.task_ratio, seed, length, sorted_within=stage.global_batch_size)

    def previews(self, step: HieraQuerySceneStep) -> list[Preview]:
        """Some validation rows of what the step trains, and of drawing in any case."""
        previews: list[Preview] = []
        for task in ("generation", "editing"):
            if not step.stage.task_ratio.get(task):
                continue
            rows = SceneDataset("validation", self.recipe.previewed, self.recipe.seed, [task], balanced=True)
            for index in range(len(rows)):
                row: dict[str, Any] = rows[index]
                scene, image = row["target_scene"], row["images"][0] if task == "editing" else None
                previews.append(Preview(row["prompt"], None, image, scene["height"], scene["width"]))
        return previews

    def _new(self) -> tuple[HieraQueryForConditionalGeneration, HieraQueryProcessor]:
        recipe = self.recipe
        return new_small_hieraquery(
            self.result(_LANGUAGE_MODEL),
            self.wallaroo.training_kit().load_codec(str(FOLDER)),
            sizes=SIZES,
            width=recipe.width,
            num_connector_layers=recipe.num_connector_layers,
            num_layers=recipe.num_layers,
            num_heads=recipe.num_heads,
            seed=recipe.seed,
            known_words=known_words(),
        )

    def _encode(self) -> None:
        """Encodes pictures ahead, so that neither image tokenizer nor vision encoder runs in training."""
        model, processor = self._new()
        model.codec.to(memory_format=torch.channels_last)  # a quarter faster
        side = KIT.codec(model.to(self.run.device))
        for name, count in self.recipe.encoded_rows.items():
            seed = self.recipe.seed
            rows: Any = Lessons(name, count, seed) if name in LESSONS else SceneRows(name, count, seed)

            def show(done: int, name: str = name, count: int = count) -> None:
                if self.run.is_out_of_time():
                    raise OutOfTime
                if done % 1000 < 32 or done == count:
                    self.run.report(f"{_ROWS}: {name} {done}/{count}")

            words = f"scenes: {name}, {count} rows, seed {seed}"
            encode_rows(
                rows, side, processor, self.result(_ROWS) / name, source=words, batch_size=_TOGETHER, progress=show
            )
        self.run.note(_ROWS, {"rows": dict(self.recipe.encoded_rows)})
