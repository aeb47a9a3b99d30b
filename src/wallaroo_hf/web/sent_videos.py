"""Videos in requests: `data:` URLs in, the frames that the model sees out."""

from ..families.contract import DrawingProcessor
from ..pictures.opening import read_data_url
from ..pictures.videos import GivenFrames
from .errors import ApiError
from .images import RequestImages
from .seen_videos import TooManyFrames, VideoLimits, see_video

__all__ = ["open_video"]


async def open_video(
    images: RequestImages, processor: DrawingProcessor, url: str, param: str, seconds: float, max_tokens: int
) -> tuple[GivenFrames, float]:
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
    reader = images.reader
    if url[:5].lower() != "data:":
        raise ApiError(
            400,
            "The video is no data: URI, and this server fetches no videos and reads no paths; send the video itself as "
            "'data:video/mp4;base64,...'.",
            param,
            "url_not_allowed",
        )
    limits = VideoLimits.of(images.settings, seconds)
    try:
        data = read_data_url(url, "sent")
    except ValueError as error:
        raise ApiError(
            400,
            "The data: URI of the video cannot be decoded; encode the file's bytes as base64.",
            param,
            "invalid_video",
        ) from error
    async with reader.decoding.place(images.client):
        try:
            return await reader.run(see_video, reader.decoders, processor, data, limits, max_tokens)
        except TooManyFrames as error:
            raise ApiError(413, str(error), param, "video_too_large") from error
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_video") from error
