"""`ShowO2ForConditionalGeneration`: text by its next token, images by their velocity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .block_layout import BlockLayout
from .flow_head import ShowO2FlowHead, TimeOfPositions, read_velocity
from .flow_losses import SEMANTIC_LOSS, flow_loss, named_losses, semantic_loss, text_losses, total_loss
from .generation.showo2_mixin import ShowO2GenerationMixin
from .image_codecs import make_codec
from .omni_backbone import ShowO2Model, ShowO2PreTrainedModel
from .showo2_configuration import ShowO2Config

__all__ = ["ShowO2ForConditionalGeneration", "ShowO2Output"]


@dataclass
class ShowO2Output(ModelOutput):
    """What [`ShowO2ForConditionalGeneration`] gives.

    Attributes:
        loss: scalar, where there is something to learn.
        losses: its parts by name, for reports.
        logits: `(B, T, vocab_size)`, predictions of the token after each; `(N, vocab_size)`, already aligned with the
            labels, with `label_logits_only`.
        velocities: one per image in the layout of `image_latents`, None for a reduced video; None where not asked for.
        last_hidden_state: `(B, T, hidden_size)`.
        cache, hidden_states, attentions: of the language model.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    velocities: list[torch.Tensor | None] | None = None
    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ShowO2ForConditionalGeneration(ShowO2GenerationMixin, ShowO2PreTrainedModel):
    """Show-o2 (arXiv 2506.15564) with both heads and its image codec.

    Args:
        config: the model's.
    """

    output_modalities = ("image", "text")
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: ShowO2Config) -> None:
        super().__init__(config)
        self.model = ShowO2Model(config)
        width = config.text_config.hidden_size
        self.lm_head = nn.Linear(width, config.text_config.vocab_size, bias=False)
        self.flow_head = ShowO2FlowHead(config.flow_config, width, config.token_channels)
        self.vae = make_codec(config.codec_config or {})
        self.vae.requires_grad_(False)
        self.post_init()

    @can_return_tuple
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
        labels: torch.LongTensor | None = None,
        velocity_targets: Sequence[torch.Tensor | None] | None = None,
        semantic_targets: Sequence[torch.Tensor | None] | None = None,
        pixel_values: Sequence[torch.Tensor] | None = None,
        text_weight: float | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        label_logits_only: bool = False,
        output_velocities: bool | None = None,
        touch_all_parts: bool = False,
        **kwargs: Any,
    ) -> ShowO2Output:
        r"""Logits of text and velocities of images, and the loss where there is something to learn.

        Args:
            input_ids, attention_mask, position_ids, cache, inputs_embeds, image_latents, timesteps, use_cache: see
                [`ShowO2Model.forward`]; `image_latents` are `x_t = t · x_1 + (1 - t) · noise`.
            labels: `(B, T)`, unshifted (the label at p is predicted at p - 1), -100 = ignored, as is a row's first.
            velocity_targets: `x_1 - noise`, one per image, None = that image is not learned.
            semantic_targets: what a teacher sees in the images, one `(N, width)` each, None = that image is not learned.
                The semantic features are compared with them; nothing else is computed or learned then.
            pixel_values: in the place of `image_latents`: pictures `(3, H, W)` in [-1, 1] and videos `(frames, 3, H, W)`,
                whose latents are the codec's means.
            text_weight: of the text in the loss; None = the configuration's.
            logits_to_keep: positions to compute logits for, as in transformers: the last n (0 = all), or indices.
            label_logits_only: logits at the labels only, which saves memory in training.
            output_velocities: whether the flow head runs, which needs whole rows; None = where there are images in whole
                rows, unless all their targets are None.
            touch_all_parts: every part belongs to the graph, whatever the rows are.
            kwargs: transformers' own, such as `output_hidden_states`.

        Returns:
            [`ShowO2Output`], or a tuple with `return_dict=False`.

        Raises:
            TypeError: for other arguments, a misspelt one for example.
            ValueError: see [`ShowO2Model.forward`]; and for targets or labels that do not fit the rows.
        """
        unknown = kwargs.keys() - TransformersKwargs.__optional_keys__
        if unknown:
            raise TypeError(f"ShowO2ForConditionalGeneration.forward got unexpected arguments: {sorted(unknown)}.")
        if pixel_values is not None:
            if image_latents is not None:
                raise ValueError("Both `pixel_values` and `image_latents` were given; give one of them.")
            image_latents = self.encode_pixels(pixel_values)
        if semantic_targets is not None:
            seen = self.model.visual_features([] if image_latents is None else list(image_latents)).semantic
            loss = semantic_loss(list(seen), semantic_targets)
            return ShowO2Output(loss=loss, losses={SEMANTIC_LOSS: loss})
        if labels is not None and use_cache is None:
            use_cache = False  # nothing continues a training row
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            image_latents=image_latents,
            timesteps=timesteps,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states, blocks = outputs.last_hidden_state, outputs.blocks
        if velocity_targets is not None and len(velocity_targets) != len(blocks.rows):
            raise ValueError(
                f"There are {len(blocks.rows)} images, but {len(velocity_targets)} `velocity_targets`; give one per image, "
                "None for one that is not learned."
            )
        velocities = None
        if image_latents is not None and self._wants_velocities(output_velocities, velocity_targets, outputs):
            velocities = self._velocities(outputs, image_latents)
        named: dict[str, torch.Tensor] = {}
        text = None
        if labels is not None:
            logits, named, text = self._text(outputs, labels, velocity_targets, label_logits_only)
        else:
            logits = self.lm_head(slice_logits_to_keep(hidden_states, logits_to_keep))
        flow = None
        if velocities is not None and velocity_targets is not None:
            flow = flow_loss(velocities, velocity_targets)
        loss = None
        if labels is not None or velocity_targets is not None:
            weight = self.config.text_weight if text_weight is None else text_weight
            loss = total_loss(text, flow, weight, hidden_states)
            if touch_all_parts:
                loss = loss + 0.0 * (self._touch() + logits.sum())
        return ShowO2Output(
            loss=loss,
            losses=None if loss is None else named_losses(named, flow),
            logits=logits,
            velocities=velocities,
            last_hidden_state=hidden_states,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def encode_pixels(self, pixel_values: Sequence[torch.Tensor], sample: bool = False) -> list[torch.Tensor]:
        """Latents of pictures to be understood: the codec's means, so that answers repeat.

        Args:
            pixel_values: pictures `(3, H, W)` in [-1, 1]; frames `(frames, 3, H, W)` of videos are encoded one by one.
                Lists of these, one per row, are what the batches of transformers' pipelines have.
            sample: draw them from the codec's distribution, as the released scripts do.

        Returns:
            `(C, h, w)` and `(C, frames, h, w)`.

        Raises:
            ValueError: for pixels of another shape, or that are no floating-point numbers.
        """
        latents = []
        rows = ([*one] if isinstance(one, (list, tuple)) else [one] for one in pixel_values)
        for one in itertools.chain.from_iterable(rows):
            if not isinstance(one, torch.Tensor) or one.dim() not in (3, 4):
                had = f"a tensor {tuple(one.shape)}" if isinstance(one, torch.Tensor) else f"a {type(one).__name__}"
                raise ValueError(
                    f"`pixel_values` hold {had}, but a picture is a tensor (3, H, W) and a video (frames, 3, H, W)."
                )
            frames = one[None] if one.dim() == 3 else one
            seen = [self.vae.encode_images(frame[None].to(self.device)) for frame in frames]
            own = torch.cat([posterior.sample() if sample else posterior.mean for posterior in seen])
            latents.append(own[0] if one.dim() == 3 else own.transpose(0, 1))
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels `(3, H, W)` in [-1, 1] of one image's latents `(C, h, w)`."""
        return self.vae.decode_latents(latents[None].to(self.device))[0]

    def _wants_velocities(
        self, asked: bool | None, targets: Sequence[torch.Tensor | None] | None, outputs: Any
    ) -> bool:
        """Whether the flow head runs; the language model's cache knows nothing of what it made of earlier positions."""
        learned = targets is not None and any(target is not None for target in targets)
        length = outputs.blocks.numbers.shape[1]
        is_whole = outputs.cache is None or int(outputs.cache.get_seq_length()) == length
        if learned and asked is False:
            raise ValueError("There are `velocity_targets`, but `output_velocities` is False; leave one of them out.")
        if (learned or asked) and not is_whole:
            raise ValueError("Velocities need whole rows, but a part of them is in `cache`; give them without it.")
        if asked is not None:
            return asked
        return learned or (targets is None and is_whole)

    def _velocities(self, outputs: Any, image_latents: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        blocks: BlockLayout = outputs.blocks
        if not blocks.rows:
            return []
        index = blocks.numbers.to(outputs.last_hidden_state.device)
        tokens = self.flow_head(
            outputs.last_hidden_state,
            TimeOfPositions(outputs.time_embeddings, index),
            outputs.flow_mask,
            outputs.position_ids,
        )
        parts = tokens[index >= 0].split(blocks.lengths)
        return [
            read_velocity(part[1:], latents.shape[1:], self.config)
            if len(part) - 1 == self.config.image_tokens(latents.shape[1:])
            else None
            for part, latents in zip(parts, image_latents, strict=True)
        ]

    def _text(
        self,
        outputs: Any,
        labels: torch.Tensor,
        velocity_targets: Sequence[torch.Tensor | None] | None,
        label_logits_only: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor | None]:
        """Logits, named means and their mean over all labels."""
        hidden_states, blocks = outputs.last_hidden_state, outputs.blocks
        if labels.shape != hidden_states.shape[:2]:
            raise ValueError(
                f"`labels` are of size {tuple(labels.shape)}, but there are {tuple(hidden_states.shape[:2])} positions; "
                "give one label for each, -100 where nothing is learned."
            )
        labels = labels.to(hidden_states.device)
        shifted = labels[:, 1:]
        # what a row begins with follows nothing: padding on its left, or another row
        chosen = (shifted >= 0) & (outputs.position_ids[:, 1:] > 0)
        targets = [None] * len(blocks.rows) if velocity_targets is None else velocity_targets
        draws = {row for row, target in zip(blocks.rows, targets, strict=True) if target is not None}
        generates = torch.tensor([row in draws for row in range(len(labels))], device=labels.device)
        generates = generates[:, None].expand_as(shifted)[chosen]
        if label_logits_only:
            logits = aligned = self.lm_head(hidden_states[:, :-1][chosen])
        else:
            logits = self.lm_head(hidden_states)
            aligned = logits[:, :-1][chosen]
        return logits, *text_losses(aligned, shifted[chosen], generates)

    def _touch(self) -> torch.Tensor:
        """A number that every part took part in, from the smallest image that there is."""
        patch, device = self.config.patch_size, self.device
        latents = torch.zeros(1, self.config.latent_channels, patch, patch, device=device)
        times = self.model.embed_times([0.0])
        hidden_states = torch.cat([self.model.time_tokens(times)[:, None], self.model.visual(latents).fused], dim=1)
        positions = torch.arange(2, device=device)[None]
        return self.flow_head(hidden_states, TimeOfPositions(times, None), None, positions).sum()
