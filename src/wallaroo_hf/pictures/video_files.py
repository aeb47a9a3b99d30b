"""Opening files of videos by PyAV: the one place that decides what is read, how large it may be and how frames turn out.

Importing it imports neither PyAV nor torch.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import numpy as np

from .opening import DOWNLOAD_TIMEOUT, MAX_ASPECT_RATIO, MAX_PIXELS, ImageError, quoted, read_data_url

__all__ = ["MAX_FILE_BYTES", "MAX_FRAMES", "VIDEO_SUFFIXES", "VideoError", "VideoFile", "is_video_source"]

VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ogv", "wmv", "flv")  # of names of files
MAX_FRAMES = 500_000  # more than four hours at 30 a second: all up to the last that is seen are decoded
MAX_FILE_BYTES = 512_000_000  # of what is downloaded
# Containers that people have; the others that FFmpeg knows include playlists, which name further files.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf"
# All frames in a file count, so that their number is that in its header; references to other files are not followed.
_READING = {"format_whitelist": _CONTAINERS, "ignore_editlist": "1", "enable_drefs": "0"}
_WITHOUT_DECODER = (
    "Videos need PyAV, which is not installed: pip install 'wallaroo-hf[video]', or give the frames as pictures."
)


class VideoError(ValueError):
    """A video that cannot be used.

    Attributes:
        reason: `"missing_video"` (it is not there), `"broken_video"` (it cannot be read), `"too_large_video"` (more frames
            or pixels than are read), `"unusable_video"` (it can be read, but there is nothing to see) or `"no_decoder"`.
    """

    def __init__(self, message: str, reason: str = "broken_video") -> None:
        super().__init__(message)
        self.reason = reason


def is_video_source(value: Any) -> bool:
    """Whether a value stands for a file of a video: a path or URL, the bytes of a file, or an open one."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(value, "read")


class VideoFile:
    """A video's file, open for reading; a context manager.

    Only the readers of common containers are tried, on the bytes alone, so that no file can name another one.

    Args:
        source: a path, a `file://`, http(s) or data URL; the bytes of a file, or an open one.
        max_frames: longer videos are refused.
        max_pixels: of a frame.

    Attributes:
        name: what messages call it.
        height, width: of its frames as they are stored, in pixels.
        rate: frames per second; None if the file does not say.
        num_frames: how many it has; those that a file does not count itself are counted.

    Raises:
        VideoError: a `ValueError`; if PyAV or the video is missing, or it cannot be read, has no frames or too many, or
            frames that are too large.
    """

    def __init__(self, source: Any, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS) -> None:
        self._av = _import_av()
        self.name, self._file = _open(source)
        try:
            with self._reading():
                self._container = self._av.open(self._file, options=_READING)
        except VideoError:
            self._file.close()
            raise
        try:
            self._look(max_frames, max_pixels)
        except VideoError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._container.close()
        self._file.close()

    def frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames, one by one: `(H, W, 3)` uint8, RGB, turned as the file says.

        Args:
            indices: which, ascending; a number that stands there twice gives its frame twice.

        Raises:
            VideoError: if the file is damaged, or ends before the last of them.
        """
        wanted = iter(indices)
        sought, number = next(wanted, None), 0
        with self._reading():
            self._container.seek(0)
            for frame in self._container.decode(video=0):
                while sought == number:
                    yield _upright(frame)
                    sought = next(wanted, None)
                if sought is None:
                    return
                number += 1
        raise VideoError(
            f"The video {self.name} ends after {number:,} frames, though it should have {self.num_frames:,}; give an "
            "undamaged file."
        )

    def _look(self, max_frames: int, max_pixels: int) -> None:
        """Finds out what there is, and refuses what cannot be shown."""
        if not self._container.streams.video:
            raise VideoError(f"The file {self.name} holds no video; give one that does.", "unusable_video")
        stream = self._container.streams.video[0]
        self.height, self.width = int(stream.height or 0), int(stream.width or 0)
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate else None
        size = f"The frames of the video {self.name} have {self.width}x{self.height} pixels, but"
        if self.height * self.width > max_pixels:
            raise VideoError(f"{size} at most {max_pixels:,} are read; give a smaller one.", "too_large_video")
        if min(self.height, self.width) < 1 or max(self.height, self.width) > MAX_ASPECT_RATIO * min(
            self.height, self.width
        ):
            raise VideoError(
                f"{size} one side may be at most {MAX_ASPECT_RATIO} times the other; give another video.",
                "unusable_video",
            )
        self.num_frames = int(stream.frames) or self._count(max_frames)
        if self.num_frames > max_frames:
            raise VideoError(
                f"The video {self.name} has {self.num_frames:,} frames, but at most {max_frames:,} are read; cut it.",
                "too_large_video",
            )
        if self.num_frames == 0:
            raise VideoError(f"The video {self.name} has no frames; give one that does.", "unusable_video")

    def _count(self, max_frames: int) -> int:
        """The frames of a file that does not say how many it has, at most one more than may be; nothing is decoded."""
        count = 0
        with self._reading():
            for packet in self._container.demux(video=0):
                count += packet.size > 0
                if count > max_frames:
                    break
        return count

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What FFmpeg says of a file that it cannot read, in one sentence."""
        try:
            yield
        except (self._av.error.FFmpegError, OSError, EOFError, ValueError, IndexError, AssertionError) as error:
            if isinstance(error, VideoError):
                raise
            reason = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200] or type(error).__name__
            raise VideoError(
                f"The video {self.name} could not be read ({reason}); give an undamaged file, such as an .mp4."
            ) from error


def _import_av() -> ModuleType:
    """PyAV. Its log stays off, as it is by itself: threads that decode would wait for Python to take what they say.

    Raises:
        VideoError: if it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(_WITHOUT_DECODER, "no_decoder") from error
    return av


def _upright(frame: Any) -> np.ndarray:
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(turned)


# -------------------------------------------------------------------------------------------------- what was given


def _open(source: Any) -> tuple[str, BinaryIO]:
    """A name for messages, and the open file."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "given", io.BytesIO(bytes(source))
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        name = quoted(text)
        return name, _file(text, name)
    if isinstance(source, io.TextIOBase):
        raise VideoError("The video given is a file that was opened as text; open it with mode 'rb'.")
    if hasattr(source, "read"):
        return "given", io.BytesIO(source.read())
    raise VideoError(
        f"The video given is of type {type(source).__name__}; give a path, a URL, the bytes of a file, or its frames.",
        "unusable_video",
    )


def _file(text: str, name: str) -> BinaryIO:
    scheme = text[:8].lower()
    if scheme.startswith(("http://", "https://")):
        return io.BytesIO(_download(text, name))
    if scheme.startswith("data:"):
        try:
            return io.BytesIO(read_data_url(text, name))
        except ImageError as error:
            raise VideoError(
                "The data URL of a video cannot be decoded; write 'data:video/mp4;base64,' and the file's bytes as base64."
            ) from error
    path = url2pathname(urlsplit(text).path) if scheme.startswith("file://") else text
    if not os.path.isfile(path):
        raise VideoError(
            f"The video {name} does not exist; give the path of a file, or a list of frames.", "missing_video"
        )
    try:
        return open(path, "rb")
    except OSError as error:
        raise VideoError(f"The video {name} could not be read ({error.strerror}); give another file.") from error


def _download(url: str, name: str) -> bytes:
    """The bytes behind a URL that a person typed, at most `MAX_FILE_BYTES` of them."""
    data = bytearray()
    try:
        with httpx.stream("GET", url, timeout=DOWNLOAD_TIMEOUT, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise VideoError(
                        f"The video {name} is larger than {MAX_FILE_BYTES:,} bytes; give a smaller one.",
                        "too_large_video",
                    )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise VideoError(f"The video {name} could not be read ({reason}); give another one.") from error
    return bytes(data)
