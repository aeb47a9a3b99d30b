"""The image tokenizer of the built-in checkpoint: its size, and how it was trained."""

from __future__ import annotations

from ...modeling.configuration import WallarooVQConfig
from .vq_training import VQTrainingArguments

__all__ = ["scenes_arguments", "small_tokenizer_config"]


def small_tokenizer_config() -> WallarooVQConfig:
    """16 pixels per code and 8-dimensional codes as released, but a million parameters: 4 MB in float32."""
    return WallarooVQConfig(
        codebook_size=1024,
        embed_dim=8,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1, 2],
        num_res_blocks=1,
        latent_channels=64,
        norm_num_groups=4,
    )


def scenes_arguments(max_steps: int = 3300) -> VQTrainingArguments:
    """For the built-in scenes (`scene_canvases(8)`).

    What the language model needs is one code per kind of patch, wherever it stands; two settings see to that. Without the
    locality loss and the distance between codes, an empty patch gets any of a hundred codes, depending on what is around
    it; with the loss alone still one of sixty; with both, one.
    """
    return VQTrainingArguments(
        max_steps=max_steps,
        learning_rate=2e-3,
        warmup_steps=50,
        continuous_steps=int(0.36 * max_steps),
        restart_until=0.9,
        min_code_distance=0.06,
        locality_weight=0.5,
        locality_tile=32,
    )
