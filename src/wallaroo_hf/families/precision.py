"""In which precision weights are loaded and computed with: the one rule, for drawing, answering and training alike."""

import difflib

import torch

__all__ = ["DTYPES", "computes_in_bf16", "loading_dtype", "read_dtype"]

DTYPES = ("auto", "bfloat16", "float16", "float32")
# What other tools call them.
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def computes_in_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32; a CPU without the instructions is far slower."""
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def read_dtype(dtype: str | torch.dtype, name: str = "dtype") -> str:
    """A precision as people name it, made sure of before anything is loaded.

    Args:
        dtype: what was given.
        name: what it is called, for the message.

    Returns:
        One of `DTYPES`.

    Raises:
        ValueError: for another word, with the one that was probably meant.
    """
    text = str(dtype).removeprefix("torch.")
    if text in DTYPES:
        return text
    close = difflib.get_close_matches(text.lower(), DTYPES, 1)
    meant = _SHORT.get(text.lower()) or (close[0] if close else None)
    hint = "" if meant is None else f"; did you mean {meant}?"
    raise ValueError(f"`{name}` is {text[:40]!r}, but must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}{hint or '.'}")


def loading_dtype(dtype: str | torch.dtype, device: torch.device | str) -> str | torch.dtype:
    """The `dtype` to load weights with that compute on a device.

    "auto" takes that of the checkpoint, but float32 on a processor without bfloat16 instructions: there a backward in
    bfloat16 takes forty times as long as in float32, and drawing half as long again. What is asked for by name is done.

    Args:
        dtype: as it was asked for.
        device: where the weights will be.
    """
    if dtype == "auto" and not computes_in_bf16(torch.device(device)):
        return "float32"
    return dtype
