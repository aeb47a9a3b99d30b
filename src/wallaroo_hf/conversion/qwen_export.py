"""`export_qwen`: the half of a checkpoint that understands, as the plain Qwen2.5-VL that it grew from."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..families.loading import key_faults, reading_checkpoint, some
from ..files.checkpoint_files import find_checkpoint, read_json, weight_files
from ..files.whole import new_folder
from ..modeling.configuration import WallarooConfig
from ..processing.processor import WallarooProcessor
from .released_weights import DTYPES
from .shards import write_shards
from .stored_tensors import StoredTensors

__all__ = ["export_qwen"]

# Ours -> the names of the published Qwen2.5-VL checkpoints, which every engine reads. What is not listed draws or edits.
_PUBLISHED_PREFIXES = {"model.language_model.": "model.", "model.visual.": "visual.", "lm_head.": "lm_head."}
_OWN_SETTINGS = ("line_breaks", "attend_padding")  # and all that begins with image_


def export_qwen(
    checkpoint: str | Path,
    output: str | Path,
    revision: str | None = None,
    max_shard_size: int | str = "5GB",
    progress: Callable[[int, int], None] | None = None,
    check_weights: bool = True,
) -> Path:
    """Writes the understanding half as a Qwen2.5-VL folder: transformers and what builds on its format load it.

    Its logits are those of the whole checkpoint. Image tokenizer, adapters and image heads stay behind. Weights are read
    and written one shard at a time, in the precision they have.

    Args:
        checkpoint: folder or Hub id.
        output: the folder to write; must not exist, or be empty. It appears when it is whole.
        revision: of a checkpoint on the Hub.
        max_shard_size: largest weight file.
        progress: called with tensors written and tensors in all.
        check_weights: whether to look for weights that are not finite.

    Returns:
        The output folder.

    Raises:
        ValueError: if the checkpoint is damaged, quantized or lacks weights; nothing is left at `output` then.
    """
    source = find_checkpoint(checkpoint, revision)
    kind = read_json(source / "config.json").get("model_type")
    if kind != WallarooConfig.model_type:
        raise ValueError(f"'{checkpoint}' holds a model of type '{kind}', but this needs a Wallaroo checkpoint.")
    with reading_checkpoint(source):
        ours = WallarooConfig.from_pretrained(source)
        config = _qwen_config(ours)
        processor = WallarooProcessor.from_pretrained(source)
    tensors = StoredTensors(weight_files(source), _published_name)
    _check(tensors, config, source)
    dtypes = {name: tensors.dtype(name) for name in tensors}
    with new_folder(Path(output)) as folder:
        config.save_pretrained(folder)
        _generation_config(source, ours).save_pretrained(folder)
        _save_processor(processor, folder)
        written = 0

        def report(count: int) -> None:
            nonlocal written
            written += count
            if progress is not None:
                progress(written, len(tensors))

        write_shards(folder, tensors, dtypes, max_shard_size, report, check_weights=check_weights)
    return Path(output)


def _published_name(name: str) -> str | None:
    """The published name of one of our tensors; None for those of drawing."""
    for ours, published in _PUBLISHED_PREFIXES.items():
        if name.startswith(ours):
            return published + name[len(ours) :]
    return None


def _qwen_config(config: WallarooConfig) -> Qwen2_5_VLConfig:
    """The same settings without those of drawing."""
    known = set(Qwen2_5_VLConfig().to_dict())
    settings = {key: value for key, value in config.to_dict().items() if key in known and key != "model_type"}
    settings["architectures"] = [Qwen2_5_VLForConditionalGeneration.__name__]
    return Qwen2_5_VLConfig(**settings)


def _check(tensors: StoredTensors, config: Qwen2_5_VLConfig, source: Path) -> None:
    """Every weight that Qwen2.5-VL needs, in its shape and in a plain dtype."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    expected = {}
    for name, tensor in model.state_dict().items():
        ours = next(prefix for prefix in _PUBLISHED_PREFIXES if name.startswith(prefix))
        expected[_PUBLISHED_PREFIXES[ours] + name[len(ours) :]] = tuple(tensor.shape)
    tied = ["lm_head.weight"] if config.tie_word_embeddings else []
    problems = key_faults({name: tensors.shape(name) for name in tensors}, expected, tied)
    problems += [
        f"`{name}` is {tensors.dtype(name)}" for name in tensors if tensors.dtype(name) not in DTYPES.values()
    ]
    if problems:
        raise ValueError(
            f"The weights in '{source}' are not those of a plain Wallaroo checkpoint ({some(problems)}); export one that "
            "is neither quantized nor an adapter."
        )


def _generation_config(source: Path, ours: WallarooConfig) -> GenerationConfig:
    """The checkpoint's without entries about drawing; what text never holds is suppressed here as it is in ours."""
    config = GenerationConfig.from_pretrained(source)
    for name in [name for name in vars(config) if name in _OWN_SETTINGS or name.startswith("image_")]:
        delattr(config, name)
    config.suppress_tokens = sorted({*(config.suppress_tokens or ()), *ours.drawing_token_ids})
    if config.temperature is None:  # `do_sample` was about drawing
        config.do_sample = False
    return config


def _save_processor(processor: WallarooProcessor, folder: Path) -> None:
    """Tokenizer, chat template and image processor, in the files of published Qwen2.5-VL checkpoints."""
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)
    settings = processor.image_processor.to_dict()
    settings.pop("image_processor_type", None)
    limits = processor.pixel_limits.get("understanding")
    if limits is not None:
        settings["size"] = dict(limits)
    Qwen2VLImageProcessorPil(**settings).save_pretrained(folder)
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) | {"processor_class": "Qwen2_5_VLProcessor"}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
