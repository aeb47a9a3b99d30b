"""Videos in requests: `data:` URLs in, the frames that the model sees out."""

from dataclasses import dataclass

import numpy as np

from ..families.contract import DrawingProcessor
from ..pictures.opening import read_data_url
from .errors import ApiError
from .images import RequestImages

__all__ = ["SeenVideo", "open_video"]


@dataclass(frozen=True)
class SeenVideo:
    """What is seen of a video.

    Attributes:
        frames: `(T, H, W, 3)` uint8.
        rate: how many of them a second.
    """

    frames: np.ndarray
    rate: float | None


async def open_video(
    images: RequestImages, processor: DrawingProcessor, url: str, param: str, seconds: float, max_tokens: int
) -> tuple[SeenVideo, float]:
    """The frames that are seen of a video, and the seconds of computing that they took.

    Args:
        images: of the request; their decoders and turns are used.
        processor: says which frames it sees.
        url: a `data:` URL.
        param: the field that it came in.
        seconds: of computing that it may take.
        max_tokens: that the video may become.

    Raises:
        ApiError: 400 if it must not or cannot be used, 413 if it is too large.
    """
    settings, decoders, run = images.settings, images.reader.decoders, images.reader.run
    if url[:5].lower() != "data:":
        raise ApiError(
            400,
            "The video is no data: URI, and this server fetches no videos and reads no paths; send the video itself as "
            "'data:video/mp4;base64,...'.",
            param,
            "url_not_allowed",
        )
    limits = settings.max_video_frames, settings.max_video_pixels
    try:
        data = read_data_url(url, "sent")
    except ValueError as error:
        raise ApiError(
            400,
            "The data: URI of the video cannot be decoded; encode the file's bytes as base64.",
            param,
            "invalid_video",
        ) from error
    async with images.reader.decoding.place(images.client):
        try:
            header, used = await run(decoders.look, data, *limits, seconds)
            indices = processor.choose_frames(header.num_frames, header.rate, max_tokens)
            num_bytes = len(indices) * header.height * header.width * 3
            if num_bytes > settings.max_video_memory:
                raise ApiError(
                    413,
                    f"The video's {len(indices)} frames of {header.width}x{header.height} pixels are too much to look at; "
                    "send a shorter or smaller one.",
                    param,
                    "video_too_large",
                )
            frames, more = await run(decoders.frames, data, indices, *limits, seconds - used)
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_video") from error
    rate = None if header.rate is None else len(indices) / header.num_frames * header.rate
    return SeenVideo(frames, rate), used + more
