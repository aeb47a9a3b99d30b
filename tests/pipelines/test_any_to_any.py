"""transformers' own pipelines, and ours where theirs asks for torchvision."""

import copy
import json
import shutil

import pytest
from transformers import pipeline
from transformers.pipelines.any_to_any import AnyToAnyPipeline

from films import film_frames
from helpers import picture, same_picture
from wallaroo_hf import WallarooAnyToAnyPipeline

SIZE = {"height": 32, "width": 48}
DRAW = {"generation_mode": "image", **SIZE}


def _greedy():
    return {"generate_kwargs": {"do_sample": False}}  # new for each call: the stock pipeline writes into it


def _chat(text, image=None):
    content = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


@pytest.fixture
def ours(model, processor):
    return pipeline("any-to-any", model=model, processor=processor, pipeline_class=WallarooAnyToAnyPipeline)


@pytest.fixture
def stock(model, processor, monkeypatch):
    """The stock pipeline as it is where torchvision works: only its look for torchvision is left out."""
    monkeypatch.setattr("transformers.pipelines.any_to_any.requires_backends", lambda *_: None)
    pipe = pipeline("any-to-any", model=model, processor=processor)
    assert type(pipe) is AnyToAnyPipeline
    return pipe


@pytest.fixture(params=["stock", "ours"])
def pipe(request):
    return request.getfixturevalue(request.param)


def _sizes(records):
    return [record["generated_image"].size for record in records]


def _draws(pipe, text, **kwargs):
    return pipe(text=text, generation_mode="image", processor_kwargs=dict(DRAW), **_greedy(), **kwargs)


def test_draws_text_and_lists(pipe):
    alone = _draws(pipe, "a cat")
    together = _draws(pipe, ["a cat", "蓝色的星星"])
    assert _sizes(alone) == [(48, 32)] and _sizes(together) == [(48, 32)] * 2
    assert same_picture(alone[0]["generated_image"], together[0]["generated_image"])


def test_draws_from_chats(pipe):
    (record,) = _draws(pipe, _chat("a cat"))
    assert record["input_text"] == _chat("a cat")
    assert same_picture(record["generated_image"], _draws(pipe, "a cat")[0]["generated_image"])
    assert [_sizes(chat) for chat in _draws(pipe, [_chat("a cat"), _chat("a dog")])] == [[(48, 32)]] * 2


def test_copies(pipe):
    options = {
        "generate_kwargs": {"num_return_sequences": 2},
        "generation_mode": "image",
        "processor_kwargs": dict(DRAW),
    }
    records = pipe(text=["a cat", "a dog"], **options)
    assert [record["input_text"] for record in records] == ["a cat", "a cat", "a dog", "a dog"]


def test_edits(pipe):
    """The source may come as `images=` or in the chat; it matters which one it is."""
    one, other = picture(1), picture(2)
    by_argument = _draws(pipe, "make it blue", images=one)[0]["generated_image"]
    in_chat = _draws(pipe, _chat("make it blue", one))[0]["generated_image"]
    assert by_argument.tobytes() == in_chat.tobytes()
    assert _draws(pipe, "make it blue", images=other)[0]["generated_image"].tobytes() != in_chat.tobytes()


def test_answers(pipe):
    chats = [_chat("What is it?", picture(1)), _chat("Why?")]
    answers = pipe(text=chats, max_new_tokens=3, return_full_text=False, **_greedy())
    assert [isinstance(answer[0]["generated_text"], str) for answer in answers] == [True, True]


def test_auto_mode_announces_the_size(pipe, monkeypatch):
    """As everywhere: where nobody asks for one too."""
    seen = []
    generate = type(pipe.model).generate
    monkeypatch.setattr(type(pipe.model), "generate", lambda *a, **k: (seen.append(k), generate(*a, **k))[1])
    settings = {"do_sample": False, "max_new_tokens": 1, "generation_mode": "auto"}
    for size in ({}, SIZE):
        options = {"processor_kwargs": {"generation_mode": "auto", **size}, "generate_kwargs": dict(settings)}
        pipe(text=_chat("a cat"), **options)
    said = [pipe.processor.tokenizer.decode(k["input_ids"][0]) for k in seen if k.get("generation_mode") == "auto"]
    assert "a cat <indicator:512><indicator:512><|im_end|>" in said[0]
    assert "a cat <indicator:352><indicator:352><|im_end|>" in said[1]


def test_ours_tells_the_processor(ours, stock):
    by_itself = ours(text="a cat", generation_mode="image", processor_kwargs=SIZE, **_greedy())
    assert by_itself[0]["generated_image"].tobytes() == _draws(stock, "a cat")[0]["generated_image"].tobytes()


def test_ours_leaves_the_arguments_alone(ours):
    """The stock pipeline and `apply_chat_template` write into them, so that the next call goes wrong."""
    drawing, settings = dict(DRAW), {"do_sample": False}
    for text in (_chat("a cat"), "a cat"):
        ours(text=text, generation_mode="image", processor_kwargs=drawing, generate_kwargs=settings)
    assert drawing == DRAW and settings == {"do_sample": False}


def test_stock_names_the_missing_keyword(stock):
    with pytest.raises(ValueError, match=r'processor_kwargs=\{"generation_mode": "image"\}'):
        stock(text="a cat", generation_mode="image")


def test_image_text_to_text(model, processor):
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    chat = _chat("What is it?", picture(1))
    one, two = pipe(text=[chat, _chat("Why?")], max_new_tokens=3, return_full_text=False, **_greedy())
    assert one == pipe(text=chat, max_new_tokens=3, return_full_text=False, **_greedy()) and two != one


def test_videos(model, processor, ours):
    """By both pipelines, with the processor's words for them."""
    processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 784}
    content = [{"type": "video", "video": film_frames(4)}, {"type": "text", "text": "What happens?"}]
    chat = [{"role": "user", "content": content}]
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    options = {"max_new_tokens": 3, "return_full_text": False, **_greedy()}
    four = pipe(text=chat, **options)[0]["generated_text"]
    two = pipe(text=chat, processor_kwargs={"num_frames": 2}, **options)[0]["generated_text"]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    new = model.generate(**inputs, do_sample=False, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
    assert four == processor.post_process_image_text_to_text(new)[0] and isinstance(two, str)
    ours.processor.pixel_limits["video"] = processor.pixel_limits["video"]
    assert ours(text=chat, **options)[0]["generated_text"]


def test_saving_saves_all(ours, tmp_path):
    ours.save_pretrained(tmp_path / "saved")
    again = pipeline("any-to-any", model=str(tmp_path / "saved"), pipeline_class=WallarooAnyToAnyPipeline)
    assert (
        _draws(again, "a cat")[0]["generated_image"].tobytes() == _draws(ours, "a cat")[0]["generated_image"].tobytes()
    )


LENGTHS = ["Why?", "Tell me what you see on this long and winding road, please."]


def _one_by_one_and_together(pipe, chats, options):
    """The records of a call per chat, and those of one call with batches of two."""
    alone = [pipe(text=chat, **copy.deepcopy(options)) for chat in chats]
    return alone, pipe(text=chats, batch_size=2, **copy.deepcopy(options))


@pytest.mark.parametrize("saved", ["left", "right", None], ids=["new", "older", "oldest"])
def test_batches_of_a_loaded_folder_answer_as_one_at_a_time(compact, tmp_path, saved):
    """Also those of folders that were saved when tokenizers padded right."""
    folder = shutil.copytree(compact.folder, tmp_path / "folder")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings.pop("padding_side") == "left"
    settings |= {"padding_side": saved} if saved else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pipe = pipeline("image-text-to-text", model=str(folder))
    options = {"max_new_tokens": 6, "return_full_text": False, **_greedy()}
    for images in ((None, None), (picture(1), picture(2, 200, 90))):
        alone, together = _one_by_one_and_together(pipe, list(map(_chat, LENGTHS, images)), options)
        assert alone == together and alone[0] != alone[1]


@pytest.mark.parametrize("images", [(None, None), (picture(1), picture(2))], ids=["drawings", "edits"])
def test_batches_draw_as_one_at_a_time(pipe, images):
    options = {"generation_mode": "image", "processor_kwargs": DRAW, **_greedy()}
    alone, together = _one_by_one_and_together(pipe, list(map(_chat, LENGTHS, images)), options)
    for (one,), (other,) in zip(alone, together, strict=True):
        assert same_picture(one["generated_image"], other["generated_image"])
