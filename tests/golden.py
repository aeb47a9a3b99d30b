"""Reads golden data (the layout of `reference/`, which the compact set mirrors)."""

from __future__ import annotations

import functools
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.conversion import convert_checkpoint


class GoldenSet:
    """One set of golden data and the model it belongs to, converted on first use."""

    def __init__(self, name: str, root: Path, workspace: Path) -> None:
        self.name, self.root, self.workspace = name, root, workspace

    def tensors(self, path: str) -> dict[str, torch.Tensor]:
        """A safetensors file of the set, which may be packed with xz; small integers may be stored narrow."""
        plain = self.root / f"{path}.safetensors"
        packed = plain.with_name(f"{plain.name}.xz")
        loaded = load(lzma.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes())
        return {key: value.long() if value.dtype == torch.int32 else value for key, value in loaded.items()}

    def json(self, path: str) -> Any:
        """A json file of the set."""
        return json.loads((self.root / f"{path}.json").read_text(encoding="utf-8"))

    def image(self, path: str) -> Image.Image:
        """A png of the set."""
        return Image.open(self.root / f"{path}.png").convert("RGB")

    @functools.cached_property
    def base(self) -> Path:
        """A folder like a Qwen2.5-VL checkpoint's: tokenizer, image processor and configuration."""
        base = self.workspace / "base"
        shutil.copytree(self.root / "tokenizer", base)
        shutil.copy(self.root / "model" / "config.json", base)
        return base

    @property
    def checkpoint(self) -> Path:
        """The checkpoint in the authors' format."""
        return self.root / "model" / "checkpoint.ckpt"

    @property
    def vq(self) -> Path:
        """The image tokenizer in LlamaGen's format."""
        return self.root / "model" / "vq_ds16_t2i.pt"

    @functools.cached_property
    def folder(self) -> Path:
        """The converted checkpoint, float32."""
        return convert_checkpoint(self.checkpoint, self.vq, self.base, self.workspace / "converted", dtype="float32")

    @functools.cached_property
    def model(self) -> WallarooForConditionalGeneration:
        """The converted model. Shared: copy it before changing it."""
        return WallarooForConditionalGeneration.from_pretrained(self.folder).eval()

    @functools.cached_property
    def processor(self) -> WallarooProcessor:
        """The converted processor. Shared: copy it before changing it."""
        return WallarooProcessor.from_pretrained(self.folder)

    def plain_grid_processor(self, side: int) -> WallarooProcessor:
        """The same tokenizer, as a checkpoint of stages 1 to 3a has it."""
        processor = self.processor
        return WallarooProcessor(
            processor.image_processor,
            processor.tokenizer,
            chat_template=processor.chat_template,
            buckets=[(side, side)],
            size_indicators=False,
            line_breaks=False,
        )
