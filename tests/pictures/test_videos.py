"""Videos as people give them."""

from __future__ import annotations

import io

from films import film_frames
from helpers import picture
from wallaroo_hf.pictures.videos import GivenFrames, flatten_videos, open_video


def test_files_and_frames_are_told_apart():
    png = io.BytesIO()
    picture(1).save(png, "PNG")
    assert flatten_videos([b"\x00\x00\x00\x18ftypmp42", b"\x1aE\xdf\xa3"]) == [
        b"\x00\x00\x00\x18ftypmp42",
        b"\x1aE\xdf\xa3",
    ]
    assert flatten_videos([png.getvalue(), png.getvalue()]) == [[png.getvalue()] * 2]
    assert flatten_videos(["a.png", "b.png"]) == [["a.png", "b.png"]]
    assert flatten_videos(["a.mp4", ["b.webm"]]) == ["a.mp4", "b.webm"]
    assert len(flatten_videos([film_frames(2), [picture(1), picture(2)]])) == 2


def test_frames_may_know_their_rate():
    film = GivenFrames(film_frames(3), 10.0)
    assert flatten_videos(film) == flatten_videos([film]) == flatten_videos([[film]]) == [film]
    with open_video(film) as opened:
        assert (opened.num_frames, opened.rate) == (3, 10.0) and len(list(opened.frames([0, 2]))) == 2
