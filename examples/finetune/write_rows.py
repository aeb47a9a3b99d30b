"""Writes a folder of pictures with the rows of all three tasks; what the drawing scripts share."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ALL = """\
- path: metadata.jsonl
- path: editing.jsonl
- path: questions.jsonl
"""


def write_rows(
    folder: Path,
    pictures: Mapping[str, Image.Image],
    captions: Sequence[tuple[str, str]],
    edited: Mapping[str, tuple[str, Image.Image, str]],
    questions: Sequence[tuple[str, str, str]],
) -> None:
    """Writes pictures and rows.

    Args:
        pictures: name -> picture.
        captions: name of a picture, and what to call it.
        edited: name -> what is edited, the result, and the instruction.
        questions: name of a picture, question, answer.
    """
    (folder / "edited").mkdir(parents=True, exist_ok=True)
    results = {f"edited/{name}": result for name, (_, result, _) in edited.items()}
    for name, picture in {**pictures, **results}.items():
        picture.save(folder / f"{name}.png", optimize=True)
    image = {"type": "image"}
    _write_lines(folder / "metadata.jsonl", ({"file_name": f"{name}.png", "text": text} for name, text in captions))
    edits = [
        _row([image, {"type": "text", "text": instruction}], [image], [f"{source}.png", f"edited/{name}.png"])
        for name, (source, _, instruction) in edited.items()
    ]
    _write_lines(folder / "editing.jsonl", edits)
    answers = [
        _row([image, {"type": "text", "text": question}], answer, [f"{name}.png"])
        for name, question, answer in questions
    ]
    _write_lines(folder / "questions.jsonl", answers)
    (folder / "all.yaml").write_text(ALL, encoding="utf-8")


def _row(asked: list[dict[str, str]], answered: Any, images: list[str]) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"messages": messages, "images": images}


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
