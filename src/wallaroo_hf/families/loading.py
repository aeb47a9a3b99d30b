"""Loading weights so that none is missing, left over, of another shape or no number: for every door of ours.

transformers fills what a checkpoint lacks with random numbers and says so in a report; our doors refuse such a checkpoint.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, find_adapter_config_file

from ..files.whole_text import printable

__all__ = [
    "NOT_FINITE",
    "fill_model",
    "find_device",
    "find_faults",
    "is_finite",
    "key_faults",
    "load_model",
    "reading_checkpoint",
    "refuse",
    "some",
    "stored_faults",
    "to_device",
    "weights_of",
]

_NAMED = 5  # keys in a message
_LONGEST = 200  # characters of a key, and of what is said of it
_CONVERTED = "give a folder that `wallaroo convert` wrote, or a Hub id"
Shapes = Mapping[str, Sequence[int]]
# What transformers and its readers raise for files that are not there or make no sense.
_LOADING_ERRORS = (
    *(OSError, HFValidationError, SafetensorError, StrictDataclassError, json.JSONDecodeError),
    *(LookupError, TypeError, AttributeError),
)


@contextlib.contextmanager
def reading_checkpoint(name: str | Path, what: str = "checkpoint", remedy: str = _CONVERTED) -> Iterator[None]:
    """Puts what transformers and its readers raise for a checkpoint that is not there or damaged into one sentence.

    Args:
        name: folder or Hub id, as it was given.
        what: what it should be, for the message.
        remedy: what to do, for the message.

    Raises:
        ValueError: in place of those errors.
    """
    if Path(name).is_file():
        raise ValueError(f"The {what} '{name}' is a file; give the folder that it is in, or a Hub id.")
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"No {what} could be loaded from '{name}' ({reason}); {remedy}.") from error


def load_model(
    model_class: Any, name: str | Path, check_weights: bool = True, what: str = "checkpoint", **arguments: Any
) -> Any:
    """`model_class.from_pretrained`, but a checkpoint whose weights are not the model's is refused.

    Args:
        model_class: of transformers or ours.
        name: folder or Hub id; of an adapter, its base is looked at too.
        check_weights: whether to look for weights that are not finite, which reads all of them once more.
        what: what it should be, for messages.
        arguments: of `from_pretrained`.

    Raises:
        ValueError: naming up to five weights that are missing, unexpected, of another shape or not finite.
    """
    with reading_checkpoint(name, what):
        model, faults = find_faults(model_class, name, check_weights, **arguments)
    refuse(faults, f"{what} '{name}'")
    return model


def find_device(device: str | None) -> str:
    """A device as it was asked for, by default an accelerator if there is one.

    Raises:
        ValueError: if there are no devices of that name.
    """
    if device is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator.type if accelerator is not None else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:
        raise _no_device(device, error) from error
    return device


def _no_device(device: str, error: BaseException) -> ValueError:
    return ValueError(f"The device '{device}' cannot be used ({str(error).splitlines()[0][:200]}).")


def to_device(model: Any, device: str | None) -> Any:
    """Moves a model to a device, by default to an accelerator if there is one.

    Raises:
        ValueError: if there is no such device, or the model does not fit into its memory.
    """
    device = find_device(device)
    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"The checkpoint does not fit into the memory of the device '{device}', as far as it is free; free some, or "
            "choose another device."
        ) from error
    except (RuntimeError, AssertionError) as error:
        raise _no_device(device, error) from error


def fill_model(
    model: torch.nn.Module,
    weights: Mapping[str, torch.Tensor],
    where: str,
    check_weights: bool = True,
    assign: bool = False,
) -> None:
    """Puts weights into a model, all of them and nothing else.

    Args:
        weights: by the model's names.
        where: whose weights they are, for messages.
        check_weights: whether to look for weights that are not finite.
        assign: make them the model's own, in their dtype and on their device, instead of copying.

    Raises:
        ValueError: as [`load_model`]; the model is as it was then.
    """
    shapes = [{key: tuple(tensor.shape) for key, tensor in one.items()} for one in (weights, model.state_dict())]
    faults = key_faults(*shapes)
    if check_weights and not faults:
        faults = [f"`{key}` is {NOT_FINITE}" for key, tensor in weights.items() if not is_finite(tensor)]
    refuse(faults, where)
    model.load_state_dict(weights, assign=assign)


def refuse(faults: Sequence[str], where: str, remedy: str = "") -> None:
    """Raises for weights that are wrong, if there are any.

    Args:
        faults: from the functions below, such as "`lm_head.weight` is missing".
        where: whose weights they are.
        remedy: what to do, for the message.

    Raises:
        ValueError: naming up to five of them.
    """
    if not faults:
        return
    if not remedy:
        remedy = "convert, save or download it again"
        if faults[0].endswith(NOT_FINITE):
            remedy += ", or take its weights as they are with --no-check-weights (`check_weights=False`)"
    raise ValueError(f"The weights of the {where} are damaged: {some(faults)}; {remedy}.")


def some(faults: Sequence[str]) -> str:
    """The first five, and how many more there are; names in them come from files and may be any text."""
    more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return ", ".join(printable(fault, _LONGEST) for fault in faults[:_NAMED]) + more


# ------------------------------------------------------------------------------------------------------- what is wrong

NOT_FINITE = "not finite"


def find_faults(
    model_class: Any, name: str | Path, check_weights: bool = True, **arguments: Any
) -> tuple[Any, list[str]]:
    """Loads a model and says what is wrong with its weights; see [`load_model`] for the arguments.

    Weights that are quantized or offloaded while they are loaded are looked at in their files.
    """
    model, info = model_class.from_pretrained(
        name, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
    )
    faults = [f"`{key}` is missing" for key in sorted(info["missing_keys"])]
    faults += [f"`{key}` is unexpected" for key in sorted(info["unexpected_keys"])]
    faults += [_misshapen(*mismatch) for mismatch in sorted(info["mismatched_keys"])]
    base = _base_of_adapter(model, name)
    if base is not None and getattr(model, "hf_quantizer", None) is None:  # the report was about the adapter
        with torch.device("meta"):
            plain = type(model)(model.config)
        shapes = {key: tuple(tensor.shape) for key, tensor in plain.state_dict().items()}
        faults += stored_faults(weights_of(base), shapes, plain.all_tied_weights_keys, check_weights=False)
    if check_weights and not faults:
        faults = _not_finite(model, name if base is None else base)
    return model, faults


def _base_of_adapter(model: Any, name: str | Path) -> str | None:
    """The checkpoint under an adapter that was loaded by its name; None if it was no adapter."""
    path = find_adapter_config_file(str(name)) if getattr(model, "_hf_peft_config_loaded", False) else None
    if path is None:
        return None
    if (Path(name) / "config.json").is_file():  # transformers takes the weights beside the adapter then
        return str(name)
    return str(json.loads(Path(path).read_text(encoding="utf-8"))["base_model_name_or_path"])


def key_faults(found: Shapes, expected: Shapes, optional: Collection[str] = ()) -> list[str]:
    """What weights there are against those that a model has.

    Args:
        found, expected: shapes by name.
        optional: names that need not be there, such as those of tied weights.
    """
    faults = [f"`{key}` is missing" for key in sorted(expected.keys() - found.keys() - set(optional))]
    faults += [f"`{key}` is unexpected" for key in sorted(found.keys() - expected.keys())]
    both = sorted(found.keys() & expected.keys())
    return faults + [
        _misshapen(key, found[key], expected[key]) for key in both if tuple(found[key]) != tuple(expected[key])
    ]


def _misshapen(key: str, found: Sequence[int], expected: Sequence[int]) -> str:
    return f"`{key}` has the shape {tuple(found)} instead of {tuple(expected)}"


def stored_faults(
    files: Iterable[Path], expected: Shapes | None, optional: Collection[str] = (), check_weights: bool = True
) -> list[str]:
    """What is wrong with the weights in safetensors files, one in memory at a time; see [`key_faults`].

    Args:
        files: all of a model.
        expected: None = whatever there is.
        check_weights: whether to look for weights that are not finite.

    Raises:
        SafetensorError, OSError: if a file cannot be read.
    """
    found: dict[str, Sequence[int]] = {}
    not_finite = []
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  not a dict
                found[key] = tensors.get_slice(key).get_shape()
                if check_weights and not is_finite(tensors.get_tensor(key)):
                    not_finite.append(f"`{key}` is {NOT_FINITE}")
    return (key_faults(found, expected, optional) if expected is not None else []) or not_finite


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor of any shape and dtype has neither NaN nor infinities; one pass, without a copy."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    tensor = tensor.detach()
    if tensor.dtype.itemsize == 1:  # float8 has no arithmetic
        tensor = tensor.float()
    # either is NaN if there is one; a quarter of the time of `abs().max()`, which makes a copy
    low, high = tensor.aminmax()
    return math.isfinite(low) and math.isfinite(high)


def _not_finite(model: Any, name: str | Path) -> list[str]:
    """The weights of a model that are not finite, in the precision that they were loaded in."""
    faults, elsewhere = [], False
    for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # of a model spread over devices
        if tensor.is_meta or not tensor.is_floating_point():
            elsewhere = True
        elif not is_finite(tensor):
            faults.append(f"`{key}` ({str(tensor.dtype).removeprefix('torch.')}) is {NOT_FINITE}")
    for file in weights_of(name) if elsewhere and not faults else ():
        with safe_open(file, framework="pt") as tensors:
            keys = tensors.keys()
            faults += [f"`{key}` is {NOT_FINITE}" for key in keys if not is_finite(tensors.get_tensor(key))]
    return faults


def weights_of(name: str | Path, beginning: str = "") -> list[Path]:
    """The safetensors files of a checkpoint; one on the Hub is downloaded into the cache.

    Args:
        name: folder or Hub id.
        beginning: of the names that are asked for: files of a sharded checkpoint without such a one are left out.
    """

    def find(file: str) -> Path | None:
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        return None if path is None else Path(path)

    index, names = find(SAFE_WEIGHTS_INDEX_NAME), [SAFE_WEIGHTS_NAME]
    if index is not None:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({file for key, file in weight_map.items() if key.startswith(beginning)})
    return [path for path in map(find, names) if path is not None]
