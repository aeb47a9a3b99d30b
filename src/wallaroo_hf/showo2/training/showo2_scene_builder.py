"""What the small Show-o2 is built of before its stages are trained: a codec fitted to the scenes, and a new model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ...families.loading import load_model
from ...files.whole import new_folder
from ...scenes import SceneDataset
from ...scenes.known_words import known_words
from ...scenes.scene import SIZES
from ...training.data.mixing import Source, TaskMixture
from ...training.previews import Preview
from ...training.scenes.scene_builder import Run
from ...training.scenes.scenes_data import LESSONS, Conversations, Lessons, SceneRows, text_corpus
from ..image_codecs import LinearCodec
from ..processing.showo2_processor import ShowO2Processor
from ..showo2_model import ShowO2ForConditionalGeneration
from .showo2_scenes import ShowO2SceneRecipe, ShowO2SceneStep
from .showo2_small_model import fit_codec, new_small_showo2, small_tokenizer

__all__ = ["ShowO2SceneBuilder"]

_CODEC = "codec"
_WEIGHTS = "codec.safetensors"


class ShowO2SceneBuilder:
    """See [`wallaroo_hf.training.scenes.scene_builder.SceneBuilder`]. Folder: `codec`. Rows are made as they are needed.

    Args:
        run: whose parts it makes.
        recipe: the run's.
    """

    family = "showo2"

    def __init__(self, run: Run, recipe: ShowO2SceneRecipe) -> None:
        self.run, self.recipe = run, recipe

    def parts(self) -> list[str]:
        """The codec."""
        return [_CODEC]

    def make(self, part: str) -> None:
        """Fits the codec to pictures of the scenes."""
        count, seed = self.recipe.codec_pictures, self.recipe.seed
        rows = [
            row for pair in zip(SceneRows("generation", count, seed), Lessons("lessons", count, seed)) for row in pair
        ]
        codec = fit_codec(_pixels(row["images"][0]) for row in rows)
        with new_folder(self.result(part)) as folder:
            save_file(codec.state_dict(), folder / _WEIGHTS)
        self.run.note(part, {"pictures": len(rows)})

    def result(self, part: str) -> Path:
        """Where it is."""
        return self.run.output / part

    def is_done(self, part: str) -> bool:
        """Whether it is there."""
        return (self.result(part) / _WEIGHTS).exists()

    def starting_point(self, step: ShowO2SceneStep) -> tuple[ShowO2ForConditionalGeneration, ShowO2Processor]:
        """Model and processor that a step starts from.

        Raises:
            ValueError: if what it starts from is not finished.
        """
        before = _CODEC if step.base is None else step.base
        if not self.run.result(before).exists():
            raise ValueError(f"{step.name} starts from {before}, which is not finished in '{self.run.output}'.")
        if step.base is not None:
            base = self.run.result(step.base)
            model = load_model(ShowO2ForConditionalGeneration, base, dtype=torch.float32)
            return model, ShowO2Processor.from_pretrained(base)
        recipe, codec = self.recipe, LinearCodec()
        codec.load_state_dict(load_file(self.result(_CODEC) / _WEIGHTS))
        tokenizer = small_tokenizer(text_corpus(recipe.tokenizer_rows, recipe.seed, {}), recipe.vocabulary)
        return new_small_showo2(
            tokenizer,
            codec,
            SIZES,
            width=recipe.width,
            num_hidden_layers=recipe.num_hidden_layers,
            num_flow_layers=recipe.num_flow_layers,
            semantic_width=recipe.semantic_width,
            num_semantic_layers=recipe.num_semantic_layers,
            seed=recipe.seed,
            known_words=known_words(),
        )

    def rows(self, step: ShowO2SceneStep, seed: int) -> TaskMixture:
        """Rows of a step in training order, none twice; within an optimizer step rows of a task stand together."""
        stage = step.stage
        length = stage.max_steps * stage.global_batch_size
        drawn = [
            Source(Lessons(name, length, seed) if name in LESSONS else SceneRows(name, length, seed), name, share)
            for name, share in step.drawn.items()
        ]
        asked = Conversations(length, self.recipe.questions, seed, dict(step.question_weights) or None)
        sources = {"generation": drawn, "understanding": [Source(asked, "understanding")]}
        return TaskMixture(sources, stage.task_ratio, seed, length, sorted_within=stage.global_batch_size)

    def previews(self, step: ShowO2SceneStep) -> list[Preview]:
        """Some validation rows."""
        previews: list[Preview] = []
        for task in ("generation", "understanding"):
            rows = SceneDataset("validation", self.recipe.previewed, self.recipe.seed, [task], balanced=True)
            for index in range(len(rows)):
                row: dict[str, Any] = rows[index]
                if task == "understanding":
                    previews.append(Preview(question=row["prompt"], image=row["images"][0]))
                else:
                    scene = row["target_scene"]
                    previews.append(Preview(row["prompt"], None, None, scene["height"], scene["width"]))
        return previews


def _pixels(picture: Any) -> torch.Tensor:
    """`(3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
