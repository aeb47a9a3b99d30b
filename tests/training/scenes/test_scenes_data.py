"""Rows of the scenes as they are trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.generation.answering import RowFollower
from wallaroo_hf.scenes.chats import make_chat
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.data.encoding import encode_rows
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.scenes.scenes_data import Lessons, SceneRows


@pytest.fixture(scope="module")
def built_in():
    folder = default_checkpoint()
    model = WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    return model, WallarooProcessor.from_pretrained(folder)


class Scripted:
    """A model that answers what it is told, and keeps what it was asked."""

    def __init__(self, model) -> None:
        self.device, self.dtype, self.config, self.vq_model = model.device, model.dtype, model.config, model.vq_model
        self.generation_config = model.generation_config
        self.asked, self.answer = None, []

    def converse(self, batch, *, follow, max_new_tokens, **settings):
        self.asked = batch["input_ids"]
        row = RowFollower(self, follow, 0, tuple(batch["target_grid_hw"][0].tolist()), 1, max_new_tokens[0])
        for token in self.answer:
            row.put(token)
        row.end("stop")
        return [row.answer]


def _drawn_ids(model, processor, text, size):
    """A drawn picture, then the words that describe it."""
    codes = np.arange(size[0] // 16 * size[1] // 16).reshape(size[0] // 16, -1)
    rows = [
        [*(model.config.text_config.vocab_size + row).tolist(), model.config.end_of_line_token_id] for row in codes
    ]
    picture = [model.config.generate_start_token_id, *itertools.chain(*rows)]
    picture[-1] = model.config.generate_end_token_id  # no line break after the last row
    return [*picture, *processor.tokenizer(text).input_ids]


def test_a_chat_is_trained_as_it_is_fed(built_in):
    """The same turns, told to `Conversation` one by one, end in the tokens that the row has before its last answer."""
    model, processor = built_in
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)
    lengths = set()
    for index in range(60):
        chat, row = make_chat(0, index), Lessons("chats", 60)[index]
        encoded = collator.encode({**row, "draw": 0})
        size = (chat["height"], chat["width"])
        scripted = Scripted(model)
        conversation = Conversation(scripted, processor, size={"height": size[0], "width": size[1]})
        turns = chat["messages"]
        own = iter(row["images"])
        for asked, answered, after in zip(turns[::2], turns[1::2], [*turns[2::2], None]):
            shows = asked["content"][0]["type"] == "image"
            picture = next(own) if shows else None
            was_drawn = any(not isinstance(piece, str) for piece in conversation._answered)
            given = [picture] if shows and not was_drawn else []
            if after is not None:
                text = answered["content"][0]["text"]
                draws = after["content"][0]["type"] == "image" and text.endswith((" background.", "。"))
                scripted.answer = (
                    _drawn_ids(model, processor, text, size) if draws else processor.tokenizer(text).input_ids
                )
            conversation.say(asked["content"][-1]["text"], images=given)
        fed = scripted.asked[0].tolist()
        assert encoded["input_ids"][: len(fed)] == fed, row["messages"]
        assert encoded["labels"][len(fed)] != -100 and encoded["labels"][len(fed) - 1] == -100
        lengths.add(len(turns) // 2)
    assert lengths == {1, 2, 3, 4}


def test_an_answer_whose_picture_moved_on_is_not_learned(built_in):
    """Its words claim a picture; learned without one they teach to claim instead of to draw."""
    processor = built_in[1]
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)
    found = 0
    for index in range(40):
        row = Lessons("chats", 40)[index]
        labels = collator.encode({**row, "draw": 0})["labels"]
        learned = processor.tokenizer.decode([token for token in labels if token >= 0]).split("<|im_end|>\n")[:-1]
        earlier = [
            answered["content"][0]["text"]
            for answered, after in zip(row["messages"][1:-1:2], row["messages"][2::2])
            if after["content"][0]["type"] == "text"
        ]
        assert learned[:-1] == earlier and learned[-1].endswith(row["messages"][-1]["content"][-1]["text"])
        found += len(row["messages"]) // 2 - 1 - len(earlier)
    assert found > 10


def test_the_size_is_announced_in_every_interleaved_row():
    sizes = {(row["height"], row["width"]) for row in (SceneRows("interleaved", 30)[index] for index in range(30))}
    assert sizes == {(96, 96), (64, 128), (128, 64)}


def test_chats_are_encoded_with_all_their_sources(built_in, tmp_path):
    """Also those that end in words: what is shown has a source block in auto mode."""
    model, processor = built_in
    chats = Lessons("chats", 12)
    encode_rows(chats, model.model.vq_model, processor, tmp_path / "chats")
    collator = WallarooDataCollator(processor, unconditional_rate=0.0, source_mask_rate=0.0)
    for row, encoded in zip(chats, load_rows(tmp_path / "chats"), strict=True):
        shown = sum(part["type"] == "image" for message in row["messages"][::2] for part in message["content"])
        assert len(encoded.get("source_latents") or ()) == shown
        assert (encoded["height"], encoded["width"], encoded["task"]) == (row["height"], row["width"], "interleaved")
        values = {key: value for key, value in encoded.items() if value is not None}
        assert collator.encode({**values, "draw": 0})["input_ids"]
