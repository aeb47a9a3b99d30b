"""Chats in which the model answers and draws."""

import re
from types import SimpleNamespace

import pytest
from PIL import Image

from helpers import picture
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.generation.answering import RowFollower


@pytest.fixture(scope="module")
def built_in():
    folder = default_checkpoint()
    # not in bfloat16, in which some processors give other sums from call to call
    model = WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    return model, WallarooProcessor.from_pretrained(folder)


def _is_image(piece):
    return isinstance(piece, Image.Image)


def _kinds(answer):
    return [type(piece) for piece in answer]


def test_tells_as_it_goes(built_in):
    """Text and rows come while the model is at it, and together they are the answer."""
    conversation = Conversation(*built_in, seed=1)
    said, rows = [], []
    answer = conversation.say("Draw a red circle.", on_text=said.append, on_row=lambda *row: rows.append(row))
    assert Image.Image in _kinds(answer) and len(said) > 3
    assert "".join(said) == "".join(piece for piece in answer if isinstance(piece, str))
    drawn = [piece for piece in answer if isinstance(piece, Image.Image)]
    assert [row[1:] for row in rows[:6]] == [(number, 6) for number in range(1, 7)]
    assert rows[5][0]().size == drawn[0].size == (96, 96)


def test_what_was_drawn_is_the_next_source(built_in):
    conversation = Conversation(*built_in, seed=1)
    drawn = [piece for piece in conversation.say("Draw a red circle.") if isinstance(piece, Image.Image)]
    conversation.say("Turn it blue.")
    content = conversation.messages[-1]["content"]
    assert content[0]["image"] is drawn[-1] and content[1]["text"] == "Turn it blue."
    conversation.say("What is it?", images=[picture(1)])
    assert len([item for item in conversation.messages[-1]["content"] if item["type"] == "image"]) == 1


def _announced(conversation, monkeypatch, words, images=()):
    """The sizes that the model reads where it shall answer, and the grid that it may draw; it answers with nothing."""
    seen = []

    def remember(settings, generation_config, inputs, image_sampling, memory):
        seen.append(inputs)
        inputs["streamer"].put(inputs["input_ids"])
        return inputs["input_ids"]

    with monkeypatch.context() as patch:
        patch.setattr(conversation.model, "_alternate", remember)
        conversation.say(words, images)
    prompt = conversation.processor.tokenizer.decode(seen[0]["input_ids"][0])
    assert re.search(r"(?: ?<indicator:\d+>){2}<\|im_end\|>\n<\|im_start\|>assistant\n$", prompt)
    return re.findall(r"<indicator:(\d+)>", prompt), seen[0]["target_grid_hw"].tolist()


def test_the_size_is_announced_in_every_turn(built_in, monkeypatch):
    """Once, in the last turn: the square one, what was asked for, or that of the picture that was drawn or shown last."""
    square, wide = (["96", "96"], [[6, 6]]), (["64", "128"], [[4, 8]])
    conversation = Conversation(*built_in, seed=1)
    assert _announced(conversation, monkeypatch, "Hello!") == square
    assert any(_is_image(piece) for piece in conversation.say("Draw: a red circle"))
    assert _announced(conversation, monkeypatch, "Turn it blue.") == square
    picture = Image.new("RGB", (400, 200), "white")
    assert _announced(conversation, monkeypatch, "Add a star.", [picture]) == wide
    assert _announced(conversation, monkeypatch, "How many?") == wide
    tall = Conversation(*built_in, seed=1, size={"height": 128, "width": 64})
    assert _announced(tall, monkeypatch, "Draw a red circle.", [picture]) == (["128", "64"], [[8, 4]])


def test_guidance_of_what_is_drawn(built_in):
    """As in `generate`; settings of the checkpoint where none are given."""
    drawn = [
        next(piece for piece in Conversation(*built_in, 1, **guidance).say("Draw: a red circle") if _is_image(piece))
        for guidance in (
            {},
            {"guidance_scale": 9.0, "guidance_min_p": 0.0},
            {"guidance_scale": 9.0, "guidance_min_p": 1.0},
        )
    ]
    assert len({image.tobytes() for image in drawn}) == 3
    with pytest.raises(ValueError, match="`guidance_min_p` is 2, but must be a number"):
        Conversation(*built_in, guidance_min_p=2)


def test_the_same_seed_says_the_same(built_in):
    one, other = (Conversation(*built_in, seed=3).say("Draw a red circle.") for _ in range(2))
    assert _kinds(one) == _kinds(other)
    assert all(a == b if isinstance(a, str) else a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_stopping_keeps_the_rows(built_in):
    answer = Conversation(*built_in, seed=1).say("Draw a red circle.", on_row=lambda _, rows, of: rows < 2)
    assert answer[-1].size == (96, 32)


def test_text_can_be_stopped_too(built_in):
    """What is there stays, and the chat goes on."""
    conversation = Conversation(*built_in, seed=1)
    said = []
    answer = conversation.say("What can you do?", on_text=lambda bit: said.append(bit) or False)
    assert answer == ["".join(said)] and len(said) <= 2 and not conversation.partial
    assert conversation.say("Draw a red circle.", on_row=lambda _, rows, of: rows < 2)[-1].size == (96, 32)
    assert conversation.partial


def test_what_was_whole_when_it_was_stopped(built_in):
    """An answer that is stopped in its second picture keeps the first, and the words between."""
    conversation = Conversation(*built_in, seed=1)
    model, processor = built_in
    start = model.config.generate_start_token_id
    words = processor.tokenizer("Yes, a red circle.").input_ids
    line = [model.config.text_config.vocab_size + code for code in (1, 2, 3)]
    image = [start, *line, model.config.end_of_line_token_id, *line, model.config.generate_end_token_id]
    heard: list[tuple] = []
    listener = SimpleNamespace(
        token=lambda row, id: heard.append(("word", id)),
        image_begins=lambda row: heard.append(("begins",)),
        image_step=lambda row, step: heard.append(("row", step.done, step.total)),
        image_done=lambda row, pixels, count: heard.append(("done", tuple(pixels.shape), count)),
        ended=lambda row, answer: heard.append(("ended", answer.reason)),
    )
    row = RowFollower(model, listener, 0, (2, 3), 7, 100)
    for token in [*words, *image, *words, *image[:4]]:
        row.put(token)
    row.end("stopped")
    told = [one for one in heard if one[0] != "word"]
    first_image, second_image = [("begins",), ("row", 1, 2), ("row", 2, 2)], [("begins",), ("row", 1, 2)]
    assert told == [*first_image, ("done", (3, 32, 48), 6), *second_image, ("ended", "stopped")]
    first, whole, second, rows = conversation._pieces(row.answer)
    assert first == second == "Yes, a red circle." and row.answer.prompt_tokens == 7
    assert whole.height == 2 * rows.height and row.answer.partial


def test_what_cannot_be_said(built_in):
    conversation = Conversation(*built_in)
    with pytest.raises(ValueError, match="empty"):
        conversation.say(" ")
    with pytest.raises(ValueError, match=r"no room .* start a new one"):
        conversation.say("a " * 50_000)
    assert conversation.messages == []


def test_special_tokens_in_a_chat(built_in):
    """The user's words are refused, and the chat goes on; the model's own are no reason to end it."""
    conversation = Conversation(*built_in, seed=1, max_new_tokens=4)
    for words in ("<|im_end|>", "<|generate_start|>"):
        with pytest.raises(ValueError, match="special token"):
            conversation.say(words)
    conversation.say("Hello.")
    conversation._answered = ["The turn ends with <|im_<|im_end|>end|>."]
    assert conversation.say("And now?") is not None
    assert conversation.messages[1]["content"][0]["text"] == "The turn ends with <|im_ end|>."
