"""The ablations by name: what is varied, and what each variant changes in the released arrangement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...modeling.model import WallarooForConditionalGeneration
from ...processing.processor import WallarooProcessor
from .models import GridSourceModel, SharedHeadModel
from .processors import SourceAfterProcessor

__all__ = ["ABLATIONS", "Ablation", "Metric", "Variant", "find_ablation"]


@dataclass(frozen=True)
class Metric:
    """One number by which variants are compared.

    Attributes:
        name: its key in results.
        title: for people.
        higher_is_better: whether more of it is better; None = neither, it is only told.
        is_share: a share in [0, 1], shown in percent.
        items: of a share, the setting that says of how many pictures per seed.
    """

    name: str
    title: str
    higher_is_better: bool | None = False
    is_share: bool = False
    items: str = ""


@dataclass(frozen=True)
class Variant:
    """One arrangement.

    Attributes:
        name: within its ablation.
        key: the name of its runs; the released arrangement of several ablations is one and the same.
        stage: settings of the training stage that it changes.
        model_class: what is trained.
        processor_class: what lays out its rows.
        arrange: changes the processor's settings.
        pixels_per_code: edge of what an image code spans (the ablation `tokenizer`).
    """

    name: str
    key: str
    stage: Mapping[str, Any] = field(default_factory=dict)
    model_class: type[WallarooForConditionalGeneration] = WallarooForConditionalGeneration
    processor_class: type[WallarooProcessor] = WallarooProcessor
    arrange: Callable[[WallarooProcessor], None] | None = None
    pixels_per_code: int = 16


@dataclass(frozen=True)
class Ablation:
    """Some variants that are compared with the released one.

    Attributes:
        name: for the command line.
        question: what is asked.
        kind: what is trained and scored: `"edits"`, `"sizes"` or `"tokenizer"`.
        variants: in the order in which they are shown.
        released: the name of the released one.
    """

    name: str
    question: str
    kind: str
    variants: tuple[Variant, ...]
    released: str

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is scored."""
        return METRICS[self.kind]

    @property
    def baseline(self) -> Variant:
        """The released arrangement."""
        return next(variant for variant in self.variants if variant.name == self.released)


METRICS = {
    "edits": (
        Metric("edit_codes", "edits: loss of codes"),
        Metric("edit_first_kept", "edits: first codes, kept"),
        Metric("edit_first_changed", "edits: first codes, changed"),
        Metric("drawing_codes", "drawings: loss of codes"),
        Metric("edits_right", "edits right", True, True, "judged"),
        Metric("drawings_right", "drawings right", True, True, "judged"),
    ),
    "sizes": (
        Metric("line_ends", "loss at ends of lines"),
        Metric("rows_right", "number of rows right", True, True, "validation_rows"),
        Metric("drawing_codes", "drawings: loss of codes"),
        Metric("drawing_first", "drawings: first codes"),
        Metric("drawings_right", "drawings right", True, True, "judged"),
    ),
    "tokenizer": (
        Metric("psnr", "PSNR in dB", True),
        Metric("rebuilt_right", "rebuilt right", True, True, "validation_rows"),
        Metric("codes_per_picture", "codes per picture", None),
        Metric("bits_per_picture", "bits per picture", None),
    ),
}


def _no_indicators(processor: WallarooProcessor) -> None:
    processor.size_indicators = False


def _size_in_words(processor: WallarooProcessor) -> None:
    """Templates that name the size, as the released ones of the full model do, and no indicator tokens."""
    processor.size_indicators = False
    sized = {"en": "{{target_w}}x{{target_h}}: {}", "zh": "{{target_w}}x{{target_h}}：{}"}
    processor.prompt_templates = {
        task: {
            language: [sized[language].format(_without_sizes(template)) for template in templates]
            for language, templates in by_language.items()
        }
        for task, by_language in processor.prompt_templates.items()
    }


def _without_sizes(template: str) -> str:
    return template.replace("{target_w}x{target_h}", "")


def _unsized_templates(processor: WallarooProcessor) -> None:
    """No template names the size, so that indicator tokens are all there is to tell it."""
    processor.prompt_templates = {
        task: {language: [_without_sizes(template) for template in templates] for language, templates in texts.items()}
        for task, texts in processor.prompt_templates.items()
    }


def _nothing_about_sizes(processor: WallarooProcessor) -> None:
    _no_indicators(processor)
    _unsized_templates(processor)


_RELEASED_EDITS = "edits-released"

ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        Ablation(
            "mask_ratio",
            "How large a share of the source's codes is replaced in training?",
            "edits",
            tuple(
                Variant(
                    f"{rate:g}", _RELEASED_EDITS if rate == 0.6 else f"mask_ratio-{rate:g}", {"source_mask_rate": rate}
                )
                for rate in (0.0, 0.3, 0.6, 0.9)
            ),
            "0.6",
        ),
        Ablation(
            "edit_head",
            "Do edits have a head of their own?",
            "edits",
            (
                Variant("separate", _RELEASED_EDITS),
                Variant("shared", "edit_head-shared", model_class=SharedHeadModel),
            ),
            "separate",
        ),
        Ablation(
            "source_order",
            "Do the source's codes stand before or after what NaViT sees of it?",
            "edits",
            (
                Variant("before", _RELEASED_EDITS),
                Variant("after", "source_order-after", processor_class=SourceAfterProcessor),
            ),
            "before",
        ),
        Ablation(
            "source_positions",
            "Are the positions of the source's codes one- or two-dimensional?",
            "edits",
            (
                Variant("1-D", _RELEASED_EDITS),
                Variant("2-D", "source_positions-2d", model_class=GridSourceModel),
            ),
            "1-D",
        ),
        Ablation(
            "indicators",
            "How is the size of the picture announced?",
            "sizes",
            (
                Variant("none", "indicators-none", arrange=_nothing_about_sizes),
                Variant("words", "indicators-words", arrange=_size_in_words),
                Variant("tokens", "indicators-tokens", arrange=_unsized_templates),
            ),
            "tokens",
        ),
        Ablation(
            "tokenizer",
            "How many pixels does an image code span?",
            "tokenizer",
            (Variant("f16", "tokenizer-f16"), Variant("f8", "tokenizer-f8", pixels_per_code=8)),
            "f16",
        ),
    )
}


def find_ablation(name: str) -> Ablation:
    """The ablation of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in ABLATIONS:
        raise ValueError(f"There is no ablation {name!r}; there are {', '.join(ABLATIONS)}.")
    return ABLATIONS[name]
