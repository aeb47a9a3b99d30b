"""The settings of Show-o2's published scores: those of the authors' scripts, in calls of the model."""

from ..families.benchmark_recipe import TEMPLATE, Recipe

__all__ = ["RECIPES"]


def _recipe(guidance_scale: float, num_inference_steps: int) -> Recipe:
    settings = {
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
        TEMPLATE: 0,  # prompts are drawn from as they are
        "published_eval": False,  # noise and cut prompts of the released scripts
    }
    return Recipe("paper", settings)


RECIPES: dict[str, dict[str, Recipe]] = {
    "geneval": {"paper": _recipe(7.5, 99)},  # the authors' 100 points
    "dpg": {"paper": _recipe(10.0, 49)},  # the authors' 50 points
}
