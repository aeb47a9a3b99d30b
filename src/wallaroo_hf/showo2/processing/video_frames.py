"""Videos as people give them, to frames: a list of pictures, an array, or a file where a decoder is installed."""

import os
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from PIL import Image
from transformers.utils import is_av_available, is_cv2_available, is_decord_available, is_torchcodec_available
from transformers.video_utils import load_video

from ...pictures.opening import open_image
from ...pictures.pixels import is_array

__all__ = ["flatten_videos", "frame_indices", "read_frames"]

_DECODERS = {
    "torchcodec": is_torchcodec_available,
    "pyav": is_av_available,
    "decord": is_decord_available,
    "opencv": is_cv2_available,
}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def flatten_videos(videos: Any) -> list[Any]:
    """One video or (nested) lists of videos as one flat list, in order.

    A video is a path or URL of a file, an array or tensor of frames `(T, H, W, C)` or `(T, C, H, W)`, or a list of frames
    in any form that [`wallaroo_hf.pictures.opening.open_image`] takes. A list of strings is one of frames where all of
    them name files of pictures.

    Raises:
        ValueError: for something that is no video.
    """
    if videos is None:
        return []
    if isinstance(videos, (str, os.PathLike)) or (is_array(videos) and videos.ndim == 4):
        return [videos]
    if is_array(videos) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"A video was given as {_named(videos)}, but it must be a list of frames, an array (T, H, W, C), or the path of a "
            "file."
        )
    return [list(videos)] if _is_frames(videos) else [video for item in videos for video in flatten_videos(item)]


def frame_indices(total: int, count: int) -> list[int]:
    """Which frames of a video are seen: `count` of them, spaced uniformly from the first to the last.

    Of a video with fewer frames, some are seen more than once.
    """
    return np.linspace(0, total - 1, count).astype(int).tolist()


def read_frames(video: Any, count: int) -> list[Image.Image]:
    """Uniformly spaced frames of a video, RGB.

    Args:
        video: one that [`flatten_videos`] gives.
        count: how many.

    Raises:
        ValueError: if it has no frames, or cannot be read; one sentence.
    """
    if isinstance(video, (str, os.PathLike)):
        return [open_image(frame) for frame in _decoded(os.fspath(video), count)]
    if len(video) == 0:
        raise ValueError("A video was given that has no frames; give at least one.")
    return [open_image(video[index]) for index in frame_indices(len(video), count)]


def _is_frames(items: Sequence[Any]) -> bool:
    """Whether a list is one video."""
    if not items:
        return False
    if all(isinstance(item, (str, os.PathLike)) for item in items):
        return all(os.fspath(item).lower().endswith(_PICTURES) for item in items)
    if is_array(items[0]):
        return items[0].ndim <= 3
    return not isinstance(items[0], (list, tuple, str, os.PathLike)) and items[0] is not None


def _decoded(path: str, count: int) -> Sequence[np.ndarray]:
    """Frames `(H, W, 3)` of a file."""
    decoder = next((name for name, is_there in _DECODERS.items() if is_there()), None)
    if decoder is None:
        raise ValueError(
            "Files of videos need a decoder, and none is installed: install one of torchcodec, av, decord or "
            "opencv-python, or give the video as a list of frames."
        )
    if "://" not in path and not os.path.isfile(path):
        raise ValueError(f"The video '{path[:200]}' does not exist; give the path of a file, or a list of frames.")
    try:
        frames, _ = load_video(
            path,
            backend=decoder,
            sample_indices_fn=lambda metadata, **_: np.array(frame_indices(metadata.total_num_frames, count)),
        )
    except (OSError, ValueError, TypeError, RuntimeError, LookupError, httpx.HTTPError, httpx.InvalidURL) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"The video '{path[:200]}' could not be read by {decoder} ({reason}); give another file, or a list of frames."
        ) from error
    return [np.asarray(frame) for frame in frames]


def _named(value: Any) -> str:
    return f"an array of shape {tuple(value.shape)}" if is_array(value) else f"a {type(value).__name__}"
