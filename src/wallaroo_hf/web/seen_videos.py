"""The frames that a model sees of a stranger's video, decoded in a process apart."""

from dataclasses import dataclass

from ..families.contract import DrawingProcessor
from ..pictures.videos import GivenFrames
from .picture_decoders import Decoders
from .server_settings import ServerSettings

__all__ = ["TooManyFrames", "VideoLimits", "see_video"]


class TooManyFrames(ValueError):
    """The frames that would be seen take too much memory."""


@dataclass(frozen=True)
class VideoLimits:
    """What a video may be.

    Attributes:
        frames: most in its file.
        pixels: largest width times height.
        memory: most bytes of the frames that are seen.
        seconds: of computing that it may take.
    """

    frames: int
    pixels: int
    memory: int
    seconds: float

    @classmethod
    def of(cls, settings: ServerSettings, seconds: float | None = None) -> "VideoLimits":
        """Those of a server, with so many seconds left of its own."""
        return cls(
            settings.max_video_frames,
            settings.max_video_pixels,
            settings.max_video_memory,
            settings.video_timeout if seconds is None else seconds,
        )


def see_video(
    decoders: Decoders, processor: DrawingProcessor, data: bytes, limits: VideoLimits, max_tokens: int
) -> tuple[GivenFrames, float]:
    """What is seen of a video, and the seconds of computing that it took.

    Args:
        decoders: of strangers' files.
        processor: says which frames it sees.
        data: the file.
        limits: see there.
        max_tokens: that the video may become.

    Raises:
        TooManyFrames: if what is seen takes too much memory.
        ValueError: if it cannot be used, or takes too long.
    """
    header, used = decoders.look(data, limits.frames, limits.pixels, limits.seconds)
    indices = processor.choose_frames(header.num_frames, header.rate, max_tokens)
    if len(indices) * header.height * header.width * 3 > limits.memory:
        raise TooManyFrames(
            f"The video's {len(indices)} frames of {header.width}x{header.height} pixels are too much to look at; "
            "send a shorter or smaller one."
        )
    frames, more = decoders.frames(data, indices, limits.frames, limits.pixels, limits.seconds - used)
    rate = None if header.rate is None else len(indices) / header.num_frames * header.rate
    return GivenFrames(frames, rate), used + more
