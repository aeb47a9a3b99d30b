"""`WallarooConfig`: Qwen2.5-VL's configuration, the image tokenizer's, and the ids that join them."""

from collections.abc import Iterable
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5_VLConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from ..common.unknown_keys import WrittenConfig, field_names, logger, refuse_unknown_keys
from .parts import IMAGE_TASKS, ImageTask

__all__ = ["WallarooConfig", "WallarooVQConfig"]

# Found in published Qwen2.5-VL configurations, read by nobody or folded into `rope_parameters`.
_QWEN_KEYS = {"in_chans", "rope_scaling", "rope_theta", "spatial_patch_size", "vision_token_id"}

# Text settings that trainers and users also set on the outer configuration, whatever the inner one says.
_SET_BY_TRAINERS = {"bos_token_id", "eos_token_id", "pad_token_id", "use_cache"}


@strict
class WallarooVQConfig(WrittenConfig):
    r"""Configuration of the image tokenizer (LlamaGen's VQ-16, arXiv 2406.06525).

    Args:
        codebook_size (`int`, *optional*, defaults to 16384): number of image codes.
        embed_dim (`int`, *optional*, defaults to 8): width of a code's vector; it is L2-normalised.
        base_channels (`int`, *optional*, defaults to 128): width of the first convolution.
        channel_multiplier (`list[int]`, *optional*, defaults to `[1, 1, 2, 2, 4]`): width per resolution; a code
            spans `2 ** (len(channel_multiplier) - 1)` pixels.
        num_res_blocks (`int`, *optional*, defaults to 2): residual blocks per resolution.
        latent_channels (`int`, *optional*, defaults to 256): width between encoder and codebook.
        in_channels (`int`, *optional*, defaults to 3), out_channels (`int`, *optional*, defaults to 3): RGB.
        dropout (`float`, *optional*, defaults to 0.0): in residual blocks.
        double_latent (`bool`, *optional*, defaults to `False`): kept for transformers' encoder, which reads it.
        norm_num_groups (`int`, *optional*, defaults to 32): groups of every group norm, as released. A narrow tokenizer
            wants fewer: with one channel per group, flat areas lose their colour.

    Raises:
        ValueError: unless `base_channels` is a multiple of 32 (transformers' blocks are built with 32 groups) and of
            `norm_num_groups`.
    """

    model_type = "wallaroo_vq"
    base_config_key = "vq_config"

    codebook_size: int = 16384
    embed_dim: int = 8
    base_channels: int = 128
    channel_multiplier: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    latent_channels: int = 256
    in_channels: int = 3
    out_channels: int = 3
    dropout: float | int = 0.0
    double_latent: bool = False
    initializer_range: float = 0.02
    norm_num_groups: int = 32

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(type(self), kwargs, _QWEN_KEYS, self.is_written)
        super().__post_init__(**kwargs)
        if self.norm_num_groups < 1 or self.base_channels % 32 or self.base_channels % self.norm_num_groups:
            raise ValueError(
                f"`base_channels` is {self.base_channels} and `norm_num_groups` is {self.norm_num_groups}, but the image "
                "tokenizer needs `base_channels` to be a multiple of 32 and of `norm_num_groups`; change one of them."
            )

    @property
    def image_token_size(self) -> int:
        """Edge of one code in pixels."""
        return 2 ** (len(self.channel_multiplier) - 1)


@strict
class WallarooConfig(WrittenConfig, Qwen2_5_VLConfig):
    r"""Configuration of [`WallarooForConditionalGeneration`].

    Inherits every field of `Qwen2_5_VLConfig` (flat published Qwen2.5-VL configurations are accepted too). Image codes
    live in sequences at `text_config.vocab_size + index`. The default ids are those of the released model.

    Args:
        vq_config (`dict` or `WallarooVQConfig`, *optional*): the image tokenizer.
        codebook_size (`int`, *optional*): number of image codes; taken from `vq_config`, and must equal it.
        has_editing (`bool`, *optional*, defaults to `True`): whether the editing modules exist (stage 4).
        stage (`str`, *optional*): the training stage that the weights went through last, where known.
        generate_start_token_id, generate_end_token_id (`int`): around an image that is drawn.
        pixel_start_token_id, pixel_end_token_id (`int`): around the source image of an edit.
        end_of_line_token_id (`int`): between two rows of codes.
        generate_image_token_id (`int`): placeholder of a code to learn, `<|generate_image_pad|>`.
        indicator_token_ids (`list[int]`): tokens that announce the edges of an image, `<indicator:N>`; none in stages
            without them.

    Attributes:
        image_tasks: what a model of this class can draw, see [`ImageTask`]; a part of the class, not of the file.

    Raises:
        ValueError: for keys that neither this class, nor transformers, nor published Qwen2.5-VL configurations have,
            and for a `codebook_size` that contradicts `vq_config`.
    """

    model_type = "wallaroo"
    sub_configs_defaults = {
        **Qwen2_5_VLConfig.sub_configs_defaults,
        "vq_config": SubConfigSpec(config_class=WallarooVQConfig),
    }

    image_tasks: ClassVar[tuple[ImageTask, ...]] = IMAGE_TASKS

    vq_config: Any = None
    codebook_size: int | None = None
    has_editing: bool = True
    stage: str | None = None
    generate_start_token_id: int = 151665
    generate_end_token_id: int = 151666
    pixel_start_token_id: int = 151667
    pixel_end_token_id: int = 151668
    end_of_line_token_id: int = 151669
    generate_image_token_id: int = 151670
    indicator_token_ids: list[int] | tuple[int, ...] = tuple(range(151671, 151683))

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)  # for those without this package; kept, it would be saved without its code
        if self.text_config is not None:
            for key in (field_names(Qwen2_5_VLTextConfig) & set(kwargs)) - field_names(type(self)) - _SET_BY_TRAINERS:
                self._drop_repeated(key, kwargs.pop(key))
        written = self.is_written
        refuse_unknown_keys(type(self), kwargs, field_names(Qwen2_5_VLTextConfig) | _QWEN_KEYS, written)
        if isinstance(self.text_config, dict):
            # configs re-saved by transformers 4.5x repeat the image token ids in here
            also_known = field_names(Qwen2_5_VLConfig) | _QWEN_KEYS
            refuse_unknown_keys(Qwen2_5_VLTextConfig, self.text_config, also_known, written)
        if isinstance(self.vision_config, dict):
            refuse_unknown_keys(Qwen2_5_VLVisionConfig, self.vision_config, _QWEN_KEYS, written)
        self.pass_on_written("vq_config")
        super().__post_init__(**kwargs)
        if self.codebook_size is None:
            self.codebook_size = self.vq_config.codebook_size
        if self.codebook_size != self.vq_config.codebook_size:
            raise ValueError(
                f"`codebook_size` is {self.codebook_size}, but the image tokenizer (`vq_config`) has "
                f"{self.vq_config.codebook_size} codes; make them equal, or leave `codebook_size` out."
            )

    @property
    def drawing_token_ids(self) -> list[int]:
        """The tokens that only stand in, before or around images that are drawn; text never holds them."""
        around = (*self.image_start_token_ids, self.generate_end_token_id, self.pixel_start_token_id)
        within = (self.pixel_end_token_id, self.end_of_line_token_id, self.generate_image_token_id)
        return [*around, *within, *self.indicator_token_ids]

    @property
    def image_start_token_ids(self) -> list[int]:
        """The tokens that open an image that is drawn."""
        ids = (getattr(self, task.start_token) for task in self.image_tasks)
        return list(dict.fromkeys(token for token in ids if token is not None))

    def has_task(self, task: ImageTask) -> bool:
        """Whether the parts of an image task exist."""
        return task.switch is None or bool(getattr(self, task.switch))

    @property
    def image_adapters(self) -> tuple[str, ...]:
        """The adapters that exist, each once, in the order in which they are made."""
        there = filter(self.has_task, self.image_tasks)
        return tuple(dict.fromkeys(adapter for task in there for adapter in task.adapters))

    @property
    def image_heads(self) -> tuple[str, ...]:
        """The image heads that exist, each once, in the order in which they are made."""
        return tuple(dict.fromkeys(task.head for task in filter(self.has_task, self.image_tasks)))

    def require_tasks(self, indices: Iterable[int]) -> None:
        """Raises for an image task (its index in `image_tasks`) whose parts do not exist.

        Raises:
            ValueError: saying what to do.
        """
        for task in (self.image_tasks[index] for index in sorted(set(indices))):
            if not self.has_task(task):
                raise ValueError(task.lacking)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: the class comes with an installed package, so saving must not copy its code into the folder.

        transformers calls it when a checkpoint from the Hub is loaded with `trust_remote_code=True`.
        """

    def _drop_repeated(self, key: str, value: Any) -> None:
        """Configurations saved by transformers 4.5x repeat text settings beside `text_config`; they must say the same."""
        text = self.text_config
        inner = text.get(key) if isinstance(text, dict) else getattr(text, key, None)
        if inner == value:
            return
        if not self.is_written:
            raise ValueError(
                f"`{key}` is {value!r} beside `text_config` but {inner!r} in it; give it in `text_config` only."
            )
        logger.warning("`%s` is %r beside `text_config` but %r in it, which counts.", key, value, inner)
