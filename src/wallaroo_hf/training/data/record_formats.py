"""Other projects' records to rows: pure functions, chosen by name or by the record's columns.

What each project documents is accepted; anything else is refused by name, never guessed.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .readers import PICTURE_SUFFIXES
from .training_rows import ROW_KEYS, VIDEO_MARKER, Row, RowError, is_empty, refuse_media, refuse_media_entries

__all__ = ["FORMATS", "adapt_row", "detect_format"]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
# Meaning of a column -> the names that it goes by, our own first.
COLUMN_NAMES = {
    "image": ("image", "picture", "file_name", "img", "jpg", "jpeg", "png", "webp"),
    "source": ("source", "source_image", "source_img", "input_image", "original_image"),
    "target": ("target", "target_image", "target_img", "edited_image", "output_image"),
    "caption": ("caption", "text", "prompt", "txt"),
    "instruction": ("instruction", "edit_instruction", "edit_prompt"),
    "question": ("question",),
    "answer": ("answer",),
}
# Format -> the columns that it reads, and those that `columns` may name in any format.
_READ_COLUMNS = {
    "messages": (*ROW_KEYS, "image", "video"),
    "columns": ("images", "videos", "video", *(name for names in COLUMN_NAMES.values() for name in names)),
    "sharegpt": ("conversations", "system", "image", "images", "video", "videos"),
    "show_o2": ("path", "prompt"),
    "omnigen2": ("task_type", "instruction", "input_images", "output_image"),
}
_NAMES = ("name", "id", "__key__")
_ANYWHERE = ("height", "width", "task", *_NAMES)


def adapt_row(record: Mapping[str, Any], format: str = "auto", columns: Mapping[str, str] | None = None) -> Row:
    """Turns a record into a row.

    Args:
        record: what a line, a database row or an archive holds; entries that are None count as absent.
        format: one of `FORMATS`; `"auto"` looks at the columns.
        columns: what the record's own columns are called: ours (a column of the format, or `height`, `width`, `task` or
            `name`) -> theirs. With it nothing is guessed: the record counts as having these columns only. Without it only
            `"messages"` records have `height`, `width` and `task`: elsewhere columns of these names often mean something
            else, such as the size of the file. Records with video or audio are refused, unless `columns` leaves it out.

    Returns:
        A row (see [`wallaroo_hf.training.data.training_rows`]) without None entries.

    Raises:
        RowError: `unreadable_row`, if the record is not of that format, or `columns` names one that the format lacks.
    """
    if "__key__" in record:
        record = _archive_columns(record)
    present = {key: value for key, value in record.items() if value is not None}
    if columns:
        missing = [theirs for theirs in columns.values() if theirs not in record]
        if missing:
            raise _unreadable(f"It has no column '{missing[0]}'; its columns are {', '.join(record)}.")
        present = {ours: present[theirs] for ours, theirs in columns.items() if theirs in present}
    refuse_media(present, is_record=True)
    chosen = detect_format(present) if format == "auto" else format
    stray = [ours for ours in columns or () if ours not in (*_READ_COLUMNS[chosen], *_ANYWHERE)]
    if stray:
        raise _unreadable(
            f"`columns` names '{stray[0]}', but '{chosen}' records have no such column; they have "
            f"{', '.join(_READ_COLUMNS[chosen])}, and any has {', '.join(_ANYWHERE)}."
        )
    try:
        row = _READERS[chosen](present)
        return {**row, **_settings(present)} if columns else row
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise _unreadable(f"It is not built like a '{chosen}' record ({type(error).__name__}: {error}).") from error


def _settings(record: Mapping[str, Any]) -> Row:
    """Size and task of a record whose columns are named; what is no whole number is left to the checks."""
    sizes = {key: record[key] for key in ("height", "width") if key in record}
    for key, size in sizes.items():
        digits = str(size).removesuffix(".0")  # tables hold numbers as text, or as floats where some are missing
        sizes[key] = int(digits) if digits.isdecimal() else size
    return {**sizes, **({"task": record["task"]} if "task" in record else {})}


def detect_format(record: Mapping[str, Any]) -> str:
    """The format of a record by its columns: one of `FORMATS` but `"auto"`."""
    if "messages" in record:
        return "messages"
    if "conversations" in record:
        return "sharegpt"
    if "output_image" in record and "instruction" in record and ("task_type" in record or "input_images" in record):
        return "omnigen2"
    return "show_o2" if {"path", "prompt"} <= set(record) else "columns"


def _archive_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a WebDataset sample: its `json` is taken apart, `source.png` is also `source`, `0.png` … are `images`."""
    inner = record.get("json")
    columns = {**record, **(inner if isinstance(inner, Mapping) else {})}
    numbered = {}
    for field, value in record.items():
        stem, _, suffix = field.rpartition(".")
        if value is None or not stem or f".{suffix.lower()}" not in (*PICTURE_SUFFIXES, ".txt"):
            continue
        if stem.isdigit():
            numbered[int(stem)] = value
        else:
            columns[stem] = value
    return {**columns, "images": [numbered[number] for number in sorted(numbered)]} if numbered else columns


def from_messages(record: Mapping[str, Any]) -> Row:
    """Our own format, TRL's, and LLaMA-Factory's (`<image>` markers in messages).

    Images may also stand in their parts, as `{"type": "image", "image": path}`.

    Raises:
        RowError: for a column that looks misspelt, or images in two places.
    """
    for key in record:
        close = [] if key in (*ROW_KEYS, "image", "video") else difflib.get_close_matches(key, ROW_KEYS, 1, 0.85)
        if close:
            raise _unreadable(f"It has a column '{key}'; did you mean '{close[0]}'?")
    row = {key: record[key] for key in ROW_KEYS if key in record}
    row.update(_name(record))
    inline: dict[str, list[Any]] = {"image": [], "video": []}
    row["messages"] = [_message(message, inline) for message in row["messages"]]
    for kind, found in inline.items():
        given = (
            _videos(record) if kind == "video" else _pictures(record.get("images")) or _pictures(record.get("image"))
        )
        if found and given:
            raise _unreadable(f"It has {kind}s both in `{kind}s` and in its messages; give them in one place.")
        if kind == "image" or found or given:
            row[f"{kind}s"] = found or given
        if given and not any(_shows(message, kind) for message in row["messages"]):
            row["messages"] = [
                {**message, "content": _split_markers(message["content"], kind)} for message in row["messages"]
            ]
    if not row.get("videos"):
        row.pop("videos", None)
    for key, dtype in (("image_tokens", np.int64), ("source_latents", np.float32)):
        if key in row:
            row[key] = [np.asarray(array, dtype=dtype) for array in row[key]]
    return row


def _message(message: Mapping[str, Any], inline: dict[str, list[Any]]) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str) or content is None:
        return {"role": message["role"], "content": content}
    parts = []
    for part in content:
        if part["type"] in inline:
            shown = part.get(part["type"]) or part.get("path") or part.get("url")
            inline[part["type"]] += [] if shown is None else [shown]
            parts.append({"type": part["type"]})
        else:
            parts.append({key: value for key, value in part.items() if value is not None})
    return {"role": message["role"], "content": parts}


def _shows(message: Mapping[str, Any], kind: str) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(part["type"] == kind for part in content)


def from_sharegpt(record: Mapping[str, Any]) -> Row:
    """LLaVA's and ShareGPT's `conversations`: `from`/`value` turns with `<image>` and `<video>` markers.

    Pictures are in `image` or `images`, videos in `video` or `videos`.

    Raises:
        RowError: without a list of turns, for an unknown speaker, or for audio.
    """
    messages = []
    turns = record.get("conversations")
    if not isinstance(turns, (list, tuple)):
        raise _unreadable("`conversations` is not a list of turns.")
    clips = _videos(record)
    if record.get("system"):
        messages.append({"role": "system", "content": record["system"]})
    for turn in turns:
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        refuse_media_entries(turn, f"A turn of {speaker!r}")
        if speaker not in _ROLES:
            raise _unreadable(f"A turn is from {speaker!r}; known are {', '.join(_ROLES)}.")
        content = _split_markers(text)
        messages.append({"role": _ROLES[speaker], "content": _split_markers(content, "video") if clips else content})
    images = _pictures(record.get("images")) or _pictures(record.get("image"))
    return {"messages": messages, "images": images, **({"videos": clips} if clips else {}), **_name(record)}


def from_show_o2(record: Mapping[str, Any]) -> Row:
    """Show-o2's `{path, prompt}`: a picture to draw."""
    _need(record, "path", "prompt")
    return _drawing(record["prompt"], [], record["path"], record)


def from_omnigen2(record: Mapping[str, Any]) -> Row:
    """OmniGen2's `{task_type, instruction, input_images, output_image}`: a picture to draw, or an edit.

    Raises:
        RowError: if a column is missing, or its task and its images contradict each other.
    """
    _need(record, "instruction", "output_image")
    sources = _pictures(record.get("input_images"))
    kind = str(record.get("task_type", ""))
    if sources and ("t2i" in kind or "text_to_image" in kind):
        raise _unreadable(f"Its task_type is {kind!r}, but it has input_images.")
    if not sources and "edit" in kind:
        raise _unreadable(f"Its task_type is {kind!r}, but it has no input_images.")
    return _drawing(record["instruction"], sources, record["output_image"], record)


def from_columns(record: Mapping[str, Any]) -> Row:
    """Flat records: `image` and `caption`; `source`, `instruction` and `target` (or `image`); `question` and `answer`.

    Raises:
        RowError: if the columns are of no known format, or of several.
    """
    found = {meaning: _column(record, meaning) for meaning in COLUMN_NAMES}
    found = {meaning: value for meaning, value in found.items() if value is not None}
    asks = {"question", "answer"} <= set(found)
    source, picture = found.get("source"), found.get("target", found.get("image"))
    if "target" in found and "image" in found:  # the image can only be what is edited
        if source is not None or "instruction" not in found:
            raise _ambiguous(found)
        source = found["image"]
    texts = ("caption", "instruction") if source is None else ("instruction", "caption")
    prompts = [found[meaning] for meaning in texts if meaning in found]
    if asks and prompts:
        raise _ambiguous(found)
    if asks:
        images, clips = _pictures(found.get("image")) or _pictures(record.get("images")), _videos(record)
        asked: list[Any] = [_text(found["question"])]
        if clips and VIDEO_MARKER in asked[0]["text"]:
            asked = _split_markers(asked, "video")
        elif clips:
            asked = [{"type": "video"} for _ in clips] + asked
        content = [{"type": "image"} for _ in images] + asked
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": found["answer"]}]
        return {"messages": messages, "images": images, **({"videos": clips} if clips else {}), **_name(record)}
    if not prompts or picture is None:
        raise _unreadable(
            f"Its columns {', '.join(record) or '(none)'} are of no known format: messages and images; conversations; "
            "image and caption; source, instruction and target; question and answer. Name them with `columns`."
        )
    return _drawing(prompts[0], _pictures(source), picture, record)


def _ambiguous(found: Mapping[str, Any]) -> RowError:
    return _unreadable(
        f"Its columns for {', '.join(found)} could be read in two ways; name those to use with `columns`."
    )


def _column(record: Mapping[str, Any], meaning: str) -> Any:
    ours, *others = COLUMN_NAMES[meaning]
    if ours in record:
        return record[ours]
    present = [name for name in others if name in record]
    if len(present) > 1:
        raise _unreadable(
            f"Its columns '{present[0]}' and '{present[1]}' could both be the {meaning}; say which with "
            f"`columns: {{{meaning}: {present[0]}, ...}}`."
        )
    return record[present[0]] if present else None


def _drawing(prompt: Any, sources: list[Any], picture: Any, record: Mapping[str, Any]) -> Row:
    refuse_media_entries(record, "It")  # nothing is drawn from a video
    content = [{"type": "image"} for _ in sources] + [_text(prompt)]
    drawn = {"role": "assistant", "content": [{"type": "image"}]}
    return {"messages": [{"role": "user", "content": content}, drawn], "images": [*sources, picture], **_name(record)}


def _text(text: Any) -> dict[str, str]:
    if not isinstance(text, str):
        raise _unreadable(f"A text is of type {type(text).__name__}, but must be a string.")
    return {"type": "text", "text": text}


def _split_markers(text: Any, kind: str = "image") -> Any:
    """Text with markers of a kind, `<image>` or `<video>`, as a list of parts; other text, and parts, as they are."""
    if isinstance(text, list):
        halves = [_split_markers(part["text"], kind) if part["type"] == "text" else [part] for part in text]
        return [
            one
            for part, half in zip(text, halves, strict=True)
            for one in (half if isinstance(half, list) else [part])
        ]
    marker = f"<{kind}>"
    if not isinstance(text, str) or marker not in text:
        return text
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(text.split(marker)):
        parts += [{"type": kind}] if index else []
        parts += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
    return parts


def _videos(record: Mapping[str, Any]) -> list[Any]:
    """The videos in a record's columns."""
    return [one for one in _pictures(record.get("videos")) or _pictures(record.get("video")) if not is_empty(one)]


def _pictures(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _name(record: Mapping[str, Any]) -> dict[str, str]:
    names = [record[key] for key in _NAMES if key in record]
    return {"name": str(names[0])} if names else {}


def _need(record: Mapping[str, Any], *columns: str) -> None:
    missing = [column for column in columns if column not in record]
    if missing:
        raise _unreadable(f"It has no '{missing[0]}'; its columns are {', '.join(record) or '(none)'}.")


def _unreadable(message: str) -> RowError:
    return RowError(message, "unreadable_row")


_READERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "messages": from_messages,
    "columns": from_columns,
    "sharegpt": from_sharegpt,
    "show_o2": from_show_o2,
    "omnigen2": from_omnigen2,
}
FORMATS = ("auto", *_READERS)
