"""What happens to archives of `torch.save`: damage to their bytes, records or pickles, and other contents."""

from __future__ import annotations

import gzip
import io
import pathlib
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .made_up import some_junk, some_words

Tensors = dict[str, torch.Tensor]

# ------------------------------------------------------------------------------------------------------------- bytes


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """A file with one to three changes to its bytes, as disks and downloads make them."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(rng, changed)
    return bytes(changed)


def _change(rng: random.Random, data: bytearray) -> None:
    """Bits, numbers or runs; many of them at the archive's end, where its directory is."""
    size = len(data)
    place = rng.randrange(size) if rng.random() < 0.4 else max(0, size - 1 - int(rng.expovariate(1 / 4000)))
    length = rng.choice((1, 4, 16, 512, 4096, rng.randint(1, size)))
    kind = rng.randrange(8)
    if kind < 3:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 3:
        data[place : place + 1] = rng.randbytes(1)
    elif kind == 4:
        number = rng.choice((0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
        data[place : place + 4] = number.to_bytes(4, "little")
    elif kind == 5:
        data[place : place + length] = bytes(min(length, size - place))  # a hole
    elif kind == 6:
        del data[place : place + length]
    else:
        del data[place:]
    if not data:
        data.extend(b"\0")


# ----------------------------------------------------------------------------------------------------------- records


def changed_records(rng: random.Random, data: bytes) -> tuple[bytes, bool]:
    """An archive whose records are missing, more, twice there or other ones; and whether its tensors may differ now.

    All checksums are right, so what says something else is not damaged but another file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    root = records[0][0].partition("/")[0]
    kind, packing, differs = rng.randrange(9), zipfile.ZIP_STORED, False
    place = rng.randrange(len(records))
    name, content = records[place]
    if kind == 0:
        del records[place]
    elif kind == 1:
        more = rng.choice((f"{root}/data/{rng.randint(0, 999)}", f"{root}/extra", "x", "../x", f"{root}/.data/x"))
        records.insert(place, (more, rng.randbytes(rng.choice((0, 8, len(content))))))
    elif kind == 2:
        records.append((name, content))
    elif kind == 3:
        records.append((name, rng.randbytes(len(content))))
    elif kind == 4:
        records[place] = (
            rng.choice((f"{name}0", name[:-1], name.upper(), f"{root}/data/{rng.randint(0, 99)}")),
            content,
        )
    elif kind == 5:
        rng.shuffle(records)
    elif kind == 6:
        packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 7:
        records[place] = (name, content + rng.randbytes(4) if rng.random() < 0.5 else content[:-1])
        differs = "/data/" not in name
    else:
        pickled = next(index for index, record in enumerate(records) if record[0].endswith("/data.pkl"))
        changed = bytearray(records[pickled][1])
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        odd = (b"", b".", b"\x80\x02" + b"(" * 100_000 + b".", b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".")
        records[pickled] = (records[pickled][0], bytes(changed) if rng.random() < 0.9 else rng.choice(odd))
        differs = True
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")  # about names that are there twice
        for name, content in records:
            archive.writestr(name, content)
    return buffer.getvalue(), differs


# ---------------------------------------------------------------------------------------------------------- contents


def changed_tensor(rng: random.Random, tensors: Tensors) -> tuple[dict[Any, Any], Tensors | None]:
    """Tensors of which one is another, missing or more; and what must come of them, None for a refusal."""
    changed: dict[Any, Any] = dict(tensors)
    key = rng.choice(list(tensors))
    tensor = tensors[key]
    fine: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor.double(),
        lambda: tensor.half(),
        lambda: tensor.bfloat16(),
        lambda: torch.nn.Parameter(tensor.float()),
        lambda: tensor.t().contiguous().t() if tensor.ndim == 2 else tensor,
        lambda: torch.stack([tensor, torch.ones_like(tensor)])[0],
        lambda: torch.cat([torch.ones(3).to(tensor), tensor.flatten()])[3:].view(tensor.shape),
    )
    wrong: tuple[Callable[[], Any], ...] = (
        *(lambda kind=kind: tensor.to(kind) for kind in (torch.int64, torch.int8, torch.bool, torch.complex64)),
        lambda: tensor.to(torch.float8_e4m3fn),
        lambda: tensor.to_sparse(),
        lambda: tensor.to("meta"),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: torch.full_like(tensor, rng.choice((float("nan"), float("inf"), -float("inf")))),
        lambda: torch.full_like(tensor, 1e300, dtype=torch.float64),
        lambda: tensor[:-1].clone(),
        lambda: tensor[None].clone(),
        lambda: torch.empty(0),
        lambda: torch.tensor(1.0),
        lambda: tensor.numpy() if tensor.dtype != torch.bfloat16 else np.ones(3),
        lambda: {"x": tensor},
        lambda: [tensor],
        *(lambda odd=odd: odd for odd in (None, 7, "words", pathlib.PurePosixPath("x"), print)),
    )
    kind = rng.random()
    if kind < 0.25:
        changed[key] = rng.choice(fine)()
        return changed, {**tensors, key: changed[key].detach()}
    if kind < 0.7:
        changed[key] = rng.choice(wrong)()
    elif kind < 0.8:
        del changed[key]
    elif kind < 0.9:
        odd_names = (f"{key}.more", f" {key}", "a\nb", "", 7, None, ("a", "b"), "\ud800", "x" * 5000, some_words(rng))
        changed[rng.choice(odd_names)] = tensor
    else:
        changed[rng.choice((f"{key}\n", key.upper(), key[:-1], key.replace(".", "..", 1)))] = changed.pop(key)
    return changed, None


def whole_content(rng: random.Random, tensors: Tensors, wrapper: str) -> tuple[Any, Tensors | None]:
    """What is saved: tensors in a wrapper or without one, or something else; and what must come of it."""
    right: tuple[Any, ...] = (
        tensors,
        {wrapper: tensors},
        {wrapper: OrderedDict(tensors), "epoch": 3, "optimizer": [torch.ones(7)], "rate": 1e-4},
        OrderedDict({"epoch": None, wrapper: tensors}),
    )
    wrong: tuple[Any, ...] = (
        *(
            None,
            [],
            {},
            {wrapper: {}},
            {wrapper: None},
            {wrapper: [1]},
            {wrapper: {wrapper: tensors}},
            {"other": tensors},
        ),
        *(
            list(tensors.values()),
            {wrapper: tensors, "path": pathlib.PurePosixPath("x")},
            {"call": print},
            torch.ones(3),
        ),
        *({wrapper: dict.fromkeys(tensors, "x")}, {wrapper: tensors | {"junk": some_junk(rng, 1)}}),
    )
    return (rng.choice(right), tensors) if rng.random() < 0.4 else (rng.choice(wrong), None)


def saved(content: Any, **options: Any) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def no_archive(rng: random.Random, data: bytes, tensors: Tensors) -> bytes:
    """A file of another kind."""
    return rng.choice(
        (
            lambda: b"",
            lambda: rng.randbytes(1000),
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            lambda: b"<html>Not found.</html>",
            lambda: gzip.compress(data, 1),
            lambda: saved({"state_dict": tensors}, _use_new_zipfile_serialization=False),
            lambda: data + data,
            lambda: rng.randbytes(100) + data,
            lambda: data + rng.randbytes(100),
        )
    )()
