"""`Conversation`: a chat in which the model answers and draws, told piece by piece as it comes."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image

from .generation import ImageStreamer
from .generation.logits_processors import check_guidance_min_p
from .processing.refused_words import refused_tokens, without_special_tokens

__all__ = ["Conversation"]

Piece: TypeAlias = str | Image.Image
# Called with a new bit of text. Both callbacks stop the answer by returning False.
TextCallback: TypeAlias = Callable[[str], bool | None]
# Called with a function that gives the rows so far as a picture, with their number, and with the number of all.
RowCallback: TypeAlias = Callable[[Callable[[], Image.Image | None], int, int], bool | None]


class Conversation:
    """A chat with a model, in `generation_mode="auto"`: the model decides when to draw.

    An image that the model drew last, or that the user gives, is the source of what the user asks for next.

    Args:
        model, processor: of one checkpoint.
        seed: of the first answer; the next one has the next seed.
        max_new_tokens: longest answer, in text tokens.
        size: `height`, `width` or `aspect_ratio` of what is drawn; default: the listed size nearest to the picture that was
            drawn or shown last, else the most square one.
        guidance_scale, guidance_min_p: of what is drawn, see `generate`; default: the checkpoint's.

    Raises:
        ValueError: for a `guidance_min_p` that cannot be.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        seed: int = 0,
        max_new_tokens: int = 512,
        size: dict[str, Any] | None = None,
        guidance_scale: float | None = None,
        guidance_min_p: float | None = None,
    ) -> None:
        if guidance_min_p is not None:
            check_guidance_min_p(guidance_min_p)
        self.model, self.processor = model, processor
        # the model may have been resized since they were loaded
        processor.first_image_token_id = model.config.text_config.vocab_size
        self.seed, self.max_new_tokens, self.size = seed, max_new_tokens, dict(size or {})
        self.guidance_scale, self.guidance_min_p = guidance_scale, guidance_min_p
        self.messages: list[dict[str, Any]] = []
        self.partial = False  # whether rows are missing of the last picture of the last answer
        self._answered: list[Piece] = []

    def say(
        self,
        text: str,
        images: Sequence[Image.Image] = (),
        on_text: TextCallback | None = None,
        on_row: RowCallback | None = None,
    ) -> list[Piece]:
        """Says something and gets the answer.

        Args:
            text: the user's words.
            images: shown with them.
            on_text: called with each new bit of the answer's text; returning False stops the answer.
            on_row: called as `on_row(preview, rows, of)` after each row that is drawn, where `preview()` is a picture of
                the rows so far; returning False stops the answer.

        Returns:
            The answer: texts and pictures, in order. Of a picture that was stopped, the rows that are there; `partial` then
            says that the last one is such a picture.

        Raises:
            ValueError: if the words are empty, or chat and answer do not fit into the model; the chat then stays as it was.
        """
        if not text.strip():
            raise ValueError("The message is empty; say something.")
        messages = self._with(text, images)
        inputs = self.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"generation_mode": "auto", **self.size},
        ).to(self.model.device, dtype=self.model.dtype)
        length = inputs["input_ids"].shape[1]
        longest = self.model.config.text_config.max_position_embeddings
        rows, cols = (int(edge) for edge in inputs["target_grid_hw"][0])
        if length + rows * (cols + 1) + 16 > longest:
            raise ValueError(
                f"The chat has {length} tokens, which leaves no room for an answer in the model's {longest}; start a new "
                "one."
            )
        room = longest - length - rows * (cols + 1)
        streamer = _ChatStreamer(self.model, self.processor, inputs["target_grid_hw"], on_text, on_row)
        tokens = self.model.generate(
            **inputs,
            generation_mode="auto",
            do_sample=True,
            top_k=1,  # of the text, which is the likeliest one; images have settings of their own
            max_new_tokens=min(self.max_new_tokens, room),
            generator=torch.Generator().manual_seed(self.seed),
            guidance_scale=self.guidance_scale,
            guidance_min_p=self.guidance_min_p,
            streamer=streamer,
        )
        answer = self._pieces(tokens[0, length:].tolist(), streamer)
        self.messages, self._answered = messages, answer
        self.seed += 1
        return answer

    def _with(self, text: str, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """The chat with the user's next message."""
        given: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
        if not self.messages:
            return [{"role": "user", "content": [*given, {"type": "text", "text": text}]}]
        # what the model wrote may spell a token by chance, and was none then
        refused = refused_tokens(self.processor.tokenizer)
        answered = [
            without_special_tokens(piece, refused) if isinstance(piece, str) else piece for piece in self._answered
        ]
        messages = self.processor.continue_chat(self.messages, answered, text)
        if given:  # what the user shows replaces what was drawn
            messages[-1]["content"] = [*given, {"type": "text", "text": text}]
        return messages

    def _pieces(self, ids: list[int], streamer: "_ChatStreamer") -> list[Piece]:
        pieces: list[Piece] = []
        rows = None
        if streamer.is_inside_image:  # it was stopped there
            rows = streamer.preview()
            ids = ids[: -ids[::-1].index(self.model.config.generate_start_token_id)]
        for piece in self.processor.split_output(ids):
            if isinstance(piece, str):
                pieces.append(piece)
                continue
            with torch.no_grad():
                codes = torch.from_numpy(piece)[None].to(self.model.device)
                pixels = self.model.vq_model.decode(codes)
            pieces += self.processor.post_process_multimodal_output(pixels, generation_mode="image")
        self.partial = rows is not None
        return pieces if rows is None else [*pieces, rows]


class _ChatStreamer(ImageStreamer):
    """Follows an answer of one row: its text as it comes, and the rows of its images."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        target_grid_hw: torch.Tensor,
        on_text: TextCallback | None,
        on_row: RowCallback | None,
    ) -> None:
        super().__init__(model, processor, target_grid_hw, on_row=self._report_row)
        self.on_text, self.on_preview = on_text, on_row
        self.said = ""
        self._text: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt `(1, L)` first, then the next ids `(1,)`."""
        is_prompt = not self._drawing
        super().put(value)
        token = None if is_prompt else int(value[0])
        if token is None or token >= self.model.config.text_config.vocab_size:
            return
        self._text.append(token)
        text = self.processor.tokenizer.decode(self._text, skip_special_tokens=True)
        if len(text) > len(self.said) and not text.endswith("\ufffd"):  # a character may take several tokens
            bit, self.said = text[len(self.said) :], text
            if self.on_text is not None and self.on_text(bit) is False:
                self.stop()

    @property
    def is_inside_image(self) -> bool:
        """Whether the last image has begun and is not whole."""
        rows, cols = self.grid(0)
        return 0 < len(self.codes[0]) < rows * cols

    def _report_row(self, _: ImageStreamer, image: int, rows: int) -> bool | None:
        if self.on_preview is None:
            return None
        return self.on_preview(lambda: self.preview(image), rows, self.grid(image)[0])
