"""Text by transformers' own `generate` and continuous batching, in which no drawing token is chosen."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from ..common.navit_prefixes import behind_cache
from .inputs import look_up
from .text_inputs import TextInputsMixin
from .text_positions import TextPositionsMixin
from .wallaroo_prefixes import WallarooReader

__all__ = ["WritingMixin"]


class WritingMixin(TextInputsMixin, TextPositionsMixin):
    """What text mode adds to transformers'."""

    def _write(
        self,
        inputs: torch.Tensor | None,
        generation_config: GenerationConfig | None,
        kwargs: dict[str, Any],
        may_draw: bool = False,
    ) -> Any:
        """`generate` for text; what a kept cache holds of the prompt is not read again.

        Args:
            inputs, generation_config, kwargs: as in transformers.
            may_draw: what opens an image can be chosen after all, which says that an image comes next.
        """
        lookup = functools.partial(look_up, generation_config, self.generation_config)
        own = lookup("suppress_tokens", kwargs.get("suppress_tokens"), [])
        kwargs["suppress_tokens"] = self._never_written(own, may_draw)
        if lookup("cache_implementation", kwargs.get("cache_implementation"), None) == "paged":
            return super().generate(inputs, generation_config, **kwargs)  # lists of ids, see `generate_batch`
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        if input_ids is not None:
            types = kwargs.pop("mm_token_type_ids", None)
            types = self.model.mm_token_type_ids(input_ids) if types is None else types
            if bool(types.any()):  # text needs none, and an assistant that knows text only would refuse them
                kwargs["mm_token_type_ids"] = types
        kwargs = behind_cache(WallarooReader(self), input_ids, kwargs)
        self._check_prompt(input_ids, kwargs, lookup("prefill_chunk_size", kwargs.get("prefill_chunk_size"), None))
        return super().generate(inputs, generation_config, **kwargs)

    def _check_prompt(self, input_ids: torch.Tensor | None, kwargs: dict[str, Any], chunk_size: int | None) -> None:
        longest = self.config.text_config.max_position_embeddings
        prompt = input_ids if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        if prompt is not None and prompt.shape[1] > longest:
            raise ValueError(
                f"The prompt has {prompt.shape[1]} tokens, but the model has {longest} positions; shorten it"
                f"{', or show fewer or smaller frames of its video' if kwargs.get('video_grid_thw') is not None else ''}."
            )
        if chunk_size is not None and kwargs.get("source_pixel_values") is not None:
            raise ValueError(
                f"`prefill_chunk_size={chunk_size}` would cut the source of an edit in two; leave it out with such prompts."
            )

    def _never_written(self, suppressed: Sequence[int], may_draw: bool = False) -> list[int]:
        """Ids that text never holds: the caller's and those of drawing, but for what opens an image if it may."""
        never = set(self.config.drawing_token_ids) - set(self.config.image_start_token_ids if may_draw else ())
        return sorted(never | {int(token) for token in suppressed})

    # ----------------------------------------------------------------------------------------- continuous batching

    def init_continuous_batching(self, generation_config: GenerationConfig | None = None, **kwargs: Any) -> Any:
        """As in transformers: the manager of a batch that requests join and leave. No drawing token is chosen.

        Args:
            generation_config: of all requests; default: the model's.
            kwargs: as in transformers.
        """
        config = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        config.suppress_tokens = self._never_written(config.suppress_tokens or [])
        return super().init_continuous_batching(config, **kwargs)

    def generate_batch(self, inputs: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        """As in transformers: text of any number of prompts, each of which joins as others finish.

        Args:
            inputs: ids of each prompt, without padding and without images.
            args, kwargs: as in transformers.

        Returns:
            transformers' `GenerationOutput` by the names of requests.

        Raises:
            ValueError: for prompts with images: a batch of requests has no place for pixels.
        """
        vocab_size = self.config.text_config.vocab_size
        pictures = {self.config.image_token_id, self.config.video_token_id, self.config.generate_image_token_id}
        for number, ids in enumerate(inputs):
            if any(int(token) >= vocab_size or int(token) in pictures for token in ids):
                raise ValueError(
                    f"Prompt {number} holds an image, but continuous batching takes text only; use `generate` for it."
                )
        return super().generate_batch([[int(token) for token in ids] for ids in inputs], *args, **kwargs)
