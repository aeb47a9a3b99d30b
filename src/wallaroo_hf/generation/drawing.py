"""The one decoding method that draws: plugged into `generate()` through its `custom_generate` hook."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from .branches import Branch
from .choosing import Chooser, ScoreRules
from .decoder import PairedDecoder
from .delivery import Delivery
from .logits_processors import works_in_windows
from .null_prompts import NullPromptCache
from .outputs import DrawingOutput, Record
from .plan import DrawingPlan
from .sampling import NoiseAhead
from .windows import WindowDrawing, auto_window

logger = logging.get_logger(__name__)

_SAMPLING = ("do_sample", "temperature", "top_k", "top_p")


@dataclass(frozen=True)
class DrawingArguments:
    """What `generate` takes for drawing beside transformers' own arguments; see there. None = not given."""

    guidance_scale: float | None = None
    source_guidance_scale: float | None = None
    guidance_min_p: float | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    line_breaks: bool | None = None
    attend_padding: bool | None = None
    null_prompt_cache: NullPromptCache | None = None
    window: int | str | None = None

    @classmethod
    def read(
        cls, settings: Mapping[str, Any], generator: torch.Generator | Sequence[torch.Generator] | None
    ) -> tuple["DrawingArguments", dict[str, Any]]:
        """Settings of doors as `generate` takes them: these arguments, and transformers' own.

        Temperature 0 takes the likeliest codes; the published evaluation attends left padding.

        Raises:
            ValueError: for a name that is no setting of drawing.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("temperature") == 0:
            given |= {"temperature": None, "do_sample": False}
        sampling = {name: given.pop(name) for name in _SAMPLING if name in given}
        if given.pop("published_eval", False):
            given["attend_padding"] = True
        unknown = sorted(given.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            known = sorted({*cls.__dataclass_fields__, *_SAMPLING, "published_eval"} - {"generator"})
            raise ValueError(f"`{unknown[0]}` is no setting of drawing; there are {', '.join(known)}.")
        return cls(**given, generator=generator), sampling


@dataclass(frozen=True)
class DrawingSettings:
    """The same with entries of the generation configs and defaults where nothing was given."""

    guidance_scale: float
    source_guidance_scale: float | None
    guidance_min_p: float
    generator: torch.Generator | Sequence[torch.Generator] | None
    line_breaks: bool
    attend_padding: bool
    null_prompt_cache: NullPromptCache | None
    window: int | str


@dataclass(frozen=True)
class DrawingJob:
    """What `generate` has worked out before the first forward.

    Attributes:
        branches: from the most to the least conditioned; rows of all branches run in one forward, branch by branch.
        guidance_scales: one per step between neighbouring branches.
        plan: the layout of the new tokens.
        tasks: the image task of each prompt, its index in `config.image_tasks`.
        attend_padding: reproduce the released decoding loop, which attends left padding after the prefill.
        generator: see [`GumbelNoise`].
        null_prompt_cache: see [`NullPromptCache`].
        resumes: the drawing continues a sequence whose beginning is in the caller's cache.
        window: how many tokens of each image a forward takes at most, or `"auto"`; 1 = one code at a time.
        guidance_min_p: see [`ImageGuidanceLogitsProcessor`].
    """

    branches: Sequence[Branch]
    guidance_scales: Sequence[float]
    plan: DrawingPlan
    tasks: Sequence[int]
    attend_padding: bool
    generator: torch.Generator | Sequence[torch.Generator] | None
    resumes: bool = False
    null_prompt_cache: NullPromptCache | None = None
    window: int | str = 1
    guidance_min_p: float = 0.0


class DrawingRun:
    """A drawing of one image per row that `generate` has prepared; it goes on forward by forward.

    A forward runs only when some row has a code to decide, over all tokens decided since the last one; forced tokens
    cost none by themselves. With a window it runs over guesses too, see [`WindowDrawing`]. The text head is never computed.

    Args:
        input_ids: prompts `(B, L)`, ending with what opens an image, already repeated for `num_return_sequences`.
        logits_processor, stopping_criteria, generation_config: prepared by `generate`, the caller's own included.
        job: see [`DrawingJob`].
        drawing_streamer: `generate` gives streamers only to its own decoding methods, so it comes bound. One that has an
            attribute `stopped` ends the drawing by setting it.
        synced: whether other processes must run as many forwards (FSDP, ZeRO-3).

    Raises:
        ValueError: if the drawing cannot be done with the window that was asked for.
    """

    def __init__(
        self,
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
    ) -> None:
        self.model, self.job, self.synced = model, job, synced
        self.generation_config, self.cache = generation_config, model_kwargs["cache"]
        self.plan = job.plan.to(input_ids.device)
        self.window = _window(model, job, logits_processor, model_kwargs, len(input_ids))
        self.decoder = PairedDecoder(
            model,
            job.branches,
            job.tasks,
            len(input_ids) // len(job.tasks),
            self.cache,
            self.plan.length,
            job.attend_padding,
            generation_config,
            job.null_prompt_cache,
            {name: True for name in ("output_hidden_states", "output_attentions") if model_kwargs.get(name)},
        )
        self.record = Record(generation_config, len(input_ids))
        self.rules = ScoreRules(model, job.guidance_scales, logits_processor, job.guidance_min_p)
        pad = generation_config._pad_token_tensor
        self.delivery = Delivery(input_ids, self.plan.length, pad, drawing_streamer, stopping_criteria)
        self.gave_up_at: int | None = None
        # Ids `(B, k)` that the next forward takes; None before the first one, behind the last one, and with windows.
        self.asked: torch.Tensor | None = None
        self._forwards = self._code_by_code(input_ids) if self.window == 1 else self._by_windows(input_ids)

    @torch.no_grad()
    def advance(self) -> bool:
        """One forward, and all that follows from it; returns whether there is more to come."""
        if self.asked is None:
            return self.go_on(None)
        self.model._has_unfinished_sequences(False, self.synced, device=self.asked.device)
        return self.go_on(self.decoder.step(self.asked.to(self.model.device)))

    @torch.no_grad()
    def go_on(self, outputs: Any) -> bool:
        """All that follows from a forward over what was `asked`, wherever it ran; returns whether there is more to come.

        Args:
            outputs: of the model; None where nothing was asked.
        """
        try:
            self.asked = self._forwards.send(outputs)
        except StopIteration:
            self.asked = None
            return False
        return True

    def let_go_of_cache(self) -> None:
        """For those who have taken over what is in the cache, and run all further forwards."""
        self.cache = self.decoder.cache = self.decoder.step_mask = None

    def stop(self) -> None:
        """Ends it where it is; [`~DrawingRun.finish`] then gives what there is."""
        self._forwards.close()
        self.asked = None

    @torch.no_grad()
    def finish(self) -> DrawingOutput | torch.LongTensor:
        """Draws what is left.

        Returns:
            `(B, L + N)` ids, or [`DrawingOutput`] if `return_dict_in_generate`. `scores` are what a code is chosen
            from (guided, processed), `logits` the raw conditional ones, all `(B, vocab_size + codebook_size)`, one entry
            per new token; forced tokens have all their weight on themselves.
        """
        while self.advance():
            pass
        self.decoder.give_back()
        sequences = self.delivery.so_far
        device = sequences.device
        while self.synced and self.model._has_unfinished_sequences(True, self.synced, device=device):
            self.model(input_ids=sequences[:1, :1].to(self.model.device), use_cache=False, image_task=0)
        self.delivery.end()
        if self.generation_config.return_dict_in_generate:
            return self.record.result(sequences, self.cache, self.plan.grids, self.window, self.gave_up_at)
        return sequences

    def _code_by_code(self, input_ids: torch.LongTensor) -> Generator[torch.Tensor, Any, None]:
        """One position after the other; a turn ends behind each forward and the forced tokens that follow it.

        Yields:
            The ids that the next forward takes; its outputs come back.
        """
        delivery, model = self.delivery, self.model
        choose = Chooser(
            self.rules, self.plan, self.job.generator, self.generation_config, self.record, input_ids.shape[1]
        )
        fed = delivery.length
        # a compiled step has one graph per number of new tokens: given codes are then fed one by one
        computed = self.plan.is_code if self.decoder.compiles else self.plan.is_open
        for position, is_open in enumerate(self.plan.is_open):
            image_logits = None
            if position == 0 or any(computed[position]):
                so_far = delivery.so_far
                if position == 0:
                    model._has_unfinished_sequences(False, self.synced, device=so_far.device)
                    outputs = self.decoder.resume() if self.job.resumes else self.decoder.prefill()
                else:
                    outputs = yield so_far[:, fed:]
                fed = delivery.length
                self.record.forward(outputs, is_open)
                image_logits = outputs.image_logits[:, -1].to(device=so_far.device, dtype=torch.float32)
            if delivery.put(choose(delivery.so_far, image_logits, position), self.record.scores):
                break

    def _by_windows(self, input_ids: torch.LongTensor) -> Generator[None, Any, None]:
        """Several positions at a time, in forwards of its own; what goes wrong leaves the caller's cache right."""
        job, model, delivery = self.job, self.model, self.delivery
        noise = None
        if self.generation_config.do_sample:
            reach = 2 * self.window + 2  # guesses, and those of the window behind it
            noise = NoiseAhead(job.generator, self.rules.codebook_size, input_ids.device, self.plan.is_code, reach)
        gives_up = job.window == "auto"
        drawing = WindowDrawing(
            self.decoder, self.rules, self.plan, input_ids, self.window, noise, self.record, gives_up
        )
        device, prompt_length = delivery.so_far.device, delivery.length
        try:
            model._has_unfinished_sequences(False, self.synced, device=device)
            drawing.begin(resumes=job.resumes)
            while not drawing.deliver(delivery) and not drawing.complete:
                yield
                model._has_unfinished_sequences(False, self.synced, device=device)
                drawing.advance()
        finally:
            drawing.end(delivery.length - prompt_length)
            self.gave_up_at = drawing.gave_up_at


def _window(
    model: Any, job: DrawingJob, processors: LogitsProcessorList, model_kwargs: dict[str, Any], num_images: int
) -> int:
    """The window to draw with: 1 where windows cannot be and were not insisted on.

    Raises:
        ValueError: where they cannot be, but were asked for by number.
    """
    window = auto_window(num_images, model.device) if job.window == "auto" else int(job.window)
    window = min(window, job.plan.length)
    reason = None if window == 1 else _why_no_windows(model, processors, model_kwargs)
    if reason is None:
        return window
    if job.window != "auto":
        raise ValueError(f"`window` is {job.window}, but {reason}; leave it out to draw code by code.")
    logger.warning("Drawing code by code in spite of window='auto': %s.", reason)
    return 1


def _why_no_windows(model: Any, processors: LogitsProcessorList, model_kwargs: dict[str, Any]) -> str | None:
    """Why several codes cannot be decided in one forward, or None if they can."""
    text_config = model.config.get_text_config()
    for name in ("output_hidden_states", "output_attentions"):
        if model_kwargs.get(name):
            return f"`{name}` of a forward over guesses would not be those of the codes"
    if text_config._attn_implementation not in ("sdpa", "eager"):
        return (
            f"attention {text_config._attn_implementation!r} cannot take the mask that windows need (load the model with "
            'attn_implementation="sdpa")'
        )
    if set(text_config.layer_types) != {"full_attention"}:
        return "the model has layers that do not attend to all tokens"
    for processor in processors:
        if not works_in_windows(processor):
            return (
                f"{type(processor).__name__} may depend on the order in which it is asked (give it an attribute "
                "`row_wise = True` if it keeps nothing between calls and treats each row of ids and scores for itself)"
            )
    return None
