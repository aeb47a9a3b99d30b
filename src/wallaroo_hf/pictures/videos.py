"""Videos as people give them: files, arrays, lists of frames."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .opening import open_image
from .pixels import is_array
from .video_files import VideoError, VideoFile, is_video_source

__all__ = ["Frames", "GivenFrames", "flatten_videos", "open_video"]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MAGIC = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)  # how pictures' files begin


class Frames(Protocol):
    """An open video, see [`open_video`].

    Attributes:
        num_frames: how many it has.
        rate: how many of them a second; None if that is not known.
    """

    num_frames: int
    rate: float | None

    def frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Some of them, ascending, one by one: `(H, W, 3)` uint8, RGB."""


class GivenFrames:
    """Frames that were given as such. Also a video that knows how many of its frames are a second.

    No dataclass: transformers makes dictionaries of those that stand in a chat.

    Args:
        video: an array `(T, H, W, C)` or `(T, C, H, W)`, or a list of pictures.
        rate: see [`Frames`].
    """

    def __init__(self, video: Any, rate: float | None = None) -> None:
        self.video, self.num_frames, self.rate = video, len(video), rate

    def frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """See [`Frames`].

        Raises:
            ValueError: for a frame that is no picture, or of another size than the first.
        """
        size = None
        for index in indices:
            frame = open_image(self.video[index])
            if size not in (None, frame.size):
                raise VideoError(
                    f"The frames of a video are of {size[0]}x{size[1]} and of {frame.width}x{frame.height} pixels; give "
                    "frames of one size.",
                    "unusable_video",
                )
            size = frame.size
            yield np.asarray(frame)


@contextmanager
def open_video(video: Any) -> Iterator[Frames]:
    """The frames of one video.

    Args:
        video: one that [`flatten_videos`] gives.

    Raises:
        ValueError: if it has no frames, or cannot be read; see [`VideoFile`].
    """
    if is_video_source(video):
        with VideoFile(video) as file:
            yield file
        return
    frames = video if isinstance(video, GivenFrames) else GivenFrames(video)
    if frames.num_frames == 0:
        raise VideoError("A video was given that has no frames; give at least one.", "unusable_video")
    yield frames


def flatten_videos(videos: Any) -> list[Any]:
    """One video or (nested) lists of videos as one flat list, in order.

    A video is a file (see [`VideoFile`]), an array or tensor of frames `(T, H, W, C)` or `(T, C, H, W)`, [`GivenFrames`],
    or a list of frames in any form that [`wallaroo_hf.pictures.opening.open_image`] takes. A list of strings is one of
    frames where all of them name files of pictures.

    Raises:
        ValueError: for something that is no video.
    """
    if videos is None:
        return []
    if is_video_source(videos) or isinstance(videos, GivenFrames) or (is_array(videos) and videos.ndim == 4):
        return [videos]
    if is_array(videos) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"A video was given as {_named(videos)}, but it must be a list of frames, an array (T, H, W, C), or the path "
            "of a file."
        )
    return [list(videos)] if _is_frames(videos) else [video for item in videos for video in flatten_videos(item)]


def _is_frames(items: Sequence[Any]) -> bool:
    """Whether a list is one video."""
    if not items:
        return False
    if all(isinstance(item, (str, os.PathLike)) for item in items):
        return all(os.fspath(item).lower().endswith(_PICTURES) for item in items)
    if is_array(items[0]):
        return items[0].ndim <= 3
    if isinstance(items[0], bytes):
        return _is_picture(items[0])
    return not isinstance(items[0], (list, tuple, str, os.PathLike, GivenFrames)) and items[0] is not None


def _is_picture(data: bytes) -> bool:
    return data.startswith(_MAGIC) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")


def _named(value: Any) -> str:
    return f"an array of shape {tuple(value.shape)}" if is_array(value) else f"a {type(value).__name__}"
