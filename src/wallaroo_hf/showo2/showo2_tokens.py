"""Every token that Show-o2 adds to, or reads from, the Qwen2.5 vocabulary: each one is named here once."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..common.chat_form import IM_END, IM_START, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

__all__ = ["ADDED_TOKENS", "CONFIG_TOKENS", "SequenceIds", "add_tokens", "config_token_ids"]

PAD = "[PAD]"
IMAGE_PLACEHOLDER = "<image>"  # where a conversation of the training data has an image
VIDEO_START = "<|vid_start|>"
VIDEO_END = "<|vid_end|>"

# In the order in which the released code adds them to the tokenizer: it decides their ids.
ADDED_TOKENS = (PAD, IMAGE_PLACEHOLDER, VIDEO_START, VIDEO_END)

# config.json entry -> token, for every id that the model needs.
CONFIG_TOKENS = {
    "bos_token_id": IM_START,
    "eos_token_id": IM_END,
    "pad_token_id": PAD,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "image_token_id": IMAGE_PAD,
    "video_token_id": VIDEO_PAD,
    "image_placeholder_token_id": IMAGE_PLACEHOLDER,
    "video_start_token_id": VIDEO_START,
    "video_end_token_id": VIDEO_END,
}


class SequenceIds(NamedTuple):
    """The ids that sequences are made of, by the names that `config.json` has for them.

    Attributes:
        bos_token_id: opens a sequence, and a turn.
        eos_token_id: ends both.
        pad_token_id: fills rows up.
        vision_start_token_id, vision_end_token_id: around every image.
        image_token_id: stands for an image's time and for each of its tokens.
        video_token_id, video_start_token_id, video_end_token_id: the same of a video that is to be made.
        image_placeholder_token_id: `<image>`.
    """

    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    image_token_id: int
    video_token_id: int
    video_start_token_id: int
    video_end_token_id: int
    image_placeholder_token_id: int

    @classmethod
    def of_config(cls, config: Any) -> "SequenceIds":
        """Those of a model's configuration, an object or what `config.json` holds."""
        read = config.__getitem__ if isinstance(config, Mapping) else lambda name: getattr(config, name)
        return cls(*(_first(read(name)) for name in cls._fields))

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> "SequenceIds":
        """Those of a tokenizer that has the tokens; see [`add_tokens`].

        Raises:
            ValueError: naming those that it lacks.
        """
        return cls(**config_token_ids(tokenizer))


def _first(value: int | list[int]) -> int:
    return value[0] if isinstance(value, list) else value


def add_tokens(tokenizer: Any) -> None:
    """Adds the four tokens to a Qwen2.5 tokenizer, in the released order, and makes the first of them what it pads with.

    A tokenizer that has them already stays as it is.

    Args:
        tokenizer: of transformers.

    Raises:
        ValueError: naming Qwen2.5's own tokens that it lacks.
    """
    _require(tokenizer, (token for token in CONFIG_TOKENS.values() if token not in ADDED_TOKENS))
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)
    tokenizer.pad_token = PAD
    tokenizer.eos_token = IM_END


def config_token_ids(tokenizer: Any) -> dict[str, int]:
    """The entries of `config.json` that are token ids.

    Raises:
        ValueError: naming tokens that the tokenizer lacks.
    """
    _require(tokenizer, CONFIG_TOKENS.values())
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in CONFIG_TOKENS.items()}


def _require(tokenizer: Any, tokens: Iterable[str]) -> None:
    missing = [token for token in tokens if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)]
    if missing:
        raise ValueError(
            f"The tokenizer lacks the tokens {', '.join(missing)}; load it from a converted checkpoint (`wallaroo "
            "convert`), or from a Qwen2.5 and add Show-o2's with `wallaroo_hf.showo2.showo2_tokens.add_tokens`."
        )
