"""The black source of null prompts is what resizing a black picture gives, and no picture is opened for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import picture
from wallaroo_hf.common.navit_images import black_patches, navit_patches
from wallaroo_hf.processing.drawing_requests import DrawingRequest


@pytest.fixture
def as_before(monkeypatch):
    """Prepares the null prompt from a whole black picture."""

    def prepare():
        def null_prompt(self):
            black = None if self.source is None else Image.new("RGB", self.source.size)
            return dataclasses.replace(self, prompt=self.negative, source=black, history=None)

        monkeypatch.setattr(DrawingRequest, "null_prompt", null_prompt)

    return prepare


def _equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        pairs = zip(one[name], other[name], strict=True)
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs), name


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_it_is_the_same_to_the_bit(processor, as_before, fit):
    arguments = {
        "text": ["make it blue", "加一颗星", "a boat"],
        "images": [picture(1, 300, 200), picture(2, 40, 130), None],
        "generation_mode": "image",
        "height": 64,
        "width": 96,
        "source_fit": fit,
        "return_tensors": "pt",
    }
    ours = dict(processor(**arguments))
    as_before()
    _equal(ours, dict(processor(**arguments)))


def test_it_follows_the_options_of_the_image_processor(processor):
    images = [picture(1, 300, 200), picture(2, 60, 56)]
    options = {"size": {"shortest_edge": 3136, "longest_edge": 28 * 28 * 8}, "image_mean": [0.1, 0.2, 0.3]}
    _, of_them = navit_patches(processor.image_processor, images, options)
    grids = navit_patches(processor.image_processor, images, options)[0]["image_grid_thw"]
    blacks = [Image.new("RGB", image.size) for image in images]
    expected, lengths = navit_patches(processor.image_processor, blacks, options)
    found, found_lengths = black_patches(processor.image_processor, grids, options)
    assert lengths == found_lengths == of_them
    assert np.array_equal(found["pixel_values"], expected["pixel_values"])
    assert found["pixel_values"].dtype == expected["pixel_values"].dtype


def test_in_chats_it_is_as_large_as_the_last_picture(processor):
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Make it blue."}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    short = processor.apply_chat_template([{"role": "user", "content": content[2:]}], add_generation_prompt=True)
    images = [picture(1, 300, 200), picture(2, 60, 200)]
    batch = processor(
        text=[short, chat], images=images, generation_mode="auto", height=64, width=64, return_tensors="pt"
    )
    assert torch.equal(batch["negative_image_grid_thw"], batch["image_grid_thw"][1:])
    assert len(batch["negative_source_pixel_values"]) == 1
    assert bool((batch["negative_source_pixel_values"][0] == -1).all())
    assert len(batch["negative_pixel_values"]) == int(batch["image_grid_thw"][1].prod())


def test_the_source_is_prepared_once(processor, monkeypatch):
    """What is done with pictures is done with the source alone."""
    seen = []
    resize = Image.Image.resize

    def watched(self, *args, **keywords):
        seen.append(self.size)
        return resize(self, *args, **keywords)

    monkeypatch.setattr(Image.Image, "resize", watched)
    processor(text=["make it blue"], images=[picture(1, 300, 200)], generation_mode="image", height=64, width=64)
    assert seen.count((300, 200)) <= 2  # for the vision encoder and for the image tokenizer
