"""`export_qwen`: the half of a checkpoint that understands, as the plain Qwen2.5-VL that it grew from."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..families.loading import key_faults, reading_checkpoint, some
from ..files.checkpoint_files import find_checkpoint, read_json, weight_files
from ..files.whole import new_folder
from ..modeling.configuration import WallarooConfig
from ..processing.processor import WallarooProcessor
from .released_weights import DTYPES
from .shards import write_shards

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
    tensors = _StoredTensors(weight_files(source))
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


class _StoredTensors(Mapping[str, torch.Tensor]):
    """The tensors of the understanding half by their published names, read from their files when they are asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._places: dict[str, tuple[Any, str]] = {}
        for path in files:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"The weights '{path}' cannot be read ({error}); download them again.") from error
            for name in opened.keys():  # noqa: SIM118  it is no dictionary
                for ours, published in _PUBLISHED_PREFIXES.items():
                    if name.startswith(ours):
                        self._places[published + name[len(ours) :]] = (opened, name)

    def __getitem__(self, name: str) -> torch.Tensor:
        file, stored = self._places[name]
        return file.get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by its header."""
        file, stored = self._places[name]
        return tuple(file.get_slice(stored).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor."""
        return self[name].dtype


def _qwen_config(config: WallarooConfig) -> Qwen2_5_VLConfig:
    """The same settings without those of drawing."""
    known = set(Qwen2_5_VLConfig().to_dict())
    settings = {key: value for key, value in config.to_dict().items() if key in known and key != "model_type"}
    settings["architectures"] = [Qwen2_5_VLForConditionalGeneration.__name__]
    return Qwen2_5_VLConfig(**settings)


def _check(tensors: _StoredTensors, config: Qwen2_5_VLConfig, source: Path) -> None:
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
