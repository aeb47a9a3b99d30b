"""What two processes train in tests/training/test_distributed.py, and one for comparison.

    torchrun --nproc_per_node 2 training_pairs.py MODEL_FOLDER OUTPUT WAY...

A way is `ddp`, or an accelerate configuration in `configs/`. `OUTPUT/rows.pickle` holds the rows; for each way, every
process leaves what it saw in `OUTPUT/WAY/process-N.pt`.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import DistributedType, PartialState
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from transformers.integrations import unset_hf_deepspeed_config

import training_runs
from training_runs import curve
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.run import finish
from wallaroo_hf.training.trainer import WallarooTrainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# One step of 8 rows whose size of move shows the gradient.
ONE_STEP = {"max_steps": 1, "learning_rate": 1e-2, "optim": "sgd", "max_grad_norm": 0.0, "save_strategy": "no"}
SPLITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2, "activation_checkpointing": True},
}
RUN = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1}
RUN |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 1e-3}


def build_trainer(*args: Any, **settings: Any) -> WallarooTrainer:
    """As in training_runs; the model must not be loaded in shards, which arguments for ZeRO-3 have transformers do."""
    unset_hf_deepspeed_config()
    return training_runs.build_trainer(*args, **settings)


def one_step(
    model_folder: Path, rows: list[dict[str, Any]], output: Path, processes: int, **settings: Any
) -> dict[str, float]:
    """What is logged in a step over all rows; leaves the model in `output`."""
    size = len(rows) // processes // settings.get("gradient_accumulation_steps", 1)
    trainer = build_trainer(model_folder, rows, output, per_device_train_batch_size=size, **(ONE_STEP | settings))
    trainer.train()
    trainer.save_model(str(output))
    return curve(trainer)[0]


class _Poisoned(WallarooDataCollator):
    """Makes the loss of rows that are named "bad" not a number."""

    def __call__(self, rows: Any) -> dict[str, Any]:
        batch = super().__call__(rows)
        if "bad" in batch["row_names"]:
            batch["pixel_values"] = batch["pixel_values"] * torch.nan
        return batch


def _weights(trainer: WallarooTrainer) -> torch.Tensor:
    """All that this process holds of the model, in a row."""
    held = [getattr(parameter, "ds_tensor", parameter).detach() for parameter in trainer.wallaroo.parameters()]
    return torch.cat([getattr(part, "_local_tensor", part).flatten().float().clone() for part in held])


def bad_row_in_one_process(
    model_folder: Path, rows: list[dict[str, Any]], output: Path, **settings: Any
) -> dict[str, Any]:
    """Three steps; in the second one, the first of two micro-batches of the second process has no finite loss."""
    named = [{**row, "name": str(index)} for index, row in enumerate(rows * 3)]
    named[8 + 3]["name"] = "bad"
    settings = ONE_STEP | {"max_steps": 3, "gradient_accumulation_steps": 2, "learning_rate": 1e-3} | settings
    trainer = build_trainer(model_folder, named, output, **settings)
    trainer.data_collator = _Poisoned(trainer.processing_class)
    weights: list[torch.Tensor] = []
    log = trainer.log

    def remember(*args: Any, **kwargs: Any) -> None:
        weights.append(_weights(trainer))
        log(*args, **kwargs)

    trainer.log = remember  # type: ignore[method-assign]
    trainer.train()
    return {"weights": weights, "left_out": trainer.non_finite_steps, "log": curve(trainer)}


def interrupted(model_folder: Path, rows: list[dict[str, Any]], output: Path, **settings: Any) -> dict[str, Any]:
    """A run, and one that goes on from its first checkpoint."""

    def result(trainer: WallarooTrainer) -> dict[str, Any]:
        return {
            "log": trainer.state.log_history,
            "weights": _weights(trainer),
            "best": trainer.state.best_model_checkpoint,
        }

    whole = build_trainer(model_folder, rows * 3, output, **(RUN | settings))
    whole.train()
    again = build_trainer(model_folder, rows * 3, output.with_name("again"), **(RUN | settings))
    again.train(resume_from_checkpoint=str(output / "checkpoint-1"))
    finish(again, output.with_name("again"))
    return {"whole": result(whole), "again": result(again)}


def launch_environment(config: str) -> dict[str, str]:
    """What `accelerate launch --config_file configs/CONFIG.yaml` adds to the environment of the processes it starts."""
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIGS / f"{config}.yaml"), "train.py"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    return {key: value for key, value in environment.items() if os.environ.get(key) != value}


def take_processes_for_gpus() -> None:
    """accelerate shards on accelerators only; this has it take CPU processes for such."""
    os.environ |= {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
    PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_GPU)


def main(model_folder: Path, output: Path, way: str) -> None:
    """All of it, in one process of a pair."""
    rows = pickle.loads((output / "rows.pickle").read_bytes())
    output, splits, settings = output / way, SPLITS, {}
    if way != "ddp":
        os.chdir(CONFIGS.parent)  # as the configurations say
        os.environ |= launch_environment(way) | {"ACCELERATE_MIXED_PRECISION": "no"}  # to compare with one process
        take_processes_for_gpus()
        settings = {"use_cpu": False, "dataloader_pin_memory": False}
        # FSDP has its own way to save activations, which its configuration switches on
        splits = {"accumulated": {"gradient_accumulation_steps": 2, "activation_checkpointing": way != "fsdp2"}}
    seen: dict[str, Any] = {
        name: one_step(model_folder, rows, output / name, 2, **split, **settings) for name, split in splits.items()
    }
    seen["bad"] = bad_row_in_one_process(model_folder, rows, output / "bad", **settings)
    seen["interrupted"] = interrupted(model_folder, rows, output / "run", **settings)
    if way == "ddp":  # accelerate evaluates sharded models only after training
        evaluated = build_trainer(model_folder, rows[:7], output / "evaluation", per_device_eval_batch_size=3)
        seen["evaluation"] = evaluated.evaluate()
    torch.save(seen, output / f"process-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[3:]:
        main(Path(sys.argv[1]), Path(sys.argv[2]), chosen)
