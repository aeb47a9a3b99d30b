"""`ShowO2Config`: the configurations of Show-o2's parts, and the ids that join them."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen2Config, Qwen3Config, SiglipVisionConfig
from transformers.configuration_utils import SubConfigSpec

from ..common.unknown_keys import WrittenConfig, refuse_unknown_keys

__all__ = ["ShowO2Config", "ShowO2FlowConfig"]

_RELEASED_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@strict
class ShowO2FlowConfig(WrittenConfig, Qwen3Config):
    r"""Configuration of the flow head: layers of Llama-3.2-1B with norms on queries and keys and adaLN-Zero.

    Inherits every field of `Qwen3Config`; the defaults are those of the released models.

    Args:
        qk_norm_eps (`float`, *optional*, defaults to 1e-6): of the norms on queries and keys; those of layers have
            `rms_norm_eps`.
        final_norm_eps (`float`, *optional*, defaults to 1e-6): of the last layer's norm.
        frequency_embedding_size (`int`, *optional*, defaults to 256): width of the sinusoids that a time becomes; even.

    Raises:
        ValueError: for settings that there are not, and an odd `frequency_embedding_size`.
    """

    model_type = "showo2_flow"
    base_config_key = "flow_config"

    vocab_size: int = 1  # it has no table
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 10
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int = 64
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    rope_parameters: Any = None
    qk_norm_eps: float = 1e-6
    final_norm_eps: float = 1e-6
    frequency_embedding_size: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(type(self), kwargs, written=self.is_written)
        if self.rope_parameters is None:
            self.rope_parameters = dict(_RELEASED_ROPE)
        super().__post_init__(**kwargs)
        if self.frequency_embedding_size < 2 or self.frequency_embedding_size % 2:
            raise ValueError(
                f"`frequency_embedding_size` is {self.frequency_embedding_size}, but must be even and at least 2."
            )


@strict
class ShowO2Config(WrittenConfig):
    r"""Configuration of [`ShowO2ForConditionalGeneration`]. The default ids are those of the released models.

    Args:
        text_config (`dict` or `Qwen2Config`, *optional*): the language model. Its `vocab_size` is that of the table
            (151,669 in the released models), whatever the tokenizer's base has.
        vision_config (`dict` or `SiglipVisionConfig`, *optional*): the layers of the semantic path, as many as there are
            (26 of SigLIP-so400m's 27 in the released models).
        flow_config (`dict` or [`ShowO2FlowConfig`], *optional*): the flow head.
        codec_config (`dict`, *optional*): the image codec: `type` is "wan" (diffusers' `AutoencoderKLWan`, whose arguments
            are the other entries) or "linear" (see [`wallaroo_hf.showo2.image_codecs.LinearCodec`]).
        latent_channels (`int`, *optional*, defaults to 16): of the codec's latents.
        patch_size (`int`, *optional*, defaults to 2): edge of one image token in latents.
        output_layout (`str`, *optional*, defaults to `"raster"`): which latents a token of the flow head speaks of:
            "raster", the next ones in raster order (as released), or "patches", those that it sees itself, which small
            models learn far sooner.
        position_grid (`list[int]`, *optional*, defaults to `[27, 27]`): rows and columns of the position table of the
            semantic path; other grids interpolate it.
        drawing_sizes (`list[list[int]]`, *optional*): `(height, width)` that are offered; any multiple of a token's edge
            can be drawn.
        tasks (`list[str]`, *optional*): what the weights were trained to do, by the words of
            [`wallaroo_hf.families.abilities`].
        text_weight (`float`, *optional*, defaults to 1.0): of the text's loss beside the flow's (0.2 in stage 1).
        stage (`str`, *optional*): the training stage that the weights went through last, where known.
        vision_start_token_id, vision_end_token_id (`int`): around every image.
        image_token_id (`int`): stands for the time and for each token of an image.
        video_start_token_id, video_token_id, video_end_token_id (`int`): the same for a video that is drawn.
        image_placeholder_token_id (`int`): `<image>`, where conversations have an image.

    Raises:
        ValueError: for settings that there are not, or that contradict each other.
    """

    model_type = "showo2"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=Qwen2Config),
        "vision_config": SubConfigSpec(config_class=SiglipVisionConfig),
        "flow_config": SubConfigSpec(config_class=ShowO2FlowConfig),
    }

    text_config: Any = None
    vision_config: Any = None
    flow_config: Any = None
    codec_config: dict[str, Any] | None = None
    latent_channels: int = 16
    patch_size: int = 2
    output_layout: str = "raster"
    position_grid: list[int] | tuple[int, ...] = (27, 27)
    drawing_sizes: list[Any] | tuple[Any, ...] = ((432, 432), (512, 512), (1024, 1024))
    tasks: list[str] | tuple[str, ...] = ("understanding", "text-to-image")
    text_weight: float | int = 1.0
    stage: str | None = None
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    bos_token_id: int | None = 151644
    eos_token_id: int | list[int] | None = 151645
    pad_token_id: int | None = 151665
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    image_token_id: int = 151655
    video_token_id: int = 151656
    image_placeholder_token_id: int = 151666
    video_start_token_id: int = 151667
    video_end_token_id: int = 151668

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)  # for those without this package; kept, it would be saved without its code
        refuse_unknown_keys(type(self), kwargs, written=self.is_written)
        self.pass_on_written("flow_config")
        super().__post_init__(**kwargs)
        if self.codec_config is None:
            self.codec_config = {"type": "wan"}
        if self.output_layout not in ("raster", "patches"):
            raise ValueError(f"`output_layout` is {self.output_layout!r}, but must be 'raster' or 'patches'.")
        if len(self.position_grid) != 2 or min(self.position_grid) < 1:
            raise ValueError(
                f"`position_grid` is {list(self.position_grid)}, but must be two numbers, rows and columns."
            )
        if self.text_config.hidden_size < 1 or self.patch_size < 1 or self.latent_channels < 1:
            raise ValueError("`patch_size`, `latent_channels` and `text_config.hidden_size` must be at least 1.")

    @property
    def token_channels(self) -> int:
        """Numbers of latents in one image token."""
        return self.latent_channels * self.patch_size**2

    @property
    def has_projections(self) -> bool:
        """Whether the flow head has another width than the language model, and so projections between the two."""
        return self.text_config.hidden_size != self.flow_config.hidden_size

    @property
    def special_token_ids(self) -> list[int]:
        """Ids that stand in text only around or in place of images."""
        image = (self.vision_start_token_id, self.vision_end_token_id, self.image_token_id)
        video = (self.video_token_id, self.video_start_token_id, self.video_end_token_id)
        return [*image, *video, self.image_placeholder_token_id]

    def image_tokens(self, latent_size: Sequence[int]) -> int:
        """How many image tokens latents of a size `(h, w)` or `(T, h, w)` have."""
        tokens = 1
        for edge in latent_size[-2:]:
            tokens *= edge // self.patch_size
        return tokens * (latent_size[0] if len(latent_size) == 3 else 1)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: the class comes with an installed package, so saving must not copy its code into the folder."""
