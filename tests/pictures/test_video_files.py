"""Files of videos: what is read of them, and what is refused in one sentence."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from films import film_frames, write_film
from wallaroo_hf.pictures.video_files import VideoError, VideoFile
from wallaroo_hf.pictures.videos import flatten_videos, open_video


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("films") / "bar.mp4", film_frames(30))


def _widths(frames):
    """How far the bar has come, in pixels."""
    return [int((frame[24, :, 0] > 100).sum()) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("b.webm", "libvpx"), ("c.avi", "mpeg4"), ("d.mkv", "libx264")]
)
def test_containers(tmp_path, name, codec):
    path = write_film(tmp_path / name, film_frames(16), rate=8, codec=codec)
    with VideoFile(path) as video:
        assert (video.num_frames, video.rate, video.height, video.width) == (16, 8.0, 48, 64)
        assert _widths(video.frames([0, 7, 7, 15])) == [4, 32, 32, 64]
        assert _widths(video.frames([3])) == [16]  # from the beginning again


def test_every_form_of_a_file(film):
    with open(film, "rb") as opened:
        for source in (film, str(film), film.as_uri(), film.read_bytes(), opened):
            (given,) = flatten_videos(source)
            with open_video(given) as video:
                assert video.num_frames == 30 and video.rate == 10.0


def test_frames_are_turned_as_the_file_says(film):
    """As a telephone that was held upright says in the header of its track: clockwise by 90 degrees."""
    plain, turned = (number.to_bytes(4, "big") for number in (0x10000, 0xFFFF0000))
    upright = plain + bytes(12) + plain
    data = film.read_bytes()
    track = data.index(b"tkhd")
    place = data.index(upright, track)
    turned_data = data[:place] + bytes(4) + plain + bytes(4) + turned + bytes(4) + data[place + 20 :]
    with VideoFile(data) as video, VideoFile(turned_data) as other:
        (frame,), (seen,) = video.frames([9]), other.frames([9])
    assert np.array_equal(seen, np.rot90(frame, -1))


@pytest.mark.parametrize("cut", [0, 8, 900])
def test_damaged_files(film, cut):
    with pytest.raises(VideoError, match=r"The video given could not be read \(.*\); give an undamaged file"):
        VideoFile(film.read_bytes()[:cut])


def test_a_file_that_ends_early(film):
    data = film.read_bytes()
    moov = data.index(b"moov") - 4
    # header first, as for the web, and half of the frames: offsets stay as they were
    place = data.index(b"mdat")
    broken = data[: place + 4] + bytes(moov - place - 4) + data[moov:]
    with VideoFile(broken) as video, pytest.raises(VideoError, match=r"could not be read|ends after \d+ frames"):
        list(video.frames(range(30)))


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile '{}'\n", "#EXTM3U\n#EXTINF:1,\n{}\n", "v=0\ns=x\nm=video 0 RTP/AVP 96\n"],
)
def test_files_that_name_others_are_not_followed(film, text):
    with pytest.raises(VideoError, match="could not be read"):
        VideoFile(text.format(film).encode())


@pytest.mark.parametrize(
    ("source", "words", "reason"),
    [
        ("nowhere.mp4", "The video 'nowhere.mp4' does not exist", "missing_video"),
        ("data:video/mp4;base64,xx!", "data URL", "broken_video"),
        (7, "of type int", "unusable_video"),
    ],
)
def test_what_is_no_file(source, words, reason):
    pytest.importorskip("av")
    with pytest.raises(VideoError, match=words) as caught:
        VideoFile(source)
    assert caught.value.reason == reason


def test_limits(film):
    with pytest.raises(VideoError, match="has 30 frames, but at most 29 are read") as caught:
        VideoFile(film, max_frames=29)
    assert caught.value.reason == "too_large_video"
    with pytest.raises(VideoError, match="64x48 pixels, but at most 3,000"):
        VideoFile(film, max_pixels=3000)


def test_without_pyav(film, monkeypatch):
    own = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "av":
            raise ImportError("No module named 'av'")
        return own(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        VideoError, match=r"Videos need PyAV, which is not installed: pip install 'wallaroo-hf\[video\]'"
    ):
        VideoFile(film)
