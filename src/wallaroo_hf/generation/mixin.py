"""`generate()` for answering, drawing and editing: text goes the stock way, images through [`draw`]."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.configuration_utils import ALL_STATIC_CACHE_IMPLEMENTATIONS
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import is_flash_attention_requested

from ..common.drawn_values import read_count
from ..common.room import no_room
from ..layout.wallaroo_abilities import DEFAULT_GUIDANCE_SCALE
from .attention import static_cache_length
from .auto import generate_auto
from .branches import align, guidance_branches, take_branch
from .cache import roomy_cache
from .decoding import decode_rows, last_image_spans
from .doors import DoorsMixin
from .drawing import DrawingArguments, DrawingJob, DrawingRun, DrawingSettings
from .inpainting import given_codes
from .inputs import (
    IMAGE_SAMPLING,
    check_scale,
    check_window,
    look_up,
    needs_sync,
    refuse_impossible,
    refuse_unknown_entries,
)
from .logits_processors import check_guidance_min_p
from .null_prompts import NullPromptCache
from .outputs import DrawingOutput
from .plan import plan_drawing
from .streamers import ImageStreamer
from .wallaroo_prefixes import Memory
from .writing import WritingMixin

__all__ = ["WallarooGenerationMixin"]

GENERATION_MODES = ("text", "image", "auto")
# Entries of a generation config that mean the same for text and images; the others there are about text, and count in
# image mode only as arguments.
_SHARED_ENTRIES = {
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "do_sample",
    "max_cache_len",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
}


class WallarooGenerationMixin(DoorsMixin, WritingMixin):
    """Adds `generation_mode="image"` to transformers' `generate`, and the way back from ids to pixels."""

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *,
        generation_mode: str | None = None,
        guidance_scale: float | None = None,
        source_guidance_scale: float | None = None,
        guidance_min_p: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        line_breaks: bool | None = None,
        attend_padding: bool | None = None,
        null_prompt_cache: NullPromptCache | None = None,
        window: int | str | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""Answers (`generation_mode="text"`, the default), draws (`"image"`), or does both as it sees fit (`"auto"`).

        Takes exactly the processor's tensors. Text mode is transformers' own `generate`. In image mode, sampling settings
        come from the arguments, else from the `image_` entries of the generation config; its other sampling entries are
        about text.

        Args:
            inputs, generation_config, logits_processor, stopping_criteria: as in transformers.
            generation_mode: `"text"`, `"image"`, or `"auto"`: text and images alternate, one row at a time; see
                [`generate_auto`], also for what the arguments mean there.
            guidance_scale: image mode: classifier-free guidance `l_u + scale (l_c - l_u)`; off at 1 and below. Default:
                the generation config's `image_guidance_scale`, else 3.
            source_guidance_scale: image mode, edits: two-scale guidance
                `l_u + source_scale (l_s - l_u) + scale (l_c - l_s)`, where `l_s` has the source but no instruction; needs
                `processor(..., source_guidance=True)`. The released recipe never trained that branch. Default: off.
            guidance_min_p: image mode: before guidance is added, keep only codes whose conditional probability is at least
                this share of the largest, see [`ImageGuidanceLogitsProcessor`]; no effect where guidance is off. Default:
                the generation config's `image_guidance_min_p`, else 0 (off).
            generator: image mode: one `torch.Generator`, or one per image; see [`GumbelNoise`] for what seeds promise.
            line_breaks: image mode: whether `<|end_of_line>|` stands between rows. Default: the generation config's
                entry, else True.
            attend_padding: image mode: reproduce the released decoding loop, in which left padding is attended after the
                prefill. Default: the generation config's entry, else False.
            null_prompt_cache: image mode: keeps the prefill of null prompts from call to call; see
                [`NullPromptCache`].
            window: images: how many tokens of each image a forward may decide. The codes are those that come one by one,
                found in fewer forwards; see docs/windows.md. `"auto"` chooses by device and number of images. Processors
                of your own that keep nothing between calls and treat each row for itself say so by `row_wise = True`; with
                others windows are refused. Default: 1, one code at a time.
            kwargs: the processor's tensors, `top_k`, `top_p`, `temperature`, `do_sample`, `num_return_sequences`,
                `streamer`, `cache`, `cache_implementation`, `return_dict_in_generate` and the like.

        Returns:
            Ids `(B * num_return_sequences, T)`, prompt and new ones, right-padded, or a `GenerateDecoderOnlyOutput`, in
            image mode a [`DrawingOutput`].

        Raises:
            ValueError: for modes and arguments that cannot work; one sentence each.
        """
        kwargs |= {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        if generation_mode not in (None, *GENERATION_MODES):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        check_window(window)
        if generation_mode in ("image", "auto"):
            kwargs["input_ids"] = inputs if inputs is not None else kwargs.get("input_ids")
            arguments = DrawingArguments(
                guidance_scale,
                source_guidance_scale,
                guidance_min_p,
                generator,
                line_breaks,
                attend_padding,
                null_prompt_cache,
                window,
            )
            if generation_mode == "image":
                return self._begin_drawing(arguments, generation_config, kwargs).finish()
            return self._alternate(arguments, generation_config, kwargs)
        for name, value in (
            ("source_guidance_scale", source_guidance_scale),
            ("guidance_min_p", guidance_min_p),
            ("generator", generator),
            ("line_breaks", line_breaks),
            ("attend_padding", attend_padding),
            ("null_prompt_cache", null_prompt_cache),
            ("window", window),
        ):
            if value is not None:
                raise ValueError(f"`{name}` is for drawing; pass generation_mode='image' with it.")
        if kwargs.get("num_return_sequences") is not None:
            read_count("num_return_sequences", kwargs["num_return_sequences"])
        if guidance_scale is not None:
            check_scale("guidance_scale", guidance_scale)
            kwargs["guidance_scale"] = guidance_scale
        return self._write(inputs, generation_config, kwargs)

    # ----------------------------------------------------------------------------------------------------- drawing

    def _complete(
        self, arguments: DrawingArguments, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> DrawingSettings:
        """What was asked for, with the generation configs' entries and the defaults where nothing was."""
        lookup = functools.partial(look_up, generation_config, self.generation_config)
        if "prepare_inputs_for_generation" in vars(self):  # put there by PEFT's prompt learning, and not asked here
            raise ValueError(
                "This model has a learned prompt (PEFT's prompt tuning), which drawing would leave out; train LoRA to draw "
                "otherwise."
            )
        refuse_impossible(kwargs, lookup)
        for config in (self.generation_config, generation_config):
            refuse_unknown_entries(config)
        min_p = lookup("image_guidance_min_p", arguments.guidance_min_p, 0.0)
        check_guidance_min_p(min_p)
        scale = lookup("image_guidance_scale", arguments.guidance_scale, DEFAULT_GUIDANCE_SCALE)
        check_scale("guidance_scale", scale)
        check_scale("source_guidance_scale", arguments.source_guidance_scale)
        return DrawingSettings(
            scale,
            arguments.source_guidance_scale,
            min_p,
            arguments.generator,
            lookup("line_breaks", arguments.line_breaks, True),
            lookup("attend_padding", arguments.attend_padding, False),
            arguments.null_prompt_cache,
            arguments.window or 1,
        )

    def _alternate(
        self,
        arguments: DrawingArguments,
        generation_config: GenerationConfig | None,
        kwargs: dict[str, Any],
        image_sampling: Mapping[str, Any] | None = None,
        memory: Memory | None = None,
    ) -> Any:
        """`generation_mode="auto"`; see [`generate_auto`]."""
        for name in ("source_guidance_scale", "attend_padding", "null_prompt_cache"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"`{name}` cannot be used with generation_mode='auto'; leave it out.")
        settings = self._complete(arguments, generation_config, kwargs)
        return generate_auto(self, generation_config, settings, kwargs, image_sampling, memory)

    def _begin_drawing(
        self, arguments: DrawingArguments, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> DrawingRun:
        """A drawing that is prepared and not begun.

        Args:
            arguments: as given to `generate`.
            generation_config: as given to `generate`.
            kwargs: the processor's tensors, and further arguments of `generate`.
        """
        settings = self._complete(arguments, generation_config, kwargs)
        lookup = functools.partial(look_up, generation_config, self.generation_config)
        copies = read_count(
            "num_return_sequences", lookup("num_return_sequences", kwargs.get("num_return_sequences"), 1)
        )
        job = self._drawing_job(kwargs, copies, settings)
        if isinstance(kwargs.get("streamer"), ImageStreamer):
            kwargs["streamer"].expect(job.plan.grids)
        return self._run(job, generation_config, kwargs)

    def _drawing_job(
        self,
        kwargs: dict[str, Any],
        copies: int,
        settings: DrawingSettings,
    ) -> DrawingJob:
        """Takes the processor's tensors out of `kwargs` and checks that they can be drawn from."""
        conditional = take_branch(kwargs, "")
        null = take_branch(kwargs, "negative_")
        unprompted = take_branch(kwargs, "unprompted_")
        grids, masks = kwargs.pop("target_grid_hw", None), kwargs.pop("repaint_mask", None)
        starts = set(self.config.image_start_token_ids)
        if conditional is None or not starts.issuperset(conditional.input_ids[:, -1].tolist()):
            raise ValueError(
                "The prompts were not prepared for drawing (they do not end with <|generate_start|>); pass "
                'generation_mode="image" to the processor too, in pipelines as '
                'processor_kwargs={"generation_mode": "image"}.'
            )
        if grids is None:
            raise ValueError("`target_grid_hw` is missing; pass all tensors that the processor returned.")
        tasks = self.model.last_image_tasks(conditional.input_ids).tolist()
        self.config.require_tasks(tasks)
        if settings.attend_padding and is_flash_attention_requested(self.config):
            raise ValueError(
                "`attend_padding=True` needs a mask that flash attention cannot take; load the model with "
                'attn_implementation="sdpa".'
            )
        branches, scales = guidance_branches(
            conditional, null, unprompted, settings.guidance_scale, settings.source_guidance_scale
        )
        num_grids = [(int(rows), int(cols)) for rows, cols in torch.as_tensor(grids).tolist()]
        if len(num_grids) != len(tasks):
            raise ValueError(
                f"`target_grid_hw` has {len(num_grids)} rows, but there are {len(tasks)} prompts; give one per prompt."
            )
        plan = plan_drawing(
            [grid for grid in num_grids for _ in range(copies)],
            settings.line_breaks,
            self.config.end_of_line_token_id,
            self.config.generate_end_token_id,
            self._pad_token_id(kwargs),
            given_codes(self, conditional, masks, num_grids, copies),
        )
        branches = align(branches, self._pad_token_id(kwargs), self.device)
        return DrawingJob(
            branches,
            scales,
            plan,
            tasks,
            settings.attend_padding,
            settings.generator,
            null_prompt_cache=settings.null_prompt_cache,
            window=settings.window,
            guidance_min_p=settings.guidance_min_p,
        )

    def _run(self, job: DrawingJob, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> DrawingRun:
        """Calls transformers' `generate` with the drawing method and with settings that concern images only."""
        for name in ("max_new_tokens", "max_length"):
            prompt_length = job.branches[0].input_ids.shape[1] if name == "max_length" else 0
            limit = kwargs.pop(name, None)
            if limit is not None and limit < prompt_length + job.plan.length:
                raise ValueError(
                    f"`{name}` is {limit}, but these images need {prompt_length + job.plan.length}; leave it out "
                    "(the image size decides) or ask for a smaller image."
                )
        longest = self.config.text_config.max_position_embeddings
        prompt = job.branches[0].input_ids
        if prompt.shape[1] + job.plan.length > longest:  # branches are aligned
            seen = int((prompt == self.config.image_token_id).sum(dim=1).max())
            raise no_room(prompt.shape[1] - seen, seen + job.plan.length, longest)
        settings = self._image_settings(generation_config, kwargs)
        self._refuse_forward_arguments(kwargs)
        past = kwargs.get("cache")
        if past is not None and int(past.get_seq_length()) > 0 and not job.resumes:
            raise ValueError("`cache` is not empty, but drawing starts from the prompt; pass an empty cache.")
        if past is None:
            self._provide_cache(job, kwargs, settings)
        streamer = kwargs.pop("streamer", None)
        synced = kwargs.pop("synced_gpus", None)
        if synced is None:
            synced = needs_sync(self)
        method = functools.partial(DrawingRun, job=job, drawing_streamer=streamer, synced=synced)
        return super().generate(
            custom_generate=method,
            streamer=streamer,
            synced_gpus=synced,
            input_ids=job.branches[0].input_ids,
            attention_mask=job.branches[0].attention_mask,
            **kwargs | settings | {"max_new_tokens": job.plan.length, "max_length": None},
        )

    def _provide_cache(self, job: DrawingJob, kwargs: dict[str, Any], settings: dict[str, Any]) -> None:
        """A cache with room for the drawing, or the length of the static cache that transformers will make."""
        implementation = kwargs.get("cache_implementation", settings.get("cache_implementation"))
        prompt_length, num_new_tokens = max(branch.input_ids.shape[1] for branch in job.branches), job.plan.length
        if implementation is None:
            text_config = self.config.get_text_config(decoder=True)
            kwargs["cache"] = roomy_cache(text_config, prompt_length + num_new_tokens)
        elif implementation in ALL_STATIC_CACHE_IMPLEMENTATIONS:
            asked = kwargs.pop("max_cache_len", None) or settings.get("max_cache_len") or 0
            settings["max_cache_len"] = max(asked, static_cache_length(prompt_length, num_new_tokens))

    def _refuse_forward_arguments(self, kwargs: dict[str, Any]) -> None:
        """Whatever `forward` would take but drawing does not read must not pass in silence."""
        meant_for_forward = set(inspect.signature(self.forward).parameters) - {"cache", "use_cache"}
        for name in meant_for_forward & set(kwargs):
            if kwargs[name] is not None:
                raise ValueError(
                    f"`{name}` is an argument of `forward` and has no meaning while drawing; leave it out."
                )

    def _image_settings(self, passed: GenerationConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Generation settings as arguments: shared entries kept, text entries switched off, image entries put in."""
        settings: dict[str, Any] = {}
        for config in (self.generation_config, passed):
            if config is None:
                continue
            for key, value in config.to_diff_dict().items():
                settings[key] = value if key in _SHARED_ENTRIES else None
        stock = GenerationConfig()
        settings = {key: value for key, value in settings.items() if hasattr(stock, key)}
        settings.pop("transformers_version", None)
        settings["eos_token_id"] = None
        do_sample = kwargs.get("do_sample")
        do_sample = look_up(passed, self.generation_config, "do_sample", do_sample, True)
        settings["do_sample"] = do_sample
        settings["pad_token_id"] = self._pad_token_id(kwargs)
        for key in IMAGE_SAMPLING:
            value = look_up(passed, self.generation_config, f"image_{key}", kwargs.pop(key, None), None)
            settings[key] = value if do_sample else None
        given = {key for key, value in kwargs.items() if value is not None}
        return {key: value for key, value in settings.items() if key not in given}

    def _pad_token_id(self, kwargs: dict[str, Any]) -> int:
        candidates = (
            kwargs.get("pad_token_id"),
            self.generation_config.pad_token_id,
            self.config.text_config.bos_token_id,
        )
        return next(int(value) for value in candidates if value is not None)

    # --------------------------------------------------------------------------------------------------- to pixels

    @torch.no_grad()
    def decode_image_tokens(
        self,
        tokens: torch.Tensor | DrawingOutput,
        target_grid_hw: torch.Tensor | Sequence[Sequence[int]] | None = None,
        allow_partial: bool = False,
    ) -> torch.Tensor | list[torch.Tensor]:
        """Decodes the last image of each row.

        Args:
            tokens: `(B, T)` ids from `generate`, or its whole output, which knows the grids.
            target_grid_hw: `(B, 2)` rows and columns, needed only for ids of images that are drawn without line breaks and
                are not square.
            allow_partial: decode the complete rows of images that were stopped, instead of refusing them.

        Returns:
            Pixels `(B, 3, H, W)`, float32, around [-1, 1] and unclamped; a list of `(3, H, W)` if sizes differ.

        Raises:
            ValueError: if a row has no image, an incomplete one, or one whose grid cannot be told.
        """
        if isinstance(tokens, DrawingOutput):
            target_grid_hw = tokens.target_grid_hw if target_grid_hw is None else target_grid_hw
            tokens = tokens.sequences
        grids = last_image_spans(tokens, target_grid_hw, self.config, allow_partial)
        return decode_rows(self.model.vq_model, [grid.to(self.device) for grid in grids])
