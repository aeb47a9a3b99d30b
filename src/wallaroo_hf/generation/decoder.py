"""Runs the model over paired guidance branches: the prompts once, then the tokens decided since the last forward."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig
from transformers.masking_utils import create_causal_mask

from .attention import StepMask
from .branches import Branch, split_rows
from .null_prompts import NullPrompt, NullPromptCache
from .ragged import RaggedRows


class PairedDecoder:
    """Keeps what the branches share while an image is drawn: cache, positions, mask.

    Rows are ordered branch by branch; within a branch each prompt's copies (`num_return_sequences`) are neighbours.

    Args:
        model: the model.
        branches: from the most to the least conditioned.
        tasks: the image task of each prompt, its index in `config.image_tasks`.
        copies: images per prompt.
        cache: transformers' cache, empty.
        num_new_tokens: how many tokens will be drawn at most.
        attend_padding: reproduce the released loop (see `generate`).
        generation_config: for compilation.
        null_prompt_cache: keeps the last branch's prefill from call to call, or None.
        outputs: which outputs to ask the model for (`output_hidden_states`, `output_attentions`).
    """

    def __init__(
        self,
        model: Any,
        branches: Sequence[Branch],
        tasks: Sequence[int],
        copies: int,
        cache: Any,
        num_new_tokens: int,
        attend_padding: bool,
        generation_config: GenerationConfig,
        null_prompt_cache: NullPromptCache | None,
        outputs: dict[str, bool],
    ) -> None:
        self.model, self.branches, self.copies, self.cache = model, branches, copies, cache
        self.null_prompt_cache = null_prompt_cache
        self.attend_padding, self.num_new_tokens = attend_padding, num_new_tokens
        self.tasks = list(tasks) * len(branches)  # per row of the prefill
        self.image_task = self._image_task([task for task in self.tasks for _ in range(copies)])
        self.options = {"use_cache": True, "output_image_logits": True, "logits_to_keep": 1, **outputs}
        # The first forward sets these:
        self.attention_mask: torch.Tensor | None = None  # (rows, L + new), or None where nothing is hidden
        self.step_mask: StepMask | None = None  # the same as sdpa takes it
        self.prompt_mask = torch.empty(0)  # (rows, L), 1 where a prompt's token is seen later
        self.position_ids = torch.empty(0)  # (3, rows, 1), of the newest token
        self.length = 0  # of the cache, in tokens
        self._ragged: RaggedRows | None = None  # the cache while it is filled by windows
        self._given_back: list[tuple[Any, int]] = []  # caches of the caller that drawing continued, and their padding
        self.compiles = model._valid_auto_compile_criteria({"cache": cache}, generation_config)
        self._step = model.get_compiled_call(generation_config.compile_config) if self.compiles else model.__call__

    def _image_task(self, tasks: Sequence[int]) -> torch.Tensor | int:
        """One task for all rows where there is one (then only one adapter and one head run), else `(rows, 1)`."""
        if len(set(tasks)) == 1:
            return tasks[0]
        return torch.tensor(tasks, device=self.model.device).unsqueeze(1)

    def prefill(self) -> Any:
        """The first forward: each prompt of each branch once, whatever the number of copies."""
        if self.null_prompt_cache is not None and len(self.branches) > 1 and not self.attend_padding:
            return self._prefill_beside_null_prompts(self.null_prompt_cache)
        inputs_embeds, mask, position_ids = self._unpack(self.branches)
        self._hide_padding(mask.repeat_interleave(self.copies, dim=0))
        cache = self.cache if self.copies == 1 else DynamicCache(config=self.model.config.get_text_config())
        outputs = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=self._prefill_mask(mask, inputs_embeds, cache),
            position_ids=position_ids,
            cache=cache,
            image_task=self._image_task(self.tasks),
            **self.options,
        )
        self.position_ids = position_ids[:, :, -1:].repeat_interleave(self.copies, dim=1)
        if self.copies > 1:
            self._take_over(cache)
            outputs = _repeat_outputs(outputs, self.copies)
        return outputs

    def _take_over(self, cache: Any) -> None:
        """Fills the caller's cache from one that has each prompt once."""
        for index, layer in enumerate(cache.layers):
            keys, values = (tensor.repeat_interleave(self.copies, dim=0) for tensor in (layer.keys, layer.values))
            self.cache.update(keys, values, index)

    def _prefill_beside_null_prompts(self, store: NullPromptCache) -> Any:
        """The prefill, but each row of the last branch comes from the store where it is there."""
        *others, last = self.branches
        text_config = self.model.config.get_text_config()
        cache = DynamicCache(config=text_config)
        inputs_embeds, mask, position_ids = self._unpack(others)
        outputs = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=position_ids,
            cache=cache,
            image_task=self._image_task(self.tasks[: len(mask)]),
            **self.options,
        )
        nulls = [self._null_prompt(row, store) for row in split_rows(self.model, last)]
        lengths = [mask.shape[1], *(null.layers[0][0].shape[2] for null in nulls)]
        missing = [max(lengths) - length for length in lengths]
        layers = [[(layer.keys, layer.values) for layer in cache.layers], *(null.layers for null in nulls)]
        self._take_over(_joined(layers, missing, text_config))
        shown = [torch.nn.functional.pad(mask, (missing[0], 0))]
        shown += [(torch.arange(max(lengths), device=mask.device) >= pad).long()[None] for pad in missing[1:]]
        self._hide_padding(torch.cat(shown).repeat_interleave(self.copies, dim=0))
        last_positions = [position_ids[:, :, -1:], *(null.position_ids for null in nulls)]
        self.position_ids = torch.cat(last_positions, dim=1).repeat_interleave(self.copies, dim=1)
        outputs.image_logits = torch.cat([outputs.image_logits, *(null.image_logits for null in nulls)])
        return _repeat_outputs(outputs, self.copies)

    def _null_prompt(self, row: Branch, store: NullPromptCache) -> NullPrompt:
        """The prefill of one row, from the store or new."""
        key = store.key(row)
        found = store.get(key)
        if found is not None:
            return found
        cache = DynamicCache(config=self.model.config.get_text_config())
        inputs_embeds, _, position_ids = self._unpack([row])
        image_logits = self.model(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            cache=cache,
            image_task=int(self.model.model.last_image_tasks(row.input_ids)[0]),
            **{**self.options, "output_hidden_states": False, "output_attentions": False},
        ).image_logits
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        prompt = NullPrompt(layers, image_logits, position_ids[:, :, -1:])
        store.put(key, prompt)
        return prompt

    def _unpack(self, branches: Sequence[Branch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the model takes of branches of one length, row below row: embeddings, mask and positions `(3, rows, L)`."""
        embeddings = [self.model.model.embed_prompt(branch.input_ids, **branch.pictures) for branch in branches]
        masks = [branch.attention_mask for branch in branches]
        return torch.cat(embeddings), torch.cat(masks), torch.cat([self._positions(one) for one in branches], dim=1)

    def _positions(self, branch: Branch) -> torch.Tensor:
        return self.model.model.get_rope_index(
            branch.input_ids, image_grid_thw=branch.image_grid_thw, attention_mask=branch.attention_mask
        )[0]

    def _hide_padding(self, mask: torch.Tensor) -> None:
        """Takes the mask of the first forward, `(rows, L)`, and keeps it for the steps after it."""
        self.length = mask.shape[1]
        self.prompt_mask = torch.ones_like(mask) if self.attend_padding else mask
        hides = not self.attend_padding and not bool(mask.all())
        if hides:
            self.attention_mask = torch.nn.functional.pad(mask, (0, self.num_new_tokens), value=1)
        text_config = self.model.config.get_text_config()
        plain = text_config._attn_implementation == "sdpa" and set(text_config.layer_types) == {"full_attention"}
        if plain and (hides or self.cache.is_compileable):
            # Asked to make a mask of its own, transformers looks at ours at every step, which waits for the device.
            max_length = self.cache.layers[0].max_cache_len if self.cache.is_compileable else None
            self.step_mask = StepMask(mask if hides else torch.ones_like(mask), self.num_new_tokens, max_length)

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
            cache=cache,
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
        tasks = self.model.model.image_tasks(conditional.input_ids)[:, known:]
        positions = [self._positions(conditional)]
        first = self.model(
            input_ids=conditional.input_ids[:, known:],
            position_ids=positions[0][:, :, known:],
            cache=self.cache,
            image_task=tasks,
            **self.options,
        )
        logits, caches = [first.image_logits], [self.cache]
        for branch in others:
            caches.append(DynamicCache(config=self.model.config.get_text_config()))
            inputs_embeds, _, position_ids = self._unpack([branch])
            positions.append(position_ids)
            logits.append(
                self.model(
                    inputs_embeds=inputs_embeds,
                    position_ids=position_ids,
                    cache=caches[-1],
                    image_task=self._image_task(self.tasks),
                    **self.options,
                ).image_logits
            )
        lengths = [int(cache.get_seq_length()) for cache in caches]
        missing = [max(lengths) - length for length in lengths]
        if others:
            self._given_back = [(self.cache, missing[0])]
            layers = [[(layer.keys, layer.values) for layer in cache.layers] for cache in caches]
            self.cache = _joined(layers, missing, self.model.config.get_text_config())
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
        model_inputs = {
            "input_ids": input_ids.repeat(len(self.branches), 1),
            "cache": self.cache,
            "position_ids": position_ids,
            "image_task": self.image_task,
            **self.options,
        }
        if self.step_mask is not None:
            mask = self.step_mask.extend(count)
            if self.compiles:
                _fix_shapes(model_inputs["input_ids"], position_ids, mask)
            return self._step(attention_mask={"full_attention": mask}, step_attention=True, **model_inputs)
        mask = None if self.attention_mask is None else self.attention_mask[:, : self.length]
        if self.cache.is_compileable:  # such caches want a mask of fixed width, which transformers prepares
            model_inputs = self.model.prepare_inputs_for_generation(attention_mask=mask, **model_inputs)
            return self._step(**model_inputs)
        return self.model(attention_mask=mask, **model_inputs)

    def begin_windows(self, window: int) -> None:
        """Makes the cache, filled by the first forward, ready for windows of so many tokens."""
        self._ragged = RaggedRows(self.cache, self.prompt_mask, self.num_new_tokens, window)

    def step_windows(self, input_ids: torch.Tensor, fed: torch.Tensor, furthest: int) -> Any:
        """A forward over each row's own window `(B * copies, window)`, the same in every branch; logits of all of it.

        Args:
            fed: `(B * copies,)`, how many new tokens of each row are in the cache and right.
            furthest: the largest of them.
        """
        assert self._ragged is not None, "begin_windows comes first"
        device, window = self.position_ids.device, input_ids.shape[1]
        starts = fed.to(device).repeat(len(self.branches))
        position_ids = self.position_ids + 1 + starts[:, None] + torch.arange(window, device=device)
        text_config = self.model.config.get_text_config()
        packed = text_config._attn_implementation == "sdpa"
        mask = self._ragged.aim(starts, furthest, whole=not packed)
        model_inputs = {
            "input_ids": input_ids.to(device).repeat(len(self.branches), 1),
            "cache": self.cache,
            "position_ids": position_ids,
            "image_task": self.image_task,
            **self.options,
            "logits_to_keep": window,
        }
        if self.compiles:
            _fix_shapes(model_inputs["input_ids"], position_ids, mask)
        if packed:
            return self._step(attention_mask={"full_attention": mask}, step_attention=True, **model_inputs)
        dtype = self.model.dtype
        additive = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        return self._step(attention_mask={"full_attention": additive}, **model_inputs)

    def end_windows(self, count: int) -> None:
        """Gives the cache back with the first `count` new tokens in it."""
        if self._ragged is not None:
            self._ragged.give_back(self.length + count)
            self._ragged = None


def _fix_shapes(input_ids: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Makes one graph per number of new tokens, for any width of the mask."""
    torch._dynamo.mark_static(input_ids, 1)
    torch._dynamo.mark_static(position_ids, 2)
    torch._dynamo.mark_static(mask, 2)
    torch._dynamo.maybe_mark_dynamic(mask, 3)


def _joined(
    parts: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]], missing: Sequence[int], text_config: Any
) -> DynamicCache:
    """One cache with the rows of several, each left-padded by `missing` positions; keys and values come by layer."""
    joined = DynamicCache(config=text_config)
    for index in range(len(parts[0])):
        keys, values = (
            torch.cat(
                [torch.nn.functional.pad(part[index][kind], (0, 0, pad, 0)) for part, pad in zip(parts, missing)]
            )
            for kind in (0, 1)
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
