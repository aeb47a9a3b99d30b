"""`WallarooModel`: Qwen2.5-VL's body with the image tokenizer and the adapters that join them."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache, Qwen2_5_VLModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, MultimodalBaseModelOutputWithPast
from transformers.utils import torch_compilable_check
from transformers.utils.deprecation import deprecate_kwarg

from ..generation.attention import LayerConfig
from .adapters import (
    TokenMasks,
    WallarooAdapter,
    fill_missing,
    row_starts,
    run_by_task,
    scatter_checked,
    token_masks,
)
from .configuration import WallarooConfig
from .low_memory import LowMemoryMixin
from .parts import EDITING, SOURCE_ADAPTER
from .positions import PositionsMixin
from .targets import TargetsMixin
from .vq import WallarooVQModel

__all__ = ["WallarooModel"]

MASKED_LATENT = -1.0  # a replaced source latent is a vector of these (released training code)


class WallarooModel(LowMemoryMixin, PositionsMixin, TargetsMixin, Qwen2_5_VLModel):
    r"""Qwen2.5-VL without its head, plus image tokenizer and adapters.

    Ids at or above `config.text_config.vocab_size` are image codes; they are embedded by codebook and adapter.
    """

    config: WallarooConfig
    generation_adapter: WallarooAdapter
    source_adapter: WallarooAdapter
    input_modalities = ("image", "video", "text")
    _no_split_modules = [*Qwen2_5_VLModel._no_split_modules, *WallarooVQModel._no_split_modules]

    def __init__(self, config: WallarooConfig) -> None:
        super().__init__(config)
        for layer in self.language_model.layers:
            layer.self_attn.config = LayerConfig(layer.self_attn.config)
        self.vq_model = WallarooVQModel._from_config(config.vq_config)
        for name in config.image_adapters:
            setattr(self, name, WallarooAdapter(config))
        self.post_init()

    # -------------------------------------------------------------------------------------------------- embeddings

    def embed_ids(self, input_ids: torch.Tensor, image_task: torch.Tensor | int) -> torch.Tensor:
        """Embeds text ids by the table and codes by codebook and adapter.

        Every position takes both ways and keeps one, as in [`run_by_task`].

        Args:
            input_ids: `(B, T)` int64.
            image_task: which task each code belongs to: its index in `config.image_tasks`, `(B, T)` or one for all.

        Returns:
            `(B, T, hidden_size)`.
        """
        vocab_size = self.config.text_config.vocab_size
        is_code = input_ids >= vocab_size
        text = self.get_input_embeddings()(input_ids.masked_fill(is_code, 0))
        with torch.no_grad():  # the codebook is frozen
            vectors = self.vq_model.codebook_lookup((input_ids - vocab_size).clamp(min=0))
        return torch.where(is_code.unsqueeze(-1), self._adapt(vectors, image_task).to(text), text)

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        source_pixel_values: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Embeds whole prompts with all their images: `(B, T, hidden_size)`.

        Args:
            input_ids: prompts, `(B, T)`.
            pixel_values, image_grid_thw: images for the vision tower and their grids, as in `forward`.
            source_pixel_values: sources for the image tokenizer, `(3, H, W)` each.

        Raises:
            ValueError: if a vision block stands in the prompts without its images, or counts differ.
        """
        masks = token_masks(input_ids, self.config)
        inputs_embeds = self.embed_ids(input_ids, self._image_task(input_ids, None, masks))
        inputs_embeds = self._embed_sources(inputs_embeds, masks, source_pixel_values, None, None)
        if pixel_values is None and not bool(masks.vision.any()):
            return inputs_embeds
        if pixel_values is None or image_grid_thw is None:
            raise ValueError(
                "The prompts hold a vision block, but `pixel_values` and `image_grid_thw` are not both there."
            )
        features = torch.cat(self.get_image_features(pixel_values, image_grid_thw, return_dict=True).pooler_output)
        return scatter_checked(
            inputs_embeds, masks.vision, features.to(inputs_embeds.device), "vision tokens", "pixel_values"
        )

    def _embed_sources(
        self,
        inputs_embeds: torch.Tensor,
        masks: TokenMasks,
        source_pixel_values: Sequence[torch.Tensor] | None,
        source_latents: Sequence[torch.Tensor | None] | None,
        source_mask: Sequence[torch.Tensor] | None,
    ) -> torch.Tensor:
        """Writes the source images into their blocks."""
        if source_pixel_values is None and source_latents is None:
            torch_compilable_check(
                ~masks.source.any(),
                "The prompts hold a source block, but there is no `source_pixel_values`; pass all tensors that the "
                "processor returned.",
            )
            return inputs_embeds
        latents = self.source_latents(source_pixel_values, source_latents)
        features = self._adapt_sources(latents, source_mask).to(inputs_embeds.device)
        name = "source_pixel_values" if source_latents is None else "source_latents"
        return scatter_checked(inputs_embeds, masks.source, features, "source codes", name)

    def _touch_all_parts(
        self, inputs_embeds: torch.Tensor, embedded: bool, has_sources: bool, has_vision: bool
    ) -> torch.Tensor:
        """Runs what a batch leaves out, with no effect on the numbers: no input, or one black image for NaViT.

        Every part runs once and in the same order as with a batch that has it; ZeRO-3 gathers weights in that order.
        """
        touched = inputs_embeds.new_zeros(())
        if embedded:  # by the caller, so no code went through its adapter here
            nothing = inputs_embeds.new_zeros(1, 0, self.config.vq_config.embed_dim)
            touched = touched + self._adapt(nothing, torch.zeros(1, 0, dtype=torch.int64, device=nothing.device)).sum()
        if SOURCE_ADAPTER in self.config.image_adapters and not has_sources:
            empty = inputs_embeds.new_zeros(0, self.config.vq_config.embed_dim)
            touched = touched + self.source_adapter(empty).sum()
        if not has_vision:
            merge, vision = self.config.vision_config.spatial_merge_size, self.config.vision_config
            width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            grid = torch.tensor([[1, merge, merge]], device=inputs_embeds.device)
            features = self.get_image_features(inputs_embeds.new_zeros(merge**2, width), grid, return_dict=True)
            touched = touched + 0.0 * torch.cat(features.pooler_output).sum()
        return inputs_embeds + touched.to(inputs_embeds)

    def image_tasks(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The image task of each token of whole rows: `(B, T)` int64, index in `config.image_tasks`, -1 outside images."""
        return token_masks(input_ids, self.config).task

    def last_image_tasks(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The image task of the span that each row of prompts `(B, T)` ends in: `(B,)` int64, 0 where it ends in none."""
        return self.image_tasks(input_ids)[:, -1].clamp(min=0)

    def _adapt(self, vectors: torch.Tensor, image_task: torch.Tensor | int) -> torch.Tensor:
        return run_by_task(self, "adapter", image_task, vectors)

    def source_latents(
        self,
        source_pixel_values: Sequence[torch.Tensor] | None,
        source_latents: Sequence[torch.Tensor | None] | None,
    ) -> list[torch.Tensor]:
        """Latents `(codes, embed_dim)` of every source: those given, and the others from their pixels, in order.

        Args: see `forward`.

        Raises:
            ValueError: if the images are not those that have no latents.
        """
        encoded = self.encode_images([] if source_pixel_values is None else source_pixel_values)[1]
        if source_latents is None:
            return encoded
        filled = fill_missing(source_latents, encoded, "sources", "source_latents", "source_pixel_values")
        return [latents.reshape(-1, latents.shape[-1]).to(self.vq_model.device, torch.float32) for latents in filled]

    def _adapt_sources(self, latents: list[torch.Tensor], source_mask: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Source latents to hidden vectors `(codes of all sources, hidden_size)`."""
        if SOURCE_ADAPTER not in self.config.image_adapters:
            raise ValueError(EDITING.lacking)
        if source_mask is not None:
            sizes = [len(latent) for latent in latents]
            if len(source_mask) != len(latents) or any(
                len(mask) < size for mask, size in zip(source_mask, sizes, strict=True)
            ):
                raise ValueError(
                    f"`source_mask` has shapes {[tuple(mask.shape) for mask in source_mask]}, but the sources have "
                    f"{sizes} codes; give one bool per code (True = replaced)."
                )
            latents = [
                latent.masked_fill(mask[:size].to(latent.device).unsqueeze(-1), MASKED_LATENT)
                for latent, mask, size in zip(latents, source_mask, sizes, strict=True)
            ]
        return self.source_adapter(torch.cat(latents))

    # ----------------------------------------------------------------------------------------------- parent's hooks

    def get_video_features(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As in Qwen2.5-VL.

        Args:
            pixel_values_videos: NaViT patches of videos, `(patches, C)`.
            video_grid_thw: their grids, `(videos, 3)`.
            kwargs: see transformers.

        Raises:
            ValueError: without grids.
        """
        if video_grid_thw is None:
            raise ValueError(
                "`pixel_values_videos` needs `video_grid_thw`; pass all tensors that the processor returned."
            )
        return super().get_video_features(pixel_values_videos, video_grid_thw, **kwargs)

    def get_placeholder_mask(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        image_features: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts NaViT placeholders only: the `<|image_pad|>` of a source block are not the vision tower's.

        Args:
            input_ids: `(B, T)`; None = found by their embeddings.
            inputs_embeds: `(B, T, hidden_size)`.
            image_features, video_features: `(N, hidden_size)`, which must have as many placeholders.

        Raises:
            ValueError: if the counts differ.
        """
        if input_ids is not None:
            vision = token_masks(input_ids, self.config).vision
            video = input_ids == self.config.video_token_id
            masked = torch.where(vision | video, input_ids, 0)
            if image_features is not None:
                torch_compilable_check(
                    vision.sum() == len(image_features),
                    lambda: (
                        f"The prompts have room for {int(vision.sum())} vision tokens, but `pixel_values` brings "
                        f"{len(image_features)}; pass exactly the processor's tensors."
                    ),
                )
            if video_features is not None and int(video.sum()) != len(video_features):
                raise ValueError(
                    f"The prompts have room for {int(video.sum())} tokens of videos, but `pixel_values_videos` brings "
                    f"{len(video_features)}; pass exactly the processor's tensors."
                )
            input_ids = masked
        return super().get_placeholder_mask(input_ids, inputs_embeds, image_features, video_features)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        source_pixel_values: Sequence[torch.Tensor] | None = None,
        source_latents: Sequence[torch.Tensor | None] | None = None,
        source_mask: Sequence[torch.Tensor] | None = None,
        image_task: torch.Tensor | int | None = None,
        edit_mask: torch.Tensor | bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        touch_all_parts: bool = False,
        **kwargs: Any,
    ) -> MultimodalBaseModelOutputWithPast:
        r"""Runs the decoder.

        Args:
            input_ids: `(B, T)`; ids at or above `vocab_size` are image codes.
            attention_mask: `(B, T)`, 1 for tokens, 0 for padding.
            mm_token_type_ids: `(B, T)`, 1 for NaViT placeholders, 2 for those of videos; derived from the ids when absent.
            pixel_values, image_grid_thw: NaViT patches `(patches, C)` and grids `(images, 3)`.
            pixel_values_videos, video_grid_thw: the same of videos.
            second_per_grid_ts: seconds between two temporal patches of each video, `(videos,)`.
            source_pixel_values: images to edit, one `(3, H, W)` in [-1, 1] per source block.
            source_latents: in place of `source_pixel_values`, what the image tokenizer makes of them (`encode`'s
                unquantised `latents`), one `(rows, cols, embed_dim)` per source block; None entries are encoded from
                `source_pixel_values`, which then holds only those.
            source_mask: one bool `(codes,)` per source, or `(sources, codes)`: True = replaced by a constant (training).
            image_task: which task each code belongs to, as its index in `config.image_tasks`: `(B, T)` or one for all; read
                off the ids when absent.
            edit_mask: the same where there are drawings and edits only: which codes belong to edits.
            mm_encoder_outputs: NaViT features in place of `pixel_values`, as transformers' `generate` prepares them.
            touch_all_parts: also run the parts that this batch does not need, with no effect on the result. Where
                parameters are sharded or gradients averaged over processes (DDP, FSDP, ZeRO-3), every process must run
                the same parts, whatever its rows are.

        Raises:
            ValueError: for tensors that do not match the placeholders, and for codes in a step that continues a cache
                without `image_task`.
        """
        has_sources = source_pixel_values is not None or source_latents is not None
        if has_sources and input_ids is None:
            name = "source_latents" if source_pixel_values is None else "source_pixel_values"
            raise ValueError(f"`{name}` needs `input_ids`, which say where the source blocks are.")
        if cache is None:  # not in steps: asking for the text's configuration takes time
            text_config = self.config.get_text_config()
            if text_config.use_cache if use_cache is None else use_cache:
                cache = DynamicCache(config=text_config)  # as the language model would; positions are kept with it
        if edit_mask is not None:
            image_task = edit_mask  # False and True are the indices of drawings and edits
        embedded = inputs_embeds is not None
        if input_ids is not None and (has_sources or not embedded):
            masks, starts_row = None, False
            # A step that continues a cache says whose codes it holds; asking the cache would wait for the device.
            if has_sources or image_task is None:
                starts_row = cache is None or int(cache.get_seq_length()) == 0
                if starts_row or has_sources:  # sources are whole in what is new
                    masks = token_masks(input_ids, self.config, row_starts(position_ids))
            if inputs_embeds is None:
                known = masks if starts_row else None  # spans of codes may have begun before
                inputs_embeds = self.embed_ids(input_ids, self._image_task(input_ids, image_task, known))
            if masks is not None:
                inputs_embeds = self._embed_sources(
                    inputs_embeds, masks, source_pixel_values, source_latents, source_mask
                )
        if touch_all_parts and inputs_embeds is not None:
            has_vision = pixel_values is not None or pixel_values_videos is not None
            inputs_embeds = self._touch_all_parts(inputs_embeds, embedded, has_sources, has_vision)
        if touch_all_parts and pixel_values is not None and pixel_values_videos is not None:
            # in one run, as in the processes whose rows have only one kind
            mm_encoder_outputs = self._see_together(
                (pixel_values, image_grid_thw), (pixel_values_videos, video_grid_thw)
            )
            pixel_values = pixel_values_videos = None
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            second_per_grid_ts=second_per_grid_ts,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )

    def _see_together(self, *kinds: tuple[torch.Tensor, torch.Tensor | None]) -> dict[str, Any]:
        """The vision tower's features of pictures and of videos, as `mm_encoder_outputs`, in one run of it.

        Args:
            kinds: patches and grids, of pictures and of videos.
        """
        grids = [grid for _, grid in kinds if grid is not None]
        seen = self.get_image_features(torch.cat([one for one, _ in kinds]), torch.cat(grids), return_dict=True)
        images = len(grids[0])
        outputs = {}
        for name, features in (("image", seen.pooler_output[:images]), ("video", seen.pooler_output[images:])):
            outputs[name] = BaseModelOutputWithPooling(pooler_output=features)
        return outputs

    def _image_task(
        self, input_ids: torch.Tensor, image_task: torch.Tensor | int | None, masks: TokenMasks | None
    ) -> torch.Tensor | int:
        if image_task is not None:
            return image_task
        if not any(map(self.config.has_task, self.config.image_tasks[1:])):
            return 0
        if masks is not None:
            return masks.task
        torch_compilable_check(
            (input_ids < self.config.text_config.vocab_size).all(),
            "The step continues a cache and holds image codes, so it cannot be seen which task they belong to; pass "
            "`image_task`, or `edit_mask` (`generate` does).",
        )
        return 0
