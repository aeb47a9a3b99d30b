"""What a Show-o2 checkpoint can do, from its three JSON files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..families.abilities import EDITING, GENERATION, UNDERSTANDING, VIDEO, Abilities
from ..families.settings import Setting, of_checkpoint
from ..files.whole_text import printable

__all__ = ["PARTS", "ShowO2Abilities", "describe_showo2", "showo2_abilities", "token_size"]

# What the released checkpoints do; `config.json` leaves out what is as in them.
RELEASED_TASKS = (UNDERSTANDING, GENERATION)
RELEASED_SIZES = ((432, 432), (512, 512), (1024, 1024))
DEFAULT_GUIDANCE_SCALE = 5.0
DEFAULT_STEPS = 49  # calls of the model: the authors' 50 points
_POSITIONS = 32768  # of Qwen2.5
_LANGUAGES = ("en", "zh")  # of Qwen2.5, as far as this package's own texts go
_PATCH_SIZE, _CHANNELS = 2, 16


# What a checkpoint's tensors belong to, by how their names begin.
PARTS = {
    "language model": ("model.language_model.", "lm_head."),
    "semantic path": ("model.visual.semantic_", "model.visual.position_embedding."),
    "projector and fusion": ("model.visual.projector_", "model.visual.fusion."),
    "time": ("model.time_",),
    "flow head": ("flow_head.",),
    "image codec": ("vae.",),
}


@dataclass(frozen=True)
class ShowO2Abilities(Abilities):
    """Pictures are continuous tokens, of any size that is made of whole ones."""

    def image_positions(self, height: int, width: int) -> int:
        """Tokens, the time before them, and a mark on both sides."""
        return self.image_tokens(height, width) + 3

    def check_size(self, height: int, width: int) -> None:
        """Refuses sizes in pixels that cannot be drawn.

        Raises:
            ValueError: in one sentence.
        """
        for name, value in (("height", height), ("width", width)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(
                    f"`{name}` is {printable(repr(value), 60)}, but must be a whole number of pixels, a multiple of "
                    f"{self.size_multiple}."
                )
        super().check_size(height, width)


def token_size(config: Mapping[str, Any]) -> int:
    """Edge of one image token in pixels.

    Args:
        config: contents of `config.json`.
    """
    codec = config.get("codec_config") or {}
    if codec.get("type") == "linear":
        factor = int(codec.get("patch", 8))
    else:  # each level of the codec but the last halves the size
        factor = int(codec.get("scale_factor_spatial") or 2 ** (len(codec.get("dim_mult") or (1, 2, 4, 4)) - 1))
    return factor * int(config.get("patch_size", _PATCH_SIZE))


def showo2_abilities(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> ShowO2Abilities:
    """What a checkpoint can do.

    Args:
        config, generation_config, processor_config: contents of its files of these names.
    """
    tasks = tuple(config.get("tasks") or RELEASED_TASKS)
    return ShowO2Abilities(
        family="Show-o2",
        tasks=(*tasks, *((VIDEO,) if UNDERSTANDING in tasks and VIDEO not in tasks else ())),
        sizes=tuple((int(height), int(width)) for height, width in config.get("drawing_sizes") or RELEASED_SIZES),
        size_multiple=token_size(config),
        any_size=True,
        max_positions=int((config.get("text_config") or {}).get("max_position_embeddings") or _POSITIONS),
        languages=tuple(processor_config.get("languages") or _LANGUAGES),
        settings=_settings(generation_config, EDITING in tasks),
        negative_prompt=True,
        video_options=("num_frames",),
        progress_unit="step",
        known_words=processor_config.get("known_words") or {},
        keeps_prefixes=True,
    )


def describe_showo2(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `wallaroo info` says of a Show-o2 checkpoint alone.

    Args:
        config, generation_config, processor_config: contents of its files of these names.

    Returns:
        Facts by name, and lines of its table.
    """
    edge, channels = token_size(config), int(config.get("latent_channels", _CHANNELS))
    codec = (config.get("codec_config") or {}).get("type", "wan")
    facts = {
        "stage": config.get("stage"),
        "image_token_size": edge,
        "latent_channels": channels,
        "codec": codec,
    }
    shown = {
        "training stage": config.get("stage") or "not said",
        "image tokens": f"continuous, {edge}x{edge} pixels each; latents of {channels} channels ({codec} codec)",
    }
    return facts, shown


def _settings(generation_config: Mapping[str, Any], edits: bool) -> tuple[Setting, ...]:
    return of_checkpoint((*_DRAWING, *((_SOURCE_FIT,) if edits else ())), generation_config)


_DRAWING = (
    Setting(
        "guidance_scale",
        float,
        "draw",
        DEFAULT_GUIDANCE_SCALE,
        "Classifier-free guidance: how closely the picture keeps to the words; off at 1.",
        minimum=0,
        above_minimum=True,
        maximum=100,
        sensible=(1.0, 15.0),
        tried=(2.5, 5.0, 7.5, 10.0),
    ),
    Setting(
        "num_inference_steps",
        int,
        "draw",
        DEFAULT_STEPS,
        "Steps from noise to picture, each a call of the model; the authors count one more.",
        minimum=1,
        maximum=1000,
        sensible=(10, 200),
        tried=(DEFAULT_STEPS,),
    ),
    Setting("scheduler", object, "draw", None, "One of diffusers' flow schedulers; the released one by default."),
    Setting(
        "published_eval",
        bool,
        "both",
        False,
        "Sequences, noise and cut prompts of the authors' scripts, where these differ from training.",
        of_answers=True,
    ),
)
_SOURCE_FIT = Setting(
    "source_fit",
    str,
    "prepare",
    "pad",
    "pad keeps the whole source and its size; crop cuts it to a listed size, as in training.",
    choices=("pad", "crop"),
)
