"""Where a run trains, from what was asked for and what is there."""

import torch

__all__ = ["training_device"]


def training_device(name: str | None = None) -> torch.device:
    """The device that training takes, as transformers' `Trainer` does: an accelerator if there is one.

    Args:
        name: the kind that is asked for, "cpu" or an accelerator's, e.g. "cuda"; None = an accelerator if there is one.

    Returns:
        The kind, without a number: every process takes a GPU of its own among those that it sees.

    Raises:
        ValueError: for a kind that is unknown or not there, and for a GPU by number.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kinds = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    if name is None:
        return torch.device(kinds[-1])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in kinds:
        raise ValueError(f"The device '{name}' is not there to train on; give {' or '.join(kinds)}.")
    if device.index:
        raise ValueError(
            f"The device '{name}' cannot be chosen by its number; give {device.type}, and let CUDA_VISIBLE_DEVICES="
            f"{device.index} choose the GPU."
        )
    return torch.device(device.type)
