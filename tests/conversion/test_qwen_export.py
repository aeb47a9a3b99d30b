"""The understanding half as a plain Qwen2.5-VL."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
)

from helpers import picture
from wallaroo_hf import default_checkpoint
from wallaroo_hf.conversion import export_qwen

CHAT = [
    {
        "role": "user",
        "content": [{"type": "image", "image": picture(1, 96, 96)}, {"type": "text", "text": "What colour is it?"}],
    }
]


@pytest.fixture(scope="module")
def exported(compact, tmp_path_factory):
    return export_qwen(compact.folder, tmp_path_factory.mktemp("export") / "qwen", max_shard_size="50KB")


def test_stock_transformers_computes_the_same_logits(compact, exported):
    stock, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values())
    inputs = compact.processor.apply_chat_template(
        CHAT, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    with torch.no_grad():
        assert torch.equal(stock(**inputs).logits, compact.model(**inputs).logits)


def test_stock_tokenizer_and_image_processor_prepare_the_same(compact, exported):
    text = AutoTokenizer.from_pretrained(exported).apply_chat_template(
        CHAT, tokenize=False, add_generation_prompt=True
    )
    assert text == compact.processor.apply_chat_template(CHAT, add_generation_prompt=True)
    image = CHAT[0]["content"][0]["image"]
    stock = AutoImageProcessor.from_pretrained(exported)(images=[image], return_tensors="pt")
    ours = compact.processor(text=[text], images=[image], return_tensors="pt")
    assert torch.equal(stock["pixel_values"], ours["pixel_values"])


def test_the_folder_is_a_published_one(exported):
    """Names, classes and settings as in the Qwen2.5-VL checkpoints of the Hub; nothing of drawing."""
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2_5_vl" and config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert not {"vq_config", "codebook_size", "has_editing", "generate_start_token_id"} & set(config)
    index = json.loads((exported / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in index["weight_map"]} == {"model", "visual", "lm_head"}
    assert len(set(index["weight_map"].values())) > 1
    assert "image_top_k" not in json.loads((exported / "generation_config.json").read_text(encoding="utf-8"))
    processor = json.loads((exported / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert (processor["image_processor_type"], processor["processor_class"]) == (
        "Qwen2VLImageProcessor",
        "Qwen2_5_VLProcessor",
    )


def test_the_precision_stays(tmp_path):
    folder = export_qwen(default_checkpoint(), tmp_path / "small")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert AutoModelForImageTextToText.from_pretrained(folder).dtype == torch.bfloat16


@pytest.mark.parametrize("change", ["missing", "shape", "dtype", "nan", "truncated", "no weights"])
def test_other_weights_are_refused(compact, tmp_path, change):
    source = shutil.copytree(compact.folder, tmp_path / "source")
    path = source / "model.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors["lm_head.weight"]
    elif change == "shape":
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].contiguous()
    elif change == "nan":
        tensors["lm_head.weight"][0, 0] = float("nan")
    elif change == "dtype":
        tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    save_file(tensors, path, metadata={"format": "pt"})
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif change == "no weights":
        path.unlink()
    with pytest.raises(ValueError, match=r"eights .*; |lacks the weights"):
        export_qwen(source, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"source"}


def test_only_wallaroo_is_exported(exported, tmp_path):
    with pytest.raises(ValueError, match="qwen2_5_vl"):
        export_qwen(exported, tmp_path / "out")
    with pytest.raises(ValueError, match="does not exist"):
        export_qwen("nowhere", tmp_path / "out")


def test_stock_transformers_writes_what_ours_writes(compact, exported):
    """Also where a drawing token would be the likeliest: both suppress the same ids."""
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(exported).eval()
    assert sorted(compact.model.config.drawing_token_ids) == stock.generation_config.suppress_tokens
    prompts = compact.processor(text=["hi", "a red fox"], return_tensors="pt", padding=True)
    options = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
    answers = [
        model.generate(input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"], **options)
        for model in (stock, compact.model)
    ]
    assert torch.equal(*answers)
