"""`HieraQueryForConditionalGeneration`: a frozen language model, learned queries, a diffusion transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..common.bare_tensors import init_bare_tensors
from .alignment import HieraQueryAlignmentHead, see
from .connector import HieraQueryConnector
from .dit import find_dit
from .generation.hieraquery_doors import HieraQueryGenerationMixin
from .hiera_losses import total_loss
from .hieraquery_configuration import HieraQueryConfig
from .pixel_codecs import make_pixel_codec
from .query_tokens import HieraQueryTokens
from .scale_losses import ScaleTargets, scale_losses
from .scale_sizes import at_size, size_at_scale

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
            init.zeros_(module.scale_vectors)
        else:
            super()._init_weights(module)
            init_bare_tensors(module)  # the diffusion transformer's

    @property
    def size_multiple(self) -> int:
        """What edges of a scale's picture must be multiples of, in pixels."""
        return int(self.codec.spatial_factor * self.dit_adapter.patch_size)

    def scale_size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Height and width of a scale's picture.

        Raises:
            ValueError: if the codec's and the transformer's cells do not divide it.
        """
        return size_at_scale(self.config, self.size_multiple, height, width, scale)

    def conditions(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scales: Sequence[int] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        image_features: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """What steers the diffusion transformer, scale by scale.

        The prompt is read without gradients; the queries go on from its cache.

        Args:
            input_ids, attention_mask: `(B, T)`, padded on the left.
            pixel_values, image_grid_thw, mm_token_type_ids: of pictures in the prompts, as its processor gives them.
            scales: numbers of the scales, from 0 (coarse), negative ones from the end; None = all.
            sizes: height and width of the picture of each row; None = the configuration's.
            image_features: what the vision encoder sees in those pictures, `(tokens, width)`, in the place of
                `pixel_values`.

        Returns:
            `(B, N_k, condition_size)` for each of `scales`.
        """
        count = len(self.config.scales)
        wanted = list(range(count)) if scales is None else [range(count)[scale] for scale in scales]
        groups = self.config.groups
        place = {scale: number for number, group in enumerate(groups) for scale in group}
        needed = len(groups) if self.config.condition == "all" else max(place[scale] for scale in wanted) + 1
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
            read: dict[str, Any] = {"input_ids": input_ids, "pixel_values": pixel_values}
            if image_features is not None:
                words = self.mllm.get_input_embeddings()(input_ids)
                is_seen = (input_ids == self.mllm.config.image_token_id)[..., None]
                read = {"inputs_embeds": words.masked_scatter(is_seen, image_features.to(words))}
            prompt = self.mllm.model(
                **read,
                attention_mask=attention_mask,
                position_ids=position_ids,
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
        chosen = {
            "own": lambda at: groups[at : at + 1],
            "prefix": lambda at: groups[: at + 1],
            "all": lambda at: groups,
        }[self.config.condition]
        return [self.connector(torch.cat(chosen(place[scale]), dim=1), scale) for scale in wanted]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        *,
        image_features: torch.Tensor | None = None,
        targets: Sequence[torch.Tensor] | None = None,
        latents: Sequence[Sequence[torch.Tensor] | None] | None = None,
        vision_features: Sequence[torch.Tensor | None] | None = None,
        noise_draws: int = 1,
        noise: Sequence[torch.Tensor | Sequence[torch.Tensor | None]] | None = None,
        sigmas: Sequence[torch.Tensor] | None = None,
        keep: torch.Tensor | None = None,
    ) -> HieraQueryOutput:
        """The loss of drawing pictures at every scale.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw, mm_token_type_ids, image_features: see [`conditions`].
            targets: a picture `(3, H, W)` in [-1, 1] for each row.
            latents: in their place those of each row, `(C, h, w)` for each scale; None for rows of which nothing is
                learned.
            vision_features: what the vision encoder sees in the targets, `(rows, cols, width)` each; None = it looks.
            noise_draws: times that each row is noised, on one pass of the language model.
            noise: for each scale, `(noise_draws * B, C, h, w)`, draw by draw, or `(noise_draws, C, h, w)` for each row, as
                sizes differ; None = drawn here.
            sigmas: for each scale, `(noise_draws * B,)`; None = drawn here, evenly from 0 to 1.
            keep: `(noise_draws * B,)`, whether the condition stays, in training; None = drawn here.

        Raises:
            ValueError: for another number of targets than rows, sizes that do not fit the scales, or no targets.
        """
        if latents is None:
            latents, vision_features = self._see(targets, len(input_ids), vision_features)
        if all(row is None for row in latents):  # all that trains belongs to the graph all the same
            touched = (0.0 * part.float().sum() for part in self.parameters() if part.requires_grad)
            return HieraQueryOutput(loss=sum(touched, torch.zeros((), device=self.device)), losses={})
        rows, scales = len(input_ids), self.config.scales
        trained = [k for k, scale in enumerate(scales) if scale["loss_weight"] > 0]
        finest = [None if row is None else (row[-1].shape[-2], row[-1].shape[-1]) for row in latents]
        conditions = self.conditions(
            *(input_ids, attention_mask, pixel_values, image_grid_thw, mm_token_type_ids),
            scales=trained,
            sizes=[cells or (1, 1) for cells in finest],  # only their ratio counts
            image_features=image_features,
        )
        if self.training and keep is None:
            keep = torch.rand(noise_draws * rows, device=self.device) >= self.config.condition_dropout
        layer = self.config.alignment_layer
        losses: dict[str, torch.Tensor] = {}
        for condition, scale in zip(conditions, trained, strict=True):
            clean = [None if row is None else row[scale] for row in latents]
            sigma = torch.rand(noise_draws * rows) if sigmas is None else sigmas[scale]
            aims = ScaleTargets(
                clean,
                _noise_of_rows(clean, noise_draws, None if noise is None else noise[scale]),
                sigma.view(noise_draws, rows),
                keep.view(noise_draws, rows) if self.training and keep is not None else None,
                None if self.alignment is None else vision_features,
                finest,
            )
            found = scale_losses(self, self.dit_adapter.num_layers // 3 if layer is None else layer, condition, aims)
            losses |= {f"{name}_{scale}": loss for name, loss in found.items()}
        losses = dict(sorted(losses.items(), key=lambda item: item[0].startswith("alignment")))
        weights = [scale["loss_weight"] for scale in scales]
        return HieraQueryOutput(loss=total_loss(losses, weights, self.config.alignment_weight), losses=losses)

    @torch.no_grad()
    def _see(
        self,
        targets: Sequence[torch.Tensor] | None,
        rows: int,
        features: Sequence[torch.Tensor | None] | None,
    ) -> tuple[list[list[torch.Tensor]], Sequence[torch.Tensor | None] | None]:
        """Latents of pictures at every scale, and what the vision encoder sees in them."""
        if targets is None or len(targets) != rows:
            given = 0 if targets is None else len(targets)
            raise ValueError(f"There are {given} targets for {rows} rows; give one each.")
        pixels = [one.to(self.device, torch.float32) for one in targets]
        if self.alignment is not None and features is None:
            features = [see(self.mllm.model.visual, one) for one in pixels]
        return [self._latents(one) for one in pixels], features

    def _latents(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Latents, float32, of a picture at every scale."""
        height, width = pixels.shape[-2:]
        sizes = [self.scale_size(height, width, scale) for scale in range(len(self.config.scales))]
        return [self.codec.encode_images(at_size(pixels[None], size)).mean[0].float() for size in sizes]


def _noise_of_rows(
    clean: Sequence[torch.Tensor | None], draws: int, given: torch.Tensor | Sequence[torch.Tensor | None] | None
) -> Sequence[torch.Tensor | None]:
    """`(draws, C, h, w)` for each row."""
    if given is None:
        return [None if one is None else torch.randn(draws, *one.shape, device=one.device) for one in clean]
    if isinstance(given, torch.Tensor):
        return list(given.unflatten(0, (draws, len(clean))).unbind(1))
    return given
