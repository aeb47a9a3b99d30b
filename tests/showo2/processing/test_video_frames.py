"""Frames of videos, as people give them."""

import numpy as np
import pytest
import torch

from films import film_frames, write_film
from helpers import picture
from wallaroo_hf.showo2.processing import video_frames
from wallaroo_hf.showo2.processing.video_frames import flatten_videos, frame_indices, read_frames


def _frames(count):
    return [np.full((8, 12, 3), index, dtype=np.uint8) for index in range(count)]


def _shades(frames):
    return [frame.getpixel((0, 0))[0] for frame in frames]


def test_frames_are_uniformly_spaced():
    assert frame_indices(32, 32) == list(range(32))
    assert frame_indices(100, 4) == [0, 33, 66, 99]
    assert frame_indices(3, 5) == [0, 0, 1, 1, 2]
    assert frame_indices(1, 3) == [0, 0, 0]
    assert frame_indices(64, 32)[:3] == [0, 2, 4] and frame_indices(64, 32)[-1] == 63
    assert _shades(read_frames(_frames(7), 3)) == [0, 3, 6]


@pytest.mark.parametrize(
    "video",
    [
        _frames(5),
        tuple(_frames(5)),
        np.stack(_frames(5)),
        torch.from_numpy(np.stack(_frames(5))).permute(0, 3, 1, 2),
        [torch.from_numpy(frame).permute(2, 0, 1) for frame in _frames(5)],
    ],
)
def test_forms_of_one_video(video):
    assert len(flatten_videos(video)) == 1
    for given in (video, [video], [[video]]):
        (one,) = flatten_videos(given)
        assert _shades(read_frames(one, 2)) == [0, 4]


def test_several_videos():
    one, other = _frames(3), np.stack(_frames(2))
    assert [len(video) for video in flatten_videos([[one], [other, one]])] == [3, 2, 3]
    assert [len(video) for video in flatten_videos(np.zeros((4, 6, 8, 8, 3), dtype=np.uint8))] == [6] * 4
    assert flatten_videos(None) == [] and flatten_videos([]) == []
    assert flatten_videos(["a.mp4", "b.webm"]) == ["a.mp4", "b.webm"]


def test_frames_in_files(tmp_path):
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f"{index}.png"))
        picture(index).save(paths[-1])
    (video,) = flatten_videos(paths)
    assert [frame.size for frame in read_frames(video, 2)] == [(128, 96)] * 2


def test_files_of_videos(tmp_path, monkeypatch):
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"no video")
    for name in video_frames._DECODERS:
        monkeypatch.setitem(video_frames._DECODERS, name, lambda: False)
    with pytest.raises(ValueError, match="need a decoder, and none is installed: install one of torchcodec, av"):
        read_frames(str(file), 4)

    monkeypatch.setitem(video_frames._DECODERS, "decord", lambda: True)
    with pytest.raises(ValueError, match="does not exist"):
        read_frames(str(tmp_path / "nowhere.mp4"), 4)

    class Metadata:
        total_num_frames = 9

    def load(path, backend, sample_indices_fn):
        assert (path, backend) == (str(file), "decord")
        return np.stack(_frames(9))[sample_indices_fn(Metadata(), fps=None)], Metadata()

    monkeypatch.setattr(video_frames, "load_video", load)
    assert _shades(read_frames(file, 3)) == [0, 4, 8]

    def fail(path, **options):
        raise OSError("moov atom not found")

    monkeypatch.setattr(video_frames, "load_video", fail)
    with pytest.raises(ValueError, match=r"could not be read by decord \(moov atom not found\)"):
        read_frames(str(file), 3)


def test_files_that_pyav_reads(tmp_path, monkeypatch):
    path = write_film(tmp_path / "bar.webm", film_frames(16), codec="libvpx")
    for name in video_frames._DECODERS:
        monkeypatch.setitem(video_frames._DECODERS, name, lambda is_there=name == "pyav": is_there)
    for video in (path, str(path), path.read_bytes()):
        widths = [int((np.asarray(frame)[24, :, 0] > 100).sum()) for frame in read_frames(video, 3)]
        assert widths == [4, 32, 64]
    assert len(read_frames(path, 20)) == 20  # some of them twice
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="could not be read"):
        read_frames(path, 3)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((4, 4, 3)), r"given as an array of shape \(4, 4, 3\)"),
        (3, "given as a int"),
        ({"path": "a.mp4"}, "given as a dict"),
    ],
)
def test_what_is_no_video(video, message):
    with pytest.raises(ValueError, match=message):
        flatten_videos(video)


def test_a_video_without_frames():
    with pytest.raises(ValueError, match="no frames"):
        read_frames(np.zeros((0, 4, 4, 3)), 2)
