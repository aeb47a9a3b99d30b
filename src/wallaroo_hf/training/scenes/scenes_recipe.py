"""The numbers of the built-in checkpoint's recipe: the paper's stages on the scenes, at a size for two CPU cores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...scenes.lessons import SIZE as SMALL_SIZE
from ...scenes.scene import SIZES
from ..stages import Stage, stage

# The smallest ones of the paper's recipe that the scenes need; only {prompt} is required in a template.
PROMPT_TEMPLATES = {
    "generation": {
        "en": ["Draw: {prompt}", "Create an image: {prompt}"],
        "zh": ["画：{prompt}", "生成图像：{prompt}"],
    },
    "editing": {"en": ["Edit: {prompt}", "Edit the image: {prompt}"], "zh": ["编辑：{prompt}", "修改图片：{prompt}"]},
}
INDICATOR_SIZES = tuple(sorted({edge for size in SIZES for edge in size}))
PIXEL_LIMITS = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}

# What every stage shares. A stage's own numbers come after; the precision follows from the machine.
_COMMON: dict[str, Any] = {
    "indicator_sizes": INDICATOR_SIZES,
    "max_length": 768,
    "pixel_limits": PIXEL_LIMITS,
}

# By the names of the steps: how each learns (the rates are a small model's), what it is asked, and from which rows.
_LATE: dict[str, Any] = {
    "learning_rate": 1.1e-3,
    "warmup_steps": 20,
    "lr_scheduler_type": "linear",
    "source_mask_rate": 0.0,
}
_LAST: dict[str, Any] = {**_LATE, "loss_weights": {"understanding": 1.5}}
_SETTINGS: dict[str, dict[str, Any]] = {
    "0": {"learning_rate": 3e-3, "warmup_steps": 50, "lr_scheduler_type": "cosine"},
    "1": {"learning_rate": 3e-3, "warmup_steps": 20},
    "2": {"learning_rate": 2e-3, "warmup_steps": 50},
    "3a": {"learning_rate": 1.5e-3, "warmup_steps": 0},
    "3b": {"learning_rate": 1.5e-3, "warmup_steps": 0},
    "4-lessons": {"learning_rate": 1.5e-3, "warmup_steps": 0, "editing_init": "generation"},
    "4-mixed": {"learning_rate": 1.5e-3, "warmup_steps": 0},
    "4-large": {"learning_rate": 8e-4, "warmup_steps": 20, "lr_scheduler_type": "linear"},
    "4-deep": _LATE,
    "4-places": {**_LAST, "learning_rate": 1e-3},
    "4-selection": {**_LAST, "learning_rate": 8e-4, "lr_scheduler_type": "constant_with_warmup"},
    "4-objects": {**_LAST, "learning_rate": 7e-4},
    "4": {**_LAST, "learning_rate": 1e-3},
    "4-chats": {**_LAST, "learning_rate": 8e-4},
}
_RATIOS: dict[str, dict[str, float]] = {
    "4-lessons": {"understanding": 1, "generation": 1, "editing": 3},
    "4-mixed": {"understanding": 1, "generation": 2, "editing": 3},
    "4-large": {"understanding": 1.5, "generation": 2, "editing": 3, "interleaved": 0.25},
    "4-deep": {"understanding": 1.5, "generation": 2, "editing": 3.5, "interleaved": 0.25},
    "4-places": {"understanding": 2.5, "generation": 1.3, "editing": 4.2, "interleaved": 0.2},
    "4-selection": {"understanding": 0.6, "generation": 0.5, "editing": 6},
    "4-objects": {"understanding": 1.5, "generation": 1.1, "editing": 5, "interleaved": 0.05},
    "4": {"understanding": 1.6, "generation": 2, "editing": 5, "interleaved": 3},
    "4-chats": {"understanding": 2, "generation": 2.2, "editing": 4.8, "interleaved": 7},
}
_LAST_DRAWING: dict[str, float] = {"position_lessons": 2, "large_lessons": 1, "generation": 1}
_FOLDERS: dict[str, dict[str, dict[str, float]]] = {
    "1": {"generation": {"lessons": 1}},
    "2": {"generation": {"lessons": 1}},
    "4-lessons": {"editing": {"edit_lessons": 1}},
    "4-mixed": {
        "generation": {"lessons": 1, "generation": 1},
        "editing": {"edit_lessons": 2, "editing": 1},
    },
    "4-large": {
        "generation": {"large_lessons": 2, "generation": 1, "lessons": 0.5},
        "editing": {"editing": 3, "edit_lessons": 0.5},
    },
    "4-deep": {
        "generation": {"position_lessons": 2, "large_lessons": 1, "generation": 0.7},
        "editing": {"large_edit_lessons": 2.5, "editing": 0.8, "edit_lessons": 0.4},
    },
    "4-places": {
        "generation": _LAST_DRAWING,
        "editing": {"large_edit_lessons": 2.5, "editing": 0.9, "edit_lessons": 0.2},
    },
    "4-selection": {
        "generation": _LAST_DRAWING,
        "editing": {"selection_lessons": 5, "editing": 0.5},
    },
    "4-objects": {
        "generation": _LAST_DRAWING,
        "editing": {"selection_lessons": 3.3, "editing": 1.4, "large_edit_lessons": 0.3},
    },
    "4": {
        "generation": {"position_lessons": 2, "place_lessons": 2, "large_lessons": 1, "generation": 0.7},
        "editing": {"hard_edit_lessons": 6.5, "two_step_lessons": 5, "editing": 2.5},
        "interleaved": {"chats": 1},
    },
    "4-chats": {
        "generation": {"position_lessons": 1.5, "place_lessons": 1, "large_lessons": 1, "generation": 0.7},
        "editing": {"hard_edit_lessons": 3.5, "destination_lessons": 3, "two_step_lessons": 2, "editing": 1},
        "interleaved": {"chats": 4, "chat_lessons": 10},
    },
}
_DEEP = (
    "4-deep",
    "4-places",
    "4-selection",
    "4-objects",
    "4",
    "4-chats",
)  # with all layers, and twice as many rows a step
_LATE_QUESTIONS = {"where": 8.0, "yes_no": 2.0, "how_many": 1.5, "what": 2.0, "describe": 0.7, "which_colour": 0.3}


@dataclasses.dataclass(frozen=True)
class SceneStep:
    """One run of training within the recipe.

    Attributes:
        name: its folder.
        stage: what it trains and how.
        base: the step whose result it starts from, or None for a new model.
        folders: task -> folder of encoded rows -> its share of the task's rows; a task that is not named reads the folder
            of its own name. Lessons are those of `scenes.lessons`.
        num_hidden_layers: the language model's, which new layers are added for; None = as many as before.
        question_weights: how often each kind of question is asked, 1 if not named; None = all alike.
    """

    name: str
    stage: Stage
    base: str | None
    folders: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    num_hidden_layers: int | None = None
    question_weights: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class SceneRecipe:
    """Everything that decides the built-in checkpoint.

    Attributes:
        seed: of data, weights and random choices.
        vocabulary: tokens of the byte-level BPE before the special ones, at most.
        tokenizer_rows: rows of the scenes whose words the BPE learns from.
        vq_steps: optimizer steps of the image tokenizer.
        questions: about one picture in an understanding row, at most.
        question_weights: how often each kind is asked after stage 0, 1 if not named; some are learned last, as their
            answers are short and not in the pixels of any patch.
        late_question_weights: the same, in the last six steps.
        encoded_rows: rows whose pictures are encoded ahead, per folder: tasks, and the lessons of `scenes_data.LESSONS`;
            drawing and editing repeat them, with other templates and masks each time.
        num_hidden_layers: of the language model in the last six steps, an even number; before, it has half of them, which
            takes less time.
        global_batch_size: rows per optimizer step; stage 0 and the last six steps take twice as many.
        per_device_batch_size: rows in one forward; rows of like length are together.
        steps: optimizer steps of each step of training.
        previewed: validation rows of each task that each look at the model shows.
        looks: how often each step of training is looked at.
    """

    seed: int = 0
    vocabulary: int = 1000
    tokenizer_rows: int = 6000
    vq_steps: int = 3300
    questions: int = 4
    question_weights: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"where": 3.0, "yes_no": 2.0, "how_many": 2.0}
    )
    late_question_weights: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=lambda: {
            "4-deep": {"where": 5.0, "yes_no": 2.0, "how_many": 1.5, "what": 1.5},
            "4-places": _LATE_QUESTIONS,
            "4-selection": _LATE_QUESTIONS,
            "4-objects": _LATE_QUESTIONS,
            "4": _LATE_QUESTIONS,
            "4-chats": _LATE_QUESTIONS,
        }
    )
    encoded_rows: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {
            "lessons": 12000,
            "large_lessons": 16000,
            "position_lessons": 10000,
            "generation": 16000,
            "editing": 28000,
            "interleaved": 3000,
            "edit_lessons": 10000,
            "large_edit_lessons": 16000,
            "selection_lessons": 18000,
            "hard_edit_lessons": 8000,
            "two_step_lessons": 6000,
            "place_lessons": 4000,
            "destination_lessons": 4600,
            "chats": 6000,
            "chat_lessons": 7200,
        }
    )
    num_hidden_layers: int = 8
    global_batch_size: int = 16
    per_device_batch_size: int = 8
    steps: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {
            "0": 2500,
            "1": 150,
            "2": 4500,
            "3a": 200,
            "3b": 1200,
            "4-lessons": 1000,
            "4-mixed": 8000,
            "4-large": 4300,
            "4-deep": 3150,
            "4-places": 2640,
            "4-selection": 2700,
            "4-objects": 3400,
            "4": 3300,
            "4-chats": 4950,
        }
    )
    previewed: int = 5
    looks: int = 3

    def training(self) -> list[SceneStep]:
        """The steps of training in order: a stand-in for Qwen2.5-VL (stage 0), then the paper's stages.

        As in the paper `visual` is frozen from stage 1 on, the image tokenizer always. The learning rates are a small
        model's. The stages' task ratios are the paper's up to stage 3. In stage 4 edits come more often, and interleaved
        rows join, so that auto mode is trained too, which the paper does not do. Stage 4 begins with small pictures to
        edit, goes on with small and large ones, then with large ones, while the learning rate falls. Then the language
        model gets twice the layers, and learns what takes them: which place in one picture is which in another, and what
        words say about places. There sources are no longer masked, as they are not when a model is used: a small one that
        has only seen masked sources does not find its way in whole ones. It goes on with more questions for places and
        more edits that make another object of one, then with chats, places said of every object, and changes said in
        words of other operations. It ends with chats in which a picture is there already, and with where things go.
        """
        steps: list[SceneStep] = []
        before = None
        for name, settings in _SETTINGS.items():
            base = stage(name.split("-")[0])
            chosen = {**_COMMON, **settings, "max_steps": self.steps[name]}
            chosen["global_batch_size"] = self.global_batch_size * (2 if name in ("0", *_DEEP) else 1)
            small = (SMALL_SIZE,) if name in ("1", "2") else SIZES[:1]
            chosen["buckets"] = SIZES if base.named_layout().line_breaks else small
            chosen["task_ratio"] = _RATIOS.get(name, base.task_ratio)
            weights = {"0": None, **self.late_question_weights}.get(name, self.question_weights)
            layers = self.num_hidden_layers if name in _DEEP else None
            steps.append(
                SceneStep(f"stage-{name}", base.override(chosen), before, _FOLDERS.get(name, {}), layers, weights)
            )
            before = f"stage-{name}"
        return steps

    def builder(self, run: Any) -> Any:
        """What makes image tokenizer, codes and model; see [`wallaroo_hf.training.scenes.scene_builder`]."""
        from .wallaroo_scenes import WallarooSceneBuilder

        return WallarooSceneBuilder(run, self)


def scene_recipe(tiny: bool = False) -> SceneRecipe:
    """The recipe, or the whole of it in a minute.

    Args:
        tiny: see [`tiny_recipe`].
    """
    return tiny_recipe() if tiny else SceneRecipe()


def tiny_recipe() -> SceneRecipe:
    """The whole recipe in a minute, to see that it runs; what comes out draws nothing."""
    return SceneRecipe(
        tokenizer_rows=200,
        vq_steps=2,
        encoded_rows={
            **dict.fromkeys(("lessons", "large_lessons", "position_lessons", "generation"), 12),
            **dict.fromkeys(("editing", "interleaved", "edit_lessons", "large_edit_lessons", "selection_lessons"), 4),
            **dict.fromkeys(("hard_edit_lessons", "two_step_lessons", "place_lessons", "chats"), 4),
            **dict.fromkeys(("destination_lessons", "chat_lessons"), 4),
        },
        global_batch_size=8,
        per_device_batch_size=8,
        steps=dict.fromkeys(("0", "1", "2", "3a", "3b", "4-lessons", "4-mixed", "4-large", *_DEEP), 2),
        previewed=1,
        looks=1,
    )
