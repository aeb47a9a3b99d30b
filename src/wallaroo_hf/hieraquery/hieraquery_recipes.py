"""How HieraQuery draws benchmarks' pictures: the paper says nothing of it, so with the checkpoint's own settings."""

from ..families.benchmark_recipe import TEMPLATE, Recipe

__all__ = ["RECIPES"]

_OWN = Recipe(
    "the checkpoint's own",
    {
        "guidance_scale": None,
        "num_inference_steps": None,
        TEMPLATE: 0,  # prompts are drawn from as they are
        "source_fit": "pad",  # nothing of a source is cut off, and the edit has its size
    },
)
RECIPES: dict[str, dict[str, Recipe]] = {benchmark: {"paper": _OWN} for benchmark in ("geneval", "dpg", "imgedit")}
