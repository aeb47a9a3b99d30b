"""The weights of a checkpoint that a run is resumed from: all of the model's, and numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..families.loading import reading_checkpoint, refuse, stored_faults, weights_of

__all__ = ["check_resumed", "load_resumed"]

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def check_resumed(model: Any, checkpoint: Path, check_weights: bool = True, left_out: Sequence[str] = ()) -> None:
    """Makes sure that a checkpoint of `Trainer` has the weights of a model; what FSDP writes in shards is its own matter.

    Args:
        model: what trains, with PEFT's wrapper if there is one.
        checkpoint: its folder.
        check_weights: whether to look for weights that are not finite.
        left_out: modules that it lacks.

    Raises:
        ValueError: naming up to five weights that are missing, unexpected, of another shape or not finite.
    """
    adapter = checkpoint / _ADAPTER_WEIGHTS
    remedy = "resume from another checkpoint, or begin anew (`--no-resume`)"
    with reading_checkpoint(checkpoint, remedy=remedy):
        if adapter.is_file():
            import peft

            files, tied = [adapter], ()
            tensors = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        else:
            files, tensors = weights_of(checkpoint), model.state_dict()
            tied = tuple(getattr(model, "all_tied_weights_keys", None) or ())
        absent = tuple(f"{part}." for part in left_out)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items() if not key.startswith(absent)}
        faults = stored_faults(files, shapes, tied, check_weights) if files else []
    refuse(faults, f"checkpoint '{checkpoint}'")


def load_resumed(model: Any, checkpoint: Path) -> None:
    """Puts the weights of a checkpoint that [`check_resumed`] looked at into a model, which keeps all others.

    Args:
        model: what trains.
        checkpoint: its folder.
    """
    weights = {key: tensor for file in weights_of(checkpoint) for key, tensor in load_file(file).items()}
    model.load_state_dict({**model.state_dict(), **weights})
