"""The numbers of the small HieraQuery that is trained on the scenes around the built-in checkpoint's language model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...scenes.lessons import SIZE as SMALL_SIZE
from ...scenes.scene import SIZES
from .hieraquery_stages import HieraQueryStage, hieraquery_stage

__all__ = ["HieraQuerySceneRecipe", "HieraQuerySceneStep", "scene_recipe"]

# What every step shares: the rates are a small model's.
_COMMON: dict[str, Any] = {
    "follows": None,
    "bf16": False,
    "max_length": 512,
    "weight_decay": 0.0,
    "lowest_rate": 1e-5,
}
# By the names of steps: what is their own.
_STEPS: dict[str, dict[str, Any]] = {
    # small pictures of up to four objects: half as many tokens, and more objects in them
    "t2i-small": {"learning_rate": 3e-3, "warmup_steps": 100, "image_sizes": (SMALL_SIZE,)},
    "t2i": {"learning_rate": 2e-3, "warmup_steps": 50, "image_sizes": SIZES},
    "reconstruction": {"learning_rate": 1e-3, "warmup_steps": 20, "reconstruction_rate": 0.5},
    "editing": {"learning_rate": 1e-3, "warmup_steps": 20, "reconstruction_rate": 0.2},
}
_RATIOS: dict[str, dict[str, float]] = {
    "t2i-small": {"generation": 1},
    "t2i": {"generation": 1},
    "reconstruction": {"generation": 1},
    "editing": {"generation": 1, "editing": 2},
}
# By step and task: folders of encoded rows, and how often from each.
_FOLDERS: dict[str, dict[str, dict[str, float]]] = {
    "t2i-small": {"generation": {"lessons": 1}},
    "t2i": {"generation": {"position_lessons": 1, "large_lessons": 2, "generation": 1, "lessons": 0.5}},
    "reconstruction": {"generation": {"position_lessons": 1, "large_lessons": 1, "generation": 1}},
    "editing": {
        "generation": {"position_lessons": 1, "large_lessons": 1, "generation": 1},
        "editing": {"editing": 1, "large_edit_lessons": 1, "edit_lessons": 0.3},
    },
}


@dataclasses.dataclass(frozen=True)
class HieraQuerySceneStep:
    """One run of training within the recipe.

    Attributes:
        name: its folder.
        stage: what it trains and how.
        base: the step whose result it starts from; None = a new model.
        folders: task -> folder of encoded rows -> its share of the task's rows.
    """

    name: str
    stage: HieraQueryStage
    base: str | None
    folders: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class HieraQuerySceneRecipe:
    """Everything that decides the checkpoint, beside the built-in one, whose language model and image tokenizer it has.

    Attributes:
        seed: of data, weights and random choices.
        encoded_rows: rows whose pictures are encoded ahead, per folder: tasks of the scenes, and lessons; they come again,
            with other noise each time.
        width, num_connector_layers, num_layers, num_heads: of connector and diffusion transformer.
        global_batch_size: rows per optimizer step.
        per_device_batch_size: rows in one forward.
        noise_draws: of each picture on one pass of the language model.
        steps: optimizer steps of each step of training.
        previewed: validation rows of each task that each look at the model shows.
        looks: how often each step of training is looked at.
    """

    seed: int = 0
    encoded_rows: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {
            "lessons": 12000,
            "large_lessons": 14000,
            "position_lessons": 8000,
            "generation": 8000,
            "editing": 5000,
            "large_edit_lessons": 5000,
            "edit_lessons": 2000,
        }
    )
    width: int = 160
    num_connector_layers: int = 2
    num_layers: int = 4
    num_heads: int = 5
    global_batch_size: int = 32
    per_device_batch_size: int = 32
    noise_draws: int = 4
    steps: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"t2i-small": 3500, "t2i": 2700, "reconstruction": 150, "editing": 450}
    )
    previewed: int = 5
    looks: int = 6

    def training(self) -> list[HieraQuerySceneStep]:
        """The paper's stages in order, of which the first begins with small pictures."""
        steps: list[HieraQuerySceneStep] = []
        for name, settings in _STEPS.items():
            stage = dataclasses.replace(
                hieraquery_stage(name.removesuffix("-small")),
                **_COMMON,
                **settings,
                max_steps=self.steps[name],
                global_batch_size=self.global_batch_size,
                noise_draws=self.noise_draws,
                task_ratio=_RATIOS[name],
            )
            base = steps[-1].name if steps else None
            steps.append(HieraQuerySceneStep(f"stage-{name}", stage, base, _FOLDERS[name]))
        return steps

    def builder(self, run: Any) -> Any:
        """What makes language model, rows and model; see [`wallaroo_hf.training.scenes.scene_builder`]."""
        from .hieraquery_scene_builder import HieraQuerySceneBuilder

        return HieraQuerySceneBuilder(run, self)


def scene_recipe(tiny: bool = False) -> HieraQuerySceneRecipe:
    """The recipe, or the whole of it in a minute, to see that it runs; what comes out of that draws nothing.

    Args:
        tiny: two steps of everything.
    """
    if not tiny:
        return HieraQuerySceneRecipe()
    return HieraQuerySceneRecipe(
        encoded_rows=dict.fromkeys(HieraQuerySceneRecipe().encoded_rows, 4),
        width=48,
        num_layers=2,
        num_heads=2,
        num_connector_layers=1,
        global_batch_size=4,
        per_device_batch_size=4,
        noise_draws=2,
        steps=dict.fromkeys(_STEPS, 2),
        previewed=1,
        looks=1,
    )
