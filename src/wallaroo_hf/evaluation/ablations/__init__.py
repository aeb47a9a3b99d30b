"""The ablations of Wallaroo's paper at a small scale, on the built-in scenes: for Wallaroo checkpoints only.

What users may want to vary is a setting of a stage or of the processor; what only an ablation needs is a small subclass
here, so that nothing else of the package knows of it.

- `variants.py`: the ablations by name; `models.py`, `processors.py`: the subclasses
- `data.py`: rows; `training.py`: one variant, one seed; `scoring.py`: its numbers; `tokenizers.py`: the same of tokenizers
- `runs.py`: all of it, resumable; `comparison.py`: the numbers side by side
"""

from .comparison import Comparison
from .runs import AblationSettings, check_base, run_ablation
from .variants import ABLATIONS, find_ablation

__all__ = ["ABLATIONS", "AblationSettings", "Comparison", "check_base", "find_ablation", "run_ablation"]
