"""`convert_checkpoint`: the authors' released files to a folder that transformers loads."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..files.whole import require_new
from ..layout.checkpoint_layout import Layout, paper_layout
from ..modeling.configuration import WallarooVQConfig
from ..modeling.model import WallarooForConditionalGeneration
from ..modeling.vq import WallarooVQModel
from .key_map import EDITING_PREFIXES, VQ_IGNORED, VQ_PREFIX, checkpoint_key, vq_key
from .qwen_base import base_config, base_generation_config, base_processor, base_tokenizer, grown_config
from .released_files import find_file, load_tensors
from .released_weights import (
    check_complete,
    renamed,
    target_dtype,
    write_checkpoint,
)

__all__ = ["convert_checkpoint", "convert_vq"]

logger = logging.getLogger(__name__)


def convert_checkpoint(
    checkpoint: str | Path,
    vq: str | Path,
    base: str | Path,
    output: str | Path,
    dtype: str | torch.dtype = torch.bfloat16,
    stage: str | int | None = None,
    max_shard_size: int | str = "5GB",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Converts a released checkpoint.

    Memory stays near one shard: the source is memory-mapped, and nothing in it is executed.

    Args:
        checkpoint: the authors' `.ckpt` (`state_dict` inside), a path or a Hub id.
        vq: LlamaGen's tokenizer (`vq_ds16_t2i.pt`), a path or a Hub id.
        base: folder or Hub id of the Qwen2.5-VL that it was trained from: configuration, tokenizer, image processor.
        output: the folder to write; must not exist, or be empty.
        dtype: of everything but the image tokenizer, which stays float32: bfloat16, float16 or float32.
        stage: the training stage (1, 2, 3a, 3b, 4), which decides the layout. Default: 4 if the file has editing parts,
            else 2, with a notice (3a and 3b cannot be told from 2 by their weights).
        max_shard_size: largest weight file.
        progress: called with tensors written and tensors in all.

    Returns:
        The output folder.

    Raises:
        ValueError: if a file is damaged, not what it should be, or holds other weights than the model needs; nothing is
            left at `output` then.
    """
    output = Path(output)
    require_new(output)
    final_dtype = target_dtype(dtype)
    source = load_tensors(find_file(checkpoint, "checkpoint"), ("state_dict", "model", "module"), "checkpoint")
    vq_source = load_tensors(find_file(vq, "image tokenizer"), ("model", "state_dict"), "image tokenizer")
    stage, layout = _stage(source, stage)
    vq_config = vq_config_from_tensors(vq_source)
    qwen = base_config(base)
    tokenizer = base_tokenizer(base, layout)
    config = grown_config(base, qwen, tokenizer, vq_config, stage, layout, final_dtype)
    layout = replace(layout, first_code=config.text_config.vocab_size)
    tensors = renamed(source, checkpoint_key, "checkpoint")
    tensors |= {VQ_PREFIX + name: tensor for name, tensor in _vq_tensors(vq_source, vq_config).items()}
    with torch.device("meta"):
        expected = WallarooForConditionalGeneration(config).state_dict()
    check_complete(tensors, expected, "checkpoint")
    processor = base_processor(base, tokenizer, config, layout)
    generation_config = base_generation_config(base, tokenizer, layout)
    dtypes = {name: torch.float32 if name.startswith(VQ_PREFIX) else final_dtype for name in tensors}
    settings = (processor, config, generation_config)
    write_checkpoint(output, settings, tensors, dtypes, (source, vq_source), max_shard_size, progress)
    return output


def convert_vq(vq: str | Path, output: str | Path) -> Path:
    """Converts a LlamaGen tokenizer alone, to a folder that `WallarooVQModel.from_pretrained` loads.

    Args:
        vq: LlamaGen's `.pt`, a path or a Hub id.
        output: the folder to write; must not exist, or be empty.

    Raises:
        ValueError: see [`convert_checkpoint`].
    """
    output = Path(output)
    require_new(output)
    source = load_tensors(find_file(vq, "image tokenizer"), ("model", "state_dict"), "image tokenizer")
    config = vq_config_from_tensors(source)
    config.architectures = [WallarooVQModel.__name__]
    config.dtype = torch.float32
    tensors = _vq_tensors(source, config)
    write_checkpoint(output, (config,), tensors, dict.fromkeys(tensors, torch.float32), (source,))
    return output


def vq_config_from_tensors(tensors: Mapping[str, torch.Tensor]) -> WallarooVQConfig:
    """Reads the sizes of a LlamaGen tokenizer off its tensors (their released names).

    Raises:
        ValueError: if tensors that tell the sizes are missing.
    """
    try:
        base_channels = tensors["encoder.conv_in.weight"].shape[0]
        levels = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.conv_blocks."))
        widths = [tensors[f"encoder.conv_blocks.{level}.res.0.conv1.weight"].shape[0] for level in range(levels)]
        blocks = {name.split(".")[4] for name in tensors if name.startswith("encoder.conv_blocks.0.res.")}
        codebook_size, embed_dim = tensors["quantize.embedding.weight"].shape
        return WallarooVQConfig(
            codebook_size=codebook_size,
            embed_dim=embed_dim,
            base_channels=base_channels,
            channel_multiplier=[width // base_channels for width in widths],
            num_res_blocks=len(blocks),
            latent_channels=tensors["encoder.conv_out.weight"].shape[0],
            in_channels=tensors["encoder.conv_in.weight"].shape[1],
            out_channels=tensors["decoder.conv_out.weight"].shape[0],
        )
    except (LookupError, ValueError, ArithmeticError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else "its tensors have other shapes"
        raise ValueError(
            f"The image tokenizer is not a LlamaGen VQ model ({reason}); give LlamaGen's vq_ds16_t2i.pt."
        ) from error


# ---------------------------------------------------------------------------------------------------------- weights


def _stage(source: Mapping[str, torch.Tensor], stage: str | int | None) -> tuple[str, Layout]:
    """The name of the stage that a checkpoint went through last, and its layout."""
    has_editing = any(key.startswith(EDITING_PREFIXES) for key in source)
    if stage is None:
        if not has_editing:
            logger.warning(
                "The checkpoint has no editing parts, so it is taken for stage 2 (384x384, plain grid); pass stage 1, 3a "
                "or 3b if it is one."
            )
        stage = "4" if has_editing else "2"
    name, layout = str(stage).lower(), paper_layout(stage)
    if layout.has_editing != has_editing:
        raise ValueError(
            f"Stage {name} {'has' if layout.has_editing else 'has no'} editing parts, but the checkpoint "
            f"{'has' if has_editing else 'has none'}; leave `stage` out or name the right one."
        )
    return name, layout


def _vq_tensors(source: Mapping[str, torch.Tensor], config: WallarooVQConfig) -> dict[str, torch.Tensor]:
    tensors = renamed({k: v for k, v in source.items() if k not in VQ_IGNORED}, vq_key, "image tokenizer")
    with torch.device("meta"):
        expected = WallarooVQModel(config).state_dict()
    check_complete(tensors, expected, "image tokenizer")
    return tensors
