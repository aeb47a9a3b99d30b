"""`wallaroo ask` and conversations about videos, with a checkpoint of Wallaroo's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from commands import run
from films import film_frames, write_film
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.registry import abilities_of

WORDS = "What happens?"


def the_sentence(*arguments):
    """What a refused command says."""
    return " ".join(run(*arguments, code=1).split())


@pytest.fixture(scope="module")
def folder(compact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    compact.model.save_pretrained(folder)
    compact.processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 784}
    try:
        compact.processor.save_pretrained(folder)
    finally:
        del compact.processor.pixel_limits["video"]
    return folder


@pytest.fixture
def films(tmp_path):
    write_film(tmp_path / "bar.mp4", film_frames(30))
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(film_frames(4)):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path


def test_files_and_folders(folder, films):
    for video in (films / "bar.mp4", films / "frames"):
        for options in ((), ("--fps", 1), ("--num-frames", 2)):
            run("ask", video, WORDS, "-m", folder, "--max-new-tokens", 2, *options)


def test_what_is_refused(folder, films):
    (films / "broken.mp4").write_bytes(b"no film")
    for video, options, words in (
        (films / "nowhere.mp4", (), "does not exist"),
        (films / "broken.mp4", (), "could not be read"),
        (films / "bar.mp4", ("--fps", 0), "`fps` is 0"),
        (films / "bar.mp4", ("--fps", 1, "--num-frames", 2), "Both `fps` and `num_frames`"),
        (films / "bar.mp4", ("--num-frames", 99), "the video has 30 frames"),
    ):
        assert words in the_sentence("ask", video, WORDS, "-m", folder, *options)


def test_a_chat_with_a_video_goes_on_in_words(model, processor):
    processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 784}
    conversation = Conversation(model, processor, max_new_tokens=4)
    conversation.say(WORDS, videos=[film_frames(4)])
    pieces = conversation.say("And then?")
    assert [turn["role"] for turn in conversation.messages] == ["user", "assistant", "user"]
    assert all(isinstance(piece, str) for piece in pieces)
    assert np.array_equal(conversation.messages[0]["content"][0]["video"], film_frames(4))


def test_checkpoints_that_understand_none_say_so(compact):
    abilities = dataclasses.replace(abilities_of(compact.model, compact.processor), tasks=("understanding",))
    with pytest.raises(ValueError, match="This Wallaroo checkpoint does not understand videos; show pictures"):
        abilities.check_answers({}, videos=True)
