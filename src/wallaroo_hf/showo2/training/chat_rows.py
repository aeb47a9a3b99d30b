"""Rendered chats as rows of training: ids with the blocks of their images, and what the assistant says as labels."""

import bisect
import re
from collections.abc import Sequence
from typing import Any

from ...common.chat_form import IM_END, IMAGE_BLOCK, answer_spans
from ..sequences import IGNORED, Row, image_block
from ..showo2_tokens import SequenceIds

__all__ = ["chat_row"]


def chat_row(rendered: str, images: Sequence[int], tokenizer: Any, ids: SequenceIds) -> Row:
    """A chat: every answer is learned with its `<|im_end|>`, and of pictures in it their marks.

    Args:
        rendered: by the chat's template, each picture as `<|vision_start|><|image_pad|><|vision_end|>`.
        images: tokens of each, in order.
        tokenizer: a fast one, which knows where in a text its tokens are.
        ids: of the marks.
    """
    # the newline behind an answer's end belongs to the next turn, and to none behind the last
    spans = [(start, rendered.rfind(IM_END, start, end) + len(IM_END)) for start, end in answer_spans(rendered)]
    if spans and not rendered[spans[-1][1] :].strip():
        rendered = rendered[: spans[-1][1]]
    encoded = tokenizer(rendered, return_offsets_mapping=True, add_special_tokens=False)
    begins = [found.start() for found in re.finditer(re.escape(IMAGE_BLOCK), rendered)]
    input_ids: list[int] = []
    labels: list[int] = []
    for token, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        block = bisect.bisect_right(begins, begin) - 1
        tokens = [token]
        if block >= 0 and begin < begins[block] + len(IMAGE_BLOCK):
            tokens = image_block(images[block], ids) if token == ids.image_token_id else []
        learned = any(start <= begin and end <= stop for start, stop in spans)
        input_ids += tokens
        labels += [one if learned and one != ids.image_token_id else IGNORED for one in tokens]
    return Row(input_ids, labels)
