"""Where a model is sharded, the image tokenizer is not, and it computes as ever."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy

from small_hieraquery import new_hieraquery
from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.hieraquery.training.hieraquery_kit import KIT as HIERAQUERY
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.sharding import adjust_fsdp, frozen_weights, hide_frozen_parts
from wallaroo_hf.training.wallaroo_kit import KIT, encode_images


def _accelerator(**settings):
    return SimpleNamespace(state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin(**settings)))


def test_fsdp_makes_no_unit_of_the_image_tokenizer_and_rounds_no_loss(model):
    accelerator = _accelerator(
        fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP", mixed_precision_policy="bf16"
    )
    adjust_fsdp(accelerator, model, KIT.frozen_parts)
    plugin = accelerator.state.fsdp_plugin
    assert plugin.transformer_cls_names_to_wrap == ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"]
    assert plugin.mixed_precision_policy == MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
    )


def test_what_fsdp_cannot_do_is_refused(model):
    with pytest.raises(ValueError, match="version is 1, but only 2"):
        adjust_fsdp(_accelerator(fsdp_version=1), model, KIT.frozen_parts)
    with pytest.raises(ValueError, match="cpu_ram_efficient_loading"):
        adjust_fsdp(_accelerator(fsdp_version=2, cpu_ram_efficient_loading=True), model, KIT.frozen_parts)
    adjust_fsdp(SimpleNamespace(state=SimpleNamespace()), model, KIT.frozen_parts)  # nothing to adjust


def test_a_hidden_image_tokenizer_works_and_is_saved(model, tmp_path):
    before = dict(model.state_dict())
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    tokens = model.vq_model.encode(pixels).image_tokens
    hide_frozen_parts(model, KIT.frozen_parts, torch.device("cpu"))
    hide_frozen_parts(model, KIT.frozen_parts, torch.device("cpu"))  # once more changes nothing
    assert not any("vq_model" in name for name, _ in model.named_parameters())
    model.to(torch.bfloat16)
    assert torch.equal(model.vq_model.encode(pixels).image_tokens, tokens)
    weights = {**model.state_dict(), **frozen_weights(model, KIT.frozen_parts)}
    assert weights.keys() == before.keys()
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded = WallarooForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.vq_model.encode(pixels).image_tokens, tokens)
    model.model.vq_model = model.vq_model
    assert model.state_dict().keys() == before.keys()


def test_an_image_tokenizer_in_shards_is_refused(model):
    next(model.vq_model.parameters()).ds_id = 0  # as DeepSpeed marks them
    with pytest.raises(ValueError, match="load the model before the training arguments"):
        hide_frozen_parts(model, KIT.frozen_parts, torch.device("cpu"))


@torch.no_grad()
def test_encoding_before_the_forward_changes_nothing(model, processor, rows):
    numbered = Numbered(rows)
    batch = WallarooDataCollator(processor, unconditional_rate=0.0)([numbered[index] for index in range(len(rows))])
    batch.pop("row_names")
    encoded = encode_images(model.model, batch)
    assert "target_pixel_values" in batch and "source_pixel_values" in batch
    assert "target_pixel_values" not in encoded and "source_pixel_values" not in encoded
    losses, expected = model(**encoded).losses, model(**batch).losses
    assert len(expected) == 5
    assert losses == expected
    words = WallarooDataCollator(processor)([numbered[6]])
    words.pop("row_names")
    assert encode_images(model.model, words).keys() == words.keys()


def test_units_of_fsdp_are_outside_of_what_is_hidden():
    model, _ = new_hieraquery()
    accelerator = _accelerator(
        fsdp_version=2,
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        mixed_precision_policy="bf16",
        cpu_ram_efficient_loading=False,  # which the test above leaves in the environment
    )
    adjust_fsdp(accelerator, model, HIERAQUERY.frozen_parts)
    units = accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap  # diffusers' classes name some of their own
    assert {"Qwen2DecoderLayer", "SanaTransformerBlock"} <= set(units)
    assert not any(unit.startswith("Qwen2_5_VL") for unit in units)
    hide_frozen_parts(model, HIERAQUERY.frozen_parts, torch.device("cpu"))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"queries", "connector", "dit", "alignment"}
    assert not model.train().mllm.training
