"""What a training row is: TRL's conversational vision format, in which an assistant's image is one to draw.

A row is a plain dict; entries that are absent or None mean the same.

- `messages`: `[{"role": "system" | "user" | "assistant", "content": text or a list of parts}]`, where a part is
  `{"type": "text", "text": ...}` or `{"type": "image"}`.
- `images`: the pictures of all image parts, in order: PIL images, paths, bytes or `{"bytes", "path"}`; None where
  `image_tokens` stands for a drawn one.
- optional `videos`: those of all parts `{"type": "video"}`, which only a user shows, in order: paths, bytes, `{"bytes",
  "path"}`, or lists of frames (pictures). Such rows are questions: nothing is drawn from a video.
- optional `height`, `width` (size of the picture to draw), `name` (for reports), and `task`, which must agree with the
  messages; "interleaved" agrees with all: the row is then laid out as auto mode lays out a chat.
- pre-encoded rows: `image_tokens`, one int array `(rows, cols)` per drawn picture, and `source_latents`, one float array
  `(rows, cols, embed_dim)` per image to edit; or, of families whose pictures are latents, `image_latents`, one float array
  `(values, rows, cols)` per picture, with a column for each token; or, of families that draw at several scales,
  `scale_latents`, one float array `(values, rows, cols)` per scale of the drawn picture, `vision_features`, one of what is
  seen in it, and `prompt_features`, one of what is seen in the picture that is shown, or would be: `(rows, cols, width)`.
"""

import re
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

from ...files.whole_text import printable
from ...pictures.video_files import VIDEO_SUFFIXES

UNDERSTANDING, GENERATION, EDITING, INTERLEAVED = "understanding", "generation", "editing", "interleaved"
TASKS = (UNDERSTANDING, GENERATION, EDITING, INTERLEAVED)
SIZE_MULTIPLE = 16  # pixels, unless a checkpoint says otherwise
ROLES = ("system", "user", "assistant")
ORDINAL = "ordinal"  # of a row in the order of training: from it the collator's random choices follow
_ORDINAL_BEFORE = "draw"  # what rows of earlier versions call it
VIDEO, VIDEO_MARKER = "video", "<video>"
ROW_KEYS = (
    *("messages", "images", "videos", "height", "width", "task", "name", "image_tokens", "source_latents"),
    *("image_latents", "scale_latents", "vision_features", "prompt_features"),
)

# Why a row cannot be trained on, and what that means; reports list them in this order.
REASONS = {
    "unreadable_row": "not a row of a known format",
    "wrong_messages": "messages missing, empty or with a wrong role",
    "wrong_content": "a message's content is neither text nor text and image parts",
    "no_answer": "does not end with an answer or a picture by the assistant",
    "image_count": "number of images and number of image parts differ",
    "video_count": "number of videos and number of video parts differ",
    "wrong_task": "not of the task that it was declared to be",
    "unsupported_task": "a task that is not trained here",
    "wrong_size": "height and width are not both given, or not in whole steps of the sizes that the model draws",
    "wrong_encoding": "pre-encoded pictures that do not fit the row",
    "missing_image": "an image is not there",
    "broken_image": "an image cannot be decoded",
    "too_large_image": "an image has more pixels than allowed",
    "unusable_image": "an image is far too long, would take long to decode, or has values of no range of pictures",
    "missing_video": "a video is not there",
    "broken_video": "a video cannot be decoded",
    "too_large_video": "a video has more frames or pixels than are read",
    "unusable_video": "a video has no frames, or frames that are far too long or of several sizes",
    "no_decoder": "PyAV, which reads videos, is not installed",
    "too_long": "more tokens than `max_length`",
    "unusable_row": "refused by the processor",
}

Row = dict[str, Any]

# Columns, fields of messages and members of archives that hold video and audio.
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, "wav", "mp3", "flac", "ogg", "opus", "m4a")
_MEDIA_KEY = re.compile(
    rf"(input_|output_)?(videos?|audios?)(_(paths?|urls?|files?|bytes|frames|clips?))?|{'|'.join(MEDIA_SUFFIXES)}",
    re.IGNORECASE,
)
_MEDIA_MARKER = re.compile(r"<\|?(video|audio)(_(pad|start|end|bos|eos|placeholder))?\|?>", re.IGNORECASE)


_LONGEST = 1000  # characters of a message


class RowError(ValueError):
    """A row that cannot be trained on; what its message quotes of the row may be any text, so it is made printable.

    Attributes:
        reason: one of `REASONS`.
    """

    def __init__(self, message: str, reason: str = "unusable_row") -> None:
        super().__init__(printable(message, _LONGEST))
        self.reason = reason


def refuse_media(row: Mapping[str, Any], is_record: bool = False) -> None:
    """Raises if a row or record has audio, or videos where none can stand: beside its messages, in them, or as a marker.

    Anything that reads only what it knows would leave them out without a word.

    Args:
        row: a row, whose videos are in `videos`, with a part of its messages for each.
        is_record: it is another project's record: its videos may also be in `video` or in their parts, and the marker
            `<video>` may stand for each.

    Raises:
        RowError: `unreadable_row` or `wrong_content`, naming what was found.
    """
    refuse_media_entries(row, "It", ("videos", "video") if is_record else ("videos",))
    has_videos = is_record and not is_empty([row.get("videos"), row.get("video")])
    messages = row.get("messages")
    for number, message in enumerate(messages if isinstance(messages, (list, tuple)) else (), 1):
        if not isinstance(message, Mapping):
            continue
        where = f"message {number} ({message.get('role')})"
        refuse_media_entries(message, where.capitalize())
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts if isinstance(parts, (list, tuple)) else ():
            if not isinstance(part, Mapping):
                continue
            kind, text = part.get("type"), part.get("text")
            if isinstance(kind, str) and kind != VIDEO and _MEDIA_KEY.fullmatch(kind):
                raise _no_media(f"{where.capitalize()} has a part of type '{kind}'", kind, "wrong_content")
            refuse_media_entries(part, f"A part of {where}", (VIDEO,) if is_record and kind == VIDEO else ())
            for marker in _MEDIA_MARKER.finditer(text) if isinstance(text, str) else ():
                if not (has_videos and marker.group() == VIDEO_MARKER):
                    raise _no_media(f"{where.capitalize()} says {marker.group()}", marker.group(), "wrong_content")


def refuse_media_entries(entries: Mapping[str, Any], owner: str, allowed: tuple[str, ...] = ()) -> None:
    """Raises if one of some named entries is video or audio; empty ones do not count.

    Args:
        entries: by name.
        owner: what is said to have it.
        allowed: names of those that may stand there.

    Raises:
        RowError: `unreadable_row`, naming the entry.
    """
    for key, value in entries.items():
        if not isinstance(key, str) or key in allowed or is_empty(value):
            continue
        if _MEDIA_KEY.fullmatch(key.rpartition(".")[2]):
            raise _no_media(f"{owner} has a '{key}'", key, "unreadable_row")


def is_empty(value: Any) -> bool:
    """Whether an entry of a record says nothing: None, False, no text, or nothing but such."""
    if isinstance(value, Mapping):
        return all(is_empty(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_empty(entry) for entry in value)
    return value is None or value is False or (isinstance(value, (str, bytes)) and not value)


def _no_media(found: str, name: str, reason: str) -> RowError:
    if "video" in name.lower() or name.lower().rpartition(".")[2] in VIDEO_SUFFIXES:
        return RowError(
            f"{found}, but videos stand in `videos`, with a part of type 'video' (or <video>) in a user's message for "
            "each; write the row so, leave it out, or show single frames as images.",
            reason,
        )
    return RowError(f"{found}, but audio is not trained here; leave such rows out.", reason)


def row_parts(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The parts of all messages in order: `(role, type, text)`; the text of an image is empty."""
    for message in row["messages"]:
        content = message["content"]
        if isinstance(content, str):
            yield message["role"], "text", content
            continue
        for part in content:
            yield message["role"], part["type"], part.get("text") or "" if part["type"] == "text" else ""


def picture_roles(row: Mapping[str, Any]) -> list[str]:
    """Whose turn each image part is in, in the order of `row["images"]`; those of the assistant are drawn."""
    return [role for role, kind, _ in row_parts(row) if kind == "image"]


def count_videos(row: Mapping[str, Any]) -> int:
    """How many videos its messages show."""
    return sum(kind == VIDEO for _, kind, _ in row_parts(row))


def row_task(row: Mapping[str, Any]) -> str:
    """The task of a row, read off its messages; it decides how the collator lays the row out.

    Returns:
        `"understanding"` (nothing is drawn), `"generation"` (the last turn is one picture and nothing else), `"editing"`
        (and the user shows one image right before it, the only one) or `"interleaved"` (whatever else is drawn).

    Raises:
        RowError: if the row could not be read, or declares another task.
    """
    check_messages(row)
    task = _shape(row)
    declared = row.get("task")
    if declared == INTERLEAVED:  # any row may be trained in the manner of auto mode
        return INTERLEAVED
    if declared is not None and declared != task:
        raise RowError(f"It is declared to be of task {declared!r}, but its messages are {task}.", "wrong_task")
    return task


def _shape(row: Mapping[str, Any]) -> str:
    roles = picture_roles(row)
    if "assistant" not in roles:
        return UNDERSTANDING
    request, answer = row["messages"][-2:]
    asked = picture_roles({"messages": [request]})
    is_one_drawing = (
        [kind for _, kind, _ in row_parts({"messages": [answer]})] == ["image"]
        and request["role"] == "user"
        and len(asked) <= 1
        and roles == [*asked, "assistant"]  # no image in earlier turns
    )
    if not is_one_drawing:
        return INTERLEAVED
    return EDITING if asked else GENERATION


def row_ordinal(row: Mapping[str, Any]) -> int | None:
    """A row's number in the order of training, or None; also of rows of earlier versions, which call it `draw`."""
    found = row.get(ORDINAL)
    found = row.get(_ORDINAL_BEFORE) if found is None else found
    return None if found is None else int(found)


def row_name(row: Mapping[str, Any], index: int | None = None) -> str:
    """What reports call a row, in one line: its `name`, else its index."""
    return one_line(row.get("name") or ("a row" if index is None else f"row {index}"))


def one_line(name: Any) -> str:
    """A name as sentences can hold it, whatever a record has in its place."""
    return " ".join(str(name).splitlines())


def check_messages(row: Mapping[str, Any]) -> None:
    """Raises unless `messages` are well-formed and end with something to learn.

    Raises:
        RowError: `unreadable_row`, `wrong_messages`, `wrong_content` or `no_answer`.
    """
    if row.get("error"):
        raise RowError(str(row["error"]), "unreadable_row")
    refuse_media(row)
    messages = row.get("messages")
    if not isinstance(messages, (list, tuple)) or not messages:
        raise RowError("It has no messages.", "wrong_messages")
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES or (role == "system" and index):
            raise RowError(
                f"Message {index + 1} has the role {role!r}; roles are user and assistant, and system for the first.",
                "wrong_messages",
            )
        _check_content(message.get("content"), role, index)
    if messages[-1]["role"] != "assistant":
        raise RowError("Its last message is not the assistant's, so there is nothing to learn.", "no_answer")
    if not any(message["role"] == "user" for message in messages):
        raise RowError("It has no message of the user.", "wrong_messages")


def _check_content(content: Any, role: str, index: int) -> None:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, (list, tuple)):
        raise RowError(f"The content of message {index + 1} is neither text nor a list of parts.", "wrong_content")
    is_empty = True
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        is_text = kind == "text" and isinstance(part.get("text"), str)
        if not is_text and (kind != "image" or role == "system") and (kind != VIDEO or role != "user"):
            raise RowError(
                f"Message {index + 1} ({role}) has a part of type {kind!r}; parts are text with a `text`, an image of "
                "the user or the assistant, or a video of the user.",
                "wrong_content",
            )
        if is_text and not _is_unicode(part["text"]):
            raise RowError(f"The text of message {index + 1} ({role}) is not valid UTF-8.", "wrong_content")
        is_empty = is_empty and is_text and not part["text"].strip()
    if is_empty:
        reason = "no_answer" if role == "assistant" else "wrong_content"
        raise RowError(f"Message {index + 1} ({role}) is empty.", reason)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no tokenizer takes
        return False
    return True


def check_row(row: Mapping[str, Any], tasks: tuple[str, ...] = TASKS, size_multiple: int = SIZE_MULTIPLE) -> str:
    """Checks all of a row that can be checked without opening its pictures, and returns its task.

    Args:
        row: the row.
        tasks: the tasks that can be trained.
        size_multiple: of which `height` and `width` are multiples, in pixels.

    Raises:
        RowError: for the first thing that is wrong.
    """
    task = row_task(row)
    roles = picture_roles(row)
    images = row.get("images") or []
    if len(images) != len(roles):
        raise RowError(
            f"It has {len(roles)} image part(s) in its messages, but {len(images)} image(s).", "image_count"
        )
    clips, num_videos = row.get("videos") or [], count_videos(row)
    if len(clips) != num_videos:
        raise RowError(f"It has {num_videos} video part(s) in its messages, but {len(clips)} video(s).", "video_count")
    if clips and task != UNDERSTANDING:
        raise RowError(
            "It draws, but nothing is drawn from a video; leave the video or the drawing out.", "wrong_task"
        )
    if task not in tasks:
        raise RowError(f"It is of task {task!r}, but only {', '.join(tasks)} are trained here.", "unsupported_task")
    _check_size(row, size_multiple)
    _check_encoding(row, task, roles, size_multiple)
    return task


def _check_size(row: Mapping[str, Any], size_multiple: int) -> None:
    size = [row.get("height"), row.get("width")]
    if size == [None, None]:
        return
    if any(not isinstance(edge, Integral) or edge <= 0 or edge % size_multiple for edge in size):
        raise RowError(
            f"Its height and width are {size[0]} and {size[1]}; give both, as multiples of {size_multiple} pixels, or "
            "neither.",
            "wrong_size",
        )


def _check_encoding(row: Mapping[str, Any], task: str, roles: list[str], size_multiple: int) -> None:
    """Pre-encoded arrays stand for pictures one to one, and only drawn pictures may be left out for them."""
    wanted = {"image_tokens": (roles.count("assistant"), 2)}
    wanted["source_latents"] = (roles.count("user") if task in (EDITING, INTERLEAVED) else 0, 3)
    wanted["image_latents"] = (len(roles), 3)
    if row.get("scale_latents") is not None:
        wanted["scale_latents"] = (max(len(row["scale_latents"]), 1), 3)  # one per scale, however many there are
        wanted |= dict.fromkeys(("vision_features", "prompt_features"), (roles.count("assistant"), 3))
    for key, (count, ndim) in wanted.items():
        arrays = row.get(key)
        if arrays is None:
            continue
        shapes = [_shape_of(array) for array in arrays]
        if len(shapes) != count or any(len(shape) != ndim for shape in shapes):
            raise RowError(
                f"`{key}` holds {shapes}, but {count} array(s) of {ndim} axes belong there.", "wrong_encoding"
            )
        # latents are finer than tokens, and pictures that are looked at have sizes of their own
        if (
            key in ("image_tokens", "source_latents")
            and row.get("height")
            and any((row["height"], row["width"]) != tuple(n * size_multiple for n in s[:2]) for s in shapes)
        ):
            raise RowError(f"`{key}` holds {shapes}, which is not its height and width.", "wrong_encoding")
    for index, (role, picture) in enumerate(zip(roles, row.get("images") or [])):
        is_encoded = any(row.get(key) is not None for key in ("image_tokens", "image_latents", "scale_latents"))
        if picture is None and not (role == "assistant" and is_encoded):
            raise RowError(f"Image {index + 1} is None; only pre-encoded pictures to draw may be.", "missing_image")


def _shape_of(array: Any) -> tuple[int, ...]:
    if hasattr(array, "shape"):
        return tuple(int(edge) for edge in array.shape)
    return (len(array), *_shape_of(array[0])) if isinstance(array, (list, tuple)) and len(array) else ()
