"""The ablation `tokenizer`: image tokenizers of 16 and of 8 pixels per code, trained briefly and compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...modeling.configuration import WallarooVQConfig
from ...modeling.vq import WallarooVQModel
from ...processing.image_processor import WallarooImageProcessor
from ...scenes import EditSpec, Scene, check_edit, render
from ...training.vq.vq_data import scene_canvases
from ...training.vq.vq_recipe import scenes_arguments, small_tokenizer_config
from ...training.vq.vq_training import VQTrainer, new_tokenizer
from .data import VALIDATION_SEED, Lessons

__all__ = ["score_tokenizer", "tokenizer_config", "train_tokenizer_variant"]

_CANVASES = 8  # per step


def tokenizer_config(pixels_per_code: int) -> WallarooVQConfig:
    """The small tokenizer's configuration with fewer halvings of the resolution, all else equal."""
    released = small_tokenizer_config()
    halvings = int(math.log2(pixels_per_code))
    multipliers = [1] * halvings + [released.channel_multiplier[-1]]
    return WallarooVQConfig(**{**_settings(released), "channel_multiplier": multipliers})


def _settings(config: WallarooVQConfig) -> dict[str, object]:
    names = ("codebook_size", "embed_dim", "base_channels", "num_res_blocks", "latent_channels", "norm_num_groups")
    return {name: getattr(config, name) for name in names}


def train_tokenizer_variant(
    pixels_per_code: int,
    steps: int,
    seed: int,
    folder: Path,
    device: torch.device,
    report: Callable[[int, int], None],
) -> WallarooVQModel:
    """Trains a tokenizer by the recipe of the built-in one, with fewer steps; goes on where it was interrupted.

    Args:
        folder: for checkpoints, previews and the log.
    """
    arguments = dataclasses.replace(scenes_arguments(steps), seed=seed, save_total_limit=1)
    model = new_tokenizer(tokenizer_config(pixels_per_code), seed).to(device)
    trainer = VQTrainer(model, arguments, scene_canvases(_CANVASES), folder)
    trainer.train(resume=True, on_step=lambda step, losses: report(step, steps))
    return model.eval()


@torch.no_grad()
def score_tokenizer(vq_model: WallarooVQModel, count: int) -> dict[str, float]:
    """Rebuilds pictures of the drawing lessons.

    Returns:
        `psnr` in dB over all pixels as they are saved; `rebuilt_right`, the share of pictures that the exact judge takes
        for the same scene; `codes_per_picture`; `bits_per_picture`, codes times the entropy of their frequencies: what
        a picture costs if nothing but those is known.
    """
    lessons, images = Lessons("generation", count, VALIDATION_SEED), WallarooImageProcessor()
    squared, right = 0.0, 0
    tokens: list[torch.Tensor] = []
    for index in range(count):
        scene = Scene.from_dict(lessons.scene_row(index)["target_scene"])
        picture = render(scene)
        pixels = torch.from_numpy(images.to_vq_pixels(picture, scene.height, scene.width))[None]
        tokens.append(vq_model.encode(pixels).to_tuple()[0])
        (rebuilt,) = images.from_vq_pixels(vq_model.decode(tokens[-1]))
        squared += float(np.mean((np.asarray(picture, np.float64) - np.asarray(rebuilt, np.float64)) ** 2))
        right += check_edit(scene, rebuilt, EditSpec("background", background=scene.background)).ok
    frequencies = torch.cat([one.flatten() for one in tokens]).bincount().double()
    frequencies = frequencies[frequencies > 0] / frequencies.sum()
    codes = tokens[0].numel()
    return {
        "psnr": 10 * math.log10(255**2 / max(squared / count, 1e-9)),
        "rebuilt_right": right / count,
        "codes_per_picture": float(codes),
        "bits_per_picture": codes * float(-(frequencies * frequencies.log2()).sum()),
    }
