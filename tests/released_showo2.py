"""Released files of tiny Show-o2s of any proportions, and a workshop that converts them after a test has changed them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration, convert_showo2
from wallaroo_hf.showo2.conversion.showo2_key_map import CHECKPOINT_PREFIXES

IDS = {"bos_id": 80, "eos_id": 81, "boi_id": 82, "eoi_id": 83, "img_pad_id": 84, "vid_pad_id": 85, "pad_id": 86}
IDS |= {"img_id": 87, "bov_id": 88, "eov_id": 89, "llm_vocab_size": 96}
TEXT = {"vocab_size": 96, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
VISION = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}
FLOW = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FLOW |= {"num_key_value_heads": 2, "head_dim": 8, "frequency_embedding_size": 32}


def released_key(name: str) -> str:
    """The authors' name of a tensor of ours."""
    name = re.sub(r"^(flow_head\.layers\.\d+)\.modulation\.", r"\1.adaLN_modulation.1.", name)
    old, new = next((old, new) for old, new in CHECKPOINT_PREFIXES.items() if name.startswith(new))
    return old + name[len(new) :]


def released_weights(grid=(2, 2), tied=True, seed=0, text=(), flow=(), vision=()) -> dict[str, torch.Tensor]:
    """Random weights by the authors' names, the tied head stored beside its table."""
    config = ShowO2Config(
        text_config=TEXT | dict(text),
        vision_config=VISION | dict(vision),
        flow_config=FLOW | dict(flow),
        codec_config={"type": "linear"},
        position_grid=grid,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        shapes = ShowO2ForConditionalGeneration(config).state_dict()
    generator = torch.Generator().manual_seed(seed)
    weights = {
        released_key(name): torch.randn(tensor.shape, generator=generator)
        for name, tensor in shapes.items()
        if not name.startswith("vae.")
    }
    if tied:
        weights["showo.lm_head.weight"] = weights["showo.model.embed_tokens.weight"].clone()
    return weights


def released_vae(base: int = 4, seed: int = 1, channels: int = 16) -> dict[str, torch.Tensor]:
    """Random weights of Wan2.1's VAE, `base` channels wide, by their released names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, into: int, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, *kernel), (out,)

    def residual(name: str, into: int, out: int) -> None:
        shapes[f"{name}.residual.0.gamma"], shapes[f"{name}.residual.3.gamma"] = (into, 1, 1, 1), (out, 1, 1, 1)
        convolution(f"{name}.residual.2", out, into, 3, 3, 3)
        convolution(f"{name}.residual.6", out, out, 3, 3, 3)
        if into != out:
            convolution(f"{name}.shortcut", out, into, 1, 1, 1)

    def ends(name: str, wide: int, narrow: int, out: int) -> None:
        for block in (0, 2):
            residual(f"{name}.middle.{block}", wide, wide)
        shapes[f"{name}.middle.1.norm.gamma"] = (wide, 1, 1)
        convolution(f"{name}.middle.1.to_qkv", 3 * wide, wide, 1, 1)
        convolution(f"{name}.middle.1.proj", wide, wide, 1, 1)
        shapes[f"{name}.head.0.gamma"] = (narrow, 1, 1, 1)
        convolution(f"{name}.head.2", out, narrow, 3, 3, 3)

    widths, number = [base, 2 * base, 4 * base, 4 * base], 0
    convolution("encoder.conv1", base, 3, 3, 3, 3)
    for level, width in enumerate(widths):
        residual(f"encoder.downsamples.{number}", widths[max(level - 1, 0)], width)
        residual(f"encoder.downsamples.{number + 1}", width, width)
        if level < 3:
            convolution(f"encoder.downsamples.{number + 2}.resample.1", width, width, 3, 3)
            if level:
                convolution(f"encoder.downsamples.{number + 2}.time_conv", width, width, 3, 1, 1)
        number += 3
    ends("encoder", widths[-1], widths[-1], 2 * channels)
    convolution("conv1", 2 * channels, 2 * channels, 1, 1, 1)
    convolution("conv2", channels, channels, 1, 1, 1)
    convolution("decoder.conv1", widths[-1], channels, 3, 3, 3)
    ends("decoder", widths[-1], base, 3)
    for level, width in enumerate(reversed(widths)):
        into = widths[-1] if level == 0 else list(reversed(widths))[level - 1] // 2
        for block in range(3):
            residual(f"decoder.upsamples.{4 * level + block}", into if block == 0 else width, width)
        if level < 3:
            convolution(f"decoder.upsamples.{4 * level + 3}.resample.1", width // 2, width, 3, 3)
            if level < 2:
                convolution(f"decoder.upsamples.{4 * level + 3}.time_conv", 2 * width, width, 3, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}


class Workshop:
    """The inputs of a conversion, each of which a test may replace, and the conversion itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint, self.vae = folder / "released", folder / "vae.pth"
        self.base, self.vision = folder / "base", folder / "siglip"
        self.output = folder / "results" / "output"
        for made in (self.checkpoint, self.base, self.vision, self.output.parent):
            made.mkdir()
        self.token_ids: Any = dict(IDS)
        self.set_base()
        self.set_vision()
        torch.save(released_vae(), self.vae)
        self.save(released_weights())

    def set_base(self, **changes: Any) -> None:
        """Writes the language model's configuration; its table was larger before the authors cut it."""
        settings = {"model_type": "qwen2", **TEXT, "vocab_size": 120, "tie_word_embeddings": True} | changes
        write_json(self.base / "config.json", settings)

    def set_vision(self, **changes: Any) -> None:
        """Writes the SigLIP's configuration, with the layer that the authors left out."""
        layers = {"model_type": "siglip_vision_model", **VISION, "num_hidden_layers": 3} | changes
        write_json(self.vision / "config.json", {"model_type": "siglip", "vision_config": layers})

    def save(self, weights: dict[str, torch.Tensor], shards: int = 1, grid=(2, 2), index: bool = True) -> None:
        """Makes these the checkpoint to convert."""
        for path in self.checkpoint.iterdir():
            path.unlink()
        settings = {"_class_name": "Showo2Qwen2_5", "image_latent_height": grid[0], "image_latent_width": grid[1]}
        write_json(self.checkpoint / "config.json", settings)
        if shards == 1:
            torch.save(weights, self.checkpoint / "pytorch_model.bin")
            return
        names, places = sorted(weights), {}
        for number in range(shards):
            file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
            part = names[number::shards]
            torch.save({name: weights[name] for name in part}, self.checkpoint / file)
            places |= dict.fromkeys(part, file)
        if index:
            write_json(self.checkpoint / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})

    def arguments(self) -> dict[str, Any]:
        """Of `convert_showo2`."""
        names = ("checkpoint", "vae", "base", "vision", "output", "token_ids")
        return {name: getattr(self, name) for name in names} | {"dtype": "float32"}

    def convert(self, **changes: Any) -> Path:
        """Converts."""
        return convert_showo2(**(self.arguments() | changes))

    def left_behind(self) -> list[Path]:
        """What there is where the output should be."""
        return list(self.output.parent.iterdir())


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")
