"""What a configuration accepts and refuses."""

import logging

import pytest
import torch
from transformers import AutoConfig

from wallaroo_hf import WallarooConfig, WallarooVQConfig, WallarooVQModel
from wallaroo_hf.common import unknown_keys

SMALL_VQ = {"codebook_size": 64, "base_channels": 32, "latent_channels": 32, "channel_multiplier": [1, 1]}


def test_released_defaults():
    config = WallarooConfig()
    assert config.codebook_size == config.vq_config.codebook_size == 16384
    assert config.vq_config.image_token_size == 16
    assert config.generate_start_token_id == 151665 and config.generate_image_token_id == 151670


def test_flat_published_configuration():
    """Qwen2.5-VL-7B's own file has its text settings at the top, and keys that nobody reads."""
    config = WallarooConfig(
        hidden_size=3584,
        num_attention_heads=28,
        rope_theta=1e6,
        rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
        vision_token_id=151654,
        torch_dtype="bfloat16",
        use_cache=True,
        vision_config={"hidden_size": 1280, "in_chans": 3, "spatial_patch_size": 14, "tokens_per_second": 2},
    )
    assert config.text_config.hidden_size == 3584
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert config.vision_config.hidden_size == 1280


def test_token_ids_that_trainers_set(tmp_path):
    """`Trainer` aligns special tokens on the outer configuration; what it saves must load."""
    config = WallarooConfig(vq_config=SMALL_VQ)
    config.pad_token_id, config.eos_token_id, config.use_cache = 5, 7, True
    config.save_pretrained(tmp_path)
    loaded = WallarooConfig.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (5, 7)


def test_text_settings_repeated_beside_text_config():
    """As configurations saved by transformers 4.5x have them."""
    config = WallarooConfig(
        text_config={"hidden_size": 64, "num_hidden_layers": 2}, hidden_size=64, num_hidden_layers=2
    )
    assert config.text_config.hidden_size == 64


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"has_editting": True}, "did you mean `has_editing`"),
        ({"hiden_size": 64}, "did you mean `hidden_size`"),
        ({"text_config": {"num_layers_hidden": 2}}, "num_layers_hidden"),
        ({"text_config": {}, "hidden_size": 64}, "give it in `text_config` only"),
        ({"text_config": {}, "num_hidden_layer": 2}, "did you mean `num_hidden_layers`"),
        ({"vision_config": {"dept": 2}}, "did you mean `depth`"),
        ({"vq_config": {"codebok_size": 2}}, "did you mean `codebook_size`"),
    ],
)
def test_misspelt_keys_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        WallarooConfig(**kwargs)


def test_codebook_sizes_must_agree():
    with pytest.raises(ValueError, match="make them equal"):
        WallarooConfig(codebook_size=100, vq_config=SMALL_VQ)
    assert WallarooConfig(vq_config=SMALL_VQ).codebook_size == 64


def test_save_and_load(tmp_path):
    config = WallarooConfig(vq_config=SMALL_VQ, has_editing=False, stage="3b", end_of_line_token_id=7)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is WallarooConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.vq_config.image_token_size == 2


def test_image_tokenizer_configuration_alone(tmp_path):
    WallarooVQConfig(**SMALL_VQ).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is WallarooVQConfig


def test_norm_groups(tmp_path):
    """32 as released, also for files that do not say; another number is kept and reaches every group norm."""
    assert WallarooVQConfig.from_dict({"base_channels": 64}).norm_num_groups == 32
    WallarooVQConfig(**SMALL_VQ, norm_num_groups=4).save_pretrained(tmp_path)
    config = WallarooVQConfig.from_pretrained(tmp_path)
    assert config.norm_num_groups == 4
    for groups, wanted in ((config, 4), (WallarooVQConfig(**SMALL_VQ), 32)):
        norms = [module for module in WallarooVQModel(groups).modules() if isinstance(module, torch.nn.GroupNorm)]
        assert len(norms) > 10 and {norm.num_groups for norm in norms} == {wanted}
    for channels, groups in ((48, 4), (64, 24), (32, 0)):
        with pytest.raises(ValueError, match=f"`base_channels` is {channels} and `norm_num_groups` is {groups}"):
            WallarooVQConfig(base_channels=channels, norm_num_groups=groups)


def test_notes_of_tools_are_told_and_kept(tmp_path, caplog):
    """What was saved loads, also with keys that other tools left in any part; a key that may be a misspelt one is told."""
    config = WallarooConfig(vq_config=SMALL_VQ)
    for part in (config, config.text_config, config.vision_config, config.vq_config):
        part.note_of_a_tool = 3
    config.has_editting = False
    config.hidden_size = 5
    config.save_pretrained(tmp_path)
    logger = logging.getLogger(unknown_keys.logger.name)
    logger.addHandler(caplog.handler)
    try:
        loaded = AutoConfig.from_pretrained(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    for part in (loaded, loaded.text_config, loaded.vision_config, loaded.vq_config):
        assert part.note_of_a_tool == 3
    told = "\n".join(record.getMessage() for record in caplog.records)
    for name in ("WallarooConfig", "Qwen2_5_VLTextConfig", "Qwen2_5_VLVisionConfig", "WallarooVQConfig"):
        assert f"{name} has no setting `note_of_a_tool`; it is kept" in told
    assert "has no setting `has_editting`; it is kept, and nothing reads it; did you mean `has_editing`?" in told
    assert "`hidden_size` is 5 beside `text_config`" in told and loaded.text_config.hidden_size != 5
    assert WallarooConfig(**config.to_dict()).note_of_a_tool == 3
    with pytest.raises(ValueError, match="did you mean `has_editing`"):
        WallarooConfig(has_editting=False)


def test_settings_of_any_transformers_configuration():
    for value in (True, False):
        assert WallarooVQConfig(tie_word_embeddings=value).tie_word_embeddings is value
