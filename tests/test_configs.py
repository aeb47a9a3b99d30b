"""`configs/`: accelerate and transformers read them as they are meant; test_distributed.py trains with them."""

import json

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.state import DistributedType
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.dataclasses import get_module_class_from_name

from training_pairs import CONFIGS, launch_environment
from wallaroo_hf.modeling.vq import WallarooVQModel

TYPES = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


@pytest.fixture
def launched(monkeypatch):
    """Sets the environment that `accelerate launch` would."""

    def launch(name: str) -> dict[str, str]:
        monkeypatch.chdir(CONFIGS.parent)
        environment = launch_environment(name)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        return environment

    return launch


def test_every_configuration_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_knows_every_key(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == TYPES[name]
    assert (config.num_processes, config.use_cpu) == (8, False)


def test_ddp_computes_in_bfloat16(launched):
    assert launched("ddp")["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_fsdp_shards_the_layers_and_not_the_image_tokenizer(launched, model):
    environment = launched("fsdp2")
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.activation_checkpointing
    assert not plugin.cpu_ram_efficient_loading
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    plugin.set_auto_wrap_policy(model)
    wrapped = {get_module_class_from_name(model, name).__name__ for name in plugin.transformer_cls_names_to_wrap}
    assert wrapped == set(model._no_split_modules) - {WallarooVQModel.__name__}


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_shards_and_leaves_bad_steps_out(launched, stage):
    environment = launched(f"zero{stage}")
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == stage
    assert not plugin.zero3_init_flag
    plugin.set_mixed_precision("bf16")
    settings = plugin.deepspeed_config
    assert settings["bf16"] == {"enabled": True, "check_grad_overflow": True}
    assert settings["communication_data_type"] == "fp32"
    written = json.loads((CONFIGS / f"zero{stage}.json").read_text(encoding="utf-8"))
    for name in (
        "gradient_accumulation_steps",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_clipping",
    ):
        assert written[name] == "auto"  # the training arguments say it
    if stage == 3:
        assert (
            plugin.zero3_save_16bit_model or settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
        )
