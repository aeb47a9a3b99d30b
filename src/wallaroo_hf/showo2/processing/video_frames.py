"""The frames that are seen of a video, whatever form it is given in; files where a decoder is installed."""

import os
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from PIL import Image
from transformers.utils import is_av_available, is_cv2_available, is_decord_available, is_torchcodec_available
from transformers.video_utils import load_video

from ...pictures.opening import open_image
from ...pictures.videos import flatten_videos, open_video

__all__ = ["flatten_videos", "frame_indices", "read_frames"]

_DECODERS = {
    "torchcodec": is_torchcodec_available,
    "pyav": is_av_available,
    "decord": is_decord_available,
    "opencv": is_cv2_available,
}


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
    decoder = next((name for name, is_there in _DECODERS.items() if is_there()), None)
    is_path = isinstance(video, (str, os.PathLike)) and not os.fspath(video).startswith("data:")
    if is_path and decoder != "pyav":
        return [open_image(frame) for frame in _decoded(os.fspath(video), count, decoder)]
    with open_video(video) as opened:
        return [open_image(frame) for frame in opened.frames(frame_indices(opened.num_frames, count))]


def _decoded(path: str, count: int, decoder: str | None) -> Sequence[np.ndarray]:
    """Frames `(H, W, 3)` of a file, by another decoder than PyAV."""
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
