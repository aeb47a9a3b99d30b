"""Following answers while they are written, row by row: words, images, ends, and a way to stop each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from ..families.contract import Answer, DrawingProcessor, Step
from ..families.text_decoder import TextDecoder
from .batching import Job
from .requests import Ending, Picture, Text

if TYPE_CHECKING:
    import torch


class RowWriter:
    """One row of a batch of answers.

    Args:
        job: gets the words, the images and the end.
        processor: turns ids into text and pixels into pictures.
    """

    def __init__(self, job: Job, processor: DrawingProcessor) -> None:
        self.job, self.processor = job, processor
        self._begin_text()

    def write(self, token: int) -> bool:
        """Takes the next token of text; returns whether somebody wants more."""
        if self.job.cancelled:
            return False
        self._say(self.text.put(token))
        return not self.text.stopped

    def begin_image(self) -> None:
        """The text before an image is over."""
        if not self.job.cancelled:
            self._say(self.text.end())
            self._begin_text()

    def show(self, image: Image.Image, num_tokens: int) -> None:
        """Takes a finished image."""
        if not self.job.cancelled:
            self.job.emit(Picture(image, num_tokens))

    def finish(self, answer: Answer) -> None:
        """The answer ends here."""
        if self.job.cancelled:
            return
        if not self.text.stopped:
            self._say(self.text.end())
        reason = "stop" if answer.reason == "stopped" else answer.reason  # a stop string is one reason to stop
        self.job.emit(Ending(reason, answer.prompt_tokens, answer.new_tokens, answer.reused_tokens))
        self.job.complete()

    def _begin_text(self) -> None:
        self.text = TextDecoder.of(self.processor, self.job.request.stop)

    def _say(self, text: str) -> None:
        if text:
            self.job.emit(Text(text))


class AnswersListener:
    """Hands what a model says to the writer of its row; see [`wallaroo_hf.families.contract.Listener`].

    Args:
        jobs: one per row.
        processor: turns ids into text and pixels into pictures.
    """

    def __init__(self, jobs: Sequence[Job], processor: DrawingProcessor) -> None:
        self.processor = processor
        self.rows = [RowWriter(job, processor) for job in jobs]

    def token(self, row: int, id: int) -> bool:
        """A token of text."""
        return self.rows[row].write(id)

    def image_begins(self, row: int) -> None:
        """A picture begins."""
        self.rows[row].begin_image()

    def image_step(self, row: int, step: Step) -> bool:
        """A picture came further; nobody is shown how far, but who has left needs no more of it."""
        return not self.rows[row].job.cancelled

    def image_done(self, row: int, pixels: "torch.Tensor", num_tokens: int) -> None:
        """A picture is complete."""
        self.rows[row].show(self.processor.pictures([pixels])[0], num_tokens)

    def ended(self, row: int, answer: Answer) -> None:
        """The answer is complete."""
        self.rows[row].finish(answer)
