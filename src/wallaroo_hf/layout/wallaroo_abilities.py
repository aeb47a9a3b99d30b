"""What a Wallaroo checkpoint can do, from its three JSON files."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..families.abilities import (
    COMPOSITION,
    EDITING,
    GENERATION,
    INPAINTING,
    NAVIT_VIDEO_OPTIONS,
    UNDERSTANDING,
    VIDEO,
    Abilities,
)
from ..families.settings import Setting, of_checkpoint
from ..families.sizes import SizeError
from .grid import check_size
from .prompt_texts import fill_template, prompt_language

__all__ = ["WallarooAbilities", "describe_wallaroo", "wallaroo_abilities"]

DEFAULT_GUIDANCE_SCALE = 3.0  # paper section 4
_UNTRAINED = (COMPOSITION,)  # of the released weights; unless `untrained_tasks` of the generation config says more
_TOKEN_SIZE = 16  # pixels, of the released tokenizer
_SHOWN = (
    *("image_guidance_scale", "image_guidance_min_p", "image_temperature", "image_top_k"),
    *("line_breaks", "attend_padding"),
)


@dataclass(frozen=True)
class WallarooAbilities(Abilities):
    """Pictures are rows of codes; without line breaks they are square, and of any size otherwise.

    Attributes:
        templates: task, then language, then the listed templates.
    """

    templates: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)

    def image_positions(self, height: int, width: int) -> int:
        """Codes, and a line break or the picture's end behind each row."""
        rows = height // self.size_multiple
        return self.image_tokens(height, width) + rows

    def check_task(self, task: str) -> None:
        """Refuses what the checkpoint does not do: edits, if it was trained up to stage 3.

        Raises:
            ValueError: for such a task.
        """
        if task == EDITING and not self.edits:
            raise ValueError(
                "This checkpoint has no editing parts (it was trained up to stage 3), so it cannot draw from an image; "
                "convert or load a stage 4 checkpoint."
            )
        super().check_task(task)

    def check_size(self, height: int, width: int) -> None:
        """Refuses sizes in pixels that cannot be drawn; see [`wallaroo_hf.layout.grid.check_size`].

        Raises:
            SizeError: if the size cannot be drawn, or has more codes than the model has positions.
        """
        rows, cols = check_size(height, width, self.size_multiple, plain_grid=not self.any_size)
        if (rows + 1) * (cols + 1) > self.max_positions:
            raise SizeError(
                f"A size of {height}x{width} (height x width) is {rows}x{cols} codes, but the model has only "
                f"{self.max_positions} positions; ask for a smaller image.",
                f"that is {rows}x{cols} codes, more than fit into the model's {self.max_positions} positions",
            )

    def prompt_templates(self, prompt: str, edits: bool) -> Sequence[str]:
        """The listed templates of the prompt's language."""
        return self.templates["editing" if edits else "generation"][prompt_language(prompt)]

    def write_prompt(self, prompt: str, template: int | str, height: int, width: int, edits: bool) -> str:
        """The instruction; see [`wallaroo_hf.layout.prompt_texts.fill_template`].

        Args:
            prompt: the user's words.
            template: index into the listed ones, or text with {prompt} in it.
            height, width: of the picture, in pixels.
            edits: whether a picture is edited.
        """
        templates = self.templates["editing" if edits else "generation"]
        return fill_template(template, templates, prompt_language(prompt), prompt, height, width)


def wallaroo_abilities(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> WallarooAbilities:
    """What a checkpoint can do.

    Args:
        config, generation_config, processor_config: contents of its files of these names; `untrained_tasks` of the
            generation config says what it can compute but never learned.
    """
    edits = bool(config.get("has_editing", True))
    templates = processor_config.get("prompt_templates") or {}
    return WallarooAbilities(
        family="Wallaroo",
        tasks=(UNDERSTANDING, GENERATION, *((EDITING, INPAINTING, COMPOSITION) if edits else ()), VIDEO),
        untrained=tuple(generation_config.get("untrained_tasks", _UNTRAINED)),
        sizes=tuple((int(height), int(width)) for height, width in processor_config.get("buckets", ())),
        size_multiple=int(processor_config.get("image_token_size", _TOKEN_SIZE)),
        any_size=bool(processor_config.get("line_breaks", True)),
        max_positions=int((config.get("text_config") or {}).get("max_position_embeddings") or 0),
        languages=tuple(sorted(templates.get("generation", {}))),
        settings=_settings(generation_config, edits),
        video_options=NAVIT_VIDEO_OPTIONS,
        progress_unit="row",
        known_words=processor_config.get("known_words") or {},
        recorded=_recorded(generation_config),
        keeps_prefixes=True,
        templates=templates,
    )


def _settings(generation_config: Mapping[str, Any], edits: bool) -> tuple[Setting, ...]:
    return of_checkpoint((*_GUIDANCE, *_SAMPLING, *_LAYOUT, *(_OF_EDITS if edits else ())), generation_config)


def _recorded(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """What `scores.json` has said since before there were several families; a temperature or top-k may be unsaid."""
    own = {
        name: generation_config.get(f"image_{name}")
        for name in ("guidance_scale", "temperature", "top_k", "do_sample", "guidance_min_p")
    }
    own["do_sample"] = generation_config.get("do_sample")  # of text and images
    defaults = {"guidance_scale": DEFAULT_GUIDANCE_SCALE, "do_sample": True, "guidance_min_p": 0.0}
    return {name: defaults.get(name) if value is None else value for name, value in own.items()}


# The model takes what concerns drawing, the processor the layout; defaults are those where the checkpoint says nothing.
_NUMBER = functools.partial(Setting, type=float, stage="draw", minimum=0)
_GUIDANCE = (
    _NUMBER(
        "guidance_scale",
        default=DEFAULT_GUIDANCE_SCALE,
        help="Classifier-free guidance: how closely the picture keeps to the words; off at 1 and below.",
        maximum=100,
        tried=(1.0, 1.5, 2.0, 3.0),
    ),
    _NUMBER(
        "guidance_min_p",
        default=0.0,
        help="Guide only to codes at least this share as likely as the likeliest, 0 to 1; 0 guides to all.",
        maximum=1,
        tried=(0.0, 0.2),
        needs_guidance=True,
    ),
)
_SAMPLING = (
    _NUMBER(
        "temperature",
        default=1.0,
        help="Sampling temperature; 0 takes the likeliest codes.",
        maximum=10,
        tried=(0.6, 0.8, 1.0),
    ),
    Setting("top_k", int, "draw", 0, "Sample from the k likeliest codes; 0 = all.", minimum=0, tried=(0,)),
    _NUMBER(
        "top_p",
        default=1.0,
        help="Sample from the likeliest codes that make up this probability.",
        maximum=1,
        above_minimum=True,
    ),
    Setting(
        "do_sample", bool, "draw", True, "Whether codes are sampled, as temperature 0 says too.", python_only=True
    ),
    Setting(
        "window",
        int,
        "draw",
        1,
        "Codes a forward may decide: a number, or auto; the same picture in fewer forwards.",
        minimum=1,
        choices=("auto",),
    ),
)
_LAYOUT = (
    Setting("prompt_template", str, "prepare", "0", "Index of a template, or text with {prompt} in it."),
    Setting("published_eval", bool, "both", False, "Token layout and padding of the released evaluation scripts."),
)
_OF_EDITS = (
    _NUMBER(
        "source_guidance_scale",
        stage="both",
        default=None,
        help="Second scale, for keeping to the source; untrained by the released recipe.",
        maximum=100,
    ),
    Setting(
        "source_fit",
        str,
        "prepare",
        "pad",
        "pad keeps the whole source and its size; crop cuts it to a listed size, as in training.",
        choices=("pad", "crop"),
    ),
    Setting(
        "null_prompt_cache", object, "draw", None, "Keeps null prompts' prefills from call to call: a NullPromptCache."
    ),
)


def describe_wallaroo(
    config: Mapping[str, Any], generation_config: Mapping[str, Any], processor_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `wallaroo info` says of a Wallaroo checkpoint alone.

    Args:
        config, generation_config, processor_config: contents of its files of these names.

    Returns:
        Facts by name, and lines of its table.
    """
    size, codes = int(processor_config.get("image_token_size", _TOKEN_SIZE)), config.get("codebook_size")
    sampling = {key: generation_config[key] for key in _SHOWN if key in generation_config}
    facts = {
        "stage": config.get("stage"),
        "image_token_size": size,
        "codebook_size": codes,
        "sampling": sampling,
    }
    shown = {
        "training stage": config.get("stage") or "not said",
        "image tokens": f"{codes or 0:,} codes, {size}x{size} pixels each",
    }
    return facts, shown
