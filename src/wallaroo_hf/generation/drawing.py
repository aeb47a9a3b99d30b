"""The one decoding method that draws: plugged into `generate()` through its `custom_generate` hook."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.generation.streamers import BaseStreamer
from transformers.masking_utils import create_causal_mask

from .logits_processors import (
    ForcedTokensLogitsProcessor,
    ImageGuidanceLogitsProcessor,
    ImageVocabularyLogitsProcessor,
    works_on_slice,
)
from .plan import DrawingPlan
from .sampling import GumbelNoise


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


@dataclass(frozen=True)
class DrawingJob:
    """What `generate` has worked out before the first forward.

    Attributes:
        branches: from the most to the least conditioned; rows of all branches run in one forward, branch by branch.
        guidance_scales: one per step between neighbouring branches.
        plan: the layout of the new tokens.
        edits: per prompt, whether it is an edit.
        attend_padding: reproduce the released decoding loop, which attends left padding after the prefill.
        generator: see [`GumbelNoise`].
    """

    branches: Sequence[Branch]
    guidance_scales: Sequence[float]
    plan: DrawingPlan
    edits: Sequence[bool]
    attend_padding: bool
    generator: torch.Generator | Sequence[torch.Generator] | None


class _Decoder:
    """Runs the model over paired branches: one prefill, then the tokens decided since the last forward."""

    def __init__(
        self, model: Any, job: DrawingJob, copies: int, cache: Any, num_new_tokens: int, options: dict
    ) -> None:
        self.model, self.job, self.cache, self.options = model, job, cache, options
        branches = len(job.branches)
        edits = [edit for edit in job.edits for _ in range(copies)] * branches
        device = model.device
        # One answer for all rows where there is one: then only one adapter and one head run.
        self.edit_mask: torch.Tensor | bool = edits[0]
        if any(edit != edits[0] for edit in edits):
            self.edit_mask = torch.tensor(edits, device=device).unsqueeze(1)  # (rows, 1)
        embeds, positions, masks = zip(*(self._prompt(branch) for branch in job.branches), strict=True)
        self.inputs_embeds = torch.cat([item.repeat_interleave(copies, dim=0) for item in embeds])  # (rows, L, hidden)
        self.position_ids = torch.cat([item.repeat_interleave(copies, dim=1) for item in positions], dim=1)
        mask = torch.cat([item.repeat_interleave(copies, dim=0) for item in masks])  # (rows, L)
        self.prompt_mask = None if bool(mask.all()) else mask
        self.attention_mask = None
        if self.prompt_mask is not None and not job.attend_padding:
            self.attention_mask = torch.nn.functional.pad(mask, (0, num_new_tokens), value=1)
        self.fed = mask.shape[1]
        single_token = model._valid_auto_compile_criteria({"past_key_values": cache}, options["generation_config"])
        config = options.pop("generation_config")
        self.step_forward = model.get_compiled_call(config.compile_config) if single_token else model.__call__

    def _prompt(self, branch: Branch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings `(B, L, hidden)`, positions `(3, B, L)` and mask `(B, L)` of one branch."""
        inner = self.model.model
        embeds = inner.embed_prompt(
            branch.input_ids, branch.pixel_values, branch.image_grid_thw, branch.source_pixel_values
        )
        positions, _ = inner.get_rope_index(
            branch.input_ids, image_grid_thw=branch.image_grid_thw, attention_mask=branch.attention_mask
        )
        return embeds, positions, branch.attention_mask

    def prefill(self) -> Any:
        """The first forward, over the prompts."""
        mask: Any = self.prompt_mask
        if mask is not None and self.job.attend_padding:
            mask = {"full_attention": self._published_prefill_mask(mask)}
        outputs = self.model(
            inputs_embeds=self.inputs_embeds,
            attention_mask=mask,
            position_ids=self.position_ids,
            past_key_values=self.cache,
            edit_mask=self.edit_mask,
            **self.options,
        )
        self.position_ids = self.position_ids[:, :, -1:]  # the next token continues from here
        self.inputs_embeds = None
        return outputs

    def _published_prefill_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Released behaviour on CUDA: padding rows see the whole prefill, other rows see tokens before them."""
        length = mask.shape[1]
        is_token = mask.bool()

        def padding_row(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return ~is_token[batch, query.clamp(max=length - 1)] & (key < length)

        def token_column(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return (is_token[batch, key.clamp(max=length - 1)] & (key < length)) | padding_row(batch, head, query, key)

        return create_causal_mask(
            config=self.model.config.get_text_config(),
            inputs_embeds=self.inputs_embeds,
            attention_mask=None,
            past_key_values=self.cache,
            or_mask_function=padding_row,
            and_mask_function=token_column,
        )

    def step(self, input_ids: torch.Tensor) -> Any:
        """A forward over new tokens `(B, k)`, the same in every branch."""
        count = input_ids.shape[1]
        self.fed += count
        offsets = torch.arange(1, count + 1, device=self.position_ids.device)
        position_ids = self.position_ids + offsets
        self.position_ids = position_ids[:, :, -1:]
        model_inputs = self.model.prepare_inputs_for_generation(
            input_ids.repeat(len(self.job.branches), 1),
            past_key_values=self.cache,
            attention_mask=None if self.attention_mask is None else self.attention_mask[:, : self.fed],
            position_ids=position_ids,
            edit_mask=self.edit_mask,
            **self.options,
        )
        forward = self.step_forward if count == 1 else self.model
        return forward(**model_inputs)


class _Record:
    """Collects what `return_dict_in_generate` asked for."""

    def __init__(self, generation_config: GenerationConfig, rows: int) -> None:
        wanted = bool(generation_config.return_dict_in_generate)
        self.rows = rows
        self.scores: list | None = [] if wanted and generation_config.output_scores else None
        self.logits: list | None = [] if wanted and generation_config.output_logits else None
        self.hidden_states: list | None = [] if wanted and generation_config.output_hidden_states else None
        self.attentions: list | None = [] if wanted and generation_config.output_attentions else None

    def forward(self, outputs: Any) -> None:
        """Keeps the conditional rows' hidden states and attentions of one forward."""
        for kept, given in ((self.hidden_states, outputs.hidden_states), (self.attentions, outputs.attentions)):
            if kept is not None:
                kept.append(tuple(layer[: self.rows] for layer in given))

    def result(self, sequences: torch.Tensor, cache: Any) -> GenerateDecoderOnlyOutput:
        """The output of `generate`."""

        def as_tuple(values: list | None) -> tuple | None:
            return None if values is None else tuple(values)

        return GenerateDecoderOnlyOutput(
            sequences=sequences,
            scores=as_tuple(self.scores),
            logits=as_tuple(self.logits),
            attentions=as_tuple(self.attentions),
            hidden_states=as_tuple(self.hidden_states),
            past_key_values=cache,
        )


def draw(
    model: Any,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    job: DrawingJob,
    drawing_streamer: BaseStreamer | None = None,
    synced: bool = False,
    **model_kwargs: Any,
) -> GenerateDecoderOnlyOutput | torch.LongTensor:
    """Draws one image per row.

    A forward runs only when some row has a code to decide, over all tokens decided since the last one; forced tokens
    cost none by themselves. The text head is never computed.

    Args:
        input_ids: prompts `(B, L)`, ending with `<|generate_start|>`, already repeated for `num_return_sequences`.
        logits_processor, stopping_criteria, generation_config: prepared by `generate`, the caller's own included.
        job: see [`DrawingJob`].
        drawing_streamer: `generate` gives streamers only to its own decoding methods, so it comes bound.
        synced: whether other processes must run as many forwards (FSDP, ZeRO-3).

    Returns:
        `(B, L + N)` ids, or `GenerateDecoderOnlyOutput` if `return_dict_in_generate`. `scores` are what a code is chosen
        from (guided, processed), `logits` the raw conditional ones, all `(B, vocab_size + codebook_size)`, one entry per
        new token; forced tokens have all their weight on themselves.
    """
    rows, prompt_length = input_ids.shape
    plan = job.plan.to(input_ids.device)
    record = _Record(generation_config, rows)
    options = {
        "use_cache": True,
        "output_image_logits": True,
        "logits_to_keep": 1,
        "generation_config": generation_config,
        **{key: model_kwargs[key] for key in ("output_hidden_states", "output_attentions") if model_kwargs.get(key)},
    }
    cache = model_kwargs["past_key_values"]
    decoder = _Decoder(model, job, rows // len(job.edits), cache, plan.length, options)
    choose = _Chooser(model, job, plan, logits_processor, generation_config, record, prompt_length, rows)
    # A length that is reached only at the end need not be checked at each code.
    criteria = StoppingCriteriaList([item for item in stopping_criteria if not isinstance(item, MaxLengthCriteria)])
    finished = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
    pad_token_id = generation_config._pad_token_tensor

    sequences = input_ids.new_empty(rows, prompt_length + plan.length)
    sequences[:, :prompt_length] = input_ids
    fed = length = prompt_length
    for position, draws_code in enumerate(plan.draws_code):
        so_far = sequences[:, :length]
        image_logits = None
        if any(draws_code):
            model._has_unfinished_sequences(False, synced, device=input_ids.device)
            outputs = decoder.prefill() if position == 0 else decoder.step(so_far[:, fed:].to(model.device))
            fed = length
            record.forward(outputs)
            image_logits = outputs.image_logits[:, -1].to(device=input_ids.device, dtype=torch.float32)
        tokens = choose(so_far, image_logits, position)
        if criteria:
            tokens = torch.where(finished, pad_token_id, tokens)
        sequences[:, length] = tokens
        length += 1
        if drawing_streamer is not None:
            drawing_streamer.put(tokens.cpu())
        if criteria:
            scores = None if record.scores is None else tuple(record.scores)
            finished = finished | criteria(sequences[:, :length], scores)
            if bool(finished.all()):
                break
    while synced and model._has_unfinished_sequences(True, synced, device=input_ids.device):
        model(input_ids=sequences[:1, :1].to(model.device), use_cache=False, edit_mask=False)
    if drawing_streamer is not None:
        drawing_streamer.end()
    sequences = sequences[:, :length]
    if generation_config.return_dict_in_generate:
        return record.result(sequences, cache)
    return sequences


class _Chooser:
    """Turns raw code logits into the next token of each row."""

    def __init__(
        self,
        model: Any,
        job: DrawingJob,
        plan: DrawingPlan,
        logits_processor: LogitsProcessorList,
        generation_config: GenerationConfig,
        record: _Record,
        prompt_length: int,
        rows: int,
    ) -> None:
        self.plan, self.record, self.processors = plan, record, logits_processor
        self.vocab_size = model.config.text_config.vocab_size
        self.codebook_size = model.config.codebook_size
        self.guide = ImageGuidanceLogitsProcessor(job.guidance_scales)
        self.widen = ImageVocabularyLogitsProcessor(self.vocab_size)
        self.force = ForcedTokensLogitsProcessor(plan.forced_token_ids, prompt_length)
        self.on_slice = works_on_slice(logits_processor)
        self.rows = rows
        self.noise = None
        if generation_config.do_sample:
            device = plan.forced_token_ids.device
            self.noise = GumbelNoise(job.generator, rows, self.codebook_size, device)

    def __call__(self, input_ids: torch.Tensor, image_logits: torch.Tensor | None, position: int) -> torch.Tensor:
        """Ids `(B,)` for the next position.

        Args:
            input_ids: `(B, T)` so far.
            image_logits: raw `(branches * B, codebook_size)`, or None where every row's token is forced.
        """
        forced = self.plan.forced_token_ids[:, position]
        if image_logits is None:
            if self.record.scores is not None or self.record.logits is not None:
                nothing = torch.zeros(self.rows, self.codebook_size, device=input_ids.device)
                self._remember(input_ids, nothing, nothing)
            return forced
        scores = self.guide(input_ids, image_logits)
        if self.on_slice:
            codes = self.processors(input_ids, scores)
            wide = None
        else:
            wide = self.processors(input_ids, self.widen(input_ids, scores))
            codes = wide[:, self.vocab_size :]
        self._remember(input_ids, codes if wide is None else wide, image_logits[: self.rows])
        if self.noise is not None:
            codes = codes + self.noise.next(self.plan.draws_code[position], self.plan.code_positions[:, position])
        return torch.where(forced >= 0, forced, codes.argmax(dim=-1) + self.vocab_size)

    def _remember(self, input_ids: torch.Tensor, scores: torch.Tensor, logits: torch.Tensor) -> None:
        """Keeps scores and logits if they are wanted, as wide as callers see them and with forced tokens forced."""
        for kept, values in ((self.record.scores, scores), (self.record.logits, logits)):
            if kept is not None:
                wide = self.widen(input_ids, values) if values.shape[-1] == self.codebook_size else values
                kept.append(self.force(input_ids, wide))
