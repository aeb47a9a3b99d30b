"""docs/scale.md: its tables are those that benchmarks/scale.py computes, from the model's and the recipe's own numbers."""

import importlib
from pathlib import Path

import pytest
import torch

from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration
from wallaroo_hf.training.stages import stage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scale():
    """The module that computes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("scale")


def test_tables_are_in_the_document(scale):
    lines = set((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").splitlines())
    for table in scale.TABLES:
        for line in table():
            assert line in lines


def test_weights_are_those_of_the_model(scale):
    text = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    text |= {"intermediate_size": 18944, "vocab_size": 152064}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    with torch.device("meta"):
        model = WallarooForConditionalGeneration(WallarooConfig(text_config=text, vision_config=vision))
    body = model.model
    parts = {
        "language layers": [body.language_model.layers, body.language_model.norm],
        "token embeddings": [body.language_model.embed_tokens],
        "text head": [model.lm_head],
        "image heads": [model.generation_head, model.edit_head],
        "adapters": [body.generation_adapter, body.source_adapter, body.edit_adapter],
        "vision tower": [body.visual],
        "image tokenizer": [body.vq_model],
    }
    counted = {name: sum(p.numel() for part in found for p in part.parameters()) for name, found in parts.items()}
    assert counted == scale.WEIGHTS
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for name, p in model.named_parameters() if stage(4).is_trained(name))
    assert trained == scale.TRAINED


@pytest.mark.parametrize("name", ["1", "2", "3a", "3b", "4"])
def test_stages_are_those_of_the_recipe(scale, name):
    chosen = stage(name)
    steps, rows = scale.STAGES[name]
    assert (steps, sum(rows)) == (chosen.max_steps, chosen.global_batch_size)
    shares = [chosen.task_ratio.get(task, 0) for task in ("understanding", "generation", "editing")]
    assert [count / sum(rows) for count in rows] == [share / sum(shares) for share in shares]
    heights = {height for height, _ in chosen.named_layout().buckets}
    if name in ("1", "2", "3a"):  # squares
        assert {(height // 16) ** 2 for height in heights} == {scale.CODES_OF[name]}
    if name in scale.NAVIT:
        assert chosen.pixel_limits["longest_edge"] // 28**2 == scale.NAVIT[name]


def test_layers_keep_as_many_bytes_as_computed(scale):
    """On the CPU, in bfloat16, where attention keeps no matrix of its own either."""
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 1353}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 256}
    text = {**sizes, "num_hidden_layers": 4, "vocab_size": 1024, "rope_parameters": rope, "pad_token_id": 0}
    tokenizer = {"codebook_size": 64, "base_channels": 32, "num_res_blocks": 1}
    config = WallarooConfig(text_config=text, vision_config=vision, vq_config=tokenizer)
    decoder = WallarooForConditionalGeneration(config).to(torch.bfloat16).train().model.language_model

    def kept(layers: int, tokens: int = 256) -> int:
        decoder.layers = decoder.layers[:layers]
        weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
        found, alive = {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            alive.append(tensor)
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            decoder(inputs_embeds=decoder.embed_tokens(torch.ones(1, tokens, dtype=torch.long)), use_cache=False)
        return sum(found.values()) // tokens

    hidden, width, inner = sizes["hidden_size"], 64, sizes["intermediate_size"]
    expected = 2 * (4 * inner + 6 * hidden + 2 * width) + 8 * hidden
    full = 2 * (4 * scale.INTERMEDIATE + 6 * scale.HIDDEN + 2 * scale.KV_WIDTH) + 8 * scale.HIDDEN
    assert full == scale.LAYER_PER_TOKEN
    assert (kept(4) - kept(2)) / 2 == pytest.approx(expected, rel=0.01)
