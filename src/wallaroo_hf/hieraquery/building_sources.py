"""What a new HieraQuery model is built from, where it is: language model, diffusers pipeline, connector, image codec."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, Qwen2_5_VLConfig, Qwen2Config

from ..common.unknown_keys import refuse_unknown_keys
from ..conversion.stored_tensors import StoredTensors
from ..families.loading import reading_checkpoint
from ..families.registry import FAMILIES, family_of
from ..files.built_in import default_checkpoint
from ..files.checkpoint_files import find_checkpoint, find_folder, read_json, weight_files

__all__ = [
    "LanguageModel",
    "Source",
    "find_diffusers",
    "language_model",
    "read_codec",
    "read_connector",
    "read_diffusers",
    "read_language_model",
]

_BUILT_IN = "built-in"
_WEIGHTS = "diffusion_pytorch_model"  # as diffusers calls all of them
# The shape of Qwen2.5-0.5B, which is the paper's connector.
_PAPER_CONNECTOR = {
    **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
    **{"num_attention_heads": 14, "num_key_value_heads": 2},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
_NO_WORDS = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
_HEAD_SIZE = 64  # of a connector of given layers and width, at most


@dataclass(frozen=True)
class Source:
    """A part of the new model.

    Attributes:
        settings: of its configuration.
        tensors: its weights by their names in the new model's files; none where they are to be made.
        where: whose they are, for messages.
        prefixes: how all of its names begin.
    """

    settings: Any
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    where: str = ""
    prefixes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------- language model


@dataclass(frozen=True)
class LanguageModel:
    """A Qwen2.5-VL.

    Attributes:
        name: what was given.
        folder: its files.
        known_words: the only words that it learned, see [`wallaroo_hf.families.vocabulary`].
    """

    name: str
    folder: Path
    known_words: Mapping[str, Any] | None


@contextlib.contextmanager
def language_model(name: str | Path, output: Path, check_weights: bool) -> Iterator[LanguageModel]:
    """The Qwen2.5-VL of a name, as long as the context lasts.

    Args:
        name: folder or Hub id of one, or of a checkpoint of another family that has one in it; "built-in" = ours.
        output: what is built; what has to be written of a language model is written beside it, and vanishes.
        check_weights: whether to look for weights that are not finite where they are written.

    Raises:
        ValueError: if there is none, or if it sees no pictures.
    """
    if str(name) == _BUILT_IN and not Path(name).exists():
        name = default_checkpoint()
    with contextlib.ExitStack() as stack:
        source = find_folder(name, ("*.json", "*.jinja", "*.txt", "*.safetensors"), "language model", _QWEN)
        if not (source / "config.json").is_file():
            raise ValueError(f"No language model is in '{name}' (there is no config.json); {_QWEN}.")
        kind = read_json(source / "config.json").get("model_type")
        if kind == Qwen2_5_VLConfig.model_type:
            yield LanguageModel(str(name), source, None)
            return
        giving = {one.model_type: one for one in FAMILIES.values() if one.export_language_model is not None}
        if kind not in giving:
            titles = " or ".join(family.title for family in giving.values())
            raise ValueError(
                f"'{name}' holds a model of type '{kind}', but the language model must be a Qwen2.5-VL, which sees "
                f"pictures; give one, or a {titles} checkpoint, whose language model is taken."
            )
        settings = source / "processor_config.json"
        words = read_json(settings).get("known_words") if settings.is_file() else None
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{output.name}-language-model-", dir=output.parent)
        folder = Path(stack.enter_context(beside)) / "exported"
        giving[kind].resolve("export_language_model")(source, folder, check_weights=check_weights)
        yield LanguageModel(str(name), folder, words)


_QWEN = "give the folder or Hub id of a Qwen2.5-VL, such as Qwen/Qwen2.5-VL-3B-Instruct"


def read_language_model(model: LanguageModel) -> Source:
    """Configuration and weights.

    Args:
        model: from [`language_model`].

    Raises:
        ValueError: if it has no vision encoder, or its files are missing or damaged.
    """
    with reading_checkpoint(model.name, "language model", _QWEN):
        config = Qwen2_5_VLConfig.from_pretrained(model.folder)
    _forget_origin(config)
    tied = config.tie_word_embeddings

    def rename(name: str) -> str | None:
        for ours, published in (("model.language_model.", "model."), ("model.visual.", "visual.")):
            if name.startswith(ours):
                name = published + name[len(ours) :]
        return None if tied and name == "lm_head.weight" else f"mllm.{name}"

    tensors = StoredTensors(weight_files(model.folder), rename)
    if not any(name.startswith("mllm.visual.") for name in tensors):
        raise ValueError(
            f"The language model '{model.name}' has no vision encoder, but HieraQuery's sees pictures; {_QWEN}."
        )
    return Source(config, tensors, f"language model '{model.name}'", ("mllm.",))


def _forget_origin(config: PreTrainedConfig) -> None:
    """Removes what a configuration says of the folder and the precision that it was read with."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part._name_or_path, part.architectures = "", None
        part.dtype = None


# ------------------------------------------------------------------------------------------------------------ connector


def read_connector(connector: str | Path | Mapping[str, Any] | None) -> Source:
    """Configuration, and weights where a Qwen2 is given.

    Args:
        connector: folder or Hub id of a Qwen2; "2x192" = that many layers and that width; settings that differ from those
            of Qwen2.5-0.5B; None = that one's shape.

    Raises:
        ValueError: if it is none of them.
    """
    if connector is None:
        return Source({**_PAPER_CONNECTOR, **_NO_WORDS})
    if isinstance(connector, Mapping):
        refuse_unknown_keys(Qwen2Config, connector)
        return Source({**_PAPER_CONNECTOR, **connector, **_NO_WORDS})
    layers, times, width = str(connector).partition("x")
    if times and layers.isdigit() and width.isdigit() and not Path(connector).exists():
        return Source({**_connector_of_shape(int(layers), int(width)), **_NO_WORDS})
    remedy = (
        "give the folder or Hub id of a Qwen2, such as Qwen/Qwen2.5-0.5B, or layers and width of a new one (2x192)"
    )
    folder = find_folder(connector, ("config.json", "*.safetensors", "*.safetensors.index.json"), "connector", remedy)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type") != Qwen2Config.model_type:
        raise ValueError(f"The connector '{connector}' is of type '{config.get('model_type')}'; {remedy}.")
    with reading_checkpoint(connector, "connector", remedy):
        settings = Qwen2Config.from_pretrained(folder).to_diff_dict()
    for name in ("architectures", "dtype", "transformers_version", "model_type", "tie_word_embeddings"):
        settings.pop(name, None)

    def rename(name: str) -> str | None:
        name = name.removeprefix("model.")
        return None if name.startswith(("embed_tokens.", "lm_head.")) else f"connector.transformer.{name}"

    tensors = StoredTensors(weight_files(folder), rename)
    return Source({**settings, **_NO_WORDS}, tensors, f"connector '{connector}'", ("connector.transformer.",))


def _connector_of_shape(layers: int, width: int) -> dict[str, Any]:
    least = -(-width // _HEAD_SIZE)
    heads = next((count for count in range(max(1, least), width) if width % count == 0 and width // count % 2 == 0), 0)
    if layers < 1 or not heads:
        raise ValueError(
            f"A connector of {layers}x{width} (layers x width) was asked for; give at least one layer, and a width that is "
            f"a multiple of {_HEAD_SIZE}."
        )
    return {
        **{"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers},
        **{"num_attention_heads": heads, "num_key_value_heads": heads},
    }


# --------------------------------------------------------------------------------------------------------- diffusers


_DIFFUSERS = (
    "give the folder or Hub id of a pipeline that diffusers wrote, "
    "such as stabilityai/stable-diffusion-3-medium-diffusers"
)


def _weight_names(variant: str | None) -> tuple[str, str]:
    """The file of weights, and the index of several, as diffusers calls them."""
    if variant is None:
        return f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}.safetensors.index.json"
    return f"{_WEIGHTS}.{variant}.safetensors", f"{_WEIGHTS}.safetensors.index.{variant}.json"


def find_diffusers(name: str | Path, parts: tuple[str, ...], variant: str | None, what: str) -> Path:
    """The folder of a diffusers pipeline; of one on the Hub only some parts are downloaded.

    Args:
        name: folder or Hub id.
        parts: such as "transformer"; text encoders never are among them.
        variant: of the weights, such as "fp16"; None = the ones without.
        what: it is for, for messages.

    Raises:
        ValueError: if there is none.
    """
    single, index = _weight_names(variant)
    shards = single.replace(".safetensors", "-*.safetensors")
    files = ("config.json", "scheduler_config.json", single, shards, index)
    patterns = [f"{part}/{file}" for part in parts for file in files]
    return find_folder(name, patterns, what, _DIFFUSERS)


def read_diffusers(folder: Path, name: str | Path, part: str, what: str, variant: str | None, prefix: str) -> Source:
    """Configuration and weights of a part of a diffusers pipeline.

    Args:
        folder: from [`find_diffusers`].
        name: what it was called.
        part: such as "transformer".
        what: it is, for messages.
        variant: see [`find_diffusers`].
        prefix: of its names in the new model.

    Raises:
        ValueError: if it is not there, or lacks weights.
    """
    if not (folder / part / "config.json").is_file():
        raise ValueError(f"'{name}' has no {what} of diffusers (there is no {part}/config.json); {_DIFFUSERS}.")
    settings = read_json(folder / part / "config.json")
    settings = {key: value for key, value in settings.items() if key == "_class_name" or not key.startswith("_")}
    single, index = _weight_names(variant)
    there = sorted(path.name for path in (folder / part).glob(f"{_WEIGHTS}.*"))
    middles = [name.split(".")[1].partition("-")[0] for name in there if name.endswith(".safetensors")]
    others = sorted(set(middles) - {"safetensors"})
    if variant is None and others and not {single, index} & set(there):
        raise ValueError(
            f"'{name}' has weights of the {what} as {' and '.join(others)} only; ask for that variant (`variant`)."
        )
    files = weight_files(folder / part, single, index)
    return Source(settings, StoredTensors(files, lambda key: prefix + key), f"{what} '{name}'", (prefix,))


# ------------------------------------------------------------------------------------------------------------- codec


def read_codec(codec: str | Path, variant: str | None, check_weights: bool) -> Source:
    """An image codec that is given by itself.

    Args:
        codec: "pixels"; folder or Hub id of a diffusers pipeline, whose `vae` is taken, or of a checkpoint with Wallaroo's
            image tokenizer ("built-in" = ours).
        variant: see [`find_diffusers`].
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if it is none of them.
    """
    if str(codec) == "pixels" and not Path(codec).exists():
        return Source({"_class_name": "pixels"}, {}, "image codec 'pixels'", ("codec.",))
    if str(codec) == _BUILT_IN and not Path(codec).exists():
        codec = default_checkpoint()
    if not (Path(codec) / "config.json").is_file():
        folder = find_diffusers(codec, ("vae",), variant, "image codec")
        if not (folder / "vae").is_dir():
            find_checkpoint(codec)  # on the Hub it may be one of ours
        else:
            return read_diffusers(folder, codec, "vae", "image codec", variant, "codec.vae.")
    tokenizer = family_of("wallaroo", "the image codec").training_kit().load_codec(str(codec), check_weights)
    config = tokenizer.config.to_dict()
    settings = {key: value for key, value in config.items() if key not in PreTrainedConfig().to_dict()}
    settings = {key: value for key, value in settings.items() if key not in ("model_type", "initializer_range")}
    tensors = {f"codec.tokenizer.{name}": tensor for name, tensor in tokenizer.state_dict().items()}
    named = {"_class_name": type(tokenizer).__name__, **settings}
    return Source(named, tensors, f"image codec '{codec}'", ("codec.",))
