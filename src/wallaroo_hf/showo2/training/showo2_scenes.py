"""The numbers of the small Show-o2 that is trained on the scenes from nothing, at a size for one CPU core."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...scenes.scene import SIZES
from .showo2_stages import PARTS, ShowO2Stage, showo2_stage

__all__ = ["ShowO2SceneRecipe", "ShowO2SceneStep", "scene_recipe"]

# What every step shares. There is no pretrained language model and no SigLIP, so everything is trained from the beginning.
_COMMON: dict[str, Any] = {
    "trains": PARTS["all"],
    "learning_rates": {},
    "understanding": "chat",
    "fit": "pad",
    "image_sizes": SIZES,
    "max_length": 512,
    "bf16": False,
    "follows": None,
    "adam_beta2": 0.95,  # few steps
}
# By the names of steps: what is their own. The rates are a small model's.
_STEPS: dict[str, dict[str, Any]] = {
    # small pictures of up to four objects: half as many tokens, and more objects in them
    "0": {"learning_rate": 3e-3, "warmup_steps": 100, "text_weight": 0.5},
    "1a": {"learning_rate": 2e-3, "warmup_steps": 50, "text_weight": 0.5},
    "2b": {"learning_rate": 2e-3, "warmup_steps": 0, "lr_scheduler_type": "constant", "text_weight": 1.0},
    "2c": {"learning_rate": 1.5e-3, "warmup_steps": 0, "lr_scheduler_type": "linear", "text_weight": 1.0},
}
_RATIOS: dict[str, dict[str, float]] = {
    "0": {"generation": 3, "understanding": 1},
    "1a": {"generation": 3, "understanding": 1},
    "2b": {"generation": 3, "understanding": 1},
    "2c": {"generation": 3, "understanding": 1},
}
# By step: where drawn pictures come from, and how often from each.
_DRAWN: dict[str, dict[str, float]] = {
    "0": {"lessons": 1},
    "1a": {"lessons": 1, "large_lessons": 2, "generation": 1},
    "2b": {"position_lessons": 1.5, "large_lessons": 2, "generation": 1, "lessons": 0.5},
    "2c": {"position_lessons": 2, "large_lessons": 1, "generation": 1},
}
_QUESTIONS: dict[str, dict[str, float]] = {
    "0": {},
    "1a": {"where": 3.0, "yes_no": 2.0, "how_many": 2.0},
    "2b": {"where": 4.0, "yes_no": 2.0, "how_many": 2.0},
    "2c": {"where": 5.0, "yes_no": 2.0, "how_many": 1.5, "what": 1.5},
}


@dataclasses.dataclass(frozen=True)
class ShowO2SceneStep:
    """One run of training within the recipe.

    Attributes:
        name: its folder.
        stage: what it trains and how.
        base: the step whose result it starts from; None = a new model.
        drawn: where drawn pictures come from: "generation" (the data set's rows) and lessons of `scenes.lessons`, each with
            its share.
        question_weights: how often each kind of question is asked, 1 if not named.
    """

    name: str
    stage: ShowO2Stage
    base: str | None
    drawn: Mapping[str, float]
    question_weights: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ShowO2SceneRecipe:
    """Everything that decides the checkpoint.

    Attributes:
        seed: of data, weights and random choices.
        vocabulary: tokens of the byte-level BPE before the special ones, at most.
        tokenizer_rows: rows of the scenes whose words the BPE learns from.
        codec_pictures: rows of the data set, and as many lessons, whose pictures the linear codec is fitted to.
        questions: about one picture in an understanding row, at most.
        width, num_hidden_layers, num_flow_layers, semantic_width, num_semantic_layers: of the model.
        global_batch_size: rows per optimizer step.
        per_device_batch_size: rows in one forward; rows of like length are together.
        steps: optimizer steps of each step of training.
        previewed: validation rows of each task that each look at the model shows.
        looks: how often each step of training is looked at.
    """

    seed: int = 0
    vocabulary: int = 1000
    tokenizer_rows: int = 6000
    codec_pictures: int = 2000
    questions: int = 4
    width: int = 192
    num_hidden_layers: int = 6
    num_flow_layers: int = 3
    semantic_width: int = 96
    num_semantic_layers: int = 2
    global_batch_size: int = 32
    per_device_batch_size: int = 8
    steps: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"0": 4000, "1a": 2000, "2b": 3500, "2c": 3000}
    )
    previewed: int = 5
    looks: int = 4

    def training(self) -> list[ShowO2SceneStep]:
        """The steps of training, in order: a beginning on small pictures that stands in for a pretrained language model
        and SigLIP, then stages of the recipe, in all of which everything trains.

        Questions come with every step, so that the semantic layers learn from them what they would have from SigLIP.
        """
        steps: list[ShowO2SceneStep] = []
        for name, settings in _STEPS.items():
            known = showo2_stage("1a" if name == "0" else name)
            stage = dataclasses.replace(
                known,
                **{"name": name, **_COMMON, **settings},
                max_steps=self.steps[name],
                global_batch_size=self.global_batch_size,
                task_ratio=_RATIOS[name],
            )
            base = steps[-1].name if steps else None
            steps.append(ShowO2SceneStep(f"stage-{name}", stage, base, _DRAWN[name], _QUESTIONS[name]))
        return steps

    def builder(self, run: Any) -> Any:
        """What makes codec and model; see [`wallaroo_hf.training.scenes.scene_builder`]."""
        from .showo2_scene_builder import ShowO2SceneBuilder

        return ShowO2SceneBuilder(run, self)


def scene_recipe(tiny: bool = False) -> ShowO2SceneRecipe:
    """The recipe, or the whole of it in a minute, to see that it runs; what comes out of that draws nothing.

    Args:
        tiny: two steps of everything.
    """
    if not tiny:
        return ShowO2SceneRecipe()
    return ShowO2SceneRecipe(
        tokenizer_rows=200,
        codec_pictures=20,
        global_batch_size=4,
        per_device_batch_size=4,
        steps=dict.fromkeys(_STEPS, 2),
        previewed=1,
        looks=1,
    )
