"""Runs the model over paired guidance branches: the prompts once, then the tokens decided since the last forward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig
from transformers.masking_utils import create_causal_mask


@dataclass(frozen=True)
class Branch:
    """One guidance branch: a prompt per row, left-padded, with its images.

    Attributes:
        input_ids, attention_mask: `(B, L)`.
        pixel_values, image_grid_thw: NaViT patches of all rows, in order.
        source_pixel_values: sources of all rows, in order.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None
    source_pixel_values: Sequence[torch.Tensor] | None = None


class PairedDecoder:
    """Keeps what the branches share while an image is drawn: cache, positions, mask.

    Rows are ordered branch by branch; within a branch each prompt's copies (`num_return_sequences`) are neighbours.

    Args:
        model: the model.
        branches: from the most to the least conditioned.
        edits: per prompt, whether it is an edit.
        copies: images per prompt.
        cache: transformers' cache, empty.
        num_new_tokens: how many tokens will be drawn at most.
        attend_padding: reproduce the released loop (see `generate`).
        generation_config: for compilation.
        outputs: which outputs to ask the model for (`output_hidden_states`, `output_attentions`).
    """

    def __init__(
        self,
        model: Any,
        branches: Sequence[Branch],
        edits: Sequence[bool],
        copies: int,
        cache: Any,
        num_new_tokens: int,
        attend_padding: bool,
        generation_config: GenerationConfig,
        outputs: dict[str, bool],
    ) -> None:
        self.model, self.branches, self.copies, self.cache = model, branches, copies, cache
        self.attend_padding, self.num_new_tokens = attend_padding, num_new_tokens
        self.edits = list(edits) * len(branches)  # per row of the prefill
        self.edit_mask = self._edit_mask([edit for edit in self.edits for _ in range(copies)])
        self.options = {"use_cache": True, "output_image_logits": True, "logits_to_keep": 1, **outputs}
        # The first forward sets these:
        self.attention_mask: torch.Tensor | None = None  # (rows, L + new), or None where nothing is hidden
        self.position_ids = torch.empty(0)  # (3, rows, 1), of the newest token
        self.length = 0  # of the cache, in tokens
        self._given_back: list[tuple[Any, int]] = []  # caches of the caller that drawing continued, and their padding
        compiles = model._valid_auto_compile_criteria({"past_key_values": cache}, generation_config)
        self._step = model.get_compiled_call(generation_config.compile_config) if compiles else model.__call__

    def _edit_mask(self, edits: Sequence[bool]) -> torch.Tensor | bool:
        """One answer for all rows where there is one (then only one adapter and one head run), else `(rows, 1)`."""
        if len(set(edits)) == 1:
            return edits[0]
        return torch.tensor(edits, device=self.model.device).unsqueeze(1)

    def prefill(self) -> Any:
        """The first forward: each prompt of each branch once, whatever the number of copies."""
        mask = torch.cat([branch.attention_mask for branch in self.branches])  # (branches * B, L)
        self._hide_padding(mask.repeat_interleave(self.copies, dim=0))
        inputs_embeds = torch.cat([self._embed(branch) for branch in self.branches])  # (branches * B, L, hidden)
        position_ids = torch.cat([self._positions(branch) for branch in self.branches], dim=1)  # (3, branches * B, L)
        cache = self.cache if self.copies == 1 else DynamicCache(config=self.model.config.get_text_config())
        outputs = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=self._prefill_mask(mask, inputs_embeds, cache),
            position_ids=position_ids,
            past_key_values=cache,
            edit_mask=self._edit_mask(self.edits),
            **self.options,
        )
        self.position_ids = position_ids[:, :, -1:].repeat_interleave(self.copies, dim=1)
        if self.copies > 1:
            for index, layer in enumerate(cache.layers):
                self.cache.update(
                    layer.keys.repeat_interleave(self.copies, dim=0),
                    layer.values.repeat_interleave(self.copies, dim=0),
                    index,
                )
            outputs = _repeat_outputs(outputs, self.copies)
        return outputs

    def _embed(self, branch: Branch) -> torch.Tensor:
        return self.model.model.embed_prompt(
            branch.input_ids, branch.pixel_values, branch.image_grid_thw, branch.source_pixel_values
        )

    def _positions(self, branch: Branch) -> torch.Tensor:
        return self.model.model.get_rope_index(
            branch.input_ids, image_grid_thw=branch.image_grid_thw, attention_mask=branch.attention_mask
        )[0]

    def _hide_padding(self, mask: torch.Tensor) -> None:
        """Takes the mask of the first forward, `(rows, L)`, and keeps it for the steps after it."""
        self.length = mask.shape[1]
        if not self.attend_padding and not bool(mask.all()):
            self.attention_mask = torch.nn.functional.pad(mask, (0, self.num_new_tokens), value=1)

    def _prefill_mask(self, mask: torch.Tensor, inputs_embeds: torch.Tensor, cache: Any) -> Any:
        if bool(mask.all()):
            return None
        if not self.attend_padding:
            return mask
        return {"full_attention": self._published_mask(mask, inputs_embeds, cache)}

    def _published_mask(self, mask: torch.Tensor, inputs_embeds: torch.Tensor, cache: Any) -> torch.Tensor:
        """Released behaviour on CUDA: padding rows see the whole prefill, other rows see tokens before them."""
        length = mask.shape[1]
        is_token = mask.bool()

        def padding_row(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return ~is_token[batch, query.clamp(max=length - 1)] & (key < length)

        def token_column(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return (is_token[batch, key.clamp(max=length - 1)] & (key < length)) | padding_row(batch, head, query, key)

        return create_causal_mask(
            config=self.model.config.get_text_config(),
            inputs_embeds=inputs_embeds,
            attention_mask=None,
            past_key_values=cache,
            or_mask_function=padding_row,
            and_mask_function=token_column,
        )

    def resume(self) -> Any:
        """The first forward of a drawing in the middle of a sequence, whose beginning is in the caller's cache.

        The first branch's ids are the whole sequence so far, one row of it; what the cache lacks is run now. The other
        branches are prompts of their own. Their caches are joined to one, left-padded to one length.
        """
        conditional, *others = self.branches
        known = int(self.cache.get_seq_length())
        edits = self.model.model.edit_tokens(conditional.input_ids)[:, known:]
        positions = [self._positions(conditional)]
        first = self.model(
            input_ids=conditional.input_ids[:, known:],
            position_ids=positions[0][:, :, known:],
            past_key_values=self.cache,
            edit_mask=edits,
            **self.options,
        )
        logits, caches = [first.image_logits], [self.cache]
        for branch in others:
            caches.append(DynamicCache(config=self.model.config.get_text_config()))
            positions.append(self._positions(branch))
            logits.append(
                self.model(
                    inputs_embeds=self._embed(branch),
                    position_ids=positions[-1],
                    past_key_values=caches[-1],
                    edit_mask=self._edit_mask(self.edits),
                    **self.options,
                ).image_logits
            )
        lengths = [int(cache.get_seq_length()) for cache in caches]
        missing = [max(lengths) - length for length in lengths]
        if others:
            self._given_back = [(self.cache, missing[0])]
            self.cache = _joined(caches, missing, self.model.config.get_text_config())
        self._hide_padding(
            torch.stack([torch.arange(max(lengths), device=logits[0].device) >= pad for pad in missing]).long()
        )
        self.position_ids = torch.cat([position[:, :, -1:] for position in positions], dim=1)
        first.image_logits = torch.cat(logits)
        return first

    def give_back(self) -> None:
        """Writes what was drawn into the cache that the drawing continued."""
        for cache, missing in self._given_back:
            for ours, joined in zip(cache.layers, self.cache.layers, strict=True):
                ours.keys, ours.values = joined.keys[:1, :, missing:], joined.values[:1, :, missing:]

    def step(self, input_ids: torch.Tensor) -> Any:
        """A forward over new tokens `(B * copies, k)`, the same in every branch."""
        count = input_ids.shape[1]
        self.length += count
        offsets = torch.arange(1, count + 1, device=self.position_ids.device)
        position_ids = self.position_ids + offsets
        self.position_ids = position_ids[:, :, -1:]
        model_inputs = self.model.prepare_inputs_for_generation(
            input_ids.repeat(len(self.branches), 1),
            past_key_values=self.cache,
            attention_mask=None if self.attention_mask is None else self.attention_mask[:, : self.length],
            position_ids=position_ids,
            edit_mask=self.edit_mask,
            **self.options,
        )
        forward = self._step if count == 1 else self.model
        return forward(**model_inputs)


def _joined(caches: Sequence[Any], missing: Sequence[int], text_config: Any) -> DynamicCache:
    """One cache with the rows of several, each left-padded by `missing` positions."""
    joined = DynamicCache(config=text_config)
    for index in range(len(caches[0].layers)):
        layers = [cache.layers[index] for cache in caches]
        keys, values = (
            torch.cat([torch.nn.functional.pad(tensor, (0, 0, pad, 0)) for tensor, pad in zip(tensors, missing)])
            for tensors in ([layer.keys for layer in layers], [layer.values for layer in layers])
        )
        joined.update(keys, values, index)
    return joined


def _repeat_outputs(outputs: Any, copies: int) -> Any:
    """What the prefill gave, once per copy of each prompt."""
    outputs.image_logits = outputs.image_logits.repeat_interleave(copies, dim=0)
    for name in ("hidden_states", "attentions"):
        layers = getattr(outputs, name)
        if layers is not None:
            setattr(outputs, name, tuple(layer.repeat_interleave(copies, dim=0) for layer in layers))
    return outputs
