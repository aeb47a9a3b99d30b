"""The settings of Wallaroo's published scores: those of the paper, and those of the authors' scripts."""

from typing import Any

from ..families.benchmark_recipe import TEMPLATE, Recipe

__all__ = ["RECIPES"]


def _recipe(name: str, guidance_scale: float, top_p: float | None = None) -> Recipe:
    """The released scripts of the three benchmarks sample with top-k 1000 and without top-p, only DPG's with 0.95."""
    settings: dict[str, Any] = {  # in the order of manifests
        "guidance_scale": guidance_scale,
        "top_k": 1000,
        "top_p": top_p,
        "temperature": 1.0,
        TEMPLATE: 0,
        "published_eval": False,  # token layout and padding of the released evaluation scripts
        "source_fit": "crop",  # a source is cut to the listed size nearest to its shape, and the edit has that size
        "guidance_min_p": 0.0,
    }
    return Recipe(name, settings)


RECIPES: dict[str, dict[str, Recipe]] = {
    "geneval": {"paper": _recipe("paper", 3.0)},
    "dpg": {"paper": _recipe("paper", 2.5), "released": _recipe("released", 4.0, top_p=0.95)},
    "imgedit": {"paper": _recipe("paper", 3.0)},
}
