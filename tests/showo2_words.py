"""Tokenizers and processors for tests of Show-o2: no Qwen2.5 is here, but the ids that the recordings have are."""

from __future__ import annotations

import functools
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import AutoImageProcessor, PreTrainedTokenizerFast

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ImageProcessor
from wallaroo_hf.showo2.processing.showo2_processor import ShowO2Processor

AutoImageProcessor.register(ShowO2Config, image_processor_classes={"pil": ShowO2ImageProcessor}, exist_ok=True)

# Words of the recorded sequences at the ids that Qwen2.5 has for them.
_WORDS = {
    **{"A": 32, " photo": 6548, " of": 315, " a": 264, " red": 2518, " fox": 38835, " in": 304, " the": 279},
    **{" snow": 11794, ".": 13, "两只": 110397, "猫": 100472, "system": 8948, "\n": 198, "You": 2610, " are": 525},
    **{" helpful": 10950, " assistant": 17847, "user": 872, "Describe": 74785, " image": 2168, " detail": 7716},
    **{"assistant": 77091, " dog": 5562, " runs": 8473, "What": 3838, " is": 374, " it": 432, "?": 30, "Why": 10234},
    **{"It": 2132, " b": 293, "arks": 7193, "Mixed": 86433, "-mod": 17078, "ality": 2719, " generation": 9471},
    **{" (": 320, "V": 53, "IST": 3846, ").": 568, " A": 362, " family": 2997, " goes": 5780, " to": 311},
    " beach": 11321,
}
_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
_PLAIN = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
_FIRST_SPECIAL = 151643


@functools.cache
def _words() -> str:
    """A stand-in for Qwen2.5's tokenizer, as json: each id is there, but only a few of them mean something."""
    known = {index: word for word, index in _WORDS.items()}
    vocabulary = {known.get(index, f"\x00{index}"): index for index in range(_FIRST_SPECIAL)}
    model = models.WordPiece(
        vocabulary, unk_token="\x000", max_input_chars_per_word=10**6, continuing_subword_prefix=""
    )
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in _PLAIN])
    return tokenizer.to_str()


def words_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with Qwen2.5's ids, before Show-o2's are added. It knows the words of the recordings only."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_words()), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def words_processor(**config: Any) -> ShowO2Processor:
    """A processor of the released ids whose pictures to understand have 4x2 tokens, as in the recorded sequences."""
    settings = {"position_grid": [2, 4], "drawing_sizes": [[32, 64], [64, 64], [64, 32]], **config}
    return ShowO2Processor.of_config(ShowO2Config(**settings), words_tokenizer())
