"""Following answers while they are written, row by row: words, images, ends, and a way to stop each."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .batching import Job
from .requests import Answer, Ending, Picture, Text

_UNFINISHED = "\ufffd"  # what a decoder shows for a character of which bytes are missing


class TextDecoder:
    """Turns ids into text piece by piece, and looks for strings that end it.

    Args:
        decode: ids to text, special tokens left out.
        stop: strings at which the text ends; they are not part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._shown = 0  # ids whose text is in `_text`
        self._before = 0  # from here on ids are decoded, so that the first one has its neighbour
        self._text = ""  # decoded, but not given out
        self.stopped = False

    def put(self, token: int) -> str:
        """Takes an id and returns the text that is certain now."""
        self._ids.append(token)
        return self._advance(whole=False)

    def end(self) -> str:
        """No more ids come: the rest of the text."""
        return self._advance(whole=True)

    def _advance(self, whole: bool) -> str:
        known = self._decode(self._ids[self._before : self._shown])
        now = self._decode(self._ids[self._before :])
        if whole or (len(now) > len(known) and not now.endswith(_UNFINISHED)):
            self._text += now[len(known) :]
            self._before, self._shown = self._shown, len(self._ids)
        found = [index for index in (self._text.find(stop) for stop in self._stop) if index >= 0]
        if found:
            self.stopped = True
            self._text, out = "", self._text[: min(found)]
            return out
        held = 0 if whole else self._held()
        out, self._text = self._text[: len(self._text) - held], self._text[len(self._text) - held :]
        return out

    def _held(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        lengths = [
            length
            for stop in self._stop
            for length in range(1, min(len(stop), len(self._text)) + 1)
            if self._text.endswith(stop[:length])
        ]
        return max(lengths, default=0)


class RowWriter:
    """One row of a batch of answers.

    Args:
        job: gets the words, the images and the end.
        decode: ids to text.
        config: the model's configuration.
        end_ids: ids that end an answer.
        decode_image: codes to a picture; None where the row does not draw.
    """

    def __init__(
        self,
        job: Job,
        decode: Callable[[list[int]], str],
        config: Any,
        end_ids: Sequence[int],
        decode_image: Callable[[list[int]], Image.Image] | None,
    ) -> None:
        self.job, self.request = job, job.request
        self.config, self.end_ids = config, set(end_ids)
        self.decode, self.decode_image = decode, decode_image
        self.text = TextDecoder(decode, self.request.stop)
        self.codes: list[int] | None = None  # of the image that is being drawn
        self.num_text_tokens = self.num_codes = 0
        self.over = False

    @property
    def finished(self) -> bool:
        """Whether the row needs no more tokens."""
        return self.over or self.job.cancelled

    def put(self, token: int) -> None:
        """Takes the next id."""
        if self.finished:
            return
        if self.codes is not None and self.decode_image is not None:
            self._draw(token)
            return
        self.num_text_tokens += 1
        if token in self.end_ids:
            self.finish("stop")
            return
        if self.decode_image is not None and token == self.config.generate_start_token_id:
            self._say(self.text.end())
            self.text = TextDecoder(self.decode, self.request.stop)
            self.codes = []
        else:
            self._say(self.text.put(token))
        if self.text.stopped:
            self.finish("stop")
        elif self.num_text_tokens >= self.request.max_new_tokens and self.codes is None:
            self.finish("length")

    def finish(self, reason: str) -> None:
        """The answer ends here."""
        if self.finished:
            return
        if not self.text.stopped:
            self._say(self.text.end())
        self.over = True
        num_prompt = self.request.inputs["input_ids"].shape[1]
        self.job.emit(Ending(reason, num_prompt, self.num_text_tokens + self.num_codes))
        self.job.complete()

    def _say(self, text: str) -> None:
        if text:
            self.job.emit(Text(text))

    def _draw(self, token: int) -> None:
        assert self.codes is not None and self.decode_image is not None
        first_code = self.config.text_config.vocab_size
        if token >= first_code:
            self.codes.append(token - first_code)
        elif token == self.config.generate_end_token_id:
            self.num_codes += len(self.codes)
            self.job.emit(Picture(self.decode_image(self.codes), len(self.codes)))
            self.codes = None
            if self.num_text_tokens >= self.request.max_new_tokens:
                self.finish("length")


class RowsStreamer(BaseStreamer):
    """Hands each new id to the writer of its row; ends a drawing in auto mode when nobody waits for it."""

    def __init__(self, rows: Sequence[RowWriter]) -> None:
        self.rows, self._prompt_seen = rows, False

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompts `(B, L)` first, then the next ids `(B,)`."""
        if self._prompt_seen:
            for row, token in zip(self.rows, value.reshape(-1).tolist(), strict=True):
                row.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing comes any more: answers that were cut off end here."""
        for row in self.rows:
            row.finish("length")

    @property
    def stopped(self) -> bool:
        """Whether no row needs another token."""
        return all(row.finished for row in self.rows)


class RowsFinished(StoppingCriteria):
    """Ends each row where its writer is done with it."""

    def __init__(self, rows: Sequence[RowWriter]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """`(B,)`, True where a row needs no more tokens."""
        return torch.tensor([row.finished for row in self.rows], device=input_ids.device)


def writers(
    jobs: Sequence[Job],
    decode: Callable[[list[int]], str],
    model: Any,
    decode_image: Callable[..., Image.Image],
) -> list[RowWriter]:
    """A writer per job.

    Args:
        decode: ids to text.
        model: says which ids mean what.
        decode_image: codes, and `grid=(rows, cols)`, to a picture.
    """
    ends = model.generation_config.eos_token_id
    end_ids = [ends] if isinstance(ends, int) else list(ends or ())
    rows = []
    for job in jobs:
        request: Answer = job.request
        paint = None
        if request.mode == "auto":
            paint = functools.partial(decode_image, grid=tuple(request.inputs["target_grid_hw"][0].tolist()))
        rows.append(RowWriter(job, decode, model.config, end_ids, paint))
    return rows
