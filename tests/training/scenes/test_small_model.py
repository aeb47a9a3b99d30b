"""A small model from nothing works through the public ways, before and after saving."""

import copy

import pytest
import torch

import wallaroo_hf
from helpers import draw, generators, picture
from wallaroo_hf.modeling.configuration import WallarooVQConfig
from wallaroo_hf.modeling.vq import WallarooVQModel
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.scenes.small_model import add_layers, new_small_model, train_tokenizer
from wallaroo_hf.training.stages import stage

TEXTS = ["Draw a red circle to the left of a blue star.", "画一个红色的圆形，在蓝色星星的左边。"] * 20
STAGE = stage(4).override({"buckets": [[96, 96], [64, 128], [128, 64]], "indicator_sizes": [64, 96, 128]})


@pytest.fixture(scope="module")
def small():
    tokenizer = train_tokenizer(TEXTS, STAGE.named_layout().indicators, 400)
    torch.manual_seed(0)
    vq_model = WallarooVQModel(
        WallarooVQConfig(
            codebook_size=64,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latent_channels=32,
        )
    )
    return new_small_model(tokenizer, vq_model, STAGE)


def test_tokenizer_writes_its_texts_whole_and_all_others_too(small):
    tokenizer = small[1].tokenizer
    for text in (*TEXTS[:2], "Ünïcode 龙 🙂 <|im_start|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("Draw a red circle")["input_ids"]) == 4
    assert tokenizer.eos_token == "<|im_end|>"


def test_chats_are_written_as_in_turns(small):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = small[1].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        "<|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_draws_edits_answers_and_trains_before_and_after_saving(small, tmp_path):
    model, processor = small
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(tmp_path)
    again = wallaroo_hf.WallarooProcessor.from_pretrained(tmp_path)
    for kwargs in (
        {"text": "a red circle", "aspect_ratio": "2:1"},
        {"text": "make it blue", "images": picture(1, 96, 96)},
    ):
        inputs = processor(generation_mode="image", return_tensors="pt", **kwargs)
        same = again(generation_mode="image", return_tensors="pt", **kwargs)
        drawn = draw(model, inputs, generator=generators(1))
        assert drawn == draw(loaded, same, generator=generators(1))
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(1, 96, 96)}, {"type": "text", "text": "What?"}],
        }
    ]
    inputs = again.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    tokens = loaded.generate(**inputs, do_sample=False, max_new_tokens=3)
    assert tokens.shape[1] - inputs["input_ids"].shape[1] <= 3
    row = {
        "messages": [
            {"role": "user", "content": "a red circle"},
            {"role": "assistant", "content": [{"type": "image"}]},
        ],
        "images": [picture(1, 96, 96)],
    }
    batch = WallarooDataCollator(again)([row])
    batch.pop("row_names")
    assert set(loaded(**batch).losses) == {"generation_text", "generation_image"}


def test_new_layers_change_nothing_until_they_are_trained(small, tmp_path):
    model = copy.deepcopy(small[0])
    inputs = small[1](text="a red circle", generation_mode="image", return_tensors="pt")
    ids = inputs["input_ids"]
    with torch.no_grad():
        before = model(ids).logits
        add_layers(model, 7)
        assert torch.equal(model(ids).logits, before)
    text = model.model.language_model
    assert [layer.self_attn.layer_idx for layer in text.layers] == list(range(7))
    assert model.config.text_config.num_hidden_layers == 7 == len(text.layers)
    # evenly between the old ones, and each with weights of its own
    assert [bool(layer.mlp.down_proj.weight.any()) for layer in text.layers] == [1, 1, 0, 1, 0, 1, 0]
    assert len({layer.mlp.up_proj.weight.data_ptr() for layer in text.layers}) == 7
    assert draw(model, inputs, generator=generators(1)) == draw(small[0], inputs, generator=generators(1))
    model.save_pretrained(tmp_path)
    loaded = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, before)
    with pytest.raises(ValueError, match="7 layers, which cannot become 4"):
        add_layers(model, 4)
