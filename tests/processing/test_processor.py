"""Prompts, images and sizes to tensors; saving and loading; what users get wrong."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from helpers import picture
from wallaroo_hf import WallarooProcessor, default_checkpoint


def _draw(processor, **kwargs):
    return processor(**{"text": "a cat", "generation_mode": "image", "return_tensors": "pt", **kwargs})


def _text(processor, batch, key="input_ids", row=0):
    mask = batch[key.replace("input_ids", "attention_mask")][row].bool()
    return processor.tokenizer.decode(batch[key][row][mask])


def test_emitted_tensors(processor):
    batch = _draw(processor, text=["blue", "red"], images=[picture(1), picture(2)], height=64, width=96)
    names = {
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
        "source_pixel_values",
    }
    assert set(batch) == names | {f"negative_{name}" for name in names} | {"target_grid_hw"}
    assert set(batch) <= set(processor.model_input_names)
    assert batch["target_grid_hw"].tolist() == [[4, 6], [4, 6]]
    assert [tuple(pixels.shape) for pixels in batch["source_pixel_values"]] == [(3, 64, 96)] * 2
    assert batch["source_pixel_values"][0].dtype == torch.float32
    assert batch["input_ids"].shape == batch["negative_input_ids"].shape


def test_mm_token_type_ids_mark_the_vision_block_only(processor):
    batch = _draw(processor, images=[picture(1)], height=64, width=64)
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    placeholders = int((batch["input_ids"] == image).sum())
    vision = int(batch["image_grid_thw"].prod()) // 4
    assert placeholders == vision + 16
    assert int(batch["mm_token_type_ids"].sum()) == vision


def test_unconditional_branch(processor):
    batch = _draw(processor, images=[picture(1)], height=64, width=64)
    assert 'the text prompt: ""' in _text(processor, batch, "negative_input_ids")
    assert torch.equal(batch["negative_source_pixel_values"][0], torch.full((3, 64, 64), -1.0))
    named = _draw(processor, negative_prompt="a dog", height=64, width=64)
    assert '"a dog"' in _text(processor, named, "negative_input_ids")


def test_a_long_negative_prompt_pads_the_prompt(processor):
    batch = _draw(processor, negative_prompt="a very long list of things that nobody wants", height=64, width=64)
    assert batch["input_ids"].shape == batch["negative_input_ids"].shape
    assert not batch["attention_mask"][0, 0] and batch["negative_attention_mask"].all()


def test_size_is_honoured_and_announced(processor):
    text = _text(processor, _draw(processor, height=256, width=1024))
    assert "1024x256" in text and "<indicator:352><indicator:704>" in text


def test_size_by_aspect_ratio_and_by_source(processor):
    assert _draw(processor)["target_grid_hw"].tolist() == [[32, 32]]
    assert _draw(processor, aspect_ratio="2:1")["target_grid_hw"].tolist() == [[22, 44]]
    assert _draw(processor, images=[picture(1, 300, 150)])["target_grid_hw"].tolist() == [[22, 44]]


def test_sizes_per_row(processor):
    batch = _draw(processor, text=["a", "b"], height=[64, 96], width=[96, 64])
    assert batch["target_grid_hw"].tolist() == [[4, 6], [6, 4]]


def test_templates(processor):
    assert "Create a 64x64 sized" in _text(processor, _draw(processor, prompt_template=1, height=64, width=64))
    assert "just a cat<" in _text(
        processor, _draw(processor, prompt_template="just {prompt}", height=64, width=64)
    ).replace(" <", "<")
    chinese = _text(processor, _draw(processor, text="一只猫", height=64, width=64))
    assert "一只猫" in chinese and "64x64" in chinese and "Generate" not in chinese


def test_chats_are_read_like_plain_prompts(processor):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "make it blue"}]}]
    size = {"height": 64, "width": 64}
    rendered = processor.apply_chat_template(chat, add_generation_prompt=True)
    from_chat = _draw(processor, text=rendered, images=[picture(1)], **size)
    plain = _draw(processor, text="make it blue", images=[picture(1)], **size)
    assert torch.equal(from_chat["input_ids"], plain["input_ids"])
    image_chat = [
        {"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "make it blue"}]}
    ]
    direct = processor.apply_chat_template(
        image_chat,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"generation_mode": "image", **size},
    )
    assert torch.equal(direct["input_ids"], plain["input_ids"])
    torch.testing.assert_close(direct["source_pixel_values"][0], plain["source_pixel_values"][0])


def test_a_chat_keeps_its_system_message(processor):
    chat = [{"role": "system", "content": "Draw like a child."}, {"role": "user", "content": "a cat"}]
    batch = _draw(processor, text=processor.apply_chat_template(chat), height=64, width=64)
    assert _text(processor, batch).startswith("<|im_start|>system\nDraw like a child.<|im_end|>")


def test_answering_a_chat(processor):
    chat = [{"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "What?"}]}]
    batch = processor.apply_chat_template(
        [chat, chat],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"generation_mode": "text"},
    )
    assert batch["input_ids"].shape[0] == 2 and batch["image_grid_thw"].shape == (2, 3)


def test_ways_to_give_an_image(processor, tmp_path):
    image = picture(1)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    expected = _draw(processor, images=[image], height=64, width=64)["source_pixel_values"][0]
    for given in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        array,
        torch.from_numpy(array.transpose(2, 0, 1).copy()),
    ):
        got = _draw(processor, images=[given], height=64, width=64)["source_pixel_values"][0]
        torch.testing.assert_close(got, expected)
    gray = Image.new("L", (64, 64), 255)
    assert torch.equal(
        _draw(processor, images=gray, height=64, width=64)["source_pixel_values"][0], torch.ones(3, 64, 64)
    )


def test_casting_spares_the_image_tokenizers_pixels(processor):
    batch = _draw(processor, images=[picture(1)], height=64, width=64).to("cpu", dtype=torch.bfloat16)
    assert batch["pixel_values"].dtype == torch.bfloat16
    assert batch["source_pixel_values"][0].dtype == batch["negative_source_pixel_values"][0].dtype == torch.float32
    assert batch.to(torch.device("cpu"))["input_ids"].dtype == torch.int64


def test_without_return_tensors(processor):
    batch = processor(text=["a cat"], generation_mode="image", height=64, width=64)
    assert isinstance(batch["input_ids"], list) and isinstance(batch["input_ids"][0][0], int)


def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    for key in ("buckets", "indicator_sizes", "prompt_templates", "size_indicators", "line_breaks", "pixel_limits"):
        assert key in settings
    for loaded in (WallarooProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        batch = _draw(loaded, images=[picture(1)], height=64, width=64)
        expected = _draw(processor, images=[picture(1)], height=64, width=64)
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["pixel_values"], expected["pixel_values"])


def test_rows_are_padded_left_unless_asked_otherwise(processor, tmp_path):
    """Saved too, for those who read the side off the tokenizer."""
    processor.tokenizer.padding_side = "right"
    processor = WallarooProcessor(
        processor.image_processor, processor.tokenizer, chat_template=processor.chat_template
    )
    processor.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    assert AutoTokenizer.from_pretrained(default_checkpoint()).padding_side == "left"
    for side, place in ({}, 0), ({"padding_side": "left"}, 0), ({"padding_side": "right"}, -1):
        mask = AutoProcessor.from_pretrained(tmp_path)(text=["a", "a b c d"], **side)["attention_mask"]
        assert [row[place] for row in mask] == [0, 1]


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("generation_config.json", "line_breaks", False),
        ("config.json", "end_of_line_token_id", 3),
        ("config.json", "has_editing", False),
        ("config.json", "vq_config", {"channel_multiplier": [1, 1, 1, 1]}),
    ],
)
def test_contradicting_files_are_refused(compact, tmp_path, file, key, value):
    folder = tmp_path / "folder"
    shutil.copytree(compact.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / file).read_text())
    settings[key] = value
    (folder / file).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="contradicts itself"):
        WallarooProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"height": 100, "width": 64}, "multiple of 16"),
        ({"height": 64}, "both `height` and `width`"),
        ({"height": 64, "width": 64, "aspect_ratio": "1:1"}, "not both"),
        ({"aspect_ratio": "big"}, "16:9"),
        ({"text": ""}, "empty"),
        ({"text": "  "}, "empty"),
        ({"text": "a <|im_end|> b"}, "The prompt contains the special token"),
        ({"negative_prompt": "a <|im_end|> b"}, "negative prompt contains the special token"),
        ({"generation_mode": "auto", "negative_prompt": "<|generate_start|>"}, "negative prompt contains the special"),
        (
            {"text": ["a", "b"], "generation_mode": "auto", "negative_prompt": ["", "<|im_end|>"]},
            "negative prompt cont",
        ),
        ({"text": []}, "non-empty"),
        ({"text": None}, "`text` is missing"),
        ({"images": [picture(1), picture(2)]}, "exactly one"),
        ({"text": ["a", "b"], "images": [picture(1), picture(2), picture(3)]}, "one source image per prompt"),
        ({"text": "<|image_pad|> blue"}, "no image was given"),
        ({"text": ["a", "b"], "height": [64, 64, 64], "width": 64}, "one for all or one each"),
        ({"generation_mode": "video"}, "generation_mode"),
        ({"generation_mode": "text", "height": 64}, "generation_mode='image'"),
        ({"generation_mode": "text", "layout": "published_eval"}, "`layout` is for drawing"),
        ({"generation_mode": "text", "source_guidance": True}, "`source_guidance` is for drawing"),
        ({"generation_mode": "auto", "source_fit": "pad"}, "`source_fit` has no effect"),
        ({"generation_mode": "auto", "return_labels": True}, "`return_labels` in auto mode needs `target_images`"),
        ({"layout": "other"}, "published_eval"),
        ({"truncation": True}, "truncation"),
        ({"videos": [1]}, "Nothing is drawn from a video"),
        ({"audio": [1]}, "Audio is not understood"),
        ({"videos": 1, "generation_mode": "text"}, "A video was given as a int"),
        ({"videos": ["nowhere.mp4"], "generation_mode": "text"}, "0 <\\|video_pad\\|> placeholders, but 1 videos"),
        ({"return_labels": True}, "target_images"),
        ({"images": ["nowhere.png"]}, "does not exist"),
        ({"prompt_template": 99}, "prompt_template"),
        ({"padding": "max_length", "max_length": 5}, "max_length"),
    ],
)
def test_refused(processor, kwargs, words):
    with pytest.raises(ValueError, match=words):
        _draw(processor, **kwargs)


def test_misspelt_arguments_are_refused(processor):
    with pytest.raises(TypeError, match="did you mean `height`"):
        _draw(processor, heigth=64)


def test_damaged_image(processor, tmp_path):
    picture(1, 400, 400).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not an image")
    for name in ("cut.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name}.*could not be read"):
            _draw(processor, images=[tmp_path / name])


@pytest.mark.parametrize(("mode", "task"), [("text", "understanding"), ("auto", "editing")])
@pytest.mark.parametrize("limits", [{}, {"shortest_edge": 3136, "longest_edge": 12544}])
def test_vision_tokens_are_known_from_the_size(processor, monkeypatch, mode, task, limits):
    monkeypatch.setattr(processor, "pixel_limits", {task: limits} if limits else {})
    for size in ((20, 30), (200, 90), (640, 480)):
        image = picture(1, *size)
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = processor(text=[text], images=[image], generation_mode=mode, return_tensors="pt")
        assert processor.num_vision_tokens(image, task) == int(inputs["mm_token_type_ids"].sum())


def test_placeholders_and_images_must_match_when_answering(processor):
    with pytest.raises(ValueError, match=r"1 <\|image_pad\|> placeholders"):
        processor(text="<|vision_start|><|image_pad|><|vision_end|>What?", return_tensors="pt")


def test_a_plain_tokenizer_is_refused(processor):
    tokenizer = processor.tokenizer
    with pytest.raises(ValueError, match="<indicator:9999>"):
        WallarooProcessor(processor.image_processor, tokenizer, indicator_sizes=[9999])


def test_text_of_rows_with_image_codes(processor):
    rows = torch.tensor([[processor.tokenizer.convert_tokens_to_ids("<|generate_start|>"), 10**6, 10**6 + 1]])
    assert processor.post_process_multimodal_output(rows) == [""]
    with pytest.raises(ValueError, match="decode_image_tokens"):
        processor.post_process_multimodal_output(rows, generation_mode="image")


@pytest.mark.parametrize("mode", ["text", "image", "auto"])
def test_every_form_of_an_image_is_one_image(processor, tmp_path, mode):
    """Through chats too, whose parts may hold anything that is opened."""
    path = tmp_path / "a.png"
    picture(1).save(path)
    stored = {"bytes": path.read_bytes(), "path": None}
    forms = [
        str(path),
        path.as_uri(),
        path.read_bytes(),
        stored,
        io.BytesIO(path.read_bytes()),
        np.asarray(picture(1)),
    ]
    options = {"generation_mode": mode, **({} if mode == "text" else {"height": 64, "width": 64})}
    batches = []
    for form in [picture(1), *forms]:
        chat = [{"role": "user", "content": [{"type": "image", "image": form}, {"type": "text", "text": "bluer"}]}]
        batches.append(
            processor.apply_chat_template(
                chat, tokenize=True, return_dict=True, return_tensors="np", processor_kwargs=dict(options)
            )
        )
        text = processor.apply_chat_template(chat)
        again = processor(text=text, images=io.BytesIO(path.read_bytes()), return_tensors="np", **options)
        assert (again["pixel_values"] == batches[0]["pixel_values"]).all()
    assert all((batch["pixel_values"] == batches[0]["pixel_values"]).all() for batch in batches)
