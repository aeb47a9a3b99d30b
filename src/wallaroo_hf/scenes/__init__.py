"""The built-in bilingual data set of flat shapes, and its exact judge.

- `render.py`, `scene.py`, `shapes.py`, `palette.py`: what a picture shows, and the picture
- `tasks.py`: rows; `captions.py`, `questions.py` and `edits.py` plan them and put them into words
- `chats.py`: chats of several turns, and the judge of their last answers; `talk.py`: their small talk
- `compositions.py`: edits of two pictures, which bring something of the first into the second
- `splits.py`: train, validation and test by held-out combinations
- `dataset.py`: the data set
- `verify.py`: the judge; `reading.py` reads pictures, `answer_values.py` texts, `specs.py` says what is judged
- `prompts.py`: benchmark prompts and their file format
"""

from .chats import check_reply, make_chat
from .compositions import make_composition
from .dataset import SceneDataset, build_dataset
from .prompts import Prompt, read_prompts
from .reading import ReadObject, ReadScene, read_scene
from .render import render, render_array
from .scene import Scene, SceneObject, random_scene
from .specs import AnswerSpec, CaptionSpec, EditSpec, ObjectSpec, Selector
from .tasks import Row, make_row, render_row, row_scenes
from .verify import Verdict, check_answer, check_caption, check_edit

__all__ = [
    "AnswerSpec",
    "CaptionSpec",
    "EditSpec",
    "ObjectSpec",
    "Prompt",
    "ReadObject",
    "ReadScene",
    "Row",
    "Scene",
    "SceneDataset",
    "SceneObject",
    "Selector",
    "Verdict",
    "build_dataset",
    "check_answer",
    "check_caption",
    "check_edit",
    "check_reply",
    "make_chat",
    "make_composition",
    "make_row",
    "random_scene",
    "read_prompts",
    "read_scene",
    "render",
    "render_array",
    "render_row",
    "row_scenes",
]
