"""Every token that Wallaroo adds to, or reads from, the Qwen2.5-VL vocabulary: each one is named here once."""

import re
from collections.abc import Callable, Iterable

from ..common.chat_form import IM_END as IM_END
from ..common.chat_form import IM_START as IM_START
from ..common.chat_form import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

PAD = "<|endoftext|>"
GENERATE_START = "<|generate_start|>"
GENERATE_END = "<|generate_end|>"
PIXEL_START = "<|pixel_start|>"
PIXEL_END = "<|pixel_end|>"
END_OF_LINE = "<|end_of_line>|"  # the odd spelling is the released one
GENERATE_IMAGE_PAD = "<|generate_image_pad|>"

# In the order in which the released code adds them to the tokenizer: it decides their ids.
DRAWING_TOKENS = (GENERATE_START, GENERATE_END, PIXEL_START, PIXEL_END, END_OF_LINE, GENERATE_IMAGE_PAD)

# Edge lengths of the 512-pixel buckets, in the released order of their indicator tokens.
RELEASED_INDICATOR_SIZES = (352, 640, 384, 672, 704, 416, 608, 576, 448, 480, 544, 512)

_INDICATOR = re.compile(r"<indicator:\d+>")

# config.json entry -> token, for every id that the model needs.
CONFIG_TOKEN_IDS = {
    "image_token_id": IMAGE_PAD,
    "video_token_id": VIDEO_PAD,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "generate_start_token_id": GENERATE_START,
    "generate_end_token_id": GENERATE_END,
    "pixel_start_token_id": PIXEL_START,
    "pixel_end_token_id": PIXEL_END,
    "end_of_line_token_id": END_OF_LINE,
    "generate_image_token_id": GENERATE_IMAGE_PAD,
}


def indicator_token(size: int) -> str:
    """The token that announces an edge of `size` pixels, e.g. `<indicator:512>`."""
    return f"<indicator:{size}>"


def indicator_token_ids(id_of: Callable[[str], int], indicator_sizes: Iterable[int]) -> list[int]:
    """The ids of the tokens that announce these sizes; see [`config_token_ids`]."""
    return [id_of(indicator_token(size)) for size in indicator_sizes]


def config_token_ids(id_of: Callable[[str], int], indicator_sizes: Iterable[int]) -> dict[str, int | list[int]]:
    """The entries of `config.json` that are token ids.

    Args:
        id_of: gives the id of a token (`tokenizer.convert_tokens_to_ids`).
        indicator_sizes: those that the checkpoint has tokens for.
    """
    ids: dict[str, int | list[int]] = {key: id_of(token) for key, token in CONFIG_TOKEN_IDS.items()}
    return ids | {"indicator_token_ids": indicator_token_ids(id_of, indicator_sizes)}


def is_drawing_token(token: str) -> bool:
    """Whether a token is one of those that Wallaroo adds, of whatever size."""
    return token in DRAWING_TOKENS or _INDICATOR.fullmatch(token) is not None


def added_tokens(indicator_sizes: Iterable[int] = RELEASED_INDICATOR_SIZES) -> list[str]:
    """All tokens that Wallaroo adds to a Qwen2.5-VL tokenizer, in the order that fixes their ids."""
    return [*DRAWING_TOKENS, *(indicator_token(size) for size in indicator_sizes)]
