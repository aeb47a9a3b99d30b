"""Variants that a family brings ([`wallaroo_hf.families.ablation_contract`]), trained alike on the scenes and compared.

- `few_rows.py`: what is learned and what is asked; `family_training.py`: one variant, one seed
- `family_scoring.py`: what the judge says of each picture, and how far coarse pictures agree with fine ones
- `family_runs.py`: all of it, resumable, with a manifest
- `family_comparison.py`: the numbers side by side, paired by item and seed; `family_reports.py`: for people
"""

from .family_comparison import FamilyComparison
from .family_runs import FamilySettings, run_family_ablation

__all__ = ["FamilyComparison", "FamilySettings", "run_family_ablation"]
