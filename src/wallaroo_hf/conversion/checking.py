"""Looking at the weights of a converted checkpoint where they lie, before it is given away."""

from pathlib import Path

import torch

from ..families.loading import reading_checkpoint, refuse, stored_faults, stored_shapes
from ..families.registry import find_family
from ..files.checkpoint_files import weight_files

__all__ = ["check_stored"]


def check_stored(folder: Path, check_weights: bool = True) -> None:
    """Makes sure that a folder has the weights of its model, one in memory at a time.

    Args:
        folder: of a checkpoint; of a quantized one, whose files hold other tensors than its model, only the numbers count.
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: naming up to five weights that are missing, unexpected, of another shape or not finite.
    """
    files, family = weight_files(folder), find_family(folder)
    with reading_checkpoint(folder):
        config = family.resolve("config").from_pretrained(folder)
        with torch.device("meta"):
            model = family.resolve("model")(config)
        shapes = stored_shapes(model)
        is_plain = getattr(config, "quantization_config", None) is None
        faults = stored_faults(files, shapes if is_plain else None, model.all_tied_weights_keys, check_weights)
    refuse(faults, f"checkpoint '{folder}'")
