"""Opening the videos of training rows."""

import os
from collections.abc import Mapping
from typing import Any

from ..pictures.video_files import VideoError
from ..pictures.videos import open_video
from .data.local_paths import local_path
from .data.training_rows import RowError
from .pictures import open_picture

__all__ = ["check_video", "open_row_video"]


def open_row_video(video: Any) -> Any:
    """A video of a row as processors take it: a path of this machine, bytes, an array, or a list of opened frames.

    Args:
        video: any of these, or the `{"bytes", "path"}` of `datasets`; frames as pictures of rows.

    Raises:
        RowError: if it is not there.
    """
    if isinstance(video, Mapping):
        video = video["bytes"] if video.get("bytes") is not None else video.get("path")
    if isinstance(video, (list, tuple)):
        return [open_picture(frame) for frame in video]
    if isinstance(video, (str, os.PathLike)):
        path = os.fspath(video)
        try:
            path = local_path(path, what="The video")
        except ValueError as error:
            raise RowError(str(error), "missing_video") from error
        if not os.path.isfile(path):
            raise RowError(f"The video '{path[:200]}' does not exist.", "missing_video")
        return path
    if video is None:
        raise RowError("A video is None; give a path, bytes or frames.", "missing_video")
    return video


def check_video(video: Any, decode: bool = True) -> None:
    """Raises unless a video can be opened.

    Args:
        video: as for [`open_row_video`].
        decode: whether its first frame is decoded, or only its header read.

    Raises:
        RowError: if it cannot.
    """
    try:
        with open_video(open_row_video(video)) as opened:
            if decode:
                next(iter(opened.frames([0])))
    except VideoError as error:
        raise RowError(str(error), error.reason) from error
