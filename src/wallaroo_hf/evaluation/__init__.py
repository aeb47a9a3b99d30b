"""Benchmarks. `scenes.py`: the built-in scenes with their exact judge; `sweep.py`: sampling settings, chosen on validation.

- `items.py`: what is asked; `outputs.py`: what a model makes of it; `results.py`: the file of verdicts
- `scores.py`: from verdicts to numbers; `reports.py`: numbers and pictures for people
- `identity.py`: which checkpoint it was; `model_card.py`: the card of the built-in one
"""

from .items import TASKS, Item, scene_items
from .scenes import evaluate_scenes
from .scores import Breakdown, SceneScores, Score
from .sweep import Sweep, SweepEntry, sweep_sampling

__all__ = [
    "TASKS",
    "Breakdown",
    "Item",
    "SceneScores",
    "Score",
    "Sweep",
    "SweepEntry",
    "evaluate_scenes",
    "scene_items",
    "sweep_sampling",
]
