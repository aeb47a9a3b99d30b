"""What of a checkpoint looks at pictures, without the rest: image codec and vision encoder, which never train."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from ...families.loading import fill_model, reading_checkpoint, weights_of
from ..alignment import see
from ..hieraquery_abilities import latent_edge
from ..hieraquery_configuration import HieraQueryConfig
from ..pixel_codecs import make_pixel_codec
from ..scale_sizes import at_size, size_at_scale

__all__ = ["PictureSide", "load_picture_side"]

_PARTS = {"codec": "codec.", "visual": "mllm.visual."}  # by the beginnings of their names in files


class PictureSide(nn.Module):
    """Image codec and vision encoder with the configuration of the model that they are of.

    What they give is kept in half precision, also where it is not encoded ahead, so that both train alike.

    Args:
        config: the model's.
        codec, visual: of the model.
    """

    def __init__(self, config: HieraQueryConfig, codec: Any, visual: Any) -> None:
        super().__init__()
        self.config, self.codec, self.visual = config, codec, visual

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.visual.parameters()).device

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of a picture at every scale.

        Raises:
            ValueError: if it does not fit them.
        """
        multiple = latent_edge(self.config.to_dict())
        return [size_at_scale(self.config, multiple, height, width, k) for k in range(len(self.config.scales))]

    @torch.no_grad()
    def latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents `(B, C, h, w)` of pictures `(B, 3, H, W)` in [-1, 1] at their size; float16."""
        with torch.autocast(self.device.type, enabled=False):
            return self.codec.encode_images(pixels.to(self.device)).mean.half()

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures `(B, 3, H, W)`, float32, of latents `(B, C, h, w)`."""
        with torch.autocast(self.device.type, enabled=False):
            decoded: torch.Tensor = self.codec.decode_latents(latents.float().to(self.device)).float()
        return decoded

    @torch.no_grad()
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the vision encoder sees in pictures `(B, 3, H, W)` that are drawn: `(B, rows, cols, width)`, float16."""
        with torch.autocast(self.device.type, enabled=False):
            return see(self.visual, pixels.to(self.device)).half()

    @torch.no_grad()
    def shown(self, patches: torch.Tensor) -> torch.Tensor:
        """What the language model sees of pictures that are shown: `(B, rows, cols, width)`, float16.

        Args:
            patches: `(B, rows, cols, values)` before they are merged, those of a merged one behind each other.
        """
        count, rows, cols = patches.shape[:3]
        grid = torch.tensor([[1, rows, cols]] * count, device=self.device)
        flat = patches.flatten(0, 2).to(self.device, self.visual.dtype)
        with torch.autocast(self.device.type, enabled=False):
            seen: torch.Tensor = self.visual(flat, grid_thw=grid).pooler_output
        merge = self.visual.config.spatial_merge_size
        return seen.view(count, rows // merge, cols // merge, -1).half()

    def at_scales(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Pictures `(B, 3, H, W)` as they are at every scale, coarse to fine."""
        return [at_size(pixels, size) for size in self.sizes(*pixels.shape[-2:])]

    def fingerprint(self) -> str:
        """SHA-256 of all that decides what is encoded: the weights, the scales, the configurations."""
        config = self.config
        settings = [sorted((config.codec or {}).items()), config.scales, config.coarse_sizes]
        digest = hashlib.sha256(repr([*settings, latent_edge(config.to_dict())]).encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().flatten().clone().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def load_picture_side(name: str | Path, check_weights: bool = True) -> PictureSide:
    """Loads image codec and vision encoder of a checkpoint, float32; of a sharded one only the files that hold them are
    read.

    Args:
        name: folder or Hub id.
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is no such checkpoint, or its weights are damaged.
    """
    name, what = str(name), "image codec and vision encoder"
    with reading_checkpoint(name, what):
        config = HieraQueryConfig.from_pretrained(name)
        visual = Qwen2_5_VisionTransformerPretrainedModel(config.mllm_config.vision_config)
        parts = {"codec": make_pixel_codec(config.codec or {}), "visual": visual}
        weights: dict[str, dict[str, torch.Tensor]] = {part: {} for part in parts}
        for part, prefix in _PARTS.items():
            for file in weights_of(name, prefix):
                with safe_open(file, framework="pt") as tensors:
                    for key in tensors.keys():  # noqa: SIM118  not a dict
                        if key.startswith(prefix):
                            weights[part][key.removeprefix(prefix)] = tensors.get_tensor(key).float()
    for part, module in parts.items():
        fill_model(module, weights[part], f"{what} '{name}'", check_weights)
    return PictureSide(config, parts["codec"], parts["visual"]).eval().requires_grad_(False)
