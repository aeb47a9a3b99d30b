"""Benchmarks. `scenes.py`: the built-in scenes with their exact judge; `sweep.py`: sampling settings, chosen on validation;
`geneval.py`, `dpg.py`, `imgedit.py`: pictures for the paper's benchmarks, which have scorers of their own.

Of the scenes:

- `items.py`: what is asked; `item_outputs.py`: what a model makes of it; `results.py`: the file of verdicts
- `scores.py`: from verdicts to numbers; `scene_reports.py`: numbers and pictures for people
- `model_card.py`: the card of the built-in checkpoint

Of the paper's benchmarks:

- `drawing_plans.py`: what a benchmark asks for; `recipes.py`: how it is drawn, by each family's own table
- `drawing_runs.py`: drawing it, `shares.py`: by several processes; `drawing_manifest.py`: the record of it
- `drawing_files.py`: the scorer's folder, and what may be wrong with it

Of all: `identity.py` (which checkpoint it was), `drawing_settings.py` (what it drew with), `answers.py`.

For lmms-eval: `lmms_eval_plugin.py`, `lmms_eval_model.py`.

Trained and scored at a small scale: the ablations of Wallaroo's paper, for Wallaroo checkpoints only, in `ablations/`;
variants that other families bring in `family_ablations/`.
"""

from .dpg import read_dpg
from .drawing_runs import DrawingRun, draw_benchmark
from .geneval import read_geneval
from .imgedit import read_imgedit
from .items import TASKS, Item, scene_items
from .recipes import RECIPES
from .scenes import evaluate_scenes
from .scores import Breakdown, SceneScores, Score
from .sweep import Sweep, SweepEntry, sweep_sampling

__all__ = [
    "RECIPES",
    "TASKS",
    "Breakdown",
    "DrawingRun",
    "Item",
    "SceneScores",
    "Score",
    "Sweep",
    "SweepEntry",
    "draw_benchmark",
    "evaluate_scenes",
    "read_dpg",
    "read_geneval",
    "read_imgedit",
    "scene_items",
    "sweep_sampling",
]
