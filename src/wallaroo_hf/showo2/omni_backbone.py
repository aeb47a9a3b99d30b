"""`ShowO2Model`: text and latents to hidden states, under omni-attention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2Model
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import ModelOutput
from transformers.utils.deprecation import deprecate_kwarg

from ..common.bare_tensors import init_bare_tensors
from .block_layout import BlockLayout, find_blocks
from .checked_inputs import check_images, check_latents, check_rows, read_times
from .image_codecs import LinearCodec
from .sequences import REDUCED_GRID
from .showo2_configuration import ShowO2Config
from .time_embedding import ShowO2TimeEmbedding
from .visual_path import ShowO2VisualPath, VisualFeatures

__all__ = ["REDUCED_GRID", "ShowO2Model", "ShowO2ModelOutput", "ShowO2PreTrainedModel", "same_attention"]


@dataclass
class ShowO2ModelOutput(ModelOutput):
    """What [`ShowO2Model`] gives.

    Attributes:
        last_hidden_state: `(B, T, hidden_size)`, behind the language model's norm.
        cache: of the language model.
        hidden_states, attentions: of the language model's layers, where they are asked for.
        blocks: where the images are.
        time_embeddings: `(blocks, flow width)`, None without images.
        flow_mask: what the flow head's layers get in the place of `attention_mask`.
        position_ids: `(B, T)`.
    """

    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    blocks: BlockLayout | None = None
    time_embeddings: torch.Tensor | None = None
    flow_mask: Any = None
    position_ids: torch.Tensor | None = None


class ShowO2PreTrainedModel(PreTrainedModel):
    """What both classes share: loading, initialisation, and what they can."""

    config_class = ShowO2Config
    config: ShowO2Config
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2DecoderLayer", "SiglipEncoderLayer", "ShowO2FlowLayer"]
    _supports_sdpa = True
    _supports_flex_attn = True  # flash attention has no way to say what sees what within an image
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["vae"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LinearCodec):
            module.reset_parameters()
        else:
            init_bare_tensors(module)  # the VAE's


class ShowO2Model(ShowO2PreTrainedModel):
    """The language model with its dual visual path and its sense of time; no heads.

    Args:
        config: the model's.
    """

    def __init__(self, config: ShowO2Config) -> None:
        super().__init__(config)
        self.language_model = Qwen2Model._from_config(config.text_config)
        self.visual = ShowO2VisualPath(config)
        flow = config.flow_config
        self.time_embedding = ShowO2TimeEmbedding(flow.frequency_embedding_size, flow.hidden_size)
        self.time_projection = None
        if config.has_projections:
            self.time_projection = nn.Linear(flow.hidden_size, config.text_config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table of tokens."""
        self.language_model.set_input_embeddings(value)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_latents: Sequence[torch.Tensor] | None = None,
        timesteps: Sequence[float] | torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> ShowO2ModelOutput:
        """Hidden states of text and images.

        Args:
            input_ids: `(B, T)`; where images are, runs of `image_token_id` (or `video_token_id`): the time, then each
                token.
            attention_mask: `(B, past + T)`, 0 = padding, on either side.
            position_ids: `(B, T)`; None = counted over what is no padding.
            cache: keys and values of what was before.
            inputs_embeds: `(B, T, hidden_size)` in the place of the table's; with `input_ids` these still say where the
                images are, without them they are where the embedding is that of such a token.
            image_latents: one `(C, h, w)` per image, or `(C, frames, h, w)` per video, row by row, noisy or clean. A video
                whose run has 196 tokens per frame is read as reduced frames.
            timesteps: one per image, 0 = noise, 1 = clean; None = all are clean.
            use_cache: whether a cache is made and returned.
            kwargs: for the layers, such as `output_hidden_states`.

        Raises:
            ValueError: if ids, latents and times do not fit each other.
        """
        past = 0 if cache is None else int(cache.get_seq_length())
        check_rows(input_ids, inputs_embeds, attention_mask, position_ids, past)
        if position_ids is None:
            position_ids = self._positions(input_ids, inputs_embeds, attention_mask, past)
        starts = None
        if attention_mask is None and past == 0 and position_ids.shape[1] > 1:
            starts = position_ids == 0
        images = () if image_latents is None else image_latents
        given: Any = input_ids if input_ids is not None else inputs_embeds
        rows, length = given.shape[:2]
        if past and length == 1 and not len(images):  # a step of an answer; an image has two positions at least
            blocks = BlockLayout.empty(rows, length, given.device)
        else:
            blocks = self.find_images(input_ids, inputs_embeds, starts)
        times = None
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if blocks.rows or len(images) or timesteps is not None:
            check_images(blocks, images, self.config)
            clocks = read_times(timesteps, len(images))
            if blocks.rows:
                times = self.embed_times(clocks)
                inputs_embeds = self.place_images(inputs_embeds, blocks, images, times)
        mask, flow_mask = self.omni_masks(inputs_embeds, attention_mask, position_ids, cache, blocks)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask={"full_attention": mask},
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )
        return ShowO2ModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            blocks=blocks,
            time_embeddings=times,
            flow_mask=flow_mask,
            position_ids=position_ids,
        )

    # ---------------------------------------------------------------------------------------------------------- images

    def visual_features(
        self,
        latents: torch.Tensor | Sequence[torch.Tensor],
        timesteps: Sequence[float] | torch.Tensor | None = None,
    ) -> VisualFeatures:
        """What the dual path makes of latents.

        Args:
            latents: `(B, C, h, w)`, or a list of `(C, h, w)` and `(C, frames, h, w)`; frames one after the other.
            timesteps: of the images; the path itself does not depend on them (they are a token of their own), so they are
                only counted.

        Returns:
            Tensors `(B, N, width)` for one tensor, lists of `(N, width)` for a list.

        Raises:
            ValueError: for latents of another number of channels or of sizes that are no whole tokens, and for times that
                are none or not one per image.
        """
        for one in latents:
            check_latents(one, self.config)
        read_times(timesteps, len(latents))
        if isinstance(latents, torch.Tensor) and latents.dim() == 4:
            return self.visual(latents.to(self.visual.semantic_patch.weight.device))
        if not len(latents):
            return VisualFeatures([], [], [])
        parts = self._features_by_size([_frames(one) for one in latents])
        lists = [[torch.as_tensor(one).flatten(0, 1) for one in of] for of in zip(*parts, strict=True)]
        if isinstance(latents, torch.Tensor):
            return VisualFeatures(*map(torch.stack, lists))
        return VisualFeatures(*lists)

    def find_images(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None = None,
        starts: torch.Tensor | None = None,
    ) -> BlockLayout:
        """Where images are in ids, or, without these, in embeddings; see [`~ShowO2Model.forward`].

        Args:
            input_ids: `(B, T)`.
            inputs_embeds: `(B, T, hidden_size)`.
            starts: `(B, T)` bool, where several rows stand one after the other.
        """
        if input_ids is not None:
            is_image = (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)
            return find_blocks(is_image, starts)
        assert inputs_embeds is not None
        table = self.get_input_embeddings().weight
        own = table[[self.config.image_token_id, self.config.video_token_id]].to(inputs_embeds)  # (2, hidden_size)
        return find_blocks((inputs_embeds[:, :, None] == own).all(-1).any(-1), starts)

    def embed_times(self, timesteps: Sequence[float] | torch.Tensor) -> torch.Tensor:
        """Times as vectors `(N, flow width)`."""
        device = self.time_embedding.linear_1.weight.device
        return self.time_embedding(torch.as_tensor(timesteps, dtype=torch.float32, device=device))

    def time_tokens(self, times: torch.Tensor) -> torch.Tensor:
        """Embedded times `(N, flow width)` as the language model reads them, `(N, hidden_size)`."""
        return times if self.time_projection is None else self.time_projection(times)

    def place_images(
        self,
        inputs_embeds: torch.Tensor,
        blocks: BlockLayout,
        image_latents: Sequence[torch.Tensor],
        times: torch.Tensor,
    ) -> torch.Tensor:
        """Embeddings `(B, T, hidden_size)` with times and image tokens at their places.

        Args:
            inputs_embeds: of the text.
            blocks: where the images are.
            image_latents: see [`~ShowO2Model.forward`].
            times: embedded, see [`~ShowO2Model.embed_times`].
        """
        fused = self._fused([_frames(one) for one in image_latents], blocks.lengths)
        tokens = self.time_tokens(times)
        source = torch.cat([part for one in zip(tokens.split(1), fused, strict=True) for part in one])
        source = source.to(inputs_embeds)
        return inputs_embeds.masked_scatter(blocks.is_image.to(inputs_embeds.device)[..., None], source)

    def omni_masks(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        cache: Cache | None,
        blocks: BlockLayout,
    ) -> tuple[Any, Any]:
        """What sees what: what was before, and everything within an image; for the language model and for the flow head.

        Both are the same, in the form that the attention of each wants.

        Args:
            inputs_embeds: `(B, T, hidden_size)`, for its size.
            attention_mask: `(B, past + T)`.
            position_ids: `(B, T)`.
            cache: holds what was before.
            blocks: where the images are.
        """
        if isinstance(attention_mask, dict):  # as transformers prepares it for single tokens and a static cache
            return attention_mask["full_attention"], None
        numbers = None
        if blocks.rows:
            past = 0 if cache is None else int(cache.get_seq_length())
            numbers = F.pad(blocks.numbers.to(inputs_embeds.device), (past, 0), value=-1)
        text, flow = self.config.text_config, self.config.flow_config
        masks = [
            create_causal_mask(
                config=config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                cache=cache,
                position_ids=position_ids,
                block_sequence_ids=numbers,
            )
            for config in ((text,) if same_attention(text, flow) else (text, flow))
        ]
        return masks[0], masks[-1]

    def _fused(self, frames: Sequence[torch.Tensor], lengths: Sequence[int]) -> list[torch.Tensor]:
        """Tokens `(N, hidden_size)` of each image; of frames that are too many for their run, 14 x 14 each."""
        fused = []
        for one, part, length in zip(frames, self._features_by_size(frames), lengths, strict=True):
            tokens: Any = part.fused
            if tokens.shape[0] * tokens.shape[1] != length - 1:
                rows, cols = (edge // self.config.patch_size for edge in one.shape[-2:])
                grid = tokens.transpose(1, 2).unflatten(2, (rows, cols))
                tokens = F.interpolate(grid, REDUCED_GRID, mode="bilinear", align_corners=False)
                tokens = tokens.flatten(2).transpose(1, 2)
            fused.append(tokens.flatten(0, 1))
        return fused

    def _features_by_size(self, frames: Sequence[torch.Tensor]) -> list[VisualFeatures]:
        """Features of `(frames, C, h, w)` each; those of one size go through the path together."""
        by_size: Mapping[Any, list[int]] = defaultdict(list)
        for index, one in enumerate(frames):
            by_size[tuple(one.shape[-2:])].append(index)
        found: dict[int, VisualFeatures] = {}
        device = self.visual.semantic_patch.weight.device
        for indices in by_size.values():
            together = self.visual(torch.cat([frames[index].to(device) for index in indices]))
            counts = [len(frames[index]) for index in indices]
            for index, *parts in zip(indices, *(of.split(counts) for of in together), strict=True):
                found[index] = VisualFeatures(*parts)
        return [found[index] for index in range(len(frames))]

    def _positions(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past: int,
    ) -> torch.Tensor:
        given: Any = input_ids if input_ids is not None else inputs_embeds
        length = given.shape[1]
        if attention_mask is None or attention_mask.dim() != 2:
            return torch.arange(past, past + length, device=given.device).expand(given.shape[0], -1)
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:].to(given.device)


def same_attention(one: PreTrainedConfig, other: PreTrainedConfig) -> bool:
    """Whether two parts of a model want masks of the same form."""
    return one._attn_implementation == other._attn_implementation


def _frames(latents: torch.Tensor) -> torch.Tensor:
    """`(C, h, w)` and `(C, frames, h, w)` as `(frames, C, h, w)`."""
    return latents[None] if latents.dim() == 3 else latents.transpose(0, 1)
