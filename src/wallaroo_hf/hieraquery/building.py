"""`build_hieraquery`: a Qwen2.5-VL and a diffusion transformer of diffusers become a new HieraQuery checkpoint."""

from __future__ import annotations

import math
import random
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import GenerationConfig

from ..common.scheduler_steps import SchedulerSteps, make_scheduler
from ..conversion.released_weights import DTYPES, target_dtype
from ..conversion.shards import write_shards
from ..conversion.stored_tensors import StoredTensors
from ..families.loading import key_faults, reading_checkpoint, refuse, stored_shapes
from ..files.checkpoint_files import read_json
from ..files.whole import new_folder, require_new
from .alignment import HieraQueryAlignmentHead
from .building_sources import (
    LanguageModel,
    Source,
    find_diffusers,
    language_model,
    read_codec,
    read_connector,
    read_diffusers,
    read_language_model,
)
from .connector import HieraQueryConnector
from .generation.query_sampling import UNSHIFTED
from .hieraquery_abilities import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS, hieraquery_abilities
from .hieraquery_configuration import HieraQueryConfig
from .hieraquery_model import HieraQueryForConditionalGeneration
from .processing.hieraquery_processor import HieraQueryProcessor
from .query_tokens import HieraQueryTokens

__all__ = ["build_hieraquery"]

_TABLE = "mllm.model.embed_tokens.weight"
_PAPER_EDGE = 512  # pixels, that the paper begins with
_OF_ARGUMENTS = ("mllm_config", "connector_config", "dit", "codec", "scales", "size", "query_std", "dtype")
_STORABLE = (*DTYPES.values(), torch.float64)
_OF_SCALES = ("factor", "loss_weight")
_ROWS = 8192  # of the table of words, looked at together
_BELONGING = "give parts that belong together"


def build_hieraquery(
    mllm: str | Path,
    dit: str | Path | Mapping[str, Any],
    output: str | Path,
    *,
    connector: str | Path | Mapping[str, Any] | None = None,
    codec: str | Path | None = None,
    scales: str | Sequence[Mapping[str, Any]] | None = None,
    size: str | Sequence[int] | None = None,
    seed: int = 0,
    dtype: str | torch.dtype = "bfloat16",
    settings: Mapping[str, Any] | None = None,
    variant: str | None = None,
    max_shard_size: int | str = "5GB",
    progress: Callable[[int, int], None] | None = None,
    check_weights: bool = True,
) -> Path:
    """Builds a checkpoint whose queries, connector and alignment head are new.

    Weights are copied one shard at a time. Equal sources and seeds give equal files.

    Args:
        mllm: folder or Hub id of a Qwen2.5-VL, or of a Wallaroo checkpoint, whose language model is taken; "built-in" =
            that of this package.
        dit: folder or Hub id of a diffusers pipeline: `transformer`, `vae` and `scheduler` are read, nothing else is
            fetched. Or the configuration of a new transformer as diffusers writes it; a `codec` is needed then.
        output: the folder to write; must not exist, or be empty. It appears when it is whole.
        connector: folder or Hub id of a Qwen2 to begin with; "2x192" = a new one of 2 layers of width 192; settings of a
            new one that differ from those of Qwen2.5-0.5B, the paper's; None = a new one of that shape.
        codec: in place of the pipeline's `vae`: "pixels", another pipeline, or a Wallaroo checkpoint ("built-in" = ours),
            whose image tokenizer is taken.
        scales: from coarse to fine, see [`HieraQueryConfig`], or as text, "4x4:0.25,8x8:0.5,16x16:1" (a third number is
            `loss_weight`); None = the paper's three.
        size: height and width where none is asked for, also as "512x512"; None = the transformer's own, at most 512x512,
            which the paper begins with.
        seed: of what is new.
        dtype: of everything but the image codec, which stays float32: bfloat16, float16 or float32.
        settings: others of [`HieraQueryConfig`], such as `condition`; `scheduler` stands for the pipeline's.
        variant: of the pipeline's weights, such as "fp16"; None = the ones without.
        max_shard_size: largest weight file.
        progress: called with tensors written and tensors in all.
        check_weights: whether to refuse weights that are not finite.

    Returns:
        The output folder.

    Raises:
        ValueError: for sources that are missing, damaged, or do not fit together; nothing is left at `output` then.
        ImportError: if diffusers is missing.
    """
    output, settings = Path(output), dict(settings or {})
    require_new(output)
    final_dtype = target_dtype(dtype)
    with language_model(mllm, output, check_weights) as language:
        sources = {
            "mllm_config": read_language_model(language),
            "connector_config": read_connector(connector),
            **_read_pipeline(dit, codec, settings.pop("scheduler", None), variant, check_weights),
        }
        config = _config(sources, scales, size, settings)
        model = _fitting_model(config, size is None)
        missing = _missing_tensors(model, sources)
        config.query_std = _std(sources["mllm_config"].tensors[_TABLE])
        config.architectures = [type(model).__name__]
        for one in (config, config.mllm_config, config.connector_config):
            one.dtype = final_dtype
        with reading_checkpoint(language.name, "language model", _BELONGING):
            processor = HieraQueryProcessor.of_language_model(language.folder, config, language.known_words)
            generation_config = _generation_config(language, config)
        tensors = _joined([*(source.tensors for source in sources.values()), _new_tensors(model, missing, seed)])
        dtypes = {name: torch.float32 if name.startswith("codec.") else final_dtype for name in tensors}
        with new_folder(output) as folder:
            for one in (config, processor, generation_config):
                one.save_pretrained(folder)
            written = 0

            def report(count: int) -> None:
                nonlocal written
                written += count
                if progress is not None:
                    progress(written, len(tensors))

            write_shards(folder, tensors, dtypes, max_shard_size, report, check_weights=check_weights)
    return output


# ------------------------------------------------------------------------------------------------ what it is built from


def _read_pipeline(
    dit: str | Path | Mapping[str, Any],
    codec: str | Path | None,
    scheduler: Any,
    variant: str | None,
    check_weights: bool,
) -> dict[str, Source]:
    """Diffusion transformer, image codec and scheduler, by the names of their settings."""
    found: dict[str, Source] = {}
    if scheduler is not None and not isinstance(scheduler, Mapping):
        raise ValueError(
            f"`scheduler` is {scheduler!r:.60}, but must be settings of one of diffusers' schedulers, with `_class_name`."
        )
    if isinstance(dit, Mapping):
        if codec is None:
            raise ValueError("A new diffusion transformer comes without an image codec; give one (`codec`).")
        found["dit"] = Source(dict(dit))
    else:
        parts = ("transformer", "scheduler", *(("vae",) if codec is None else ()))
        folder = find_diffusers(dit, parts, variant, "diffusion transformer")
        found["dit"] = read_diffusers(folder, dit, "transformer", "diffusion transformer", variant, "dit.")
        if codec is None:
            found["codec"] = read_diffusers(folder, dit, "vae", "image codec", variant, "codec.vae.")
        path = folder / "scheduler" / "scheduler_config.json"
        if scheduler is None and path.is_file():
            scheduler = read_json(path)
            scheduler.pop("_diffusers_version", None)
    if codec is not None:
        found["codec"] = read_codec(codec, variant, check_weights)
    return {**found, "scheduler": Source(dict(scheduler or {}))}


def _config(
    sources: Mapping[str, Source],
    scales: str | Sequence[Mapping[str, Any]] | None,
    size: str | Sequence[int] | None,
    settings: Mapping[str, Any],
) -> HieraQueryConfig:
    for name in settings:
        if name in _OF_ARGUMENTS:
            raise ValueError(
                f"`{name}` is none of the further settings: it is an argument of its own, or comes from what the model is "
                "built from; leave it out."
            )
    given: dict[str, Any] = {name: source.settings for name, source in sources.items()} | dict(settings)
    if scales is not None:
        given["scales"] = _read_scales(scales) if isinstance(scales, str) else [dict(scale) for scale in scales]
    if size is not None:
        given["size"] = _read_edges(size, "size") if isinstance(size, str) else list(size)
    try:
        return HieraQueryConfig(**given)
    except (StrictDataclassError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"A HieraQuery model cannot have these settings ({reason}); correct them.") from error


def _read_scales(text: str) -> list[dict[str, Any]]:
    """Scales as `4x4:0.25,8x8:0.5,16x16:1` says them."""
    scales = []
    for one in text.split(","):
        grid, *numbers = one.strip().split(":")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 2:
            raise ValueError(
                f"The scale '{one}' cannot be read; give rows x columns of queries and the share of the picture's edge, "
                "such as 4x4:0.25,8x8:0.5,16x16:1."
            )
        shares = dict(zip(_OF_SCALES[: len(values)], values, strict=True))
        scales.append({"query_grid": _read_edges(grid, "query grid"), **shares})
    return scales


def _read_edges(text: str, what: str) -> list[int]:
    edges = text.strip().split("x")
    if len(edges) != 2 or not all(edge.isdigit() for edge in edges):
        raise ValueError(f"The {what} '{text}' cannot be read; give two whole numbers, such as 16x16.")
    return [int(edge) for edge in edges]


# --------------------------------------------------------------------------------------------------- whether it fits


def _fitting_model(config: HieraQueryConfig, take_size: bool) -> HieraQueryForConditionalGeneration:
    """The model on the meta device.

    Args:
        config: gets a size if need be.
        take_size: whether it needs one.

    Raises:
        ValueError: if parts, sizes or settings do not fit together.
    """
    with reading_checkpoint("the given parts", "model", _BELONGING), torch.device("meta"):
        model = HieraQueryForConditionalGeneration(config)
    adapter = model.dit_adapter
    if take_size:
        edge = min(_PAPER_EDGE, int(adapter.settings["sample_size"]) * model.codec.spatial_factor)
        config.size = [edge, edge]
    height, width = config.size
    for scale in range(len(config.scales)):
        model.scale_size(height, width, scale)
    layer = config.alignment_layer
    if layer is not None and not 0 <= layer < adapter.num_layers:
        raise ValueError(
            f"`alignment_layer` is {layer}, but the diffusion transformer has blocks 0 to {adapter.num_layers - 1}."
        )
    abilities = hieraquery_abilities(config.to_dict(), {}, {})
    if abilities.query_positions >= abilities.max_positions:
        raise ValueError(
            f"The queries of all scales take {abilities.query_positions:,} positions, but the language model has "
            f"{abilities.max_positions:,}; give fewer queries or scales."
        )
    abilities.check_size(height, width)
    scheduler = make_scheduler({**UNSHIFTED, **(config.scheduler or {})}, "HieraQuery", "hieraquery")
    SchedulerSteps(scheduler, DEFAULT_STEPS, torch.device("cpu"), "HieraQuery")
    return model


def _missing_tensors(model: HieraQueryForConditionalGeneration, sources: Mapping[str, Source]) -> list[str]:
    """The names of what no source has to give, once all of them gave what they must.

    Raises:
        ValueError: naming weights of a source that are missing, left over, of another shape, or quantized.
    """
    expected = stored_shapes(model)
    if model.config.mllm_config.tie_word_embeddings:
        expected.pop("mllm.lm_head.weight")
    for source in sources.values():
        own = {name: expected.pop(name) for name in list(expected) if name.startswith(source.prefixes)}
        kinds = {name: _kind(source.tensors, name) for name in source.tensors}
        faults = key_faults({name: shape for name, (shape, _) in kinds.items()}, own)
        faults += [f"`{name}` is of {kind}" for name, (_, kind) in kinds.items() if kind not in _STORABLE]
        refuse(faults, source.where)
    return list(expected)


def _kind(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of a tensor, which is not read for that where it is stored."""
    if isinstance(tensors, StoredTensors):
        return tensors.shape(name), tensors.dtype(name)
    return tuple(tensors[name].shape), tensors[name].dtype


# ------------------------------------------------------------------------------------------------------- what is new


def _new_tensors(
    model: HieraQueryForConditionalGeneration, names: Sequence[str], seed: int
) -> dict[str, torch.Tensor]:
    """Tensors of new parts, each made from a seed of its own, so that none depends on what else is new."""
    config, adapter = model.config, model.dit_adapter
    makers: dict[str, Callable[[], nn.Module]] = {
        "queries": lambda: HieraQueryTokens(config),
        "connector": lambda: HieraQueryConnector(config, adapter.condition_size),
        "dit": adapter.build,
        "alignment": lambda: HieraQueryAlignmentHead(
            adapter.hidden_size, config.alignment_width, config.mllm_config.vision_config.out_hidden_size
        ),
    }
    made: dict[str, torch.Tensor] = {}
    for part in sorted({name.partition(".")[0] for name in names}):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random.Random(f"{seed} {part}").getrandbits(62))
            module = makers[part]()
            module.apply(model._init_weights)
        made |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    return {name: made[name] for name in names}


def _std(table: torch.Tensor) -> float:
    """Standard deviation of a table, to six digits."""
    count, total, squares = table.numel(), 0.0, 0.0
    for rows in table.split(_ROWS):
        total += float(rows.double().sum())
        squares += float(rows.double().square().sum())
    return float(f"{math.sqrt(max(squares / count - (total / count) ** 2, 0.0)):.6g}")


def _joined(parts: Sequence[Mapping[str, torch.Tensor]]) -> Mapping[str, torch.Tensor]:
    joined: ChainMap[str, torch.Tensor] = ChainMap(*parts)  # type: ignore[arg-type]  # nothing is written into them
    return joined


def _generation_config(language: LanguageModel, config: HieraQueryConfig) -> GenerationConfig:
    """The language model's, with what drawings begin with."""
    if (language.folder / "generation_config.json").is_file():
        generation_config = GenerationConfig.from_pretrained(language.folder)
    else:
        text = config.mllm_config.text_config
        ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        generation_config = GenerationConfig(**ids, do_sample=False)
    generation_config.image_guidance_scale = DEFAULT_GUIDANCE_SCALE
    generation_config.image_num_inference_steps = DEFAULT_STEPS
    return generation_config
