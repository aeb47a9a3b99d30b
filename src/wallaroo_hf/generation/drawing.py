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

from .decoder import PairedDecoder
from .logits_processors import (
    ForcedTokensLogitsProcessor,
    ImageGuidanceLogitsProcessor,
    ImageVocabularyLogitsProcessor,
    for_slice,
    works_on_slice,
)
from .plan import DrawingPlan
from .rows import Branch, NullPromptCache
from .sampling import GumbelNoise, first_largest


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
        null_prompt_cache: see [`NullPromptCache`].
        resumes: the drawing continues a sequence whose beginning is in the caller's cache.
    """

    branches: Sequence[Branch]
    guidance_scales: Sequence[float]
    plan: DrawingPlan
    edits: Sequence[bool]
    attend_padding: bool
    generator: torch.Generator | Sequence[torch.Generator] | None
    resumes: bool = False
    null_prompt_cache: NullPromptCache | None = None


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
        """Keeps the conditional rows' hidden states and attentions of one forward.

        As copies: views would keep the other branches' rows too, and the next replay of a CUDA graph overwrites them.
        """
        for kept, given in ((self.hidden_states, outputs.hidden_states), (self.attentions, outputs.attentions)):
            if kept is not None:
                kept.append(tuple(layer[: self.rows].clone() for layer in given))

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
        drawing_streamer: `generate` gives streamers only to its own decoding methods, so it comes bound. One that has an
            attribute `stopped` ends the drawing by setting it.
        synced: whether other processes must run as many forwards (FSDP, ZeRO-3).

    Returns:
        `(B, L + N)` ids, or `GenerateDecoderOnlyOutput` if `return_dict_in_generate`. `scores` are what a code is chosen
        from (guided, processed), `logits` the raw conditional ones, all `(B, vocab_size + codebook_size)`, one entry per
        new token; forced tokens have all their weight on themselves.
    """
    rows, prompt_length = input_ids.shape
    plan = job.plan.to(input_ids.device)
    record = _Record(generation_config, rows)
    cache = model_kwargs["past_key_values"]
    decoder = PairedDecoder(
        model,
        job.branches,
        job.edits,
        rows // len(job.edits),
        cache,
        plan.length,
        job.attend_padding,
        generation_config,
        job.null_prompt_cache,
        {name: True for name in ("output_hidden_states", "output_attentions") if model_kwargs.get(name)},
    )
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
            if position == 0:
                outputs = decoder.resume() if job.resumes else decoder.prefill()
            else:
                outputs = decoder.step(so_far[:, fed:].to(model.device))
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
            if getattr(drawing_streamer, "stopped", False):
                break
        if criteria:
            scores = None if record.scores is None else tuple(record.scores)
            finished = finished | criteria(sequences[:, :length], scores)
            if bool(finished.all()):
                break
    decoder.give_back()
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
        self.plan, self.record = plan, record
        self.vocab_size = model.config.text_config.vocab_size
        self.codebook_size = model.config.codebook_size
        self.guide = ImageGuidanceLogitsProcessor(job.guidance_scales)
        self.widen = ImageVocabularyLogitsProcessor(self.vocab_size)
        self.force = ForcedTokensLogitsProcessor(plan.forced_token_ids, prompt_length)
        self.on_slice = works_on_slice(logits_processor)
        self.processors = for_slice(logits_processor) if self.on_slice else logits_processor
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
        return torch.where(forced >= 0, forced, first_largest(codes) + self.vocab_size)

    def _remember(self, input_ids: torch.Tensor, scores: torch.Tensor, logits: torch.Tensor) -> None:
        """Keeps scores and logits if they are wanted, as wide as callers see them and with forced tokens forced."""
        for kept, values in ((self.record.scores, scores), (self.record.logits, logits)):
            if kept is not None:
                wide = self.widen(input_ids, values) if values.shape[-1] == self.codebook_size else values
                kept.append(self.force(input_ids, wide))
