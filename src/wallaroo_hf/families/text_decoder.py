"""Text as it is written: ids become words as soon as these are certain, and strings end it."""

from collections.abc import Callable, Sequence

from .contract import DrawingProcessor

__all__ = ["TextDecoder"]

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

    @classmethod
    def of(cls, processor: DrawingProcessor, stop: Sequence[str] = ()) -> "TextDecoder":
        """One that writes as a processor does.

        Args:
            processor: turns ids into text, special tokens left out.
            stop: see [`TextDecoder`].
        """
        return cls(lambda ids: processor.post_process_image_text_to_text([ids])[0], stop)

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
