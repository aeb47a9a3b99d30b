"""The recipe of Show-o2 (paper section 4; the authors' configurations of the 1.5B): what each stage trains, how fast."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ...families.part_stages import PartStage
from ...families.training_stages import find_stage
from ...training.data.training_rows import TASKS

__all__ = ["PARTS", "PRE_DISTILLATION", "STAGES", "ShowO2Stage", "showo2_stage"]

# Beginnings of parameter names, without `model.`; and words for several.
_SEMANTIC = ("visual.semantic_patch.", "visual.position_embedding.", "visual.semantic_layers.")
_FLOW = ("visual.projector_patch.", "visual.fusion.", "time_embedding.", "time_projection.", "flow_head.")
_LANGUAGE = ("language_model.", "lm_head.")
ALWAYS_FROZEN = "vae."
PARTS: dict[str, tuple[str, ...]] = {
    "flow_parts": _FLOW,
    "semantic_parts": _SEMANTIC,
    "fusion": ("visual.fusion.",),
    "all": (*_LANGUAGE, *_SEMANTIC, *_FLOW),
}
# Released code: the time embedding is in none of the optimizer's groups of stage 2, so it stays.
_SECOND = tuple(part for part in PARTS["all"] if part != "time_embedding.")
_VISUAL_RATE = dict.fromkeys((*_SEMANTIC, "visual.projector_patch."), 2e-06)

_CHOICES = {
    "understanding": ("caption", "plain", "image", "chat"),
    "interleaved": ("chat", "story"),
    "fit": ("crop", "pad"),
}
PRE_DISTILLATION = "pre-distillation"


@dataclasses.dataclass(frozen=True)
class ShowO2Stage(PartStage):
    """One stage of training Show-o2.

    Attributes:
        name, follows, max_steps, global_batch_size, task_ratio, max_length, loss_weights, lr_scheduler_type, warmup_steps,
            adam_beta1, adam_beta2, adam_epsilon, weight_decay, max_grad_norm, bf16: see
            [`wallaroo_hf.families.training_stages.TrainingStage`].
        trains, learning_rates: see [`PartStage`]; names are without `model.`, such as `("flow_head.", "visual.fusion.")`.
            What a model has no need of (projections between equal widths) may be named.
        learning_rate: of what has no rate of its own.
        text_weight: of the text beside the flow in the loss; what is trained records it.
        caption_dropout: share of drawing rows without their words, for guidance.
        understanding: how rows about pictures are laid out: "caption" (the picture, then the answer; all of it is learned,
            and the question left out), "image" (the same, only the answer is learned), "plain" (picture, questions and
            answers without turns), or "chat". Rows of no picture, of several, and captions of several answers are chats
            in any case.
        interleaved: how interleaved rows are laid out: "chat", or "story" (texts and pictures without turns, as released).
        fit: how pictures that are looked at are brought to the size: "crop", or "pad" with black.
        clean_rate: share of interleaved rows whose first pictures, one to all but the last, are clean.
        image_sizes: `(height, width)` in pixels that drawn pictures are brought to; None = the checkpoint's.
        teacher: folder or Hub id of a SigLIP, whose features the semantic layers learn instead of text and flow.
        noise_rate: share of pictures that are noisy before they are compared with the teacher's features of the clean ones.
    """

    name: str
    follows: tuple[str, ...] | None
    trains: tuple[str, ...]
    learning_rate: float
    warmup_steps: int
    max_steps: int
    global_batch_size: int
    task_ratio: Mapping[str, float]
    lr_scheduler_type: str = "constant_with_warmup"
    max_length: int = 1024
    learning_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    text_weight: float = 1.0
    caption_dropout: float = 0.1
    understanding: str = "chat"
    interleaved: str = "chat"
    fit: str = "pad"
    clean_rate: float = 0.0
    image_sizes: tuple[tuple[int, int], ...] | None = None
    teacher: str | None = None
    noise_rate: float = 0.3
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool = True

    TASKS: ClassVar[tuple[str, ...]] = TASKS
    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = PARTS
    FROZEN: ClassVar[Mapping[str, str]] = {ALWAYS_FROZEN: "the image codec"}
    WRAPPER: ClassVar[str] = "model."

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"Stage setting `{name}` is {getattr(self, name)!r}, but must be one of {', '.join(choices)}."
                )
        for name in ("caption_dropout", "clean_rate", "noise_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Stage setting `{name}` is {getattr(self, name)!r}, but must be in [0, 1].")
        if not self.text_weight >= 0:
            raise ValueError(f"Stage setting `text_weight` is {self.text_weight!r}, but must be at least 0.")
        if (self.teacher is None) == (self.name == PRE_DISTILLATION):
            raise ValueError(
                f"Stage setting `teacher` is {self.teacher!r}, but stage {self.name} "
                + (
                    "needs the folder or Hub id of a SigLIP."
                    if self.teacher is None
                    else "has no teacher; leave it out."
                )
            )
        self.check()

    def read_setting(self, key: str, value: Any) -> Any:
        """Brings a YAML value to the kind of the setting that it replaces.

        Args:
            key: a setting's name.
            value: what was given for it.

        Raises:
            ValueError: if it is of another kind.
        """
        if key == "teacher":
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"Stage setting `teacher` is {value!r}, but must be the folder or Hub id of a SigLIP, or null."
                )
            return value
        return super().read_setting(key, value)


def pre_distillation() -> ShowO2Stage:
    """The semantic layers learn to see in latents what a SigLIP sees in pixels; `teacher` names it."""
    return ShowO2Stage(
        name=PRE_DISTILLATION,
        follows=(),
        trains=PARTS["semantic_parts"],
        learning_rate=2e-5,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        max_steps=200_000,
        global_batch_size=512,
        task_ratio={"understanding": 1},
        teacher="google/siglip-so400m-patch14-384",
        fit="crop",
    )


def stage_1a() -> ShowO2Stage:
    """The flow head and what joins it learn to draw; language model and semantic layers are frozen."""
    return ShowO2Stage(
        name="1a",
        follows=(PRE_DISTILLATION,),
        trains=PARTS["flow_parts"],
        learning_rate=1e-4,
        warmup_steps=2000,
        max_steps=150_000,
        global_batch_size=512,
        task_ratio={"generation": 6, "understanding": 2},
        text_weight=0.2,
        understanding="caption",
        fit="crop",
    )


def stage_1b() -> ShowO2Stage:
    """The same on better pictures."""
    return dataclasses.replace(stage_1a(), name="1b", follows=("1a",), warmup_steps=0, max_steps=40_000)


def stage_2a() -> ShowO2Stage:
    """The fusion learns to answer. The paper trains one epoch of 558,000 captions: so many steps."""
    return dataclasses.replace(
        stage_1b(),
        name="2a",
        follows=("1b", "1a"),
        trains=PARTS["fusion"],
        learning_rate=5e-5,
        lr_scheduler_type="cosine",
        warmup_steps=65,
        max_steps=2_180,
        task_ratio={"generation": 1, "understanding": 1},
        text_weight=1.0,
        understanding="plain",
        fit="pad",
    )


def stage_2b() -> ShowO2Stage:
    """Everything learns from pictures and long captions. One epoch in the paper; the steps are a plain choice."""
    return dataclasses.replace(
        stage_2a(),
        name="2b",
        follows=("2a",),
        trains=_SECOND,
        learning_rate=1e-5,
        learning_rates=_VISUAL_RATE,
        warmup_steps=300,
        max_steps=10_000,
        understanding="image",
    )


def stage_2c() -> ShowO2Stage:
    """Everything learns from chats: one epoch of 3.2 million."""
    return dataclasses.replace(
        stage_2b(), name="2c", follows=("2b",), warmup_steps=375, max_steps=12_500, understanding="chat"
    )


def interleaved() -> ShowO2Stage:
    """Fine-tuning on text with up to four pictures among it."""
    return dataclasses.replace(
        stage_1b(),
        name="interleaved",
        follows=None,
        max_steps=40_000,
        global_batch_size=64,
        task_ratio={"generation": 1, "understanding": 1, "interleaved": 2},
        max_length=4352,
        interleaved="story",
        clean_rate=0.7,
    )


# By the names that `--stage` takes, in order.
STAGES: dict[str, Callable[[], ShowO2Stage]] = {
    make().name: make for make in (pre_distillation, stage_1a, stage_1b, stage_2a, stage_2b, stage_2c, interleaved)
}


def showo2_stage(name: str) -> ShowO2Stage:
    """The stage of a name: pre-distillation, 1a, 1b, 2a, 2b, 2c or interleaved.

    Raises:
        ValueError: for another name.
    """
    return find_stage(STAGES, name)()
