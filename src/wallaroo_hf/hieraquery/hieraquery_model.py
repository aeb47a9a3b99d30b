"""`HieraQueryForConditionalGeneration`: a frozen language model, learned queries, a diffusion transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration
from transformers.utils import ModelOutput

from .alignment import HieraQueryAlignmentHead, resize_features, see
from .connector import HieraQueryConnector
from .dit import find_dit
from .generation.hieraquery_doors import HieraQueryGenerationMixin
from .hiera_losses import alignment_loss, flow_loss, noised, total_loss
from .hieraquery_configuration import HieraQueryConfig
from .pixel_codecs import make_pixel_codec
from .query_tokens import HieraQueryTokens

__all__ = ["HieraQueryForConditionalGeneration", "HieraQueryOutput"]


@dataclass
class HieraQueryOutput(ModelOutput):
    """What [`HieraQueryForConditionalGeneration`] gives.

    Attributes:
        loss: scalar.
        losses: its parts by name, "flow_0", "alignment_0" and so on from the coarsest scale.
        logits: None; answers come from the language model.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None


class HieraQueryForConditionalGeneration(HieraQueryGenerationMixin, PreTrainedModel):
    """HieraQuery with its image codec. Language model and codec are frozen, in training mode too.

    Args:
        config: the model's.

    Raises:
        ImportError: if it needs diffusers, which cannot be imported.
        ValueError: for parts that do not fit together.
    """

    config: HieraQueryConfig
    config_class = HieraQueryConfig
    main_input_name = "input_ids"
    _no_split_modules = ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock", "Qwen2DecoderLayer"]
    _keep_in_fp32_modules_strict = ["codec"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: HieraQueryConfig) -> None:
        super().__init__(config)
        self.dit_adapter = find_dit(config.dit or {})
        self.mllm = Qwen2_5_VLForConditionalGeneration(config.mllm_config)
        self.generation_config = self.mllm.generation_config  # it answers; a folder's file of it is read later
        self.generation_config._from_model_config = False  # else settings of drawing would be lost on loading
        self.queries = HieraQueryTokens(config)
        self.connector = HieraQueryConnector(config, self.dit_adapter.condition_size)
        self.dit = self.dit_adapter.build()
        self.codec = make_pixel_codec(config.codec or {})
        if self.codec.latent_channels != self.dit_adapter.latent_channels:
            raise ValueError(
                f"The image codec has {self.codec.latent_channels} latent channels, but the diffusion transformer takes "
                f"{self.dit_adapter.latent_channels}; give an image codec that belongs to it."
            )
        self.alignment = None
        if config.alignment_weight:
            width = config.mllm_config.vision_config.out_hidden_size
            self.alignment = HieraQueryAlignmentHead(self.dit_adapter.hidden_size, config.alignment_width, width)
        self.post_init()
        self.freeze()

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """See transformers. Loading undoes what construction froze, and leaves buffers that no file has undefined."""
        loaded = super().from_pretrained(*arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        model.dit_adapter.rebuild_buffers(model.dit)
        model.freeze()
        return loaded

    def freeze(self) -> None:
        """Makes sure that language model and image codec are not trained."""
        for part in (self.mllm, self.codec):
            part.requires_grad_(False)
            part.eval()

    def train(self, mode: bool = True) -> HieraQueryForConditionalGeneration:
        """Sets the mode of what is trained; what is frozen stays in evaluation mode and frozen."""
        super().train(mode)
        if hasattr(self, "codec"):
            self.freeze()
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, HieraQueryTokens):
            module.reset_parameters()
        elif isinstance(module, HieraQueryConnector):
            module.scale_vectors.zero_()
        else:
            super()._init_weights(module)

    @property
    def size_multiple(self) -> int:
        """What edges of a scale's picture must be multiples of, in pixels."""
        return int(self.codec.spatial_factor * self.dit_adapter.patch_size)

    def scale_size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Height and width of a scale's picture.

        Raises:
            ValueError: if the codec's and the transformer's cells do not divide it.
        """
        factor = self.config.scales[scale]["factor"]
        edges = [edge * factor for edge in (height, width)]
        multiple = self.size_multiple
        if any(edge != round(edge) or round(edge) % multiple or not edge for edge in edges):
            raise ValueError(
                f"A picture of {height}x{width} (height x width) does not fit scale {scale}, whose factor is {factor:g}: "
                f"its edges must be multiples of {multiple} pixels there too; choose another size."
            )
        return round(edges[0]), round(edges[1])

    def conditions(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scales: Sequence[int] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[torch.Tensor]:
        """What steers the diffusion transformer, scale by scale.

        The prompt is read without gradients; the queries go on from its cache.

        Args:
            input_ids, attention_mask: `(B, T)`, padded on the left.
            pixel_values, image_grid_thw, mm_token_type_ids: of pictures in the prompts, as its processor gives them.
            scales: numbers of the scales, from 0 (coarse), negative ones from the end; None = all.
            sizes: height and width of the picture of each row; None = the configuration's.

        Returns:
            `(B, N_k, condition_size)` for each of `scales`.
        """
        count = len(self.config.scales)
        wanted = list(range(count)) if scales is None else [range(count)[scale] for scale in scales]
        needed = count if self.config.condition == "all" else max(wanted) + 1
        if sizes is None:
            sizes = [(self.config.size[0], self.config.size[1])] * len(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if mm_token_type_ids is None:
            mm_token_type_ids = (input_ids == self.mllm.config.image_token_id).to(torch.int)
        position_ids, _ = self.mllm.model.get_rope_index(
            input_ids, mm_token_type_ids, image_grid_thw=image_grid_thw, attention_mask=attention_mask
        )
        with torch.no_grad():
            prompt = self.mllm.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                pixel_values=pixel_values,
                image_grid_thw=image_grid_thw,
                use_cache=True,
            )
        first = position_ids.masked_fill(attention_mask[None] == 0, -1).amax((0, 2)) + 1
        embeddings = self.queries(sizes, needed).to(self.mllm.dtype)
        mask = torch.cat([attention_mask, attention_mask.new_ones(embeddings.shape[:2])], dim=1)
        states = self.mllm.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=self.queries.positions(first, needed),
            cache=prompt.cache,
            use_cache=True,
        ).last_hidden_state
        groups = [states[:, span] for span in self.queries.spans(needed)]
        shown = {"own": lambda scale: groups[scale : scale + 1], "prefix": lambda scale: groups[: scale + 1]}
        choose = shown.get(self.config.condition, lambda scale: groups)
        return [self.connector(torch.cat(choose(scale), dim=1), scale) for scale in wanted]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        *,
        targets: Sequence[torch.Tensor],
        vision_features: Sequence[torch.Tensor] | None = None,
        noise_draws: int = 1,
        noise: Sequence[torch.Tensor] | None = None,
        sigmas: Sequence[torch.Tensor] | None = None,
    ) -> HieraQueryOutput:
        """The loss of drawing pictures at every scale.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw, mm_token_type_ids: see [`conditions`].
            targets: a picture `(3, H, W)` in [-1, 1] for each row, all of one size.
            vision_features: what the vision encoder sees in the targets, `(rows, cols, width)` each; None = it looks.
            noise_draws: times that each row is noised, on one pass of the language model.
            noise, sigmas: for each scale, `(noise_draws * B, C, h, w)` and `(noise_draws * B,)`; None = drawn here, a
                sigma evenly from 0 to 1.

        Raises:
            ValueError: for another number of targets than rows, of several sizes, or sizes that do not fit the scales.
        """
        if len(targets) != len(input_ids) or len({one.shape for one in targets}) != 1:
            raise ValueError(
                f"There are {len(targets)} targets for {len(input_ids)} rows; give one each, of one size."
            )
        pixels = torch.stack(list(targets)).to(self.device, torch.float32)
        height, width = pixels.shape[-2:]
        latents = [self._latents(pixels, self.scale_size(height, width, k)) for k in range(len(self.config.scales))]
        trained = [k for k, scale in enumerate(self.config.scales) if scale["loss_weight"] > 0]
        if self.alignment is not None and vision_features is None:
            vision_features = [see(self.mllm.model.visual, one) for one in pixels]
        conditions = self.conditions(
            *(input_ids, attention_mask, pixel_values, image_grid_thw, mm_token_type_ids),
            scales=trained,
            sizes=[(height, width)] * len(input_ids),
        )
        keep = torch.ones(len(input_ids), 1, 1, device=self.device)
        if self.training:
            keep = (torch.rand_like(keep) >= self.config.condition_dropout).to(keep)
        finest = (latents[-1].shape[-2], latents[-1].shape[-1])
        flows, alignments = {}, {}
        for condition, scale in zip(conditions, trained, strict=True):
            clean = latents[scale].repeat(noise_draws, 1, 1, 1)
            own_noise = torch.randn_like(clean) if noise is None else noise[scale].to(clean)
            sigma = torch.rand(len(clean), device=clean.device) if sigmas is None else sigmas[scale].to(clean)
            repeated = (condition * keep.to(condition)).repeat(noise_draws, 1, 1)
            layer = (
                self.dit_adapter.num_layers // 3
                if self.config.alignment_layer is None
                else self.config.alignment_layer
            )
            with self.dit_adapter.tap(self.dit, layer) as tap:
                velocity = self.dit_adapter.velocity(
                    self.dit, noised(clean, own_noise, sigma), sigma, repeated, finest
                )
            flows[f"flow_{scale}"] = flow_loss(velocity, clean, own_noise)
            if self.alignment is not None and vision_features is not None and tap.hidden_states is not None:
                grid = (clean.shape[-2] // self.dit_adapter.patch_size, clean.shape[-1] // self.dit_adapter.patch_size)
                seen = torch.stack([resize_features(one.to(self.device), grid) for one in vision_features])
                projected = self.alignment(tap.hidden_states)
                alignments[f"alignment_{scale}"] = alignment_loss(projected, seen.repeat(noise_draws, 1, 1))
        losses = {**flows, **alignments}
        weights = [scale["loss_weight"] for scale in self.config.scales]
        return HieraQueryOutput(loss=total_loss(losses, weights, self.config.alignment_weight), losses=losses)

    @torch.no_grad()
    def _latents(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Latents, float32, of pictures brought to a scale's size by averaging."""
        small = functional.interpolate(pixels, size, mode="area") if tuple(pixels.shape[-2:]) != size else pixels
        latents: torch.Tensor = self.codec.encode_images(small).mean
        return latents.float()
