"""The form of chats that Qwen2.5's instruction models read (ChatML): its tokens, and the turns of a rendered chat."""

import re
from collections.abc import Iterable

from ..files.whole_text import printable

__all__ = [
    *("IMAGE_BLOCK", "IMAGE_PAD", "IM_END", "IM_START", "SYSTEM_PROMPT", "TURN", "VIDEO_BLOCK", "VIDEO_PAD"),
    *("VISION_END", "VISION_START", "answer_spans", "expand_rows", "expand_vision", "require_placeholders", "said"),
    "split_chat",
]

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
IMAGE_BLOCK = f"{VISION_START}{IMAGE_PAD}{VISION_END}"  # as chat templates write one
VIDEO_BLOCK = f"{VISION_START}{VIDEO_PAD}{VISION_END}"
SYSTEM_PROMPT = "You are a helpful assistant."

TURN = re.compile(
    rf"{re.escape(IM_START)}(?P<role>[^\n]*)\n(?P<content>.*?)(?:{re.escape(IM_END)}\n?|\Z)", flags=re.DOTALL
)


def expand_vision(text: str, lengths: list[int], pad: str = IMAGE_PAD) -> str:
    """Repeats each `<|image_pad|>` (or another `pad`) of a text as often as its image has NaViT tokens."""
    pieces = text.split(pad)
    expanded = [pieces[0]]
    for length, piece in zip(lengths, pieces[1:], strict=True):
        expanded += [pad * length, piece]
    return "".join(expanded)


def expand_rows(texts: Iterable[str], lengths: Iterable[int], pad: str = IMAGE_PAD) -> list[str]:
    """Texts in which each placeholder is repeated, see [`expand_vision`].

    Args:
        texts: one per row.
        lengths: of all placeholders, row by row.
        pad: the placeholder.
    """
    queue = iter(lengths)
    return [expand_vision(text, [next(queue) for _ in range(text.count(pad))], pad) for text in texts]


def require_placeholders(texts: Iterable[str], pad: str, given: int, what: str) -> None:
    """Makes sure that as many pictures or videos were given as prompts have placeholders.

    Args:
        texts: the prompts.
        pad: the placeholder.
        given: how many were given.
        what: what they are called, such as "image".

    Raises:
        ValueError: if they do not match.
    """
    placeholders = sum(text.count(pad) for text in texts)
    if placeholders != given:
        raise ValueError(
            f"The prompts hold {placeholders} {pad} placeholders, but {given} {what}s were given; "
            f"they must match (`processor.apply_chat_template` writes one per {what})."
        )


def split_chat(text: str) -> tuple[str, str]:
    """Splits a rendered chat into `(history, prompt)`: the last user turn and everything before it.

    An empty assistant header at the end (the generation prompt) is dropped.

    Raises:
        ValueError: if no user turn is last, or words follow it that belong to no turn.
    """
    turns = list(TURN.finditer(text))
    header = None
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
        header = turns.pop()
    if not turns or turns[-1]["role"] != "user":
        raise ValueError(
            "A chat was given to draw from, but its last message is not from the user; end it with a message of "
            "role 'user' that says what to draw."
        )
    end = turns[-1].end()
    behind = (text[end:] if header is None else text[end : header.start()] + text[header.end() :]).strip()
    if behind:
        raise ValueError(
            f"A chat was given to draw from, but '{printable(behind[:60])}' follows the end of its last message; put it "
            "into that."
        )
    return text[: turns[-1].start()], turns[-1]["content"]


def said(text: str, blocks: Iterable[str] = (IMAGE_BLOCK,)) -> str:
    """What is said in a rendered chat: roles and contents, without the tokens of turns and of whole blocks of images.

    Args:
        blocks: those that may stand in it.
    """
    for block in blocks:
        text = text.replace(block, "\n")
    return TURN.sub(lambda turn: f"{turn['role']}\n{turn['content']}\n", text)


def answer_spans(text: str) -> list[tuple[int, int]]:
    """Character ranges of what the assistant says in a rendered chat, each with its `<|im_end|>` and newline."""
    return [(turn.start("content"), turn.end()) for turn in TURN.finditer(text) if turn["role"] == "assistant"]
