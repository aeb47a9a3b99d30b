"""Frames, sizes, seconds and patches of videos are those of transformers' own processor of Qwen2.5-VL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from films import film_frames, pattern, write_film
from wallaroo_hf.common.navit_videos import VideoSettings, choose_frames, count_video_tokens, navit_videos
from wallaroo_hf.processing.image_processor import WallarooImageProcessor

RECORDED = json.loads((Path(__file__).parents[1] / "assets" / "video" / "stock.json").read_text(encoding="utf-8"))
SMALL = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}


@pytest.fixture(scope="module")
def image_processor():
    return WallarooImageProcessor()


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: f"{one['video']}-{one['asked']}")
def test_equal_to_transformers(image_processor, recorded):
    count, height, width, rate = recorded["video"]
    settings = VideoSettings.read({**recorded["asked"], "video_metadata": [{"fps": rate}]}, None)
    frames = pattern(count, height, width)
    for video in (frames, torch.from_numpy(frames).permute(0, 3, 1, 2), list(frames)):
        seen, lengths = navit_videos(image_processor, [video], settings)
        assert seen["video_grid_thw"].tolist() == [recorded["grid"]]
        assert seen["second_per_grid_ts"].dtype == np.float32
        assert torch.equal(
            torch.from_numpy(seen["second_per_grid_ts"]), torch.tensor([recorded["second_per_grid_ts"]])
        )
        patches = seen["pixel_values_videos"]
        assert list(patches.shape) == recorded["shape"] and patches.dtype == np.float32
        places = np.arange(len(recorded["values"])) * (patches.size - 1) // (len(recorded["values"]) - 1)
        # equal where it was recorded; another processor may round a resized byte the other way (0.015)
        assert np.abs(patches.flatten()[places] - recorded["values"]).max() < 0.016
        assert abs(float(patches.mean(dtype=np.float64)) - recorded["mean"]) < 1e-3
    assert lengths == [np.prod(recorded["grid"]) // 4] == [count_video_tokens(image_processor, frames, settings)]
    if settings.do_sample_frames is not False and (settings.fps or settings.num_frames):
        assert choose_frames(count, rate, settings, 2) == recorded["frames"]


def test_the_limits_of_qwen(image_processor):
    """2 frames a second, at least 4 and at most 768."""
    settings = VideoSettings()
    assert len(choose_frames(300, 30.0, settings, 2)) == 20
    assert len(choose_frames(30, 30.0, settings, 2)) == 4
    assert len(choose_frames(60 * 60 * 24, 24.0, settings, 2)) == 768
    assert choose_frames(1, 24.0, settings, 2) == [0] and choose_frames(3, 24.0, settings, 2) == [0, 1]
    # 28x28 pixels are enlarged to at least 128 tokens
    assert navit_videos(image_processor, [pattern(2, 28, 28)], settings)[0]["video_grid_thw"].tolist() == [[1, 24, 24]]


def test_files_are_sampled_and_frames_are_not(image_processor, tmp_path):
    path = write_film(tmp_path / "bar.mp4", film_frames(40))
    seen, _ = navit_videos(image_processor, [str(path), film_frames(40)], VideoSettings(size=SMALL))
    assert seen["video_grid_thw"][:, 0].tolist() == [4, 20]  # 4 seconds, 2 frames each
    assert seen["second_per_grid_ts"].tolist() == [1.0, pytest.approx(2 / 24)]
    every, _ = navit_videos(image_processor, [path.read_bytes()], VideoSettings(size=SMALL, do_sample_frames=False))
    assert every["video_grid_thw"].tolist() == [[20, 4, 4]] and every["second_per_grid_ts"].tolist() == [
        pytest.approx(0.2)
    ]


def test_the_frames_of_a_file_are_those_in_it(image_processor, tmp_path):
    frames = film_frames(10, 56, 56)
    path = write_film(tmp_path / "bar.mp4", frames)
    options = {"num_frames": 4, "size": SMALL}
    ours, _ = navit_videos(image_processor, [str(path)], VideoSettings(**options))
    chosen, _ = navit_videos(image_processor, [frames[[0, 2, 5, 7]]], VideoSettings(size=SMALL))
    assert np.abs(ours["pixel_values_videos"] - chosen["pixel_values_videos"]).mean() < 0.1  # the codec is lossy
    other, _ = navit_videos(image_processor, [frames[[1, 3, 6, 8]]], VideoSettings(size=SMALL))
    assert np.abs(ours["pixel_values_videos"] - other["pixel_values_videos"]).mean() > 0.2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fps": 2, "num_frames": 4}, "Both `fps` and `num_frames`"),
        ({"fps": 0}, "`fps` is 0"),
        ({"fps": float("nan")}, "`fps` is nan"),
        ({"num_frames": True}, "`num_frames` is True"),
        ({"min_frames": 9, "max_frames": 4}, "`min_frames` is 9, but `max_frames` is 4"),
        ({"num_frames": 40}, "`num_frames` is 40, but the video has 12 frames"),
        ({"fps": 2, "do_sample_frames": True}, "`fps` is asked of frames without a rate"),
        ({"video_metadata": [{}, {}]}, "2 entries for 1 videos"),
        ({"video_metadata": [{"fps": -1}]}, "`fps` in `video_metadata` is -1"),
        ({"size": {"height": 3}}, "`shortest_edge` and `longest_edge`"),
        ({"do_center_crop": True}, "`do_center_crop` means nothing for videos"),
    ],
)
def test_what_cannot_be_asked(image_processor, asked, words):
    with pytest.raises(ValueError, match=words):
        navit_videos(image_processor, [film_frames()], VideoSettings.read(asked, None))


def test_what_cannot_be_seen(image_processor):
    for video, words in (
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "no frames"),
        (np.zeros((2, 4, 4000, 3), dtype=np.uint8), "at most 200 times"),
        ([np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 9, 3), dtype=np.uint8)], "frames of one size"),
    ):
        with pytest.raises(ValueError, match=words):
            navit_videos(image_processor, [video], VideoSettings())
