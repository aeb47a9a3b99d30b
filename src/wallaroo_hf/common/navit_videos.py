"""Videos as Qwen2.5-VL's vision encoder sees them: which frames, how large, and their patches.

The arithmetic is that of transformers' `Qwen2VLVideoProcessor` and `Qwen2_5_VLProcessor`, and so are the pixels: the resize
filter is torch's, which torchvision calls too.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.processing_utils import VideosKwargs

from ..pictures.opening import MAX_ASPECT_RATIO
from ..pictures.videos import Frames, GivenFrames, open_video
from .processor_base import PaddedOnTheLeft

__all__ = [
    *("VIDEO_KEYWORDS", "NaViTVideosKwargs", "SeesVideos", "VideoSettings", "choose_frames", "choose_within"),
    *("count_video_tokens", "frame_size", "navit_videos"),
]

_UNKNOWN_RATE = 24.0  # what transformers takes for the rate of frames that come without one


class NaViTVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """What may be said of videos, in `videos_kwargs` or by itself; see [`VideoSettings`]."""

    min_frames: int
    max_frames: int
    cap_pixels_per_frame: bool
    max_video_tokens: int


class SeesVideos(PaddedOnTheLeft, total=False):  # type: ignore[call-arg]
    """Keyword arguments of a processor that takes videos."""

    _defaults = PaddedOnTheLeft._defaults  # typed dictionaries do not inherit it
    videos_kwargs: NaViTVideosKwargs


VIDEO_KEYWORDS = frozenset(NaViTVideosKwargs.__annotations__)


@dataclass(frozen=True)
class VideoSettings:
    """How videos are seen.

    Attributes:
        fps: how many frames a second of a video are seen; default: 2, as in Qwen2.5-VL's own code.
        num_frames: in its place, how many are seen in all, evenly spaced; brought to an even number.
        min_frames, max_frames: limits of what `fps` makes.
        do_sample_frames: whether frames are chosen at all. Default: of files they are, and frames that are given as such
            are seen as they are unless `num_frames`, or `fps` and the metadata's, say otherwise.
        size: `shortest_edge` and `longest_edge`, the areas in pixels between which a frame is brought.
        cap_pixels_per_frame: whether all frames together become at most nine tenths of `max_video_tokens`, as in
            Qwen2.5-VL's own code.
        max_video_tokens: see there.
        video_metadata: of each video, a dict or `VideoMetadata` with `fps`, the frames per second that it has, in place of
            what a file says; frames that are given without it count as 24 a second, as in transformers.
    """

    fps: float | None = None
    num_frames: int | None = None
    min_frames: int = 4
    max_frames: int = 768
    do_sample_frames: bool | None = None
    size: Mapping[str, int] | None = None
    cap_pixels_per_frame: bool = True
    max_video_tokens: int = 128_000
    video_metadata: Any = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.num_frames is not None:
            raise ValueError(
                "Both `fps` and `num_frames` were given, but each says how many frames are seen; give one."
            )
        for name in ("num_frames", "min_frames", "max_frames", "max_video_tokens"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` is {value!r}, but must be a whole number of at least 1.")
        fps = self.fps
        if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf):
            raise ValueError(f"`fps` is {fps!r}, but must be a number of frames per second above 0.")
        if self.min_frames > self.max_frames:
            raise ValueError(
                f"`min_frames` is {self.min_frames}, but `max_frames` is {self.max_frames}; give a lower or a higher one."
            )

    @classmethod
    def read(cls, videos_kwargs: Mapping[str, Any], limits: Mapping[str, int] | None) -> "VideoSettings":
        """The settings among a processor's keyword arguments.

        Args:
            videos_kwargs: by name; None = the default.
            limits: `size` where the arguments have none.

        Raises:
            ValueError: for values that cannot be, or arguments that mean nothing here.
        """
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in videos_kwargs.items() if value is not None and name in known}
        others = sorted(videos_kwargs.keys() - known - {"return_tensors", "return_metadata", "device"})
        if others:
            raise ValueError(
                f"`{others[0]}` means nothing for videos, of which one can say {', '.join(sorted(known))}; leave it out."
            )
        if limits is not None:
            given.setdefault("size", dict(limits))
        return cls(**given)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest area of a frame, in pixels.

        Raises:
            ValueError: for a `size` that does not say.
        """
        size = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28} if self.size is None else self.size
        try:
            return int(size["shortest_edge"]), int(size["longest_edge"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"`size` of videos is {size!r}, but must hold `shortest_edge` and `longest_edge`, areas in pixels."
            ) from error


def choose_frames(total: int, rate: float | None, settings: VideoSettings, temporal_patch_size: int) -> list[int]:
    """Which frames of a video are seen, ascending.

    Args:
        total: how many it has.
        rate: of them per second.
        settings: `num_frames` or `fps`, and the limits.
        temporal_patch_size: frames that become one patch together; their number is a multiple of it.

    Raises:
        ValueError: if there are fewer than `num_frames`, or `fps` is asked of frames without a rate.
    """
    if settings.num_frames is not None:
        count = max(1, round(settings.num_frames / temporal_patch_size)) * temporal_patch_size
        if count > total:
            raise ValueError(
                f"`num_frames` is {settings.num_frames}, but the video has {total} frames; ask for fewer, or give `fps`."
            )
    else:
        if rate is None:
            raise ValueError(
                "`fps` is asked of frames without a rate of their own; say how many they are per second by "
                "`video_metadata=[{'total_num_frames': ..., 'fps': ...}]`, or give `num_frames`."
            )
        most = min(settings.max_frames, total) // temporal_patch_size * temporal_patch_size
        wished = total / rate * (2.0 if settings.fps is None else settings.fps)
        count = math.floor(min(max(wished, settings.min_frames), most, total) / temporal_patch_size)
        count *= temporal_patch_size
    if count == 0:  # a video that is shorter than a patch
        return list(range(total))
    # float32, as in transformers, which decides what is rounded down
    return torch.arange(0, total, total / count).int().tolist()


def choose_within(
    total: int, rate: float | None, max_tokens: int, image_processor: Any, limits: Mapping[str, int] | None = None
) -> list[int]:
    """Which frames of a video are seen by default, if at most so many tokens may be made of it.

    Args:
        total, rate: see [`choose_frames`].
        max_tokens: `max_video_tokens` that the processor is then called with.
        image_processor: Qwen2-VL's.
        limits: of the area of a frame, see [`VideoSettings`].

    Raises:
        ValueError: see [`choose_frames`].
    """
    settings = VideoSettings.read({"max_video_tokens": max_tokens}, limits)
    factor, temporal = image_processor.patch_size * image_processor.merge_size, image_processor.temporal_patch_size
    smallest = max(1.0, settings.limits[0] * 1.05 / factor**2)  # tokens of a patch in time, however many there are
    most = max(1, int(max_tokens * 0.9 / smallest)) * temporal
    most = min(most, settings.max_frames)
    limited = dataclasses.replace(settings, max_frames=most, min_frames=min(settings.min_frames, most))
    return choose_frames(total, rate, limited, temporal)


def frame_size(
    height: int, width: int, num_frames: int, settings: VideoSettings, image_processor: Any
) -> tuple[int, int]:
    """Height and width in pixels that the frames of a video are brought to.

    Args:
        height, width: of the frames as they are.
        num_frames: that are seen.
        settings: limits of their areas.
        image_processor: Qwen2-VL's, which knows the sizes of patches.

    Raises:
        ValueError: for frames that are too long.
    """
    factor = image_processor.patch_size * image_processor.merge_size
    least, most = settings.limits
    if settings.cap_pixels_per_frame:
        budget = int(settings.max_video_tokens * factor * factor * 0.9)
        most = max(min(most, budget * image_processor.temporal_patch_size // num_frames), int(least * 1.05))
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"The frames of a video have {width}x{height} pixels, but one side may be at most {MAX_ASPECT_RATIO} times the "
            "other; give another video."
        )
    size: tuple[int, int] = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
    return size


@dataclass(frozen=True)
class _Seen:
    """One video.

    Attributes:
        patches: `(patches, C)` float32.
        grid: temporal, rows, cols.
        seconds: between two temporal patches.
    """

    patches: np.ndarray
    grid: tuple[int, int, int]
    seconds: float


def navit_videos(
    image_processor: Any, videos: Sequence[Any], settings: VideoSettings
) -> tuple[dict[str, Any], list[int]]:
    """Patches of videos, and the number of tokens that each becomes; nothing for no videos.

    Args:
        image_processor: Qwen2-VL's; mean, deviation and sizes of patches are those of pictures.
        videos: from [`wallaroo_hf.pictures.videos.flatten_videos`].
        settings: how they are seen.

    Returns:
        `pixel_values_videos` `(patches, C)` float32, `video_grid_thw` `(videos, 3)` int64 and `second_per_grid_ts`
        `(videos,)` float32; the numbers.

    Raises:
        ValueError: for a video that cannot be read or seen so; one sentence.
    """
    if not videos:
        return {}, []
    metadata = _metadata(settings.video_metadata, len(videos))
    seen = [_see(image_processor, video, settings, one) for video, one in zip(videos, metadata, strict=True)]
    grids = np.array([one.grid for one in seen], dtype=np.int64)
    lengths = (grids.prod(axis=-1) // image_processor.merge_size**2).tolist()
    return {
        "pixel_values_videos": np.concatenate([one.patches for one in seen]),
        "video_grid_thw": grids,
        "second_per_grid_ts": np.array([one.seconds for one in seen], dtype=np.float32),
    }, lengths


def count_video_tokens(image_processor: Any, video: Any, settings: VideoSettings) -> int:
    """How many tokens a video becomes; its first frame is decoded, no more.

    Args:
        image_processor: Qwen2-VL's.
        video: one of [`wallaroo_hf.pictures.videos.flatten_videos`].
        settings: how it is seen.

    Raises:
        ValueError: see [`navit_videos`].
    """
    with open_video(video) as opened:
        (metadata,) = _metadata(settings.video_metadata, 1)
        indices, _ = _chosen(opened, settings, metadata, image_processor.temporal_patch_size)
        first = next(iter(opened.frames(indices[:1])))
    height, width = frame_size(first.shape[0], first.shape[1], len(indices), settings, image_processor)
    patches = -(-len(indices) // image_processor.temporal_patch_size) * height * width
    return int(patches // (image_processor.patch_size * image_processor.merge_size) ** 2)


def _see(image_processor: Any, video: Any, settings: VideoSettings, metadata: Mapping[str, Any]) -> _Seen:
    with open_video(video) as opened:
        indices, rate = _chosen(opened, settings, metadata, image_processor.temporal_patch_size)
        frames = _resized(opened.frames(indices), len(indices), settings, image_processor)
        sampled = _UNKNOWN_RATE if rate is None else len(indices) / opened.num_frames * rate
    patches, grid = _patches(frames, image_processor)
    return _Seen(patches, grid, image_processor.temporal_patch_size / sampled)


def _chosen(
    opened: Frames, settings: VideoSettings, metadata: Mapping[str, Any], temporal_patch_size: int
) -> tuple[list[int], float | None]:
    """The frames that are seen of a video, and how many it has per second."""
    rate = metadata.get("fps") or opened.rate
    sample = settings.do_sample_frames
    if sample is None:
        is_asked = settings.num_frames is not None or (settings.fps is not None and rate is not None)
        sample = is_asked or not isinstance(opened, GivenFrames)
    if not sample:
        return list(range(opened.num_frames)), rate
    return choose_frames(opened.num_frames, rate, settings, temporal_patch_size), rate


def _metadata(given: Any, count: int) -> list[Mapping[str, Any]]:
    """One mapping per video."""
    if given is None:
        return [{}] * count
    nested = given if isinstance(given, (list, tuple)) else [given]
    flat = [one for item in nested for one in (item if isinstance(item, (list, tuple)) else [item])]
    if len(flat) != count or not all(isinstance(one, Mapping) for one in flat):
        raise ValueError(
            f"`video_metadata` has {len(flat)} entries for {count} videos; give one dict with `fps` for each of them."
        )
    for one in flat:
        rate = dict(one).get("fps")
        if rate is not None and (
            isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf
        ):
            raise ValueError(
                f"`fps` in `video_metadata` is {rate!r}, but must be a number of frames per second above 0."
            )
    return [dict(one) for one in flat]


def _resized(
    frames: Iterable[np.ndarray], num_frames: int, settings: VideoSettings, image_processor: Any
) -> torch.Tensor:
    """Frames of one size, `(T, 3, H, W)` uint8, each resized as soon as it is there."""
    resized: list[torch.Tensor] = []
    size: tuple[int, int] | None = None
    for frame in frames:
        if size is None:
            size = frame_size(frame.shape[0], frame.shape[1], num_frames, settings, image_processor)
        pixels = torch.from_numpy(np.array(frame, dtype=np.uint8)).permute(2, 0, 1).contiguous()[None]
        if tuple(pixels.shape[-2:]) != size:
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        resized.append(pixels)
    return torch.cat(resized)


def _patches(frames: torch.Tensor, image_processor: Any) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Patches `(t * rows * cols, C)` float32 of frames `(T, 3, H, W)`, and their grid."""
    temporal, patch, merge = (
        image_processor.temporal_patch_size,
        image_processor.patch_size,
        image_processor.merge_size,
    )
    missing = -len(frames) % temporal
    if missing:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    # scaled and normalised in one, as in transformers
    scale = 1.0 / image_processor.rescale_factor
    mean, deviation = (
        (torch.tensor(values) * scale)[:, None, None]
        for values in (image_processor.image_mean, image_processor.image_std)
    )
    pixels = (frames.to(torch.float32) - mean) / deviation
    num, channels, height, width = pixels.shape
    grid = num // temporal, height // patch, width // patch
    patches = pixels.view(
        grid[0], temporal, channels, grid[1] // merge, merge, patch, grid[2] // merge, merge, patch
    ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return patches.reshape(math.prod(grid), channels * temporal * patch * patch).numpy(), grid
