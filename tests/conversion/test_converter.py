"""Whole conversions of the compact checkpoint: what comes out, and that bad input leaves nothing behind."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from helpers import draw, picture
from wallaroo_hf import (
    WallarooConfig,
    WallarooForConditionalGeneration,
    WallarooImageProcessor,
    WallarooProcessor,
    WallarooVQModel,
)
from wallaroo_hf.conversion import converter, released_files, released_weights, shards
from wallaroo_hf.conversion.converter import convert_checkpoint, convert_vq
from wallaroo_hf.conversion.key_map import CHECKPOINT_PREFIXES, checkpoint_key, vq_key
from wallaroo_hf.layout.special_tokens import CONFIG_TOKEN_IDS, DRAWING_TOKENS, added_tokens, indicator_token

CODEBOOK_USED = "quantize.codebook_used"


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def weights_of(folder):
    """All tensors of a folder, over all shards."""
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def expected_weights(workshop):
    """The released tensors under our names."""
    tensors = {checkpoint_key(key): value for key, value in workshop.weights().items()}
    vq = workshop.vq_weights().items()
    return tensors | {f"model.vq_model.{vq_key(key)}": value for key, value in vq if key != CODEBOOK_USED}


def same(one, other):
    """Equal bit for bit, dtype too."""
    return one.dtype == other.dtype and torch.equal(one, other)


# ------------------------------------------------------------------------------------------------------- weights


def random_weights(workshop):
    """Float32 numbers that no shorter format holds, in the released layout, with exotic ones among them."""
    generator = torch.Generator().manual_seed(0)
    weights = {key: torch.randn(value.shape, generator=generator) for key, value in workshop.weights().items()}
    weights["wallaroo.model.norm.weight"][:4] = torch.tensor([0.0, -0.0, 3e38, 1e-40])
    return weights


def test_float32_is_the_source_bit_for_bit(workshop):
    workshop.save_checkpoint(random_weights(workshop))
    converted, expected = weights_of(workshop.convert()), expected_weights(workshop)
    assert set(converted) == set(expected)
    assert all(same(converted[name], tensor.float()) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", torch.bfloat16], ids=str)
def test_half_precision_is_the_rounded_source_and_vq_stays_float32(workshop, dtype):
    weights = random_weights(workshop)
    if dtype == "float16":
        weights["wallaroo.model.norm.weight"].clamp_(max=6e4)
    workshop.save_checkpoint(weights)
    vq = {key: torch.randn(value.shape) for key, value in workshop.vq_weights().items()}
    workshop.save_vq(vq)
    converted = weights_of(workshop.convert(dtype=dtype))
    target = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    for name, tensor in expected_weights(workshop).items():
        assert same(converted[name], tensor if name.startswith("model.vq_model.") else tensor.to(target)), name
    config = read_json(workshop.output / "config.json")
    assert config["dtype"] == str(target).removeprefix("torch.")
    model = WallarooForConditionalGeneration.from_pretrained(workshop.output)
    assert {p.dtype for p in model.vq_model.parameters()} == {torch.float32} and model.lm_head.weight.dtype == target


def test_bfloat16_is_the_default(workshop):
    convert_checkpoint(workshop.checkpoint, workshop.vq, workshop.base, workshop.output)
    assert weights_of(workshop.output)["lm_head.weight"].dtype == torch.bfloat16


def test_model_loads_with_every_weight(workshop):
    model, info = WallarooForConditionalGeneration.from_pretrained(workshop.convert(), output_loading_info=True)
    assert not any(info.values())
    state, expected = model.state_dict(), expected_weights(workshop)
    assert set(state) == set(expected)
    assert all(same(state[name], tensor.float()) for name, tensor in expected.items())


def test_shards_load_equal(workshop, compact):
    workshop.convert(max_shard_size="200KB")
    index = read_json(workshop.output / "model.safetensors.index.json")
    files = sorted(path.name for path in workshop.output.glob("*.safetensors"))
    assert len(files) > 5 and sorted(set(index["weight_map"].values())) == files
    for name in files:
        shard = load_file(workshop.output / name)
        assert {index["weight_map"][key] for key in shard} == {name}
        assert len(shard) == 1 or sum(value.nbytes for value in shard.values()) <= 200_000
    state = WallarooForConditionalGeneration.from_pretrained(workshop.output).state_dict()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in state.values())
    assert all(same(value, state[name]) for name, value in compact.model.state_dict().items())


def test_progress_counts_all_tensors(workshop):
    seen = []
    workshop.convert(max_shard_size="200KB", progress=lambda done, total: seen.append((done, total)))
    total = len(expected_weights(workshop))
    assert seen == sorted(seen) and len(seen) > 5 and seen[-1] == (total, total) and {t for _, t in seen} == {total}


def test_inputs_are_not_changed(workshop):
    workshop.own_base()
    paths = [workshop.checkpoint, workshop.vq, *workshop.base.iterdir()]
    before = [path.read_bytes() for path in paths]
    workshop.convert()
    assert [path.read_bytes() for path in paths] == before and len(list(workshop.base.iterdir())) == len(paths) - 2


def test_bare_and_otherwise_wrapped_checkpoints(workshop):
    weights, vq = workshop.weights(), workshop.vq_weights()
    workshop.checkpoint, workshop.vq = workshop.folder / "bare.ckpt", workshop.folder / "bare.pt"
    torch.save(weights, workshop.checkpoint)
    torch.save({"state_dict": vq}, workshop.vq)
    workshop.convert()
    assert set(weights_of(workshop.output)) == set(
        WallarooForConditionalGeneration(WallarooConfig.from_pretrained(workshop.output)).state_dict()
    )


def test_files_may_be_named_by_their_folders_or_strings(workshop):
    for part in ("checkpoint", "vq"):
        folder = workshop.folder / part
        folder.mkdir()
        shutil.copy(getattr(workshop, part), folder)
        setattr(workshop, part, str(folder))
    workshop.base, workshop.output = str(workshop.base), Path(workshop.output)
    convert_checkpoint(workshop.checkpoint, workshop.vq, workshop.base, str(workshop.output), dtype="float32")
    assert (workshop.output / "model.safetensors").is_file()


def test_checkpoint_and_vq_come_from_the_hub(workshop, monkeypatch):
    files = {"checkpoint.ckpt": workshop.checkpoint, "vq_ds16_t2i.pt": workshop.vq}
    asked = []

    def download(repo, filename, revision=None):
        asked.append((repo, filename, revision))
        return str(files[filename])

    monkeypatch.setattr(released_files, "hf_hub_download", download)
    workshop.checkpoint, workshop.vq = "org/wallaroo/checkpoint.ckpt@v1", "org/llamagen/vq_ds16_t2i.pt"
    workshop.convert()
    assert asked == [("org/wallaroo", "checkpoint.ckpt", "v1"), ("org/llamagen", "vq_ds16_t2i.pt", None)]


# -------------------------------------------------------------------------------------------------------- stages


def facts(folder):
    """What the three settings files say about the stage."""
    config, processor = read_json(folder / "config.json"), read_json(folder / "processor_config.json")
    generation = read_json(folder / "generation_config.json")
    assert generation["line_breaks"] == processor["line_breaks"]
    keys = ("line_breaks", "size_indicators", "buckets")
    return config["stage"], config["has_editing"], *(processor[key] for key in keys)


def test_editing_parts_mean_stage_4(workshop, caplog):
    with caplog.at_level("WARNING", "wallaroo_hf"):
        stage, has_editing, line_breaks, size_indicators, buckets = facts(workshop.convert())
    assert (stage, has_editing, line_breaks, size_indicators) == ("4", True, True, True)
    assert [512, 512] in buckets and len(buckets) > 10
    assert caplog.messages == []


def test_no_editing_parts_mean_stage_2_with_a_notice(workshop, caplog):
    workshop.drop_editing()
    with caplog.at_level("WARNING", "wallaroo_hf"):
        assert facts(workshop.convert()) == ("2", False, False, False, [[384, 384]])
    assert len(caplog.messages) == 1
    assert "stage 2" in caplog.text and "plain grid" in caplog.text and "3b" in caplog.text


@pytest.mark.parametrize(
    ("stage", "line_breaks", "side"), [(1, False, 384), ("2", False, 384), ("3a", False, 512), ("3B", True, None)]
)
def test_named_stages(workshop, caplog, stage, line_breaks, side):
    workshop.drop_editing()
    with caplog.at_level("WARNING", "wallaroo_hf"):
        found = facts(workshop.convert(stage=stage))
    assert found[:4] == (str(stage).lower(), False, line_breaks, line_breaks)
    assert found[4] == [[side, side]] if side else len(found[4]) > 10
    assert caplog.messages == []


def test_stage_4_may_be_named(workshop):
    assert facts(workshop.convert(stage=4))[:2] == ("4", True)


@pytest.mark.parametrize("stage", ["1", "2", "3a", "3b"])
def test_editing_parts_contradict_earlier_stages(workshop, stage):
    message = workshop.refused(stage=stage)
    assert f"Stage {stage} has no editing parts" in message and "name the right one" in message


def test_stage_4_needs_editing_parts(workshop):
    workshop.drop_editing()
    message = workshop.refused(stage="4")
    assert "Stage 4 has editing parts" in message and "checkpoint has none" in message


@pytest.mark.parametrize("stage", ["3", "5", "", 9])
def test_unknown_stages(workshop, stage):
    message = workshop.refused(stage=stage)
    assert repr(stage) in message and "1, 2, 3a, 3b, 4" in message


@pytest.mark.parametrize("dtype", ["int8", "fp16", "", torch.float64, None])
def test_unknown_dtypes(workshop, dtype):
    message = workshop.refused(dtype=dtype)
    assert repr(dtype) in message and "bfloat16, float16, float32" in message


# ---------------------------------------------------------------------------------------------- without editing


@pytest.fixture
def early(workshop):
    """Model and processor of a checkpoint of stage 2, with a bucket that is quickly drawn."""
    workshop.drop_editing()
    model = WallarooForConditionalGeneration.from_pretrained(workshop.convert()).eval()
    processor = WallarooProcessor.from_pretrained(workshop.output)
    processor.buckets = [(64, 64)]
    return model, processor


def test_early_stages_have_no_editing_modules(early):
    names = {name.split(".")[-1] for name, _ in early[0].named_modules()}
    assert {"generation_adapter", "generation_head", "vq_model"} <= names
    assert not {"source_adapter", "edit_adapter", "edit_head"} & names


def test_early_stages_draw(early, compact):
    """The same codes as with the editing parts there."""
    model, processor = early
    inputs = processor(text="a red fox", generation_mode="image", return_tensors="pt")
    drawn = draw(model, inputs, do_sample=False)
    assert len(drawn[0]) == 4 * 4 + 1
    assert drawn == draw(compact.model, inputs, do_sample=False, line_breaks=False)


def test_early_stages_refuse_to_edit(early):
    model, processor = early
    with pytest.raises(ValueError, match="stage 4"):
        processor(text="make it blue", images=picture(0), generation_mode="image", return_tensors="pt")
    processor.has_editing = True  # inputs from elsewhere
    inputs = processor(text="make it blue", images=picture(0), generation_mode="image", return_tensors="pt")
    with pytest.raises(ValueError, match="no editing parts") as caught:
        model.generate(**inputs, generation_mode="image")
    assert "stage 4" in str(caught.value) and "\n" not in str(caught.value)


def test_early_stages_refuse_to_learn_to_edit(early):
    model, processor = early
    processor.has_editing = True  # inputs from elsewhere
    inputs = processor(text="make it blue", images=picture(0), generation_mode="image", return_tensors="pt")
    kept = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "source_pixel_values")
    with pytest.raises(ValueError, match="stage 4"):
        model(**{key: inputs[key] for key in kept})


# -------------------------------------------------------------------------------------------------------- tokens


def ids_of(folder):
    """Every added token's id, after a look that config.json agrees."""
    tokenizer, config = AutoTokenizer.from_pretrained(folder), read_json(folder / "config.json")
    for key, token in CONFIG_TOKEN_IDS.items():
        assert config[key] == tokenizer.convert_tokens_to_ids(token), key
        assert tokenizer.encode(f"a{token}b", add_special_tokens=False)[1] == config[key]
    return {token: id_ for token, id_ in tokenizer.get_vocab().items() if token in added_tokens()}


def test_tokens_that_are_there_keep_their_ids(workshop, compact):
    base = AutoTokenizer.from_pretrained(compact.base)
    ids = ids_of(workshop.convert())
    assert ids == {token: base.convert_tokens_to_ids(token) for token in added_tokens()}
    assert len(AutoTokenizer.from_pretrained(workshop.output)) == len(base)


def test_published_tokenizers_get_the_tokens_in_the_released_order(workshop):
    first = workshop.strip_tokens()
    assert not set(added_tokens()) & set(AutoTokenizer.from_pretrained(workshop.base).get_vocab())
    ids = ids_of(workshop.convert())
    assert ids == {token: first + index for index, token in enumerate(added_tokens())}
    assert [token for token, _ in sorted(ids.items(), key=lambda item: item[1])][:6] == [
        "<|generate_start|>",
        "<|generate_end|>",
        "<|pixel_start|>",
        "<|pixel_end|>",
        "<|end_of_line>|",
        "<|generate_image_pad|>",
    ]
    # special, so that decoding can leave them out, and whole, whatever stands around them
    tokenizer = AutoTokenizer.from_pretrained(workshop.output)
    assert tokenizer.decode(list(ids.values()), skip_special_tokens=True) == ""
    assert tokenizer.encode("x<indicator:512>y<|end_of_line>|", add_special_tokens=False)[1::2] == [
        ids["<indicator:512>"],
        ids["<|end_of_line>|"],
    ]


def test_tokens_in_another_order_keep_it(workshop):
    first = workshop.strip_tokens()
    tokenizer = AutoTokenizer.from_pretrained(workshop.base)
    tokenizer.add_tokens(added_tokens()[::-1], special_tokens=True)
    tokenizer.save_pretrained(workshop.base)
    ids = ids_of(workshop.convert())
    assert ids == {token: first + index for index, token in enumerate(added_tokens()[::-1])}


def test_missing_tokens_follow_those_that_are_there(workshop):
    """The six drawing tokens exist (a base of stages 1 to 3), the indicators do not."""
    first = workshop.strip_tokens(added_tokens()[6:])
    ids = ids_of(workshop.convert())
    assert [ids[token] for token in added_tokens()] == list(range(first - 6, first + 12))


def test_plain_stages_add_only_the_drawing_tokens(workshop):
    first = workshop.strip_tokens()
    workshop.drop_editing()
    ids = ids_of(workshop.convert())
    assert ids == {token: first + index for index, token in enumerate(DRAWING_TOKENS)}
    assert indicator_token(512) not in AutoTokenizer.from_pretrained(workshop.output).get_vocab()


def test_too_small_an_embedding_for_the_tokens(workshop):
    workshop.change_json("config.json", lambda config: config.update(vocab_size=790))
    message = workshop.refused()
    assert "ids go up to 795" in message and "790 embedding rows" in message and "give the base" in message


def test_tokenizers_without_qwen_tokens_are_refused(workshop):
    workshop.strip_tokens(["<|image_pad|>", "<|im_start|>"])
    (workshop.base / "special_tokens_map.json").unlink()
    workshop.change_json("tokenizer_config.json", lambda config: config.pop("additional_special_tokens"))
    message = workshop.refused()
    assert "lacks" in message and "<|image_pad|>" in message and "<|im_start|>" in message and "Qwen2.5-VL" in message


# ------------------------------------------------------------------------------------------------------ settings


def test_converted_folder_is_complete(workshop, compact):
    files = {path.name for path in workshop.convert().iterdir()}
    assert {"config.json", "generation_config.json", "processor_config.json", "tokenizer.json"} <= files
    config = WallarooConfig.from_pretrained(workshop.output)
    assert config.architectures == ["WallarooForConditionalGeneration"]
    base = read_json(compact.base / "config.json")
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "rms_norm_eps", "intermediate_size"):
        assert getattr(config.text_config, key) == base[key]
    assert config.text_config.rope_parameters["mrope_section"] == base["rope_scaling"]["mrope_section"]
    assert config.vision_config.fullatt_block_indexes == base["vision_config"]["fullatt_block_indexes"]
    vq = workshop.vq_weights()
    assert config.codebook_size == config.vq_config.codebook_size == len(vq["quantize.embedding.weight"])
    assert config.vq_config.base_channels == len(vq["encoder.conv_in.weight"])
    assert config.vq_config.latent_channels == len(vq["encoder.conv_out.weight"])
    processor = WallarooProcessor.from_pretrained(workshop.output)
    tokenizer = AutoTokenizer.from_pretrained(compact.base)
    assert processor.chat_template == tokenizer.chat_template
    assert processor.image_processor.size == WallarooImageProcessor.from_pretrained(compact.base).size
    generation = GenerationConfig.from_pretrained(workshop.output)
    assert (generation.eos_token_id, generation.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_published_generation_config_is_kept(workshop):
    """What Qwen2.5-VL-7B-Instruct ships; the image entries are added."""
    published = {
        "bos_token_id": 756,
        "pad_token_id": 756,
        "do_sample": True,
        "eos_token_id": [758, 756],
        "repetition_penalty": 1.05,
        "temperature": 0.000001,
    }
    (workshop.own_base() / "generation_config.json").write_text(json.dumps(published), encoding="utf-8")
    written = read_json(workshop.convert() / "generation_config.json")
    assert published.items() <= written.items()
    assert (written["image_top_k"], written["image_guidance_scale"], written["line_breaks"]) == (1000, 3.0, True)
    assert written["image_guidance_min_p"] == 0  # off: as the authors draw


@pytest.mark.parametrize("name", ["chat_template.json", "chat_template.jinja"])
def test_chat_template_may_be_a_file_of_its_own(workshop, name):
    """Published Qwen2.5-VL has it in a json file; newer saves write jinja."""
    templates = []
    workshop.change_json("tokenizer_config.json", lambda config: templates.append(config.pop("chat_template")))
    template = templates[0] + "{# from the file #}"
    content = json.dumps({"chat_template": template}) if name.endswith("json") else template
    (workshop.base / name).write_text(content, encoding="utf-8")
    assert WallarooProcessor.from_pretrained(workshop.convert()).chat_template == template


def test_a_converted_folder_may_be_the_base(workshop, compact):
    workshop.base = compact.folder
    workshop.drop_editing()
    assert facts(workshop.convert(stage="3a"))[:2] == ("3a", False)
    assert ids_of(workshop.output) == ids_of(compact.folder)


# ----------------------------------------------------------------------------------------------------- vq alone


def test_vq_alone_loads_and_encodes_equal(workshop, compact):
    assert convert_vq(workshop.vq, workshop.output) == workshop.output
    assert sorted(os.listdir(workshop.output)) == ["config.json", "model.safetensors"]
    model, info = WallarooVQModel.from_pretrained(workshop.output, output_loading_info=True)
    assert not any(info.values()) and {p.dtype for p in model.parameters()} == {torch.float32}
    state = model.state_dict()
    for key, tensor in workshop.vq_weights().items():
        assert key == CODEBOOK_USED or same(state[vq_key(key)], tensor.float())
    pixels = torch.rand(2, 3, 48, 32) * 2 - 1
    with torch.no_grad():
        encoded, expected = model.encode(pixels), compact.model.vq_model.encode(pixels)
        decoded = model.decode(encoded.image_tokens)
    assert torch.equal(encoded.image_tokens, expected.image_tokens)
    assert torch.equal(encoded.latents, expected.latents)
    assert torch.equal(decoded, compact.model.vq_model.decode(expected.image_tokens))


def test_vq_alone_reads_its_sizes(workshop):
    """Another codebook than the language model's is none of this conversion's business."""
    weights = workshop.vq_weights()
    weights["quantize.embedding.weight"] = torch.randn(77, 8)
    workshop.save_vq(weights)
    convert_vq(workshop.vq, workshop.output)
    assert WallarooVQModel.from_pretrained(workshop.output).config.codebook_size == 77


def test_usage_counter_is_the_only_key_left_out(workshop):
    weights = workshop.vq_weights()
    workshop.save_vq(weights | {CODEBOOK_USED: torch.zeros(65536)})
    convert_vq(workshop.vq, workshop.output)
    assert len(weights_of(workshop.output)) == len(set(weights) - {CODEBOOK_USED})


@pytest.mark.parametrize("alone", [True, False], ids=["vq alone", "whole"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("decoder.norm_out.bias"), ["image tokenizer lacks", "decoder.norm_out.bias"]),
        (lambda w: w.pop("quantize.embedding.weight"), ["quantize.embedding.weight", "missing", "vq_ds16_t2i.pt"]),
        (lambda w: w.update({"loss.logvar": torch.ones(1)}), ["image tokenizer has keys", "loss.logvar"]),
        (lambda w: w.update({"encoder.extra": torch.ones(1)}), ["image tokenizer has tensors", "encoder.extra"]),
        (
            lambda w: w.update({"encoder.mid.block_1.norm1.bias": w["encoder.mid.0.norm1.bias"] + 1}),
            ["image tokenizer has keys", "encoder.mid.block_1.norm1.bias"],
        ),
        (lambda w: w.update({"decoder.norm_out.bias": torch.ones(3)}), ["decoder.norm_out.bias", "(3,)", "shape"]),
        (lambda w: w.update({"quantize.embedding.weight": torch.ones(8)}), ["LlamaGen", "vq_ds16_t2i.pt"]),
        (lambda w: w.update({"encoder.conv_in.weight": torch.ones(0, 3)}), ["LlamaGen", "vq_ds16_t2i.pt"]),
        (lambda w: w.update({"encoder.conv_in.weight": torch.tensor(1.0)}), ["LlamaGen", "vq_ds16_t2i.pt"]),
    ],
    ids=["missing", "no codebook", "unknown", "extra", "twice", "shape", "flat codebook", "no channels", "scalar"],
)
def test_bad_image_tokenizers(workshop, alone, change, words):
    weights = workshop.vq_weights()
    change(weights)
    workshop.save_vq(weights)
    message = workshop.refused_vq() if alone else workshop.refused()
    assert all(word in message for word in words), message


def test_checkpoint_and_image_tokenizer_mixed_up(workshop):
    workshop.checkpoint, workshop.vq = workshop.vq, workshop.checkpoint
    assert "image tokenizer is not a LlamaGen VQ model" in workshop.refused()
    assert "image tokenizer is not a LlamaGen VQ model" in workshop.refused_vq()


def test_image_tokenizer_as_checkpoint(workshop):
    workshop.checkpoint = workshop.vq
    message = workshop.refused()
    assert "The checkpoint has keys" in message and "right file" in message and "encoder.conv_in.weight" in message


# ----------------------------------------------------------------------------------------------- bad checkpoints


def test_wrong_codebook_size(workshop):
    weights = workshop.vq_weights()
    weights["quantize.embedding.weight"] = weights["quantize.embedding.weight"][:512]
    workshop.save_vq(weights)
    message = workshop.refused()
    assert "head" in message and "(1024, 32)" in message and "(512, 32)" in message and "belong together" in message


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("wallaroo.model.layers.1.mlp.up_proj.weight", "model.language_model.layers.1.mlp.up_proj.weight"),
        ("gen_input_adpater.0.bias", "model.generation_adapter.0.bias"),
        ("edit_image_head.2.weight", "edit_head.2.weight"),
        ("wallaroo.lm_head.weight", "lm_head.weight"),
    ],
)
def test_missing_keys_are_named(workshop, key, name):
    weights = workshop.weights()
    del weights[key]
    workshop.save_checkpoint(weights)
    message = workshop.refused()
    assert "checkpoint lacks tensors" in message and f": {name};" in message and "right file" in message


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("optimizer.step", "optimizer.step"),
        ("wallaroo.model.layers.7.mlp.up_proj.weight", "model.language_model.layers.7.mlp.up_proj.weight"),
        ("gen_input_adapter.0.bias", "gen_input_adapter.0.bias"),  # spelt rightly, which the released keys are not
        ("gen_image_head.2.bias", "generation_head.2.bias"),
    ],
)
def test_extra_keys_are_named(workshop, key, named):
    workshop.save_checkpoint(workshop.weights() | {key: torch.ones(32)})
    message = workshop.refused()
    assert "checkpoint has" in message and f": {named};" in message and "right file" in message


def test_many_keys_are_counted(workshop):
    workshop.save_checkpoint(workshop.weights() | {f"optimizer.{index}": torch.ones(1) for index in range(40)})
    assert "optimizer.4 and 35 more;" in workshop.refused()


def test_half_of_the_editing_parts(workshop):
    """Neither stage 3 nor stage 4: missing, whatever stage is named."""
    weights = workshop.weights()
    workshop.save_checkpoint({k: v for k, v in weights.items() if not k.startswith("edit_")})
    assert "lacks tensors" in workshop.refused() and "lacks tensors" in workshop.refused(stage="4")
    assert "Stage 3b has no editing parts" in workshop.refused(stage="3b")


def test_wrong_shapes_are_named(workshop):
    workshop.save_checkpoint(workshop.weights() | {"wallaroo.model.norm.weight": torch.ones(33)})
    message = workshop.refused()
    assert "`model.language_model.norm.weight`" in message and "(33,)" in message and "(32,)" in message


NUMBERS = [
    (lambda w: w.fill_(float("nan")), "is not finite"),
    (lambda w: w.index_fill(-1, torch.tensor([1]), float("inf")), "is not finite"),
    (lambda w: w.to(torch.complex64), "is torch.complex64"),
    (lambda w: w.bool(), "is torch.bool"),
    (lambda w: w.long(), "is torch.int64"),
    (lambda w: w.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn"),
    (lambda w: w.to_sparse(), "is sparse"),
    (lambda w: w.to("meta"), "is on the meta device"),
    (lambda w: torch.quantize_per_tensor(w.float(), 0.1, 0, torch.qint8), "is quantized"),
]


@pytest.mark.parametrize("part", ["checkpoint", "vq"])
@pytest.mark.parametrize(("change", "words"), NUMBERS, ids=[f"{n} {words}" for n, (_, words) in enumerate(NUMBERS)])
def test_weights_that_are_no_numbers_are_named(workshop, part, change, words):
    if part == "checkpoint":
        weights, name, ours = workshop.weights(), "gen_image_head.2.weight", "generation_head.2.weight"
        workshop.save_checkpoint(weights | {name: change(weights[name].clone())})
    else:
        weights, name, ours = workshop.vq_weights(), "quantize.embedding.weight", "quantize.embedding.weight"
        workshop.save_vq(weights | {name: change(weights[name].clone())})
    message = workshop.refused()
    assert words in message and (name in message or ours in message), message


def test_numbers_that_the_precision_cannot_hold_are_named(workshop):
    weights = {name: tensor.float() for name, tensor in workshop.weights().items()}
    weights["gen_image_head.2.weight"][0, 0] = 1e5
    workshop.save_checkpoint(weights)
    message = workshop.refused(dtype="float16")
    assert "`generation_head.2.weight` has numbers that float16 cannot hold" in message
    workshop.convert(dtype="bfloat16")


@pytest.mark.parametrize("alone", [True, False], ids=["vq alone", "whole"])
def test_a_flipped_bit_leaves_nothing_behind(workshop, alone):
    """In the middle of the file, which is numbers."""
    workshop.save_vq(workshop.vq_weights())
    data = bytearray(workshop.vq.read_bytes())
    data[len(data) // 2] ^= 1
    workshop.vq.write_bytes(data)
    message = workshop.refused_vq() if alone else workshop.refused()
    assert "checksum" in message and str(workshop.vq) in message


@pytest.mark.parametrize("part", ["checkpoint", "vq"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99, -1])
def test_truncated_files(workshop, part, keep):
    whole = getattr(workshop, part).read_bytes()
    path = workshop.folder / f"cut.{'ckpt' if part == 'checkpoint' else 'pt'}"
    path.write_bytes(whole[: keep if keep < 0 else int(len(whole) * keep)])
    setattr(workshop, part, path)
    what = "checkpoint" if part == "checkpoint" else "image tokenizer"
    messages = [workshop.refused()] + ([workshop.refused_vq()] if part == "vq" else [])
    for message in messages:
        assert f"The {what} '{path}'" in message and "incomplete" in message and "download it again" in message


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("part", ["checkpoint", "vq"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_malicious_files(workshop, part, legacy):
    marker, path = workshop.folder / "marker", workshop.folder / "evil.pt"
    weights = workshop.weights() if part == "checkpoint" else workshop.vq_weights()
    content = {"state_dict": weights, "model": weights, "callbacks": Trap(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    setattr(workshop, part, path)
    message = workshop.refused()
    assert "torch.save" in message if legacy else ("run code" in message and "not opened" in message)
    if part == "vq":
        workshop.refused_vq()
    assert not marker.exists()


@pytest.mark.parametrize("part", ["checkpoint", "vq", "base"])
def test_missing_inputs(workshop, part):
    setattr(workshop, part, workshop.folder / "nowhere")
    message = workshop.refused()
    assert str(workshop.folder / "nowhere") in message and "Hub id" in message


# ---------------------------------------------------------------------------------------------------- bad bases


def rename(settings, old, new):
    settings[new] = settings.pop(old)


def nest(settings, repeat=False):
    """Text settings in `text_config`, as newer transformers writes them; 4.5x repeats them outside."""
    outside = re.compile("architectures|model_type|(vision|image|video)_.*")
    text = {key: value for key, value in settings.items() if not outside.fullmatch(key)}
    for key in () if repeat else text:
        del settings[key]
    settings["text_config"] = text | {"model_type": "qwen2_5_vl_text", "image_token_id": None}
    return settings


@pytest.mark.parametrize("repeat", [False, True])
def test_bases_that_newer_transformers_saved(workshop, compact, repeat):
    workshop.change_json("config.json", lambda config: nest(config, repeat))
    config, flat = read_json(workshop.convert() / "config.json"), read_json(compact.folder / "config.json")
    assert "hidden_size" not in config
    assert config["text_config"] | flat["text_config"] == config["text_config"]
    assert {**config, "text_config": None} == {**flat, "text_config": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: rename(c, "num_hidden_layers", "num_hidden_layer"), ["no setting `num_hidden_layer`"]),
        (lambda c: c.update(has_edit=True), ["no setting `has_edit`", "`has_editing`"]),
        (
            lambda c: rename(c["vision_config"], "window_size", "windowsize"),
            ["no setting `windowsize`", "`window_size`"],
        ),
        (lambda c: rename(nest(c)["text_config"], "hidden_size", "hiden_size"), ["`hiden_size`", "`hidden_size`"]),
    ],
    ids=["text", "top", "vision", "nested"],
)
def test_misspelt_settings_are_named(workshop, change, words):
    workshop.change_json("config.json", change)
    message = workshop.refused()
    assert all(word in message for word in [*words, "config.json", str(workshop.base), "correct it"]), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(model_type="qwen2_vl"), ["qwen2_vl model", "trained from Qwen2.5-VL"]),
        (lambda c: (c.clear(), c.update(model_type="llama")), ["llama model", "trained from Qwen2.5-VL"]),
        (lambda c: c.update(model_type="nonsense"), ["No configuration", "nonsense", "Qwen2.5-VL folder"]),
        (lambda c: c.clear(), ["No configuration", "Qwen2.5-VL folder"]),
        (lambda c: c.update(hidden_size="wide"), ["hidden_size", "wide", "Qwen2.5-VL folder"]),
        (lambda c: c.update(num_hidden_layers=2), ["layers.2.", "7 more", "base"]),
        (lambda c: c.update(num_hidden_layers=4), ["lacks", "layers.3.", "7 more", "base"]),
        (lambda c: c.update(hidden_size=64), ["(832, 32)", "(832, 64)", "base"]),
    ],
    ids=["qwen2-vl", "llama", "unknown", "nothing", "type", "fewer layers", "more layers", "wider"],
)
def test_other_bases_are_refused(workshop, change, words):
    workshop.change_json("config.json", change)
    message = workshop.refused()
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", None, ["No configuration"]),
        ("config.json", "{oops", ["No configuration", "valid JSON"]),
        ("tokenizer.json", "{oops", ["No tokenizer"]),
        ("preprocessor_config.json", None, ["No image processor"]),
        ("preprocessor_config.json", "{oops", ["No image processor", "valid JSON"]),
        ("generation_config.json", "{oops", ["No generation configuration", "valid JSON"]),
        ("chat_template.json", "{oops", ["No chat template"]),
        ("chat_template.json", "{}", ["No chat template"]),
    ],
)
def test_damaged_bases_are_refused(workshop, name, content, words):
    path = workshop.own_base() / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content, encoding="utf-8")
    message = workshop.refused()
    assert all(word in message for word in [*words, str(workshop.base), "Qwen2.5-VL folder or Hub id"]), message


def test_base_without_tokenizer(workshop):
    for path in workshop.own_base().iterdir():
        if path.name not in ("config.json", "preprocessor_config.json"):
            path.unlink()
    message = workshop.refused()
    assert "tokenizer" in message and str(workshop.base) in message and "Qwen2.5-VL folder or Hub id" in message


def test_base_without_chat_template(workshop):
    workshop.change_json("tokenizer_config.json", lambda config: config.pop("chat_template"))
    assert "has no chat template" in workshop.refused()


# -------------------------------------------------------------------------------------------------------- output


@pytest.mark.parametrize("alone", [True, False], ids=["vq alone", "whole"])
def test_output_that_is_not_empty(workshop, alone):
    workshop.output.mkdir()
    (workshop.output / "precious.txt").write_text("kept")
    message = workshop.refused_vq() if alone else workshop.refused()
    assert str(workshop.output) in message and "not empty" in message and "choose another folder" in message
    assert (workshop.output / "precious.txt").read_text() == "kept"


def test_output_that_is_a_file(workshop):
    workshop.output.write_text("kept")
    assert "must be a folder, but" in workshop.refused() and workshop.output.read_text() == "kept"


def test_empty_output_folder_is_taken(workshop):
    workshop.output.mkdir()
    assert WallarooConfig.from_pretrained(workshop.convert()).has_editing


def test_failure_while_writing_leaves_nothing(workshop, monkeypatch):
    """The disk fills up at the third shard."""
    real, calls = shards.save_file, []

    def full_disk(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(shards, "save_file", full_disk)
    before = workshop.left_behind()
    with pytest.raises(OSError, match=r"No space is left for .*; make room there"):
        workshop.convert(max_shard_size="200KB")
    assert len(calls) == 3 and workshop.left_behind() == before


def test_failing_progress_leaves_nothing(workshop):
    def stop(done, total):
        raise KeyboardInterrupt

    before = workshop.left_behind()
    with pytest.raises(KeyboardInterrupt):
        workshop.convert(progress=stop)
    assert workshop.left_behind() == before


def test_settings_are_checked_before_weights_are_written(workshop, monkeypatch):
    monkeypatch.setattr(released_weights, "write_shards", lambda *args: pytest.fail("weights were written first"))
    (workshop.own_base() / "preprocessor_config.json").unlink()
    workshop.refused()


# -------------------------------------------------------------------------------------------------------- memory

MEMORY_SCRIPT = """
import sys
from wallaroo_hf.conversion.converter import convert_checkpoint
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
convert_checkpoint(*sys.argv[1:5], dtype="bfloat16", max_shard_size="500MB")
"""


def anonymous_memory(pid):
    """Bytes of memory that no file backs, 0 when the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = [line.split() for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(found[0][1]) * 1024 if found else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_bounded_by_a_shard_and_a_tensor(workshop, capsys, record_property):
    """A synthetic checkpoint of 3.8 GB: anonymous memory above that of the imports, sampled every 20 ms."""
    wide = {"hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 16384}
    wide |= {"num_hidden_layers": 12, "vocab_size": 152064}

    def widen(config):
        config.update(wide)
        config["rope_scaling"]["mrope_section"] = [16, 24, 24]
        config["vision_config"]["out_hidden_size"] = wide["hidden_size"]

    workshop.change_json("config.json", widen)
    config = WallarooConfig(
        **read_json(workshop.base / "config.json") | {"model_type": "wallaroo"},
        vq_config=converter.vq_config_from_tensors(workshop.vq_weights()).to_dict(),
    )
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in WallarooForConditionalGeneration(config).state_dict().items()}
    released = {new: old for old, new in CHECKPOINT_PREFIXES.items()}
    weights, values = {}, {}
    for index, (name, shape) in enumerate(shapes.items()):
        prefix = next((new for new in released if name.startswith(new)), None)
        if prefix is not None:
            values[name] = 1 + index / 1000
            weights[released[prefix] + name.removeprefix(prefix)] = torch.full(shape, values[name])
    checkpoint_bytes = sum(tensor.nbytes for tensor in weights.values())
    largest = max(tensor.numel() for tensor in weights.values()) * 2  # as it is written
    try:
        workshop.save_checkpoint(weights)
        del weights
        arguments = [str(path) for path in (workshop.checkpoint, workshop.vq, workshop.base, workshop.output)]
        with subprocess.Popen(
            [sys.executable, "-c", MEMORY_SCRIPT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            baseline = peak = anonymous_memory(process.pid)
            process.stdin.write("go\n")
            process.stdin.flush()
            while process.poll() is None:
                peak = max(peak, anonymous_memory(process.pid))
                time.sleep(0.02)
        assert process.returncode == 0
        figures = {"checkpoint": checkpoint_bytes, "baseline": baseline, "peak": peak, "above": peak - baseline}
        figures |= {"shard": 500_000_000, "largest": largest, "bound": 500_000_000 + largest}
        for name, value in figures.items():
            record_property(name, value)
        with capsys.disabled():
            sys.stdout.write(
                "\n" + ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in figures.items()) + "\n"
            )
        for path in workshop.output.glob("*.safetensors"):
            for name, tensor in load_file(path).items():
                if name in values:
                    assert tensor.dtype == torch.bfloat16 and tensor.shape == shapes[name]
                    assert bool((tensor == torch.tensor(values[name]).bfloat16()).all()), name
        assert peak - baseline <= figures["bound"] + 150_000_000
    finally:  # gigabytes, which pytest would keep for three runs
        workshop.checkpoint.unlink()
        shutil.rmtree(workshop.output, ignore_errors=True)
