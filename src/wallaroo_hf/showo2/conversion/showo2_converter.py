"""`convert_showo2`: the authors' released folders to a folder that transformers loads."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig

from ...conversion.released_files import find_file, load_tensors, one_line
from ...conversion.released_folders import ReleasedFolder, load_folder
from ...conversion.released_weights import check_complete, renamed, target_dtype, write_checkpoint
from ...families.loading import some
from ...files.whole import require_new
from ..processing.showo2_processor import ShowO2Processor
from ..showo2_abilities import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from ..showo2_configuration import ShowO2Config
from ..showo2_model import ShowO2ForConditionalGeneration
from ..showo2_tokens import config_token_ids
from .showo2_card import card_of
from .showo2_key_map import CHECKPOINT_PREFIXES, CODEC_PREFIX, HEAD, TABLE, checkpoint_key
from .trained_from import read_ids, read_text_config, read_tokenizer, read_vision_config
from .trained_sizes import flow_sizes, patch_sizes, position_grid
from .wan_vae import read_vae

__all__ = ["convert_showo2"]

logger = logging.getLogger(__name__)


def convert_showo2(
    checkpoint: str | Path,
    vae: str | Path,
    base: str | Path,
    vision: str | Path,
    output: str | Path,
    dtype: str | torch.dtype = "bfloat16",
    token_ids: Mapping[str, int] | None = None,
    max_shard_size: int | str = "5GB",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Converts a released checkpoint of Show-o2.

    Memory stays near one shard: the sources are memory-mapped, and nothing in them is executed. Sizes are read off the
    tensors. A head that is the table of tokens number by number is tied to it; one that is another is not, with a notice
    where the base ties them.

    Args:
        checkpoint: the authors' folder (`config.json` beside `pytorch_model.bin` or its shards), a path or a Hub id.
        vae: `Wan2.1_VAE.pth`, a path or a Hub id (org/name/file).
        base: folder or Hub id of the Qwen2.5 that it was trained from: configuration and tokenizer, no weights.
        vision: folder or Hub id of the SigLIP that its semantic layers were taken from: configuration, no weights.
        output: the folder to write; must not exist, or be empty.
        dtype: of everything but the VAE, which stays float32: bfloat16, float16 or float32.
        token_ids: ids by the authors' names (`bos_id`, `eos_id`, `boi_id`, …) of a checkpoint with another tokenizer; the
            folder has no processor then. Default: those of the base's tokenizer with Show-o2's four.
        max_shard_size: largest weight file.
        progress: called with tensors written and tensors in all.

    Returns:
        The output folder.

    Raises:
        ValueError: if a file is damaged, not what it should be, or holds other weights than the model needs; nothing is
            left at `output` then.
        ImportError: if diffusers is missing.
    """
    output = Path(output)
    require_new(output)
    final_dtype = target_dtype(dtype)
    released = load_folder(checkpoint, "checkpoint")
    vae_source = load_tensors(find_file(vae, "VAE"), ("state_dict",), "VAE")
    tensors = _tensors(released, checkpoint)
    with _sizes_of(checkpoint):
        rows, channels = len(tensors[TABLE]), patch_sizes(tensors)["latent_channels"]
        codec_config, codec_tensors = read_vae(vae_source, channels)
        parts = {
            "text_config": read_text_config(base, tensors),
            "vision_config": read_vision_config(vision, tensors),
            "flow_config": flow_sizes(tensors),
            "codec_config": codec_config,
        }
        grid = position_grid(tensors, released.settings)
        tied = _is_tied(tensors, released, parts["text_config"])
    tokenizer = read_tokenizer(base, rows) if token_ids is None else None
    ids = read_ids(token_ids, rows) if token_ids is not None else config_token_ids(tokenizer)
    if tied:
        tensors.pop(HEAD, None)
    with _fitting_configurations(base, vision):
        config = _config(parts, tied, final_dtype, ids, position_grid=grid, **patch_sizes(tensors))
        with torch.device("meta"):
            expected = ShowO2ForConditionalGeneration(config).state_dict()
    if tied:
        expected.pop(HEAD)
    tensors |= {CODEC_PREFIX + name: tensor for name, tensor in codec_tensors.items()}
    check_complete(tensors, expected, "checkpoint", ("its sizes and the base's", "checkpoint, base and SigLIP"))
    settings = [config, _generation_config(config)]
    if tokenizer is not None:
        settings.append(ShowO2Processor.of_config(config, tokenizer))
    dtypes = {name: torch.float32 if name.startswith(CODEC_PREFIX) else final_dtype for name in tensors}
    sources = (*released.files, vae_source)
    texts = {"README.md": card_of(config, base)}
    write_checkpoint(output, settings, tensors, dtypes, sources, max_shard_size, progress, texts)
    return output


def _tensors(released: ReleasedFolder, checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """The released tensors by our names."""
    if not any(key.startswith(tuple(CHECKPOINT_PREFIXES)) for key in released.tensors):
        raise ValueError(
            f"The checkpoint '{checkpoint}' is no Show-o2 (it has {some(sorted(released.tensors))}); give the folder that "
            "its authors released."
        )
    return renamed(released.tensors, checkpoint_key, "checkpoint")


@contextlib.contextmanager
def _sizes_of(checkpoint: str | Path) -> Iterator[None]:
    """Puts it into one sentence that a tensor which tells a size is missing or has too few dimensions."""
    try:
        yield
    except (KeyError, IndexError, ZeroDivisionError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise ValueError(
            f"The sizes of the checkpoint '{checkpoint}' cannot be read off its weights ({reason}); give the folder that "
            "its authors released, whole."
        ) from error


def _is_tied(tensors: Mapping[str, torch.Tensor], released: ReleasedFolder, text_config: Any) -> bool:
    """Whether the head is the table: number by number, or not stored where the base ties them."""
    if HEAD not in tensors:
        return bool(text_config.tie_word_embeddings)
    for name in (TABLE, HEAD):  # a difference may be damage
        for file in released.files:
            file.checksums.check(tensors[name])
    if torch.equal(tensors[TABLE], tensors[HEAD]):
        return True
    if text_config.tie_word_embeddings:
        logger.warning(
            "The head of the language model has drifted away from its table of tokens, to which the base ties it (further "
            "training can do that); both are kept, and the converted checkpoint does not tie them."
        )
    return False


@contextlib.contextmanager
def _fitting_configurations(base: str | Path, vision: str | Path) -> Iterator[None]:
    """Puts it into one sentence that no model can be made of what they say."""
    try:
        yield
    except (ValueError, RuntimeError, ArithmeticError, StrictDataclassError) as error:
        raise ValueError(
            f"The configurations of the base '{base}' and of the SigLIP '{vision}' do not fit the checkpoint "
            f"({one_line(error)}); give those that it was trained from, as they were published."
        ) from error


def _config(
    parts: Mapping[str, Any], tied: bool, dtype: torch.dtype, ids: Mapping[str, int], **sizes: Any
) -> ShowO2Config:
    settings = {name: part if isinstance(part, dict) else part.to_dict() for name, part in parts.items()}
    for key in ("architectures", "transformers_version", "dtype", "_name_or_path"):
        for part in settings.values():
            part.pop(key, None)
    settings["text_config"]["tie_word_embeddings"] = tied
    sizes |= _drawing_sizes(sizes, settings["codec_config"])
    names = [ShowO2ForConditionalGeneration.__name__]
    return ShowO2Config(**settings, **sizes, **ids, tie_word_embeddings=tied, architectures=names, dtype=dtype)


def _drawing_sizes(sizes: Mapping[str, Any], codec: Mapping[str, Any]) -> dict[str, Any]:
    """The size of the position table, unless that is among the released ones, all of which are offered then."""
    edge = sizes["patch_size"] * codec["scale_factor_spatial"]
    own = [count * edge for count in sizes["position_grid"]]
    released = [list(size) for size in ShowO2Config.drawing_sizes]
    return {"drawing_sizes": released if own in released else [own]}


def _generation_config(config: ShowO2Config) -> GenerationConfig:
    """Answers end with the turn and are the likeliest ones, as in the authors' script."""
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation_config = GenerationConfig(**ids, do_sample=False)
    generation_config.image_guidance_scale = DEFAULT_GUIDANCE_SCALE
    generation_config.image_num_inference_steps = DEFAULT_STEPS
    return generation_config
