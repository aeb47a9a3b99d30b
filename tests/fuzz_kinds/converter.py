"""Checkpoints in the authors' format, damaged or changed, as the converter gets them."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from golden import GoldenSet
from wallaroo_hf.conversion import convert_checkpoint
from wallaroo_hf.conversion.key_map import VQ_IGNORED, VQ_PREFIX, checkpoint_key, vq_key

from .archive_damage import (
    Tensors,
    changed_records,
    changed_tensor,
    damaged_bytes,
    no_archive,
    saved,
    whole_content,
)
from .kind import Kind, Refused, attempt

WRAPPERS = {"checkpoint": "state_dict", "vq": "model"}


class Converter(Kind):
    """Two released files, of which one was spoiled: nothing is left then, or the weights are those of the whole file."""

    def __init__(self, golden: GoldenSet, folder: Path) -> None:
        super().__init__(golden, folder)
        self.paths = {"checkpoint": golden.checkpoint, "vq": golden.vq}
        self.data = {part: path.read_bytes() for part, path in self.paths.items()}
        self.tensors: dict[str, Tensors] = {
            part: dict(torch.load(path, weights_only=True)[WRAPPERS[part]]) for part, path in self.paths.items()
        }
        self.place = folder / "results"
        self.place.mkdir(exist_ok=True)

    def round(self, rng: random.Random) -> None:
        """Spoils a file and converts it with the other one."""
        part = "checkpoint" if rng.random() < 0.75 else "vq"
        data, expected = self._spoiled(rng, part)
        path = self.folder / "spoiled.ckpt"
        path.write_bytes(data)
        paths = self.paths | {part: path}
        dtype = "float32" if rng.random() < 0.8 else "bfloat16"
        output = self.place / "output"
        try:
            attempt(convert_checkpoint, paths["checkpoint"], paths["vq"], self.golden.base, output, dtype=dtype)
            assert os.listdir(self.place) == ["output"]
            if expected is not None:
                self._compare(output, self.tensors | {part: expected}, getattr(torch, dtype))
        except Refused:
            assert os.listdir(self.place) == []
            raise
        finally:
            shutil.rmtree(self.place)
            self.place.mkdir()

    def _spoiled(self, rng: random.Random, part: str) -> tuple[bytes, Tensors | None]:
        """A file, and the tensors that it must give if it is accepted; `{}`: it must be refused, None: any.

        Of what torch writes, an archive of another content, it is known what must come of it; of damage only that it may
        change nothing.
        """
        data, tensors, wrapper = self.data[part], self.tensors[part], WRAPPERS[part]
        kind = rng.random()
        if kind < 0.5:
            return damaged_bytes(rng, data), tensors
        if kind < 0.65:
            changed, differs = changed_records(rng, data)
            return changed, None if differs else tensors
        if kind < 0.7:
            return no_archive(rng, data, tensors), tensors
        content, expected = changed_tensor(rng, tensors) if kind < 0.9 else whole_content(rng, tensors, wrapper)
        return saved({wrapper: content} if kind < 0.9 else content), expected or {}

    def _compare(self, output: Path, sources: dict[str, Tensors], dtype: torch.dtype) -> None:
        expected = {checkpoint_key(key): tensor.to(dtype) for key, tensor in sources["checkpoint"].items()}
        vq = sources["vq"].items()
        expected |= {f"{VQ_PREFIX}{vq_key(key)}": tensor.float() for key, tensor in vq if key not in VQ_IGNORED}
        weights = {key: value for path in output.glob("*.safetensors") for key, value in load_file(path).items()}
        assert set(weights) == set(expected)
        wrong = [key for key, tensor in expected.items() if not torch.equal(weights[key], tensor)]
        assert not wrong, wrong
