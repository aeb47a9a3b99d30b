"""Ways to unify understanding and drawing, side by side: one language model, the same rows, the same judge, equal time.

- `paradigm_settings.py`: how large a comparison is; `paradigm_rows.py`: what is learned and judged
- `base_model.py`: the language model that all grow from; `measured_training.py`: training for a measured time
- `paradigm_runs.py`: everything in order, resumable
- `paradigm_records.py`, `paradigm_checks.py`: what is written, and whether it is still so
- `paradigm_scoring.py`, `paradigm_results.py`, `paradigm_reports.py`, `paradigm_drawings.py`: what came of it
"""

from .paradigm_checks import verify_paradigms
from .paradigm_reports import paradigms_table
from .paradigm_results import ParadigmResults
from .paradigm_runs import compare_paradigms
from .paradigm_settings import ParadigmSettings, read_budget

__all__ = [
    "ParadigmResults",
    "ParadigmSettings",
    "compare_paradigms",
    "paradigms_table",
    "read_budget",
    "verify_paradigms",
]
