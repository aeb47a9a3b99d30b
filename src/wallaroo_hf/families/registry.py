"""The families that there are, by name: importing this imports none of them, and no torch."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..files.checkpoint_files import find_checkpoint, read_json
from .abilities import Abilities
from .contract import DrawingModel, DrawingProcessor
from .training_kit import TrainingKit

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Family",
    "abilities_of",
    "family_of",
    "find_family",
    "kit_of",
    "load",
    "read_abilities",
    "register_family",
]


@dataclass(frozen=True)
class Family:
    """A family of models. Everything but names is an address, "module:Name", that is imported when it is needed.

    Attributes:
        model_type: of its `config.json`.
        title: its name for people.
        paper: where its paper is, for model cards.
        summary: what it is, in half a sentence for model cards.
        tags: of its model cards, beside its name and tasks.
        extra: of this package, with what its models need.
        config, model, processor, image_processor: its classes.
        abilities: `abilities(config, generation_config, processor_config) -> Abilities`, from three JSON objects.
        description: `describe(config, processor_config, tensors) -> dict`: facts for `wallaroo info` that only it has.
        parts: a mapping of its parts to the beginnings of their tensors' names; for `wallaroo info`, so without torch.
        backbone: the class behind `AutoModel`, if there is one.
        codec_config, codec: of its image codec, where that is registered by itself.
        kit: its training kit.
        converter: `convert(...)`, from released files.
        builder: `build(..., output, ...)`, from models of others; its keywords are options of `wallaroo build`.
        recognises: what lists the beginnings of keys in released files that are its own.
        recipes: settings of published scores, by benchmark.
        built_in: a folder of the package, if a checkpoint of it ships.
        scenes: `recipe(tiny) -> Recipe` of a small model that is trained on the scenes from nothing, see
            [`wallaroo_hf.training.scenes.scene_builder`].
        export_language_model: what gives its language model to a family that needs one.
        from_language_model: what makes a new model of it around a language model, which `export_language_model` gives back.
        ablation: variants of a small model to compare, see [`wallaroo_hf.families.ablation_contract`].
        paradigm: a new model to compare with those of other families, see [`wallaroo_hf.families.paradigm_contract`].
        small_language_model: what makes the small one that such models grow from.
    """

    model_type: str
    title: str
    config: str
    model: str
    processor: str
    abilities: str
    paper: str | None = None
    summary: str = "a model"
    tags: tuple[str, ...] = ()
    extra: str | None = None
    image_processor: str | None = None
    description: str | None = None
    parts: str | None = None
    backbone: str | None = None
    codec_config: str | None = None
    codec: str | None = None
    kit: str | None = None
    converter: str | None = None
    builder: str | None = None
    recognises: str | None = None
    recipes: str | None = None
    built_in: str | None = None
    scenes: str | None = None
    export_language_model: str | None = None
    from_language_model: str | None = None
    ablation: str | None = None
    paradigm: str | None = None
    small_language_model: str | None = None

    def resolve(self, attribute: str) -> Any:
        """What an address of it leads to.

        Args:
            attribute: such as "model".

        Raises:
            ValueError: if this family has no such thing.
        """
        address = getattr(self, attribute)
        if address is None:
            raise ValueError(f"{self.title} has no {attribute.replace('_', ' ')}.")
        module, _, name = address.partition(":")
        return getattr(importlib.import_module(module), name)

    def training_kit(self, option: str | None = None) -> TrainingKit:
        """How it is trained.

        Args:
            option: of the kit's `options`, one that is needed.

        Raises:
            ValueError: if it is not trained here, or lacks the option.
        """
        if self.kit is None:
            raise ValueError(f"{self.title} models are not trained here; give a checkpoint of another family.")
        kit: TrainingKit = self.resolve("kit")
        if option is not None and option not in kit.options:
            has = f"it has {', '.join(sorted(kit.options))}" if kit.options else "it has no such options"
            raise ValueError(f"Training of {self.title} models has no `{option}`; {has}. Leave it out.")
        return kit


_ROOT = __name__.rsplit(".", 2)[0]
_WALLAROO = Family(
    model_type="wallaroo",
    title="Wallaroo",
    paper="https://arxiv.org/abs/2603.04980",
    summary="one autoregressive model that understands, draws and edits images",
    tags=("autoregressive",),
    config=f"{_ROOT}.modeling.configuration:WallarooConfig",
    model=f"{_ROOT}.modeling.model:WallarooForConditionalGeneration",
    processor=f"{_ROOT}.processing.processor:WallarooProcessor",
    image_processor=f"{_ROOT}.processing.image_processor:WallarooImageProcessor",
    abilities=f"{_ROOT}.layout.wallaroo_abilities:wallaroo_abilities",
    description=f"{_ROOT}.layout.wallaroo_abilities:describe_wallaroo",
    parts=f"{_ROOT}.modeling.parts:TENSORS_OF_PARTS",
    backbone=f"{_ROOT}.modeling.backbone:WallarooModel",
    codec_config=f"{_ROOT}.modeling.configuration:WallarooVQConfig",
    codec=f"{_ROOT}.modeling.vq:WallarooVQModel",
    kit=f"{_ROOT}.training.wallaroo_kit:KIT",
    converter=f"{_ROOT}.conversion:convert_checkpoint",
    recognises=f"{_ROOT}.conversion.key_map:CHECKPOINT_PREFIXES",
    recipes=f"{_ROOT}.layout.published_recipes:RECIPES",
    built_in="built_in",
    scenes=f"{_ROOT}.training.scenes.scenes_recipe:scene_recipe",
    export_language_model=f"{_ROOT}.conversion:export_qwen",
    from_language_model=f"{_ROOT}.conversion.qwen_import:wallaroo_from_qwen",
    paradigm=f"{_ROOT}.training.scenes.wallaroo_paradigm:PARADIGM",
    small_language_model=f"{_ROOT}.training.scenes.wallaroo_paradigm:SMALL_LANGUAGE_MODEL",
)
_SHOWO2 = Family(
    model_type="showo2",
    title="Show-o2",
    paper="https://arxiv.org/abs/2506.15564",
    summary="text by its next token and images by flow matching, in one transformer",
    tags=("autoregressive", "flow-matching"),
    extra="showo2",
    config=f"{_ROOT}.showo2.showo2_configuration:ShowO2Config",
    model=f"{_ROOT}.showo2.showo2_model:ShowO2ForConditionalGeneration",
    processor=f"{_ROOT}.showo2.processing.showo2_processor:ShowO2Processor",
    image_processor=f"{_ROOT}.showo2.processing.showo2_image_processor:ShowO2ImageProcessor",
    abilities=f"{_ROOT}.showo2.showo2_abilities:showo2_abilities",
    description=f"{_ROOT}.showo2.showo2_abilities:describe_showo2",
    parts=f"{_ROOT}.showo2.showo2_abilities:PARTS",
    backbone=f"{_ROOT}.showo2.omni_backbone:ShowO2Model",
    kit=f"{_ROOT}.showo2.training.showo2_kit:KIT",
    converter=f"{_ROOT}.showo2.conversion.showo2_converter:convert_showo2",
    recognises=f"{_ROOT}.showo2.conversion.showo2_key_map:CHECKPOINT_PREFIXES",
    recipes=f"{_ROOT}.showo2.showo2_recipes:RECIPES",
    scenes=f"{_ROOT}.showo2.training.showo2_scenes:scene_recipe",
    paradigm=f"{_ROOT}.showo2.training.showo2_paradigm:PARADIGM",
)
_HIERAQUERY = Family(
    model_type="hieraquery",
    title="HieraQuery",
    paper="https://openreview.net/forum?id=pObX7pIjF1",
    summary="learned queries behind a frozen language model steer a diffusion transformer",
    tags=("diffusion", "flow-matching"),
    extra="hieraquery",
    config=f"{_ROOT}.hieraquery.hieraquery_configuration:HieraQueryConfig",
    model=f"{_ROOT}.hieraquery.hieraquery_model:HieraQueryForConditionalGeneration",
    processor=f"{_ROOT}.hieraquery.processing.hieraquery_processor:HieraQueryProcessor",
    image_processor=f"{_ROOT}.hieraquery.processing.hieraquery_image_processor:HieraQueryImageProcessor",
    abilities=f"{_ROOT}.hieraquery.hieraquery_abilities:hieraquery_abilities",
    description=f"{_ROOT}.hieraquery.hieraquery_abilities:describe_hieraquery",
    parts=f"{_ROOT}.hieraquery.hieraquery_abilities:PARTS",
    builder=f"{_ROOT}.hieraquery.building:build_hieraquery",
    recipes=f"{_ROOT}.hieraquery.hieraquery_recipes:RECIPES",
    kit=f"{_ROOT}.hieraquery.training.hieraquery_kit:KIT",
    scenes=f"{_ROOT}.hieraquery.training.hieraquery_scenes:scene_recipe",
    ablation=f"{_ROOT}.hieraquery.training.hieraquery_ablation:ABLATION",
    paradigm=f"{_ROOT}.hieraquery.training.hieraquery_paradigm:PARADIGM",
)
_families: dict[str, Family] = {family.model_type: family for family in (_WALLAROO, _SHOWO2, _HIERAQUERY)}
FAMILIES: Mapping[str, Family] = MappingProxyType(_families)


def register_family(family: Family) -> None:
    """Adds a family, so that every door takes its checkpoints.

    Raises:
        ValueError: if another one has its `model_type`.
    """
    if _families.setdefault(family.model_type, family) != family:
        raise ValueError(
            f"The model type '{family.model_type}' belongs to {FAMILIES[family.model_type].title} already; choose another."
        )
    registration = sys.modules.get(f"{_ROOT}._registration")
    if registration is not None:  # otherwise it will see the family when it is imported
        registration.register_auto_classes(family)


def family_of(model_type: str | None, name: str | Path) -> Family:
    """The family of a model type.

    Args:
        model_type: of a configuration.
        name: whose it is, for the message.

    Raises:
        ValueError: if there is none.
    """
    if model_type not in _families:
        known = " or ".join(f"a {family.title}" for family in _families.values())
        raise ValueError(f"'{name}' holds a model of type '{model_type}', but this needs {known} checkpoint.")
    return _families[model_type]


def find_family(name: str | Path, what: str | None = None) -> Family:
    """The family of a checkpoint, from its `config.json` alone.

    Args:
        name: folder or Hub id.
        what: what it should be, for the message; None = the message says only what is wrong.

    Raises:
        ValueError: if there is no checkpoint of that name, or none of a family.
    """
    try:
        return _find_family(name)
    except ValueError as error:
        if what is None:
            raise
        raise ValueError(f"No {what} could be loaded from '{name}': {error}") from error


def _find_family(name: str | Path) -> Family:
    folder = find_checkpoint(name, weights=False)
    try:
        config = read_json(folder / "config.json")
    except ValueError as error:
        raise ValueError(f"No checkpoint could be loaded from '{name}': {error}") from error
    return family_of(config.get("model_type"), name)


def read_abilities(folder: Path, name: str | Path) -> Abilities:
    """What the checkpoint in a folder can do, from its JSON files.

    Args:
        folder: its files.
        name: what it was called, for messages.

    Raises:
        ValueError: if one of them is missing or damaged.
    """
    contents = {}
    for what in ("config", "generation_config", "processor_config"):
        path = folder / f"{what}.json"
        try:
            contents[what] = {} if what == "generation_config" and not path.is_file() else read_json(path)
        except ValueError as error:
            raise ValueError(f"No checkpoint could be loaded from '{name}': {error}") from error
    family = family_of(contents["config"].get("model_type"), name)
    return family.resolve("abilities")(*contents.values())


def abilities_of(model: DrawingModel, processor: DrawingProcessor) -> Abilities:
    """What a loaded checkpoint can do, its special tokens included.

    Raises:
        ValueError: if it belongs to no family.
    """
    family = _family_of_model(model)
    dicts = (model.config.to_dict(), model.generation_config.to_dict(), processor.to_dict())
    return dataclasses.replace(family.resolve("abilities")(*dicts), special_tokens=processor.special_words)


def kit_of(model: Any, option: str | None = None) -> TrainingKit:
    """The training kit of a model, or of an image codec alone.

    Args:
        model: not wrapped.
        option: of the kit's `options`, one that is needed.

    Raises:
        ValueError: if it belongs to no family, to one that is not trained here, or that lacks the option.
    """
    types = _model_types(model)
    if not _families.keys() & set(types):
        for family in _families.values():
            if family.codec_config is not None and family.resolve("codec_config").model_type in types:
                return family.training_kit(option)
    return _family_of_model(model).training_kit(option)


def _family_of_model(model: Any) -> Family:
    """The family of a loaded model, or that of the model whose configuration its own inherits."""
    types = _model_types(model)
    return family_of(next((one for one in types if one in _families), next(iter(types), None)), type(model).__name__)


def _model_types(model: Any) -> list[str]:
    """The type that a model's configuration says, and those that it inherits."""
    kinds = [model.config, *type(model.config).__mro__]
    return list(dict.fromkeys(filter(None, (getattr(kind, "model_type", None) for kind in kinds))))


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with all that belongs to it.

    Attributes:
        name: what it was called.
        model: in evaluation mode, on its device.
        processor: its processor.
        family: what it is.
        abilities: what it can do.
    """

    name: str
    model: DrawingModel
    processor: DrawingProcessor
    family: Family
    abilities: Abilities


def load(name: str | Path, device: str | None = None, dtype: str = "auto", check_weights: bool = True) -> Checkpoint:
    """Loads a checkpoint of any family onto one device.

    Args:
        name: folder or Hub id.
        device: where to; default: an accelerator if there is one.
        dtype: of the weights: "bfloat16", "float16", "float32", or "auto", see
            [`wallaroo_hf.families.precision.loading_dtype`].
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is no such checkpoint, if it is damaged, if there is no such precision or device, or if its
            memory is too small.
    """
    from .loading import find_device, load_model, reading_checkpoint, to_device
    from .precision import loading_dtype, read_dtype

    family = find_family(name)
    device = find_device(device)
    dtype = loading_dtype(read_dtype(dtype), device)
    with reading_checkpoint(name):
        processor = family.resolve("processor").from_pretrained(name)
    model = load_model(family.resolve("model"), name, check_weights, dtype=dtype)
    model = to_device(model, device).eval()
    return Checkpoint(str(name), model, processor, family, abilities_of(model, processor))
