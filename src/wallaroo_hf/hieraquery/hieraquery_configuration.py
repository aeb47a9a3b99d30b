"""`HieraQueryConfig`: the configurations of HieraQuery's parts, and the scales of its queries."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5_VLConfig, Qwen2Config
from transformers.configuration_utils import SubConfigSpec

from ..common.unknown_keys import WrittenConfig, refuse_unknown_keys

__all__ = ["HieraQueryConfig"]

_SCALE_SETTINGS = {"query_grid", "factor", "loss_weight"}
_PAPER_SCALES = (
    {"query_grid": [4, 4], "factor": 0.25, "loss_weight": 1.0},
    {"query_grid": [8, 8], "factor": 0.5, "loss_weight": 1.0},
    {"query_grid": [16, 16], "factor": 1.0, "loss_weight": 1.0},
)
_CONDITIONS = ("own", "prefix", "all")
_QUERY_POSITIONS = ("text", "grid")
_COARSE_SIZES = ("exact", "nearest")
_QUERY_GROUPS = ("coarse_to_fine", "fine_to_coarse", "shared")


@strict
class HieraQueryConfig(WrittenConfig):
    r"""Configuration of a HieraQuery model.

    Args:
        mllm_config (`dict` or `Qwen2_5_VLConfig`, *optional*): the multimodal language model, which is never trained.
        connector_config (`dict` or `Qwen2Config`, *optional*): the transformer between its states and the diffusion
            transformer; it looks both ways and has no table of words.
        dit (`dict`, *optional*): the diffusion transformer as diffusers writes it, with `_class_name`:
            "SanaTransformer2DModel" or "SD3Transformer2DModel".
        codec (`dict`, *optional*): the image codec with `_class_name`: "AutoencoderKL", "AutoencoderDC",
            "WallarooVQModel" or "pixels".
        scheduler (`dict`, *optional*): diffusers' scheduler; of it, `shift` is used.
        scales (`list[dict]`, *optional*, defaults to the paper's three): from coarse to fine, each `query_grid` (rows and
            columns of queries), `factor` (edge of its target, as a share of the picture's; the last is 1.0) and
            `loss_weight` (0 = its queries stand there, but nothing is drawn from them).
        condition (`str`, *optional*, defaults to `"own"`): which states condition a scale: its own queries', also those of
            coarser ones ("prefix"), or all.
        query_positions (`str`, *optional*, defaults to `"text"`): of queries in the language model: one after the other, or
            rows and columns ("grid").
        query_groups (`str`, *optional*, defaults to `"coarse_to_fine"`): of queries behind a prompt: one for each scale,
            coarse ones first or fine ones first ("fine_to_coarse"), or one that serves all scales, which then all name its
            grid ("shared").
        alignment_layer (`int`, *optional*): block of the diffusion transformer whose states are aligned with what the
            vision encoder sees, from 0; None = at a third of its depth.
        alignment_weight (`float`, *optional*, defaults to 0.5): of the alignment in the loss; 0 = there is no such part.
        alignment_width (`int`, *optional*, defaults to 2048): of the hidden layers of the alignment's head.
        query_std (`float`, *optional*, defaults to 0.02): standard deviation of fresh queries; that of the language model's
            table of words is right.
        condition_dropout (`float`, *optional*, defaults to 0.1): share of training rows without condition.
        size (`list[int]`, *optional*, defaults to `[512, 512]`): height and width of pictures where none is asked for.
        drawing_sizes (`list[list[int]]`, *optional*): heights and widths to choose from; None = `size` and others of about
            its area that fit every scale.
        coarse_sizes (`str`, *optional*, defaults to `"exact"`): a picture must fit every scale, or it has at coarser ones
            the nearest size of its shape that does ("nearest").
        tasks (`list[str]`, *optional*): what the weights were trained to do, by the words of
            [`wallaroo_hf.families.abilities`].
        stage (`str`, *optional*): the training stage that the weights went through last, where known.

    Raises:
        ValueError: for settings that there are not, or that contradict each other.
    """

    model_type = "hieraquery"
    sub_configs_defaults = {
        "mllm_config": SubConfigSpec(config_class=Qwen2_5_VLConfig),
        "connector_config": SubConfigSpec(config_class=Qwen2Config),
    }

    mllm_config: Any = None
    connector_config: Any = None
    dit: dict[str, Any] | None = None
    codec: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    scales: list[Any] | tuple[Any, ...] = _PAPER_SCALES
    condition: str = "own"
    query_positions: str = "text"
    query_groups: str = "coarse_to_fine"
    alignment_layer: int | None = None
    alignment_weight: float | int = 0.5
    alignment_width: int = 2048
    condition_dropout: float | int = 0.1
    query_std: float = 0.02
    size: list[int] | tuple[int, ...] = (512, 512)
    drawing_sizes: list[Any] | tuple[Any, ...] | None = None
    coarse_sizes: str = "exact"
    tasks: list[str] | tuple[str, ...] = ("understanding", "text-to-image", "image-editing")
    stage: str | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False  # the language model's own configuration says whether its tables are one

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)  # for those without this package; kept, it would be saved without its code
        refuse_unknown_keys(type(self), kwargs, written=self.is_written)
        super().__post_init__(**kwargs)
        self.connector_config.is_causal = False  # read by attention when it is made
        self.dit = {"_class_name": "SanaTransformer2DModel"} if self.dit is None else dict(self.dit)
        self.codec = {"_class_name": "AutoencoderDC"} if self.codec is None else dict(self.codec)
        self.scheduler = {} if self.scheduler is None else dict(self.scheduler)
        self.scales = [_checked_scale(number, scale) for number, scale in enumerate(self.scales)]
        self._check()

    def _check(self) -> None:
        if not self.scales:
            raise ValueError("`scales` is empty; give at least one scale.")
        factors = [scale["factor"] for scale in self.scales]
        if factors != sorted(factors) or factors[-1] != 1.0:
            raise ValueError(f"`scales` have the factors {factors}; give them from coarse to fine, the last of 1.0.")
        choices = {
            "condition": _CONDITIONS,
            "query_positions": _QUERY_POSITIONS,
            "query_groups": _QUERY_GROUPS,
            "coarse_sizes": _COARSE_SIZES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, but must be one of {', '.join(known)}.")
        grids = [scale["query_grid"] for scale in self.scales]
        if self.query_groups == "shared" and any(grid != grids[-1] for grid in grids):
            raise ValueError(
                f"`query_groups` is 'shared', but the scales have the grids {grids}; give all of them one."
            )
        if not 0 <= self.condition_dropout <= 1 or self.alignment_weight < 0:
            raise ValueError("`condition_dropout` must be from 0 to 1, and `alignment_weight` at least 0.")
        for size in (self.size, *(self.drawing_sizes or ())):
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"`size` is {list(size)}, but must be two numbers, height and width.")

    @property
    def groups(self) -> list[list[int]]:
        """The scales that each group of queries serves, in the order of groups."""
        scales = list(range(len(self.scales)))
        if self.query_groups == "shared":
            return [scales]
        return [[scale] for scale in (scales if self.query_groups == "coarse_to_fine" else reversed(scales))]

    @property
    def group_grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each group of queries."""
        grids = [self.scales[group[-1]]["query_grid"] for group in self.groups]
        return [(rows, columns) for rows, columns in grids]

    @property
    def num_queries(self) -> list[int]:
        """How many queries each group has."""
        return [rows * columns for rows, columns in self.group_grids]

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: the class comes with an installed package, so saving must not copy its code into the folder."""


def _checked_scale(number: int, scale: Any) -> dict[str, Any]:
    """A scale with all its settings."""
    if (
        not isinstance(scale, Mapping)
        or scale.keys() - _SCALE_SETTINGS
        or not {"query_grid", "factor"} <= scale.keys()
    ):
        raise ValueError(
            f"Scale {number} is {scale!r}; give `query_grid` (rows and columns), `factor` and, if need be, `loss_weight`."
        )
    grid, factor, weight = list(scale["query_grid"]), float(scale["factor"]), float(scale.get("loss_weight", 1.0))
    if len(grid) != 2 or min(grid) < 1 or not 0 < factor <= 1 or weight < 0:
        raise ValueError(
            f"Scale {number} is {dict(scale)}; `query_grid` must be two numbers of at least 1, `factor` above 0 and at "
            "most 1, and `loss_weight` at least 0."
        )
    return {"query_grid": grid, "factor": factor, "loss_weight": weight}
