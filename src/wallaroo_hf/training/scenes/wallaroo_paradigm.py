"""Wallaroo as one of several ways to unify, and the small language model that all of them grow from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...families.paradigm_contract import ParadigmParts, paradigm_steps
from ...families.registry import find_family
from ...families.vocabulary import KnownWords
from ...files.built_in import FOLDER
from ..stages import Stage, stage
from ..trained_parts import PARTS
from ..vq.vq_loading import load_vq_model
from .scenes_data import text_corpus
from .scenes_recipe import INDICATOR_SIZES, PIXEL_LIMITS, PROMPT_TEMPLATES, SceneRecipe
from .small_model import add_layers, new_small_model, train_tokenizer

__all__ = ["PARADIGM", "SMALL_LANGUAGE_MODEL", "WallarooParadigm", "WallarooSmallLanguageModel"]

_LAYERS = 8  # of the small language model, for as many parameters as the others have
_SMALL: dict[str, Any] = {"learning_rate": 2e-3, "lr_scheduler_type": "linear", "source_mask_rate": 0.0}


class WallarooParadigm:
    """See [`wallaroo_hf.families.paradigm_contract.FamilyParadigm`]."""

    words = "pure next-token prediction: pictures are codes of a discrete image tokenizer, learned like words"
    taken = "the whole language model; its vision encoder is frozen, all else is trained"
    options = ("codec",)
    answers_at_once = True
    codec = "model.vq_model."
    counted: Mapping[str, str] = {"language model": "model.language_model.layers.0"}

    def start(self, parts: ParadigmParts, seed: int) -> tuple[Any, Any]:
        """A new model around the language model; the small one gets new layers, which pass on what they get at first.

        Args:
            parts: what it is built on.
            seed: of what is new.

        Raises:
            ValueError: for parts that are not there or do not fit.
        """
        codec = parts.given.get("codec", str(FOLDER))
        model, processor = find_family(str(FOLDER)).resolve("from_language_model")(
            parts.language_model,
            load_vq_model(codec, parts.check_weights),
            parts.sizes,
            pixel_limits=parts.pixel_limits,
            seed=seed,
            known_words=parts.known_words,
            check_weights=parts.check_weights,
        )
        if parts.small:
            add_layers(model, max(_LAYERS, model.config.text_config.num_hidden_layers))
            processor.prompt_templates = PROMPT_TEMPLATES
        return model, processor

    def stage(self, parts: ParadigmParts, ratio: Mapping[str, float], steps: int, batch_size: int) -> Stage:
        """The paper's last stage on all tasks at once.

        Args:
            parts: what it is built on.
            ratio: of the tasks.
            steps: of training.
            batch_size: rows of each.
        """
        own: dict[str, Any] = {**_SMALL, "pixel_limits": parts.pixel_limits} if parts.small else {}
        return dataclasses.replace(
            stage("4"),
            **{**own, **paradigm_steps(steps)},
            follows=None,
            trains=PARTS["all"],
            buckets=parts.sizes,
            indicator_sizes=tuple(sorted({edge for size in parts.sizes for edge in size})),
            global_batch_size=batch_size,
            task_ratio=dict(ratio),
        )


class WallarooSmallLanguageModel:
    """See [`wallaroo_hf.families.paradigm_contract.SmallLanguageModel`]: stage 0 of the built-in checkpoint's recipe."""

    steps = SceneRecipe().steps["0"]

    def start(self, seed: int, known_words: KnownWords) -> tuple[Any, Any]:
        """As the recipe's, around the built-in image tokenizer, which has no part in it.

        Args:
            seed: of its weights.
            known_words: all that it will learn.
        """
        recipe = SceneRecipe(seed=seed)
        texts = text_corpus(recipe.tokenizer_rows, seed, PROMPT_TEMPLATES)
        return new_small_model(
            train_tokenizer(texts, INDICATOR_SIZES, recipe.vocabulary),
            load_vq_model(str(FOLDER)),
            self.stage(1, 1),
            prompt_templates=PROMPT_TEMPLATES,
            num_hidden_layers=recipe.num_hidden_layers // 2,
            seed=seed,
            known_words=known_words,
        )

    def stage(self, steps: int, batch_size: int) -> Stage:
        """The recipe's, with its own number of steps.

        Args:
            steps: of training.
            batch_size: rows of each.
        """
        length = paradigm_steps(steps)
        own = SceneRecipe().training()[0].stage
        return dataclasses.replace(own, **length, global_batch_size=batch_size, pixel_limits=PIXEL_LIMITS)

    def export(self, folder: Path, output: Path) -> None:
        """Writes what was trained as a Qwen2.5-VL.

        Args:
            folder: its checkpoint.
            output: the folder to write; must be new.
        """
        find_family(folder).resolve("export_language_model")(folder, output)


PARADIGM = WallarooParadigm()
SMALL_LANGUAGE_MODEL = WallarooSmallLanguageModel()
