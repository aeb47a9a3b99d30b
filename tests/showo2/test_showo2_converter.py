"""The converter of Show-o2: every weight in its place, sizes by the tensors, and nothing left behind by bad input."""

from __future__ import annotations

import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from golden_showo2 import details
from released_showo2 import IDS, VISION, Workshop, released_key, released_vae, released_weights, write_json
from wallaroo_hf.families.registry import load
from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration, ShowO2Processor
from wallaroo_hf.showo2.conversion.showo2_key_map import CHECKPOINT_PREFIXES, checkpoint_key
from wallaroo_hf.showo2.conversion.trained_sizes import flow_sizes, patch_sizes, text_sizes, vision_sizes
from wallaroo_hf.showo2.conversion.wan_vae import read_vae
from wallaroo_hf.showo2.showo2_tokens import CONFIG_TOKENS


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def refused(workshop, *words, **changes):
    """One sentence with these words, and nothing left behind."""
    with pytest.raises(ValueError) as caught:
        workshop.convert(**changes)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith((".", "?"))
    assert not workshop.left_behind()


def loaded(folder):
    model, info = ShowO2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def same_weights(folder, weights):
    """Every released weight is in the model, bit by bit, and there is no other but the codec's."""
    ours = {released_key(name): value for name, value in loaded(folder).state_dict().items() if name[:4] != "vae."}
    assert ours.keys() == weights.keys() and all(torch.equal(ours[name], weights[name]) for name in ours)


@pytest.mark.parametrize(
    "proportions",
    [
        {},
        {"tied": False},
        {"flow": {"num_key_value_heads": 1}},
        {"grid": (3, 3)},
        {"grid": (2, 5)},
        {"flow": {"hidden_size": 16, "head_dim": 6}},  # as wide as the language model; heads of another width than it
        {"text": {"num_hidden_layers": 3}, "flow": {"num_hidden_layers": 1}, "vision": {"num_hidden_layers": 4}},
        {"text": {"hidden_size": 32, "num_key_value_heads": 2}, "tied": False},
    ],
    ids=str,
)
def test_sizes_are_read_off_the_tensors(workshop, proportions):
    weights = released_weights(**proportions)
    workshop.save(weights, grid=proportions.get("grid", (2, 2)))
    workshop.set_base(tie_word_embeddings=proportions.get("tied", True), **proportions.get("text", {}))
    vision = {"num_hidden_layers": VISION["num_hidden_layers"]} | proportions.get("vision", {})
    workshop.set_vision(num_hidden_layers=vision["num_hidden_layers"] + 1)
    folder = workshop.convert()
    same_weights(folder, weights)
    config = ShowO2Config.from_pretrained(folder)
    assert config.tie_word_embeddings is proportions.get("tied", True)
    assert (
        config.text_config.vocab_size == 96 and config.vision_config.num_hidden_layers == vision["num_hidden_layers"]
    )
    assert list(config.position_grid) == list(proportions.get("grid", (2, 2)))
    for name, value in proportions.get("flow", {}).items():
        assert getattr(config.flow_config, name) == value


def test_the_folder_says_what_it_is(workshop):
    folder = workshop.convert()
    config = ShowO2Config.from_pretrained(folder)
    assert config.architectures == ["ShowO2ForConditionalGeneration"] and config.dtype == torch.float32
    assert (config.image_token_id, config.vision_start_token_id, config.eos_token_id) == (84, 82, 81)
    assert config.codec_config["base_dim"] == 4 and len(config.codec_config["latents_mean"]) == 16
    assert [list(size) for size in config.drawing_sizes] == [[32, 32]]
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.pad_token_id, settings.image_guidance_scale) == (81, 86, 5.0)
    assert str(workshop.folder) not in (folder / "config.json").read_text(encoding="utf-8")
    files = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == files


def test_the_card_says_where_it_is_from_and_how_to_use_it(workshop):
    card = ModelCard.load(workshop.convert(base=workshop.base) / "README.md")
    assert card.data.library_name == "transformers" and card.data.tags == ["showo2", "text-to-image", "flow-matching"]
    assert "https://arxiv.org/abs/2506.15564" in card.text and "pip install wallaroo-hf[showo2]" in card.text
    assert "32x32" in card.text and str(workshop.folder) not in card.content


def test_half_precision_rounds_all_but_the_codec(workshop):
    weights, codec = released_weights(), released_vae()
    stored = load_file(workshop.convert(dtype="bfloat16") / "model.safetensors")
    for name, value in stored.items():
        if name.startswith("vae."):
            assert value.dtype == torch.float32
        else:
            assert torch.equal(value, weights[released_key(name)].bfloat16())
    assert torch.equal(stored["vae.encoder.conv_in.weight"], codec["encoder.conv1.weight"])
    assert sum(name.startswith("vae.") for name in stored) == len(codec)
    assert "lm_head.weight" not in stored


def test_the_head_that_drifted_is_kept_with_a_notice(workshop, caplog):
    weights = released_weights()
    weights["showo.lm_head.weight"][3, 5] += 1e-4
    workshop.save(weights)
    folder = workshop.convert()
    assert "drifted" in caplog.text
    same_weights(folder, weights)
    assert not ShowO2Config.from_pretrained(folder).tie_word_embeddings


def test_a_head_of_its_own_is_no_news_where_the_base_has_one(workshop, caplog):
    workshop.save(released_weights(tied=False))
    workshop.set_base(tie_word_embeddings=False)
    workshop.convert()
    assert not caplog.text


def test_a_tied_head_need_not_be_stored(workshop):
    weights = released_weights()
    stored = dict(weights)
    del stored["showo.lm_head.weight"]
    workshop.save(stored)
    same_weights(workshop.convert(), weights)
    workshop.set_base(tie_word_embeddings=False)
    shutil.rmtree(workshop.output)
    refused(workshop, "lm_head.weight", "lacks")


@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
def test_shards_are_one_checkpoint(workshop, index):
    weights = released_weights()
    workshop.save(weights, shards=3, index=index)
    calls = []
    folder = workshop.convert(max_shard_size="20KB", progress=lambda done, total: calls.append((done, total)))
    same_weights(folder, weights)
    count = 0
    for path in folder.glob("model-*.safetensors"):
        with safe_open(path, "pt") as file:
            count += len(file.keys())
    assert calls[-1] == (count, count) and len(calls) > 2


def test_a_grid_of_another_picture_does_not_change_the_table(workshop):
    """The high-resolution checkpoints say the grid of what they draw."""
    workshop.save(released_weights(), grid=(64, 64))
    assert list(ShowO2Config.from_pretrained(workshop.convert()).position_grid) == [2, 2]


def test_siglip_may_be_the_vision_model_alone_or_have_as_many_layers(workshop):
    write_json(workshop.vision / "config.json", {"model_type": "siglip_vision_model", **VISION})
    assert ShowO2Config.from_pretrained(workshop.convert()).vision_config.num_hidden_layers == 2


# ------------------------------------------------------------------------------------------------------- tokenizer


@pytest.fixture
def spoken(workshop, compact):
    """A workshop whose base has a tokenizer like Qwen2.5's, and whose checkpoint has a table for it and the four tokens."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(compact.base / name, workshop.base / name)
    workshop.rows = len(AutoTokenizer.from_pretrained(workshop.base)) + 4
    workshop.set_base(vocab_size=workshop.rows + 30)
    workshop.save(released_weights(text={"vocab_size": workshop.rows}))
    workshop.token_ids = None
    return workshop


def test_the_bases_tokenizer_gets_four_tokens_in_the_released_order(spoken):
    folder = spoken.convert()
    processor, config = ShowO2Processor.from_pretrained(folder), ShowO2Config.from_pretrained(folder)
    ids = processor.tokenizer.convert_tokens_to_ids(["[PAD]", "<image>", "<|vid_start|>", "<|vid_end|>"])
    assert ids == list(range(spoken.rows - 4, spoken.rows))
    assert ids == [
        config.pad_token_id,
        config.image_placeholder_token_id,
        config.video_start_token_id,
        config.video_end_token_id,
    ]
    for name, token in CONFIG_TOKENS.items():
        assert getattr(config, name) == processor.tokenizer.convert_tokens_to_ids(token)
    assert config.text_config.vocab_size == spoken.rows
    inputs = processor(text=["a cat"], generation_mode="image", height=32, width=32, return_tensors="pt")
    assert inputs["input_ids"][0, -1] == config.vision_start_token_id
    checkpoint = load(folder, "cpu")
    assert checkpoint.family.title == "Show-o2" and "text-to-image" in checkpoint.abilities.tasks


def test_a_vocabulary_that_does_not_fit_the_table_is_refused(spoken):
    spoken.save(released_weights(text={"vocab_size": spoken.rows - 1}))
    refused(spoken, "vocabulary", f"up to {spoken.rows - 1}", f"{spoken.rows - 1} rows")


def test_a_table_with_more_rows_than_there_are_tokens_is_told_of(spoken, caplog):
    spoken.save(released_weights(text={"vocab_size": spoken.rows + 3}))
    assert ShowO2Config.from_pretrained(spoken.convert()).text_config.vocab_size == spoken.rows + 3
    assert f"{spoken.rows + 3} rows" in caplog.text and f"up to {spoken.rows - 1} only" in caplog.text


def test_a_tokenizer_that_is_no_qwen_or_not_there_is_refused(spoken):
    for path in spoken.base.glob("tokenizer*.json"):
        content = path.read_text(encoding="utf-8")
        path.write_text(content.replace("<|vision_start|>", "<|something|>"), encoding="utf-8")
    refused(spoken, "<|vision_start|>", "base")
    (spoken.base / "tokenizer.json").unlink()
    refused(spoken, "No tokenizer could be loaded", "base")


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 32}, ("base", "`hidden_size` is 32", "16 in the checkpoint")),
        ({"num_hidden_layers": 5}, ("base", "`num_hidden_layers` is 5")),
        ({"num_key_value_heads": 2}, ("base", "num_key_value_heads")),
        ({"vocab_size": 60}, ("base", "`vocab_size` is 60", "96 tokens")),
        ({"model_type": "llama"}, ("base", "llama", "Qwen2.5")),
        ({"model_type": "nothing"}, ("base", "configuration")),
    ],
    ids=str,
)
def test_other_bases_are_refused(workshop, change, words):
    workshop.set_base(**change)
    refused(workshop, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 24}, ("SigLIP", "`hidden_size` is 24")),
        ({"num_hidden_layers": 5}, ("SigLIP", "`num_hidden_layers` is 5", "2 in the checkpoint")),
        ({"num_attention_heads": 5}, ("do not fit",)),
    ],
    ids=str,
)
def test_other_siglips_are_refused(workshop, change, words):
    workshop.set_vision(**change)
    refused(workshop, *words)


def test_sources_that_are_not_there(workshop):
    for name in ("checkpoint", "vae", "base", "vision"):
        refused(workshop, "nowhere", **{name: workshop.folder / "nowhere"})
    refused(workshop, "qwen2", vision=workshop.base)
    refused(workshop, "float7", dtype="float7")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda vae: vae.pop("encoder.conv1.weight"), "'encoder.conv1.weight' is missing"),
        (lambda vae: vae.pop("decoder.head.2.bias"), "lacks tensors"),
        (lambda vae: vae.update({"decoder.extra": torch.zeros(1)}), "decoder.extra"),
        (lambda vae: vae.update({"decoder.head.2.bias": torch.zeros(4)}), "shape (4,)"),
        (lambda vae: (vae.clear(), vae.update(released_vae(channels=8))), "8 channels"),
        (lambda vae: (vae.clear(), vae.update(released_weights())), "not that of Wan2.1"),
        (lambda vae: vae.update({"conv1.bias": torch.full((32,), torch.nan)}), "not finite"),
    ],
    ids=range(7),
)
def test_other_vaes_are_refused(workshop, change, words):
    vae = released_vae()
    change(vae)
    torch.save(vae, workshop.vae)
    refused(workshop, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("fusion_proj.3.bias"), "lacks tensors"),
        (lambda weights: weights.pop("position_embedding.weight"), "lacks"),
        (lambda weights: weights.pop("diffusion_head_a.0.self_attn.q_norm.weight"), "lacks"),
        (lambda weights: weights.pop("showo.model.embed_tokens.weight"), "lacks"),
        (lambda weights: weights.pop("diffusion_head_a.1.mlp.up_proj.weight"), "lacks tensors"),
        (lambda weights: weights.update({"image_embedder_vid.proj.bias": torch.zeros(2)}), "image_embedder_vid"),
        (lambda weights: weights.update({"fusion_proj.3.bias": torch.zeros(2)}), "shape (2,)"),
        (lambda weights: weights.update({"fusion_proj.3.bias": torch.zeros(16, dtype=torch.int8)}), "torch.int8"),
        (lambda weights: weights.update({"fusion_proj.3.bias": torch.full((16,), torch.inf)}), "not finite"),
        (lambda weights: weights.update({"position_embedding.weight": torch.zeros(5, 12)}), "5 rows"),
        (lambda weights: weights.update({"image_embedder_und.proj.weight": torch.zeros(5)}), "sizes"),
        (lambda weights: (weights.clear(), weights.update({"wallaroo.lm_head.weight": torch.zeros(2)})), "no Show-o2"),
    ],
    ids=range(12),
)
def test_other_weights_are_refused(workshop, change, words):
    weights = released_weights()
    change(weights)
    workshop.save(weights)
    refused(workshop, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boi_id": None}, "`boi_id`"),
        ({"boi_id": 96}, "`boi_id` is 96"),
        ({"pad_id": -1}, "`pad_id` is -1"),
        ({"boy_id": 3}, "`boy_id` is unknown"),
    ],
    ids=str,
)
def test_token_ids_must_be_complete(workshop, change, words):
    refused(workshop, words, token_ids=IDS | change)
    refused(
        workshop, "`eos_id` is missing", token_ids={name: value for name, value in IDS.items() if name != "eos_id"}
    )


def test_damaged_files_are_refused(workshop):
    """A flipped bit in numbers, a truncated shard, and a shard that is missing."""
    workshop.save(released_weights(), shards=2)
    path = workshop.checkpoint / "pytorch_model-00002-of-00002.bin"
    whole = path.read_bytes()
    spot = len(whole) // 2
    for damaged in (whole[:spot] + bytes([whole[spot] ^ 4]) + whole[spot + 1 :], whole[: len(whole) // 3], b""):
        path.write_bytes(damaged)
        refused(workshop, "download it again")
    path.unlink()
    refused(workshop, "lacks", path.name)


@pytest.mark.parametrize("name", ["showo.lm_head.weight", "showo.model.embed_tokens.weight"])
def test_damage_is_not_taken_for_drift(workshop, name, caplog):
    weights = released_weights()
    for number, value in enumerate(weights.values()):
        value.view(-1)[0] = number  # tensors that can be told apart
    weights["showo.lm_head.weight"] = weights["showo.model.embed_tokens.weight"].clone()
    workshop.save(weights)
    path = workshop.checkpoint / "pytorch_model.bin"
    content, numbers = bytearray(path.read_bytes()), weights[name].numpy().tobytes()
    spot = content.index(numbers) if "embed" in name else content.rindex(numbers)
    content[spot + 9] ^= 1
    path.write_bytes(content)
    refused(workshop, "checksum")
    assert "drifted" not in caplog.text


def test_an_output_is_never_replaced(workshop):
    workshop.output.mkdir()
    (workshop.output / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="already exists and is not empty"):
        workshop.convert()
    assert [path.name for path in workshop.output.iterdir()] == ["mine.txt"]


def test_interruption_leaves_nothing(workshop):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workshop.convert(progress=stop)
    assert not workshop.left_behind()


# ------------------------------------------------------------------------------------------------------- golden data


@pytest.mark.parametrize("size", ["1.5b", "7b"])
def test_released_keys_are_all_mapped(size):
    """Every key has a place in the model of the real size, of the same shape, and no place is left empty."""
    shapes = details(f"keys/showo2-{size}")
    tensors = {checkpoint_key(name): torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert None not in tensors and len(tensors) == len(shapes) == 910
    released = {name: torch.empty(shape, device="meta") for name, shape in details("keys/wan2.1_vae").items()}
    codec_config, codec = read_vae(released, patch_sizes(tensors)["latent_channels"])
    assert codec_config["base_dim"] == 96 and codec_config["dim_mult"] == [1, 2, 4, 4]
    text, vision, flow = text_sizes(tensors), vision_sizes(tensors), flow_sizes(tensors)
    heads = 12 if size == "1.5b" else 28
    assert text["num_attention_heads * head_dim"] == heads * 128 and text["vocab_size"] == 151669
    text |= {"num_attention_heads": heads, "num_key_value_heads": text["num_key_value_heads * head_dim"] // 128}
    assert (flow["num_attention_heads"], flow["num_key_value_heads"], flow["head_dim"]) == (32, 8, 64)
    assert vision["num_hidden_layers"] == 26
    config = ShowO2Config(
        text_config={name: value for name, value in text.items() if "*" not in name},
        vision_config=vision | {"num_attention_heads": 16},
        flow_config=flow,
        codec_config=codec_config,
        tie_word_embeddings=size == "1.5b",
        **patch_sizes(tensors),
    )
    with torch.device("meta"):
        expected = ShowO2ForConditionalGeneration(config).state_dict()
    found = tensors | {f"vae.{name}": value for name, value in codec.items()}
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: tuple(value.shape) for name, value in expected.items()
    }


def test_prefixes_lead_to_places_of_their_own():
    """No key can be taken for another part's."""
    for one in CHECKPOINT_PREFIXES:
        assert not any(other != one and other.startswith(one) for other in CHECKPOINT_PREFIXES)
    assert len(set(CHECKPOINT_PREFIXES.values())) == len(CHECKPOINT_PREFIXES)
    assert checkpoint_key("diffusion_head_a.11.adaLN_modulation.1.bias") == "flow_head.layers.11.modulation.bias"
    assert checkpoint_key("showo.visual.weight") is None
