"""`Conversation`: a chat in which the model answers and draws, told piece by piece as it comes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image

from .families.abilities import Abilities
from .families.contract import Answer, DrawingModel, DrawingProcessor, Step, TextSettings
from .families.prefixes import MEBIBYTE, Prefixes, PrefixStore
from .families.registry import abilities_of
from .families.text_decoder import TextDecoder

__all__ = ["Conversation"]

Piece: TypeAlias = str | Image.Image
# Called with a new bit of text. Both callbacks stop the answer by returning False.
TextCallback: TypeAlias = Callable[[str], bool | None]
# Called with a function that gives what is there as a picture, with the number of rows or steps done, and with that of all.
StepCallback: TypeAlias = Callable[[Callable[[], Image.Image | None], int, int], bool | None]
_ROOM = 16  # tokens of words that must fit beside a picture
DEFAULT_PREFIX_CACHE = 512  # mebibytes


class Conversation:
    """A chat with a model, in `generation_mode="auto"`: the model decides when to draw, if it was trained to.

    An image that the model drew last, or that the user gives, is the source of what the user asks for next.

    Args:
        model, processor: of one checkpoint.
        seed: of the first answer; the next one has the next seed.
        max_new_tokens: longest answer, in text tokens.
        size: `height`, `width` or `aspect_ratio` of what is drawn; default: the listed size nearest to the picture that was
            drawn or shown last, else the most square one.
        guidance_scale, guidance_min_p: of what is drawn, see `generate`; default: the checkpoint's.
        settings: further settings of what is drawn, see [`Abilities`].
        prefix_cache: mebibytes for what the model has read, beside the model: a turn reads only what is new in the chat.
            Sums are then formed in other groups, as in batches of another size: logits differ in their last bits. 0 = each
            turn reads the whole chat. Or what an owner has in a [`PrefixStore`] that is shared.

    Raises:
        ValueError: for a setting that cannot be, or that the checkpoint does not have.
    """

    def __init__(
        self,
        model: DrawingModel,
        processor: DrawingProcessor,
        seed: int = 0,
        max_new_tokens: int = 512,
        size: dict[str, Any] | None = None,
        guidance_scale: float | None = None,
        guidance_min_p: float | None = None,
        settings: Mapping[str, Any] | None = None,
        prefix_cache: int | Prefixes = DEFAULT_PREFIX_CACHE,
    ) -> None:
        self.model, self.processor = model, processor
        self.abilities: Abilities = abilities_of(model, processor)
        named = {"guidance_scale": guidance_scale, "guidance_min_p": guidance_min_p}
        self.settings = self.abilities.check_settings({**named, **(settings or {})})
        self.seed, self.max_new_tokens, self.size = seed, max_new_tokens, dict(size or {})
        self.messages: list[dict[str, Any]] = []
        self.partial = False  # whether something is missing of the last picture of the last answer
        self.reused_tokens = 0  # of the last turn's prompt: those that were read before
        if isinstance(prefix_cache, Prefixes):
            self.prefixes = prefix_cache
        else:
            self.prefixes = PrefixStore(prefix_cache * MEBIBYTE).of()
        self._answered: list[Piece] = []

    def say(
        self,
        text: str,
        images: Sequence[Image.Image] = (),
        on_text: TextCallback | None = None,
        on_row: StepCallback | None = None,
        videos: Sequence[Any] = (),
    ) -> list[Piece]:
        """Says something and gets the answer.

        Args:
            text: the user's words.
            images: shown with them.
            videos: shown with them, in any form that the processor takes; in a chat with videos nothing is drawn.
            on_text: called with each new bit of the answer's text; returning False stops the answer.
            on_row: called as `on_row(preview, rows, of)` after each row or step of what is drawn, where `preview()` is a
                picture of what is there; returning False stops the answer.

        Returns:
            The answer: texts and pictures, in order. Of a picture that was stopped, what is there; `partial` then
            says that the last one is such a picture.

        Raises:
            ValueError: if the words are empty, or chat and answer do not fit into the model; the chat then stays as it was.
        """
        if not text.strip():
            raise ValueError("The message is empty; say something.")
        if videos:
            self.abilities.check_answers({}, videos=True)
        messages = self._with(text, images, videos)
        mode: Literal["text", "auto"] = "auto" if self._may_draw(messages) else "text"
        size = self.size if mode == "auto" else {}
        inputs = self.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"generation_mode": mode, **size, **self.abilities.for_answers(self.settings)},
        ).to(self.model.device, dtype=self.model.dtype)
        listener = _ChatListener(self.processor, on_text, on_row)
        answer = self.model.converse(
            inputs,
            mode=mode,
            follow=listener,
            generators=[torch.Generator().manual_seed(self.seed)],
            max_new_tokens=[min(self.max_new_tokens, self._room(inputs, messages))],
            text=TextSettings(),
            drawing=self.settings,
            **({"prefixes": [self.prefixes]} if self.abilities.keeps_prefixes else {}),
        )[0]
        pieces = self._pieces(answer)
        self.messages, self._answered = messages, pieces
        self.reused_tokens = answer.reused_tokens
        self.partial = answer.partial
        self.seed += 1
        return pieces

    def _room(self, inputs: Mapping[str, Any], messages: Sequence[dict[str, Any]]) -> int:
        """How many tokens of words fit beside the chat and a picture.

        Raises:
            ValueError: if there is no room for an answer.
        """
        length, longest, image = inputs["input_ids"].shape[1], self.abilities.max_positions, 0
        if self._may_draw(messages):
            shown = [part["image"] for turn in messages for part in turn["content"] if "image" in part]
            like = shown[-1] if shown and self.abilities.edits else None
            image = self.abilities.image_positions(*self.abilities.pick_size(**self.size, like=like))
        if length + image + _ROOM > longest:
            raise ValueError(
                f"The chat has {length} tokens, which leaves no room for an answer in the model's {longest}; start a new "
                "one."
            )
        return longest - length - image

    def _may_draw(self, messages: Sequence[dict[str, Any]]) -> bool:
        """Whether the model decides if it draws: where it was trained to, in chats without videos."""
        has_videos = any(part["type"] == "video" for turn in messages for part in turn["content"])
        return self.abilities.draws_in_chats and not has_videos

    def _with(self, text: str, images: Sequence[Image.Image], videos: Sequence[Any]) -> list[dict[str, Any]]:
        """The chat with the user's next message."""
        given: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
        given += [{"type": "video", "video": video} for video in videos]
        if not self.messages:
            return [{"role": "user", "content": [*given, {"type": "text", "text": text}]}]
        # what the model wrote may spell a token by chance, and was none then
        plain = self.abilities.without_special_tokens
        answered = [plain(piece) if isinstance(piece, str) else piece for piece in self._answered]
        messages = self.processor.continue_chat(self.messages, answered, text)
        if given:  # what the user shows replaces what was drawn
            messages[-1]["content"] = [*given, {"type": "text", "text": text}]
        return messages

    def _pieces(self, answer: Answer) -> list[Piece]:
        """Words and pictures; words that say nothing are left out."""
        pieces: list[Piece] = []
        for piece in answer.pieces:
            if isinstance(piece, torch.Tensor):
                pieces += self.processor.pictures([piece])
                continue
            words = self.processor.tokenizer.decode(piece, skip_special_tokens=True)
            pieces += [words] if words.strip() else []
        return pieces


class _ChatListener:
    """Tells an answer of one row: its text as it comes, and how far its pictures are."""

    def __init__(
        self, processor: DrawingProcessor, on_text: TextCallback | None, on_step: StepCallback | None
    ) -> None:
        self.processor, self.on_text, self.on_step = processor, on_text, on_step
        self._decoder = TextDecoder.of(processor)

    def token(self, row: int, id: int) -> bool | None:
        bit = self._decoder.put(id)
        return self.on_text(bit) if bit and self.on_text is not None else None

    def image_begins(self, row: int) -> None:
        pass

    def image_step(self, row: int, step: Step) -> bool | None:
        if self.on_step is None:
            return None

        def preview() -> Image.Image | None:
            pixels = step.preview()
            return None if pixels is None else self.processor.pictures([pixels])[0]

        return self.on_step(preview, step.done, step.total)

    def image_done(self, row: int, pixels: torch.Tensor, num_tokens: int) -> None:
        pass

    def ended(self, row: int, answer: Answer) -> None:
        pass
