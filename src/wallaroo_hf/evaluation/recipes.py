"""Recipes of benchmarks, looked up by family and checked against a checkpoint's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..families.abilities import Abilities
from ..families.benchmark_recipe import Recipe
from ..families.registry import FAMILIES, Family
from .drawing_settings import check_sampling

__all__ = ["RECIPES", "check_recipe", "find_recipe", "recipes_of"]

# Those of the package's own family; of others see `recipes_of`.
RECIPES: Mapping[str, Mapping[str, Recipe]] = FAMILIES["wallaroo"].resolve("recipes")


def recipes_of(family: Family) -> Mapping[str, Mapping[str, Recipe]]:
    """A family's recipes by benchmark and name; none for a family that published none."""
    return {} if family.recipes is None else family.resolve("recipes")


def find_recipe(family: Family, benchmark: str, name: str) -> Recipe:
    """A benchmark's recipe by name.

    Args:
        family: of the checkpoint.
        benchmark: its name.
        name: such as "paper".

    Raises:
        ValueError: if there is none of that name, or none at all for the benchmark.
    """
    recipes = recipes_of(family)
    if benchmark not in recipes:
        known = ", ".join(recipes) or "no benchmark"
        raise ValueError(
            f"{family.title} has no recipe for {benchmark} (it has recipes for {known}), so there are no settings to draw "
            "it with; use `draw_benchmark` with a `Recipe` of your own."
        )
    if name not in recipes[benchmark]:
        raise ValueError(f"--recipe is {name!r}, but must be one of {', '.join(recipes[benchmark])}.")
    return recipes[benchmark][name]


def check_recipe(recipe: Recipe, abilities: Abilities, edits: bool) -> dict[str, Any]:
    """What a recipe says of a checkpoint's settings, checked.

    Args:
        recipe: how.
        abilities: of the checkpoint.
        edits: whether pictures are edited; else nothing is said of sources.

    Raises:
        ValueError: for a setting that cannot be, or that the checkpoint does not have.
    """
    given = recipe.given()
    if not edits:
        given.pop("source_fit", None)
    return check_sampling(abilities, given)
