"""What a HieraQuery checkpoint can do, from its three JSON files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..families.abilities import EDITING, GENERATION, INPAINTING, NAVIT_VIDEO_OPTIONS, UNDERSTANDING, VIDEO, Abilities
from ..families.settings import Setting, of_checkpoint
from ..families.sizes import SizeError
from ..files.whole_text import printable

__all__ = [
    "DEFAULT_GUIDANCE_SCALE",
    "DEFAULT_STEPS",
    "PARTS",
    "SCALES_TO_DRAW",
    "HieraQueryAbilities",
    "describe_hieraquery",
    "hieraquery_abilities",
    "latent_edge",
    "listed_sizes",
    "longest_edge",
    "query_positions",
]

DEFAULT_GUIDANCE_SCALE = 5.0  # the paper says nothing; these two are of the authors' later code (Ming-lite-omni)
DEFAULT_STEPS = 30
SCALES_TO_DRAW = ("finest", "all")
TASKS = (UNDERSTANDING, GENERATION, EDITING)
_SIZE = (512, 512)
_SCALES: tuple[dict[str, Any], ...] = (
    {"query_grid": (4, 4), "factor": 0.25},
    {"query_grid": (8, 8), "factor": 0.5},
    {"query_grid": (16, 16), "factor": 1.0},
)
_POSITIONS = 128000  # of Qwen2.5-VL
_LANGUAGES = ("en", "zh")  # of Qwen2.5-VL, as far as this package's own texts go
# diffusers' and our own defaults, where a configuration leaves them out
_PATCH = {"SanaTransformer2DModel": 1, "SD3Transformer2DModel": 2}
_LEVELS = {
    "AutoencoderDC": ("encoder_block_out_channels", 6),
    "AutoencoderKL": ("block_out_channels", 1),
    "WallarooVQModel": ("channel_multiplier", 5),
}
_BYTES = {"bfloat16": 2, "float16": 2}  # of a number; 4 otherwise
_LONGEST_SHAPE = 2  # of listed sizes, longer edge to shorter
_SD3_POSITIONS = 96  # of one axis, by default

# What a checkpoint's tensors belong to, by how their names in files begin (the language model's are Qwen2.5-VL's own).
PARTS = {
    "language model": ("mllm.model.", "mllm.lm_head."),
    "vision encoder": ("mllm.visual.",),
    "queries": ("queries.",),
    "connector": ("connector.",),
    "diffusion transformer": ("dit.",),
    "alignment head": ("alignment.",),
    "image codec": ("codec.",),
}


@dataclass(frozen=True)
class HieraQueryAbilities(Abilities):
    """Pictures are drawn beside the language model, whose positions hold the queries, as many for every size.

    Attributes:
        query_positions: of the queries and what stands around them.
        longest_edge: in pixels, as far as the diffusion transformer has positions; None = any.
    """

    query_positions: int = 0
    longest_edge: int | None = None

    def image_positions(self, height: int, width: int) -> int:
        """Those of the queries, whatever the size."""
        return self.query_positions

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
        if self.longest_edge is not None and max(height, width) > self.longest_edge:
            reason = f"the diffusion transformer has positions for edges up to {self.longest_edge} pixels"
            raise SizeError(
                f"A size of {height}x{width} (height x width) was asked for, but {reason}; ask for a smaller image.",
                reason,
            )


def latent_edge(config: Mapping[str, Any]) -> int:
    """Edge in pixels of one token of the diffusion transformer, at the finest scale.

    Args:
        config: contents of `config.json`.
    """
    codec, dit = config.get("codec") or {}, config.get("dit") or {}
    name, levels = _LEVELS.get(str(codec.get("_class_name", "AutoencoderDC")), ("", 1))
    factor = 2 ** (len(codec[name]) - 1 if codec.get(name) else levels - 1)
    patch = dit.get("patch_size") or _PATCH.get(str(dit.get("_class_name", "SanaTransformer2DModel")), 1)
    return factor * int(patch)


def longest_edge(config: Mapping[str, Any]) -> int | None:
    """The longest edge in pixels that the diffusion transformer has positions for; None = any.

    Args:
        config: contents of `config.json`.
    """
    dit = config.get("dit") or {}
    if dit.get("_class_name") != "SD3Transformer2DModel":
        return None
    return int(dit.get("pos_embed_max_size") or _SD3_POSITIONS) * latent_edge(config)


def query_positions(config: Mapping[str, Any]) -> int:
    """How many positions of the language model the queries of all scales take, with what stands around them.

    Args:
        config: contents of `config.json`.
    """
    return sum(queries + 2 for queries in _group_sizes(config))


def _group_sizes(config: Mapping[str, Any]) -> list[int]:
    """How many queries each group has, in their order."""
    sizes = [math.prod(map(int, scale["query_grid"])) for scale in config.get("scales") or _SCALES]
    order = config.get("query_groups")
    return sizes[-1:] if order == "shared" else sizes[::-1] if order == "fine_to_coarse" else sizes


def listed_sizes(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The `(height, width)` in pixels to choose from: the checkpoint's own first, then others of about its area that fit
    every scale, up to twice as long as wide.

    Args:
        config: contents of `config.json`.
    """
    height, width = (int(edge) for edge in config.get("size") or _SIZE)
    if config.get("drawing_sizes"):
        return tuple(dict.fromkeys((int(one), int(other)) for one, other in config["drawing_sizes"]))
    edge = latent_edge(config)
    scales = () if config.get("coarse_sizes") == "nearest" else config.get("scales") or _SCALES
    factors = [Fraction(scale.get("factor", 1)).limit_denominator(64) for scale in scales]
    multiple = math.lcm(*(edge * factor.denominator for factor in factors))
    longest = longest_edge(config) or math.inf
    sizes = []
    for one in range(multiple, _LONGEST_SHAPE * max(height, width) + 1, multiple):
        other = height * width // one // multiple * multiple
        if other and max(one, other) <= min(longest, _LONGEST_SHAPE * min(one, other)):
            sizes.append((one, other))
    return tuple(dict.fromkeys([(height, width), *sizes]))


def hieraquery_abilities(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> HieraQueryAbilities:
    """What a checkpoint can do.

    Args:
        config, generation_config, processor_config: contents of its files of these names.
    """
    tasks = tuple(config.get("tasks") or TASKS)
    text = (config.get("mllm_config") or {}).get("text_config") or {}
    return HieraQueryAbilities(
        family="HieraQuery",
        tasks=tuple(dict.fromkeys((*tasks, *_untrained(tasks)))),
        video_options=NAVIT_VIDEO_OPTIONS,
        sizes=listed_sizes(config),
        size_multiple=latent_edge(config),
        any_size=True,
        max_positions=int(text.get("max_position_embeddings") or _POSITIONS),
        languages=tuple(processor_config.get("languages") or _LANGUAGES),
        settings=_settings(generation_config, EDITING in tasks),
        negative_prompt=False,  # what guidance steers away from is no condition at all
        progress_unit="step",
        interleaves=False,
        known_words=processor_config.get("known_words") or {},
        query_positions=query_positions(config),
        longest_edge=longest_edge(config),
        keeps_prefixes=True,
    )


def _untrained(tasks: Sequence[str]) -> tuple[str, ...]:
    """What comes with what a checkpoint was trained to do."""
    return (*((INPAINTING,) if EDITING in tasks else ()), *((VIDEO,) if UNDERSTANDING in tasks else ()))


def describe_hieraquery(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `wallaroo info` says of a HieraQuery checkpoint alone.

    Args:
        config, generation_config, processor_config: contents of its files of these names.

    Returns:
        Facts by name, and lines of its table. The cache of an image is the queries' keys and values in the language model,
        which are held while its condition is read; guidance needs no other.
    """
    scales = config.get("scales") or _SCALES
    queries = _group_sizes(config)
    dit = (config.get("dit") or {}).get("_class_name")
    codec = (config.get("codec") or {}).get("_class_name")
    facts = {
        "stage": config.get("stage"),
        "scales": [float(scale.get("factor", 1)) for scale in scales],
        "queries": queries,
        "diffusion_transformer": dit,
        "codec": codec,
        "cache_bytes_per_image": query_positions(config) * _cache_bytes_per_position(config),
    }
    order = str(config.get("query_groups") or "coarse_to_fine").replace("_", " ")
    shown = {
        "training stage": config.get("stage") or "not said",
        "queries": f"{_sum(queries)}, {order}, in the frozen language model",
        "pictures": f"{dit} over {codec}, {latent_edge(config)}x{latent_edge(config)} pixels a token",
    }
    return facts, shown


def _cache_bytes_per_position(config: Mapping[str, Any]) -> int:
    """Keys and values in all layers of the language model."""
    text = (config.get("mllm_config") or {}).get("text_config") or {}
    heads = int(text.get("num_attention_heads") or 1)
    width = int(text.get("hidden_size") or 0) // heads * int(text.get("num_key_value_heads") or heads)
    return 2 * int(text.get("num_hidden_layers") or 0) * width * _BYTES.get(str(config.get("dtype")), 4)


def _sum(numbers: Sequence[int]) -> str:
    return f"{' + '.join(map(str, numbers))} = {sum(numbers)}" if len(numbers) > 1 else str(numbers[0])


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
        tried=(2.5, 5.0, 7.5),
    ),
    Setting(
        "num_inference_steps",
        int,
        "draw",
        DEFAULT_STEPS,
        "Steps from noise to picture, each a call of the diffusion transformer.",
        minimum=1,
        maximum=1000,
        sensible=(8, 200),
        tried=(DEFAULT_STEPS,),
    ),
    Setting("scheduler", object, "draw", None, "One of diffusers' flow schedulers; the checkpoint's own by default."),
    Setting(
        "scales",
        str,
        "draw",
        "finest",
        "The picture alone, or those of all scales too (in `native`), coarse to fine.",
        choices=SCALES_TO_DRAW,
        python_only=True,
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
