"""What processors of several families do alike, beside what transformers' own does: [`ProcessorBase`]."""

import difflib
import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from ..files.whole_text import printable
from ..pictures.fitting import fit_back
from ..pictures.opening import open_image
from .special_words import marked_tokens, refuse_in_chats

__all__ = ["PaddedOnTheLeft", "ProcessorBase"]

# Arguments of `apply_chat_template` that do not change how a text is written, or cut it.
_NO_TEMPLATE_VARIABLES = (
    *("continue_final_message", "return_assistant_tokens_mask", "tokenize", "return_tensors", "return_dict"),
    *("load_audio_from_video", "processor_kwargs", "sanitize_control_tokens"),
)


class PaddedOnTheLeft(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments for the tokenizer (`text_kwargs`) and the image processor (`images_kwargs`)."""

    _defaults = {"text_kwargs": {"padding": True, "padding_side": "left"}}


class ProcessorBase(ProcessorMixin):
    """Checks of chats and keywords, and the ways back from ids and pictures.

    Attributes:
        video_keywords: what may be said of videos by itself, as well as in `videos_kwargs`.
    """

    tokenizer: Any
    image_processor: Any
    kwargs_class: ClassVar[type[ProcessingKwargs]] = PaddedOnTheLeft
    video_keywords: ClassVar[frozenset[str]] = frozenset()

    @property
    def special_words(self) -> tuple[str, ...]:
        """The tokens that users' words must not spell: all that the tokenizer marks as special."""
        return marked_tokens(self.tokenizer, lambda token: False)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Does nothing, as for the configuration: saving must not copy the package's code into the folder."""

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: list[Any] | None = None,
        documents: list[dict[str, str]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Writes chats out, and prepares them if `tokenize` is set; see transformers for the arguments.

        Args:
            conversation: one chat or a list of them.
            chat_template: another one than the tokenizer's.
            tools, documents: for templates that show them.
            kwargs: transformers' further arguments, and variables of the template.

        Raises:
            ValueError: if a text spells a special token, alone or together with what it stands beside: it would end its
                turn, or pass for an image. See [`wallaroo_hf.common.special_words`] for which tokens those are.
        """
        render = functools.partial(super().apply_chat_template, chat_template=chat_template)
        said = {"conversation": conversation, "tools": tools, "documents": documents}
        variables = {name: value for name, value in kwargs.items() if name not in _NO_TEMPLATE_VARIABLES}
        refuse_in_chats(render, said, variables, self.special_words)
        return render(**said, **kwargs)

    def _merged_kwargs(self, kwargs: dict[str, Any], also_hinted: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Sorts keyword arguments by modality, as every processor does, but refuses unknown ones.

        Args:
            kwargs: as given, without those that the processor names itself.
            also_hinted: names of these, which may have been meant.

        Raises:
            TypeError: for an argument that there is not.
            ValueError: for one of another type.
        """
        known = set(TextKwargs.__annotations__) | set(self.image_processor.valid_kwargs.__annotations__)
        known |= set(self.kwargs_class.__annotations__) | set(ProcessingKwargs.__annotations__) | {"common_kwargs"}
        known |= self.video_keywords
        for key in kwargs:
            if key not in known:
                close = difflib.get_close_matches(key, [*known, *also_hinted], 1)
                hint = f"; did you mean `{close[0]}`?" if close else "."
                raise TypeError(f"{type(self).__name__} got an unexpected argument `{key}`{hint}")
        try:
            return self._merge_kwargs(self.kwargs_class, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        except StrictDataclassError as error:  # of several lines
            reason = printable(str(error).strip().splitlines()[-1].strip(), 200)
            raise ValueError(f"An argument of {type(self).__name__} cannot be used ({reason}); correct it.") from error

    def fit_back(
        self, images: Sequence[Image.Image], sources: Sequence[Any], source_fit: str = "crop"
    ) -> list[Image.Image]:
        """Brings edited images back to the scale of their sources; see [`wallaroo_hf.pictures.fitting.fit_back`].

        Args:
            images: edited images, one per source.
            sources: the images that were edited, as they were given.
            source_fit: as it was given when the inputs were prepared.
        """
        return [fit_back(image, open_image(source), source_fit) for image, source in zip(images, sources, strict=True)]

    def post_process_image_text_to_text(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[str]:
        """Decodes token ids `(B, T)` into text; ids beyond the tokenizer's, such as image codes, are left out."""
        rows = generated_outputs.tolist() if hasattr(generated_outputs, "tolist") else generated_outputs
        known = len(self.tokenizer)
        return self.tokenizer.batch_decode(
            [[token for token in row if token < known] for row in rows],
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
