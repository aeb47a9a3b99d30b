"""Prompts with what must come of them, and the file format in which anyone can bring their own.

A prompt file has one JSON object per line (empty lines are skipped). Its keys:

- `task`: "generation" (text to image), "understanding" (a question about a picture) or "editing";
- `prompt`: the words for the model;
- `spec`: what is judged, by task (below);
- `height`, `width`: size in pixels of the picture to draw, multiples of 32; only for "generation", 96 if left out;
- `scene`: the picture that is asked about or edited; only for "understanding" and "editing":
  `{"height": 96, "width": 96, "background": "white", "objects": [{"shape": "star", "colour": "red", "row": 0, "col": 2}]}`,
  where row and col count slots of 32 pixels from the top left, from 0;
- `language` ("en" or "zh") and `category` (any word): how scores are grouped; by default the language is that of the
  prompt's letters and the category "other".

`spec` of "generation": `objects`, a list of `{"shape", "colour", "count", "place"}`, each of which may be left out where it
does not matter (`count` is then 1); `relations`, a list of `[first, direction, second]` with indices into `objects`;
`background`. The picture must show just these objects: one more is a fault.

    {"task": "generation", "prompt": "two red stars", "spec": {"objects": [{"shape": "star", "colour": "red", "count": 2}]}}
    {"task": "generation", "prompt": "a circle above a blue ring", "height": 128, "width": 64,
     "spec": {"objects": [{"shape": "circle"}, {"shape": "ring", "colour": "blue"}], "relations": [[0, "above", 1]]}}

`spec` of "understanding": `kind` ("shape", "colour", "place", "direction", "yes_no", "exists", "number" or "objects") and
`value` (for "objects" instead `objects`, and `background` if it must be named); `language` if the answer must be in it.

    {"task": "understanding", "prompt": "what colour is the star?", "scene": {...},
     "spec": {"kind": "colour", "value": "red"}}

`spec` of "editing": `operation` and its entries: "recolour" (`object`, `colour`), "add" (`shape`, `colour`), "remove"
(`object`), "replace" (`object`, `shape`; without `colour` the colour stays), "move" (`object`), "background"
(`background`); "add" and "move" may have `place`, or `direction` and `anchor`. `object` and `anchor` pick one object of the
scene by any of `shape`, `colour`, `row` and `col`. Everything that the operation does not name must stay as it is.

    {"task": "editing", "prompt": "move the star below the ring", "scene": {...},
     "spec": {"operation": "move", "object": {"shape": "star"}, "direction": "below", "anchor": {"shape": "ring"}}}

(In the file each object is on one line.) The names:

- shapes: circle, square, triangle, star, heart, diamond, ring, cross
- colours: red, green, blue, yellow, orange, purple, pink, cyan; backgrounds: white, black, grey, beige
- directions: left_of, right_of, above, below
- places: top_left, top_middle, top_right, middle_left, centre, middle_right, bottom_left, bottom_middle, bottom_right, and
  left, right, top, bottom for anywhere along a side
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.parsing import parse_json
from .answer_values import language_of
from .scene import Scene
from .shapes import SLOT
from .specs import AnswerSpec, CaptionSpec, EditSpec
from .verify import Picture, Verdict, check_answer, check_caption, check_edit
from .words import LANGUAGES

_SPECS: dict[str, type[CaptionSpec] | type[AnswerSpec] | type[EditSpec]] = {
    "generation": CaptionSpec,
    "understanding": AnswerSpec,
    "editing": EditSpec,
}
_KEYS = ("task", "prompt", "spec", "height", "width", "scene", "language", "category")


@dataclass(frozen=True)
class Prompt:
    """One item of a benchmark; see the module for what the entries mean.

    Attributes:
        task: "generation", "understanding" or "editing".
        prompt: the words for the model.
        spec: what is judged.
        height: of the picture to draw or the one shown, in pixels.
        width: likewise.
        scene: the picture shown, or None.
        language: "en" or "zh".
        category: how scores are grouped.
    """

    task: str
    prompt: str
    spec: CaptionSpec | AnswerSpec | EditSpec
    height: int
    width: int
    scene: Scene | None
    language: str
    category: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prompt:
        """Reads a line of a prompt file, or a row of the data set (except interleaved ones).

        Raises:
            ValueError: for a key that is missing, unknown or does not belong to the task, and for bad values.
        """
        if not isinstance(values, Mapping) or not {"task", "prompt", "spec"} <= set(values):
            raise ValueError("a prompt needs the keys task, prompt and spec")
        unknown = set(values) - {*_KEYS, "messages", "target_scene", "combinations", "images"}
        if unknown:
            raise ValueError(f"a prompt has no key {min(unknown)!r}: it takes {', '.join(_KEYS)}")
        task, words = values["task"], values["prompt"]
        if task not in _SPECS:
            raise ValueError(f"unknown task {task!r}: use one of {', '.join(_SPECS)}")
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"`prompt` must be a text that is not empty, not {words!r}")
        language = values.get("language") or language_of(words)
        if language not in LANGUAGES:
            raise ValueError(f"unknown language {language!r}: use one of {', '.join(LANGUAGES)}")
        scene, (height, width) = _read_picture(task, values)
        spec = _SPECS[task].from_dict(values["spec"])
        for selector in (spec.object, spec.anchor) if isinstance(spec, EditSpec) else ():
            if selector is not None and scene is not None:
                selector.pick(scene)
        return cls(task, words, spec, height, width, scene, language, values.get("category") or "other")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in a prompt file; `from_dict` reads them back."""
        values: dict[str, Any] = {"task": self.task, "category": self.category, "language": self.language}
        values |= {"prompt": self.prompt, "spec": self.spec.to_dict()}
        if self.scene is None:
            return values | {"height": self.height, "width": self.width}
        return values | {"scene": self.scene.to_dict()}

    def judge(self, output: Picture | str) -> Verdict:
        """Judges what a model made of the prompt.

        Args:
            output: the picture drawn (see [`check_caption`]), or the answer's text for "understanding".

        Raises:
            TypeError: for a text where a picture is expected, or the other way round.
        """
        if isinstance(output, str) != (self.task == "understanding"):
            expected = "a text" if self.task == "understanding" else "a picture"
            raise TypeError(f"the task {self.task!r} is judged by {expected}, not by {type(output).__name__}")
        if isinstance(output, str):
            return check_answer(output, self.spec)  # type: ignore[arg-type]
        if isinstance(self.spec, EditSpec):
            assert self.scene is not None
            return check_edit(self.scene, output, self.spec)
        return check_caption(output, self.spec)  # type: ignore[arg-type]


def _read_picture(task: str, values: Mapping[str, Any]) -> tuple[Scene | None, tuple[int, int]]:
    """The scene that is shown, or None, and the size `(height, width)` of the picture shown or to draw."""
    if task == "generation":
        if values.get("scene") is not None:
            raise ValueError("the task 'generation' takes no `scene`: nothing is shown")
        target = values.get("target_scene") or {}
        height, width = (values.get(key) or target.get(key) or 3 * SLOT for key in ("height", "width"))
        Scene(height, width, "white")  # says what is wrong with a size
        return None, (height, width)
    if values.get("scene") is None:
        raise ValueError(f"the task {task!r} needs a `scene`, the picture that is shown")
    if values.get("height") is not None or values.get("width") is not None:
        raise ValueError(f"the task {task!r} takes no `height` and `width`: its `scene` has them")
    scene = Scene.from_dict(values["scene"])
    return scene, (scene.height, scene.width)


def read_prompts(path: str | Path) -> list[Prompt]:
    """Reads a prompt file.

    Args:
        path: a file of JSON lines, see the module.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no prompts, or a line is wrong; the message names the line.
    """
    prompts = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(Prompt.from_dict(parse_json(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise ValueError(f"{path} has no prompts: it must have one JSON object per line")
    return prompts
