"""What sequences look like, in ids: prompts to draw from, and the rows of every stage of training with their labels.

A block is an image between its marks: `<|vision_start|>`, then one id for the time and one for each token, then
`<|vision_end|>`. Functions take the ids of texts without any of these marks, and `num_tokens` without the time.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..common.chat_form import IM_END, IM_START, SYSTEM_PROMPT
from .showo2_tokens import SequenceIds

__all__ = [
    *(
        "FLAG",
        "IGNORED",
        "REDUCED_GRID",
        "ChatMarks",
        "Row",
        "block_positions",
        "caption_row",
        "chat_pre_training_row",
    ),
    *("chat_tuning_row", "context_length", "cut_prompt", "drawing_prompt", "drawing_row", "image_block"),
    *("interleaved_row", "mixed_prompt", "null_prompt", "understanding_prompt", "video_row"),
]

IGNORED = -100  # a label that nothing is learned from
FLAG = "Mixed-modality generation (VIST)."  # opens the text of interleaved rows
REDUCED_GRID = (14, 14)  # tokens of a frame of a video that is understood (released script)

# Context of the released configurations, by tokens of an image.
_CONTEXTS = {729: 1024, 1024: 1280, 4096: 4352}
_ROOM_FOR_PROMPTS = 256  # of other sizes, as of the two larger ones


class Row(NamedTuple):
    """One row of training.

    Attributes:
        input_ids: with all of its blocks.
        labels: as many; the ids that are learned (shifted by the model), `IGNORED` elsewhere.
    """

    input_ids: list[int]
    labels: list[int]

    def fitted(self, length: int, ids: SequenceIds) -> "Row":
        """The row at one length: padded on the right, or cut there as the released code does.

        A row must not be cut within a block: see [`block_positions`].
        """
        missing = [ids.pad_token_id] * (length - len(self.input_ids)), [IGNORED] * (length - len(self.labels))
        return Row(self.input_ids[:length] + missing[0], self.labels[:length] + missing[1])


class ChatMarks(NamedTuple):
    """Ids of what stands around the turns of a chat; in the released models as [`ChatMarks.of_tokenizer`] makes them.

    Attributes:
        opening: from the row's first id to where the first user's words begin: the system's turn and a header.
        answer: from behind a user's words to where the answer begins: the turn's end and a header.
        user: from behind an answer, whose end is the answer's own, to where the next user's words begin.
        published_answer: what the authors' script has instead of `answer`: the turn does not end.
    """

    opening: list[int]
    answer: list[int]
    user: list[int]
    published_answer: list[int]

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> "ChatMarks":
        """Those of the released models."""
        asks, answers = f"{IM_START}user\n", f"{IM_START}assistant\n"
        texts = (
            f"{IM_START}system\n{SYSTEM_PROMPT}{IM_END}\n{asks}",
            f"{IM_END}\n{answers}",
            f"\n{asks}",
            f"\n{answers}",
        )
        return cls(*(list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts))


# ------------------------------------------------------------------------------------------------------------- blocks


def image_block(num_tokens: int, ids: SequenceIds) -> list[int]:
    """An image between its marks."""
    return [ids.vision_start_token_id, *[ids.image_token_id] * (num_tokens + 1), ids.vision_end_token_id]


def block_positions(input_ids: Sequence[int], ids: SequenceIds) -> list[tuple[int, int]]:
    """`(start, length)` of each image in a row: the position of its time, and how many positions it has with that."""
    found: list[tuple[int, int]] = []
    for position, token in enumerate(input_ids):
        if token != ids.image_token_id:
            continue
        start, length = found[-1] if found else (0, 0)
        if found and start + length == position:
            found[-1] = (start, length + 1)
        else:
            found.append((position, 1))
    return found


# ------------------------------------------------------------------------------------------------------------ drawing


def context_length(num_tokens: int) -> int:
    """The length that the released configurations have for rows with one image of so many tokens."""
    return _CONTEXTS.get(num_tokens, num_tokens + _ROOM_FOR_PROMPTS)


def cut_prompt(prompt: Sequence[int], num_tokens: int, max_length: int | None = None) -> list[int]:
    """A prompt as short as the released code makes it: what its marks and an image leave of the context.

    Args:
        prompt: ids.
        num_tokens: of the image.
        max_length: the context; None = [`context_length`].
    """
    longest = (context_length(num_tokens) if max_length is None else max_length) - (num_tokens + 1) - 4
    return list(prompt[: max(longest, 0)])


def drawing_prompt(prompt: Sequence[int], ids: SequenceIds) -> list[int]:
    """What an image is drawn behind: it ends with the mark that opens the image. An empty prompt gives the null prompt."""
    return [ids.bos_token_id, *prompt, ids.vision_start_token_id]


def null_prompt(ids: SequenceIds) -> list[int]:
    """What guidance steers away from."""
    return drawing_prompt((), ids)


def drawing_row(prompt: Sequence[int], num_tokens: int, ids: SequenceIds) -> Row:
    """Text to image: nothing but the image is learned, so there are no labels."""
    row = [ids.bos_token_id, *prompt, *image_block(num_tokens, ids), ids.eos_token_id]
    return Row(row, [IGNORED] * len(row))


def video_row(prompt: Sequence[int], num_tokens: int, ids: SequenceIds) -> Row:
    """Text to video; `num_tokens` are those of all frames together, which share one time."""
    block = [ids.video_start_token_id, *[ids.video_token_id] * (num_tokens + 1), ids.video_end_token_id]
    row = [ids.bos_token_id, *prompt, *block, ids.eos_token_id]
    return Row(row, [IGNORED] * len(row))


# ------------------------------------------------------------------------------------------------------ understanding


def caption_row(caption: Sequence[int], num_tokens: int, ids: SequenceIds) -> Row:
    """An image and its caption (stage 1); all that is no image is learned, marks included."""
    opening, block = [ids.bos_token_id], image_block(num_tokens, ids)
    text = [*caption, ids.eos_token_id]
    return Row(opening + block + text, opening + _learned(block, ids) + text)


def chat_pre_training_row(
    turns: Iterable[tuple[Sequence[int], Sequence[int]]], images: Sequence[int], ids: SequenceIds
) -> Row:
    """Questions and answers without headers (stage 2a).

    Args:
        turns: ids of what is asked and of the answer, in pairs; `<image>` stands where either has an image.
        images: tokens of each image, in order.
        ids: of the marks.

    Raises:
        ValueError: if there are more or fewer `<image>` than images.
    """
    counts = iter(_checked(turns := list(turns), images, ids))
    row = Row([ids.bos_token_id], [IGNORED])
    for question, answer in turns:
        asked = _with_images(question, counts, ids)
        answered = [*_with_images(answer, counts, ids), ids.eos_token_id]
        labels = row.labels + [IGNORED] * len(asked) + _learned(answered, ids)
        row = Row(row.input_ids + asked + answered, labels)
    return row


def chat_tuning_row(
    turns: Iterable[tuple[Sequence[int], Sequence[int]]], images: Sequence[int], marks: ChatMarks, ids: SequenceIds
) -> Row:
    """A chat with a system's turn and headers (stages 2b and 2c); answers and their ends are learned.

    Args:
        turns: ids of what is asked and of the answer, in pairs; `<image>` stands where either has an image.
        images: tokens of each image, in order.
        marks: what stands around turns.
        ids: of the marks of images.

    Raises:
        ValueError: if there are more or fewer `<image>` than images.
    """
    counts = iter(_checked(turns := list(turns), images, ids))
    input_ids: list[int] = []
    labels: list[int] = []
    for question, answer in turns:
        header = marks.user if input_ids else marks.opening
        asked = [*header, *_with_images(question, counts, ids), *marks.answer]
        answered = [*_with_images(answer, counts, ids), ids.eos_token_id]
        input_ids += asked + answered
        labels += [IGNORED] * len(asked) + _learned(answered, ids)
    return Row(input_ids, labels)


def understanding_prompt(
    question: Sequence[int], images: Sequence[int], marks: ChatMarks, ids: SequenceIds, published: bool = False
) -> list[int]:
    """A question about images, up to where the answer begins.

    Args:
        question: ids; in the trained layout they begin with those of a line break, which training has behind an image.
        images: tokens of each image; they stand before the question.
        marks: what stands around turns.
        ids: of the marks of images.
        published: as the authors' script has it: the question's turn does not end.
    """
    blocks = [token for num_tokens in images for token in image_block(num_tokens, ids)]
    return [*marks.opening, *blocks, *question, *(marks.published_answer if published else marks.answer)]


def _checked(
    turns: list[tuple[Sequence[int], Sequence[int]]], images: Sequence[int], ids: SequenceIds
) -> Sequence[int]:
    found = sum(list(said).count(ids.image_placeholder_token_id) for turn in turns for said in turn)
    if found != len(images):
        raise ValueError(f"A chat has {found} images among its words, but {len(images)} were given; they must match.")
    return images


def _learned(tokens: Sequence[int], ids: SequenceIds) -> list[int]:
    """Labels of what is learned: all but the placeholders of images."""
    return [IGNORED if token == ids.image_token_id else token for token in tokens]


def _with_images(words: Sequence[int], counts: Iterable[int], ids: SequenceIds) -> list[int]:
    queue = iter(counts)
    written: list[int] = []
    for token in words:
        written += image_block(next(queue), ids) if token == ids.image_placeholder_token_id else [token]
    return written


# -------------------------------------------------------------------------------------------------------- interleaved


def mixed_prompt(pieces: Iterable[Sequence[int] | int], ids: SequenceIds, opens_image: bool) -> list[int]:
    """Texts and finished images, behind which the model goes on.

    Args:
        pieces: ids of a text, or the number of an image's tokens; the first text begins with [`FLAG`].
        ids: of the marks.
        opens_image: whether an image comes next, else text.
    """
    row = [ids.bos_token_id, *(token for piece in pieces for token in _piece(piece, ids))]
    return [*row, ids.vision_start_token_id] if opens_image else row


def interleaved_row(
    flag: Sequence[int], pieces: Iterable[Sequence[int] | int], ids: SequenceIds, learn_placeholders: bool = False
) -> Row:
    """Texts and images in turn; all but the flag is learned, and of images their marks.

    Args:
        flag: ids of [`FLAG`].
        pieces: ids of a text, or the number of an image's tokens.
        ids: of the marks.
        learn_placeholders: also learn the ids that stand for images, as the released code does, which teaches nothing.
    """
    row = Row([ids.bos_token_id, *flag], [ids.bos_token_id, *[IGNORED] * len(flag)])
    for piece in [*pieces, [ids.eos_token_id]]:
        tokens = _piece(piece, ids)
        row = Row(row.input_ids + tokens, row.labels + (tokens if learn_placeholders else _learned(tokens, ids)))
    return row


def _piece(piece: Sequence[int] | int, ids: SequenceIds) -> list[int]:
    return image_block(piece, ids) if isinstance(piece, int) else list(piece)
