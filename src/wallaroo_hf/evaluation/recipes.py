"""How the pictures of a benchmark are drawn: the paper's settings, those of the authors' scripts, and one's own."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..generation.logits_processors import check_guidance_min_p
from ..layout.prompt_texts import prompt_language

RANDOM_TEMPLATE = "random"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides how a picture is drawn, seed, size and checkpoint apart.

    Attributes:
        name: "paper", "released" (the authors' script), and what was changed.
        guidance_scale: classifier-free guidance; off at 1 and below.
        top_k: the likeliest codes to sample from; 0: all.
        top_p: the likeliest codes that make up this probability; None: all.
        temperature: of sampling.
        template: index into the templates of the prompt's language, a text with {prompt} in it, or "random": one of the
            listed ones for each picture, as in the authors' scripts.
        published_eval: token layout and padding of the released evaluation scripts.
        guidance_min_p: the share of the likeliest code's probability that codes need to be guided to; 0: none.
        source_fit: "crop": a source is cut to the listed size nearest to its shape, and the edit has that size, as in the
            authors' script; "pad": all of the source is edited, and the edit has its size.
    """

    name: str
    guidance_scale: float
    top_k: int = 1000
    top_p: float | None = None
    temperature: float = 1.0
    template: int | str = 0
    published_eval: bool = False
    source_fit: str = "crop"
    guidance_min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"The temperature must be above 0, but is {self.temperature}; --top-k 1 is greedy.")
        if self.top_k < 0:
            raise ValueError(f"Top-k must be 0 (all codes) or more, but is {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"Top-p must be above 0 and at most 1, but is {self.top_p}.")
        check_guidance_min_p(self.guidance_min_p)
        if self.source_fit not in ("crop", "pad"):
            raise ValueError(f"How a source is fitted is {self.source_fit!r}, but must be crop or pad.")

    def changed(self, **given: Any) -> Recipe:
        """The same with what is given (None: not given); its name then tells of it."""
        changes = {key: value for key, value in given.items() if value is not None and value != getattr(self, key)}
        if not changes:
            return self
        told = ", ".join(f"{key} {value}" for key, value in changes.items())
        return dataclasses.replace(self, **changes, name=f"{self.name}, but {told}")

    def sampling(self) -> dict[str, Any]:
        """Arguments of `generate`."""
        arguments = {"guidance_scale": self.guidance_scale, "guidance_min_p": self.guidance_min_p}
        arguments |= {"top_k": self.top_k, "temperature": self.temperature}
        top_p = {} if self.top_p is None else {"top_p": self.top_p}
        return {"do_sample": True, "attend_padding": self.published_eval, **arguments, **top_p}

    def preparation(self) -> dict[str, Any]:
        """Arguments of the processor, the template apart."""
        return {"layout": "published_eval" if self.published_eval else "trained", "source_fit": self.source_fit}

    def choose_template(self, name: str, prompt: str, seed: int, templates: Mapping[str, Sequence[str]]) -> int | str:
        """The template of one picture.

        Args:
            name: the picture's.
            prompt: its prompt, whose language decides.
            seed: of random choices.
            templates: language -> templates.
        """
        if self.template != RANDOM_TEMPLATE:
            return self.template
        listed = templates[prompt_language(prompt)]
        return random.Random(f"{seed}/template/{name}").randrange(len(listed))


# The released scripts of the three benchmarks sample with top-k 1000 and without top-p, only DPG's with 0.95.
RECIPES: dict[str, dict[str, Recipe]] = {
    "geneval": {"paper": Recipe("paper", guidance_scale=3.0)},
    "dpg": {
        "paper": Recipe("paper", guidance_scale=2.5),
        "released": Recipe("released", guidance_scale=4.0, top_p=0.95),
    },
    "imgedit": {"paper": Recipe("paper", guidance_scale=3.0)},
}


def find_recipe(benchmark: str, name: str) -> Recipe:
    """A benchmark's recipe by name.

    Raises:
        ValueError: if it has none of that name.
    """
    if name not in RECIPES[benchmark]:
        raise ValueError(f"--recipe is {name!r}, but must be one of {', '.join(RECIPES[benchmark])}.")
    return RECIPES[benchmark][name]
