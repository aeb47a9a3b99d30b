"""Prompts, chats and pictures to tensors, and back; text mode against Qwen2.5-VL's own; what users get wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from small_hieraquery import new_hieraquery, picture, small_config, small_tokenizer
from wallaroo_hf.hieraquery import HieraQueryImageProcessor, HieraQueryProcessor

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.fixture(scope="module")
def processor():
    return new_hieraquery()[1]


def draw(processor, *words, **options):
    return processor(text=list(words), generation_mode="image", return_tensors="pt", **options)


def chat(*parts, role="user"):
    return {
        "role": role,
        "content": [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in parts
        ],
    }


def test_text_mode_is_qwens_own(processor):
    """Ids, masks, types and patches by the formulas of Qwen2.5-VL's processor (which needs torchvision)."""
    chats = [
        [chat(picture(), "what colour is it?")],
        [chat("blue"), chat("red", role="assistant"), chat("what is it?")],
    ]
    texts = [processor.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one in chats]
    batch = processor(images=[picture()], text=texts, return_tensors="pt")
    settings = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1024}}
    vision = Qwen2VLImageProcessorPil(**settings)(picture(), return_tensors="pt")
    assert torch.equal(batch["pixel_values"], vision["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], vision["image_grid_thw"])
    count = int(vision["image_grid_thw"].prod()) // 4
    texts[0] = texts[0].replace("<|image_pad|>", "<|image_pad|>" * count)
    expected = processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(batch["mm_token_type_ids"], (expected["input_ids"] == image).long())
    assert "image_size" not in batch
    tokens = processor.count_tokens(chats[0])
    assert tokens == int(batch["attention_mask"][0].sum())


def test_prompts_to_draw_from(processor):
    batch = draw(processor, "a red square", "make it green", images=[None, picture()], height=32, width=32)
    texts = [text.replace("<|endoftext|>", "") for text in processor.tokenizer.batch_decode(batch["input_ids"])]
    assert texts[0] == f"{SYSTEM}<|im_start|>user\na red square<|im_end|>\n<|im_start|>assistant\n"
    pads = "<|image_pad|>" * 16
    turn = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>make it green<|im_end|>\n<|im_start|>assistant\n"
    assert texts[1] == SYSTEM + turn
    assert batch["image_size"].tolist() == [[32, 32], [32, 32]]
    assert batch["attention_mask"][:, -1].all() and not batch["attention_mask"][0, 0]
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]]


def test_rendered_chats_of_one_turn(processor):
    plain = draw(processor, "make it green", images=[picture()])
    text = processor.apply_chat_template(
        [chat(picture(), "make it green")], tokenize=False, add_generation_prompt=True
    )
    rendered = draw(processor, text, images=[picture()])
    assert {name: value.tolist() for name, value in plain.items()} == {
        name: value.tolist() for name, value in rendered.items()
    }
    talk = [chat("blue"), chat("red", role="assistant"), chat("again")]
    text = processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    with pytest.raises(ValueError, match="draws from one prompt without a system's words or earlier turns"):
        draw(processor, text)


def test_sizes(processor):
    assert draw(processor, "red", aspect_ratio="5:3")["image_size"].tolist() == [[24, 40]]
    tall = picture(size=(20, 40))
    assert draw(processor, "red", images=[tall])["image_size"].tolist() == [[40, 24]]
    assert draw(processor, "red", "blue", height=[36, 8], width=[44, 12])["image_size"].tolist() == [[36, 44], [8, 12]]


def test_the_source_is_seen_at_the_size_that_is_drawn(processor):
    wide = picture(size=(80, 32))
    for fit in ("crop", "pad"):
        batch = draw(processor, "red", images=[wide], height=32, width=32, source_fit=fit)
        shown = processor.image_processor.fit_to_size(wide, 32, 32, fit)
        expected = processor.image_processor(shown, return_tensors="pt")
        assert shown.size == (32, 32) and torch.equal(batch["pixel_values"], expected["pixel_values"])
    cropped, padded = (processor.image_processor.fit_to_size(wide, 32, 32, fit) for fit in ("crop", "pad"))
    assert cropped.tobytes() != padded.tobytes()
    assert np.array_equal(np.asarray(padded)[0], np.asarray(padded)[5])  # the edge is repeated
    assert processor.fit_back([padded], [wide], "pad")[0].size == wide.size


def test_pixels_go_there_and_back(processor):
    pixels = processor.to_pixels(picture(), 32, 32)
    assert pixels.shape == (3, 32, 32) and pixels.min() >= -1 and pixels.max() <= 1
    assert processor.pictures([pixels])[0].tobytes() == picture().tobytes()
    levels = torch.arange(256).float().repeat(3, 1)[:, None] / 255 * 2 - 1
    assert np.asarray(processor.pictures([levels])[0])[0, :, 0].tolist() == list(range(256))
    with pytest.raises(ValueError, match=r"Pixels of shape \(1, 3, 4, 4\) were given"):
        processor.pictures([torch.zeros(1, 3, 4, 4)])


def test_collated_rows_are_a_batch(processor):
    together = draw(processor, "a red square", "make it green", images=[None, picture()], height=32, width=32)
    rows = [
        draw(processor, "a red square", height=32, width=32),
        draw(processor, "make it green", images=[picture()], height=32, width=32),
    ]
    joined = processor.collate(rows)
    assert {name: value.tolist() for name, value in joined.items()} == {
        name: value.tolist() for name, value in together.items()
    }


def test_chats_go_on(processor):
    messages = [chat("blue")]
    longer = processor.continue_chat(messages, ["red ", "it is"], "why?")
    assert len(messages) == 1 and [turn["role"] for turn in longer] == ["user", "assistant", "user"]
    assert longer[1]["content"] == [{"type": "text", "text": "red it is"}]


def test_a_folder_round_trip(processor, tmp_path):
    small_config(processor.tokenizer).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, HieraQueryProcessor) and again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    assert draw(again, "red")["input_ids"].tolist() == draw(processor, "red")["input_ids"].tolist()


def test_built_from_a_language_models_folder(tmp_path):
    """Settings as Qwen's repositories have them: the image processor's and the template in files of their own."""
    tokenizer = small_tokenizer()
    template, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 64, "max_pixels": 1024, "patch_size": 4}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    built = HieraQueryProcessor.of_language_model(tmp_path, small_config(tokenizer))
    assert built.chat_template == template and built.drawing_sizes[0] == (32, 32) and built.query_positions == 9
    expected = new_hieraquery()[1]
    images = {"images": [picture()]}
    assert torch.equal(draw(built, "red", **images)["pixel_values"], draw(expected, "red", **images)["pixel_values"])


def test_tokenizers_of_others_are_refused(processor):
    config = small_config(processor.tokenizer)
    config.mllm_config.image_token_id += 1
    with pytest.raises(ValueError, match=r"`image_token_id` is \d+ in the configuration .*, but the tokenizer has"):
        HieraQueryProcessor.of_config(config, processor.image_processor, processor.tokenizer)
    bare = small_tokenizer()
    bare.chat_template = None
    with pytest.raises(ValueError, match="The tokenizer has no chat template"):
        HieraQueryProcessor(HieraQueryImageProcessor(), bare)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"generation_mode": "auto"}, "does not decide by itself when to draw in a chat"),
        ({"generation_mode": "draw"}, "`generation_mode` is 'draw', but must be one of"),
        ({"negative_prompt": "blue"}, "takes no negative prompt"),
        ({"height": 30, "width": 32}, "`height` is 30, but must be a positive multiple of 4 pixels; try 28 or 32"),
        ({"height": "32", "width": 32}, "`height` is '32', but must be a whole number of pixels"),
        ({"height": 32}, "Give both `height` and `width`"),
        ({"text": ""}, "The prompt is empty"),
        ({"text": "a <|im_end|>"}, r"contains the special token <\|im_end\|>"),
        ({"text": None}, "`text` is missing"),
        ({"images": [picture(), picture()]}, "2 source images were given for one instruction|2 images were given"),
        ({"source_fit": "stretch"}, "`source_fit` is 'stretch'"),
        ({"videos": [1]}, "Nothing is drawn from a video"),
        ({"audio": [1]}, "Audio is not understood"),
        ({"truncation": True}, "`truncation` would cut"),
        ({"text": "red " * 500}, "positions, but the model has 1,024; shorten the prompt"),
    ],
)
def test_what_cannot_be_drawn(processor, arguments, words):
    with pytest.raises(ValueError, match=words):
        processor(**{"text": "a red square", "generation_mode": "image", **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": [picture()]}, "hold 0 .* placeholders, but 1 images were given"),
        ({"height": 32, "width": 32}, "`height` is for drawing"),
        ({"negative_prompt": "blue"}, "`negative_prompt` is for drawing"),
    ],
)
def test_what_cannot_be_answered(processor, arguments, words):
    with pytest.raises(ValueError, match=words):
        processor(text="what?", **arguments)


def test_misspelt_arguments(processor):
    with pytest.raises(TypeError, match="unexpected argument `hight`; did you mean `height`"):
        processor(text="red", generation_mode="image", hight=32)


def test_tasks_and_positions_are_the_models():
    sd3 = {"_class_name": "SD3Transformer2DModel", "in_channels": 3, "out_channels": 3, "num_layers": 1}
    tokenizer = small_tokenizer()
    dit = {**sd3, "patch_size": 4, "pos_embed_max_size": 8}
    config = small_config(tokenizer, dit=dit, tasks=["understanding", "text-to-image"])
    processor = HieraQueryProcessor.of_config(config, HieraQueryImageProcessor(patch_size=4), tokenizer)
    with pytest.raises(ValueError, match="has positions for edges up to 32 pixels; ask for a smaller image"):
        draw(processor, "red", height=32, width=36)
    with pytest.raises(ValueError, match="does not do image-editing"):
        draw(processor, "red", images=[Image.new("RGB", (32, 32))])
