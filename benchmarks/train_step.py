"""Times a training step: tokens per second and peak memory of ours beside the released loss path.

    python benchmarks/train_step.py --preset cpu --output train-step-cpu.json

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from decode import default_device, device_name, log
from measure import interleave, now, peak_memory, ratio, reset_peak_memory, spread
from models import Preset, build_wallaroo, parameters
from released_loss import released_step
from train_rows import TASKS, RowMaker, RowShape
from transformers.utils import logging as transformers_logging

from wallaroo_hf.modeling.losses import LOSS_NAMES, count_labels, total_loss
from wallaroo_hf.training.preparation import add_editing_parts

LORA_RANK = 16
LORA_TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
LORA_SAVED = ["generation_head", "edit_head", "generation_adapter", "edit_adapter", "source_adapter"]
# What the project asks of `cpu`: ratio -> (bound, whether larger is better).
BARS = {"tokens_per_second.ours_over_released": (1.5, True), "peak_memory.ours_over_released": (0.5, False)}


@dataclass(frozen=True)
class TrainPreset:
    """One shape to measure.

    Attributes:
        model: the decoder's shape.
        rows: what rows look like.
        batch: rows of each forward. A step has that many rows of each task.
        rounds: timed steps per variant, interleaved.
        optimizer: step AdamW too, and train LoRA adapters afterwards (on accelerators).
        recompute: compute activations again in the backward, in ours and in the released way alike, as whoever trains long
            rows does.
    """

    model: Preset
    rows: RowShape
    batch: int = 2
    rounds: int = 3
    optimizer: bool = False
    recompute: bool = False


_MICRO = RowShape(length=80, drawing=(4, 8), edit=(2, 8), answer=20)
# A body of 30.4 M weights; 4,752 is the vocabulary whose head is 8 % of it, as in the 7B model.
PRESETS = {
    "micro": {
        "vocabulary_4096": TrainPreset(Preset(64, 2, 4, 2, 128, 4096, (2, 3, 3), codebook_size=256), _MICRO, rounds=1)
    },
    "cpu": {
        "vocabulary_152064": TrainPreset(Preset(512, 8, 8, 2, 2048, 152064, (8, 12, 12)), RowShape()),
        "vocabulary_152064_recompute": TrainPreset(
            Preset(512, 8, 8, 2, 2048, 152064, (8, 12, 12)), RowShape(), recompute=True
        ),
        "vocabulary_8_percent": TrainPreset(Preset(512, 8, 8, 2, 2048, 4752, (8, 12, 12)), RowShape()),
    },
    "h200": {
        "7b": TrainPreset(
            Preset(3584, 28, 28, 4, 18944, 152064, (16, 24, 24), dtype=torch.bfloat16),
            RowShape(),
            batch=8,
            rounds=5,
            optimizer=True,
            recompute=True,
        )
    },
}


class Bench:
    """One model, the rows of one step, and the ways to take it."""

    def __init__(self, preset: TrainPreset, device: torch.device) -> None:
        self.preset, self.device = preset, device
        self.model: Any = build_wallaroo(preset.model, device)
        add_editing_parts(self.model)
        self.model.train()
        if preset.recompute:
            self.model.activation_checkpointing_enable()
        self.model.model.visual.requires_grad_(False)
        self.model.model.vq_model.requires_grad_(False)
        maker = RowMaker(self.model, preset.rows)
        rows = [maker.row(task) for _ in range(preset.batch) for task in TASKS]
        # the same rows twice: mixed as they come, and sorted by task
        self.mixed = [maker.batch(rows[start : start + preset.batch]) for start in range(0, len(rows), preset.batch)]
        self.by_task = {task: maker.batch([row for row in rows if row["task"] == task]) for task in TASKS}
        self.tokens = sum(batch["input_ids"].numel() for batch in self.mixed)
        self.trained = self.model  # what is called: the model, or PEFT's around it
        self.optimizer: torch.optim.Optimizer | None = None

    def ours(self) -> dict[str, float]:
        """Forward and backward of mixed micro-batches, with means over the step as `WallarooTrainer` takes them."""
        config = self.model.config
        counts = [count_labels(batch["input_ids"], batch["labels"], config) for batch in self.mixed]
        total = torch.stack(counts).sum(dim=0)
        means = torch.zeros(len(LOSS_NAMES), device=self.device)
        for batch, count in zip(self.mixed, counts, strict=True):
            losses = self.trained(**batch).losses
            shares = {name: count[index] / total[index] for index, name in enumerate(LOSS_NAMES) if name in losses}
            scaled = {name: losses[name] * share for name, share in shares.items()}
            total_loss(scaled).backward()
            for index, name in enumerate(LOSS_NAMES):
                if name in scaled:
                    means[index] += scaled[name].detach()
        return dict(zip(LOSS_NAMES, means.tolist(), strict=True))

    def released(self) -> dict[str, float]:
        """Forward and backward as the released scripts do."""
        return released_step(self.model, self.by_task)

    def step(self, way: Callable[[], dict[str, float]]) -> float:
        """Seconds of one step."""
        start = now(self.device)
        way()
        if self.optimizer is not None:
            self.optimizer.step()
        self.trained.zero_grad(set_to_none=True)
        return now(self.device) - start

    def add_lora(self) -> None:
        """Adapters on the language model; image heads and adapters train whole. The rest is frozen."""
        from peft import LoraConfig, get_peft_model

        self.optimizer = None
        config = LoraConfig(
            r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=LORA_TARGETS, modules_to_save=LORA_SAVED
        )
        self.trained = get_peft_model(self.model, config)
        self.model.enable_input_require_grads()

    def add_optimizer(self) -> None:
        """AdamW whose states have the weights' type."""
        weights = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=1e-5, betas=(0.9, 0.95), fused=self.device.type != "cpu")


def sizes(model: Any) -> dict[str, int]:
    """Number of weights of the parts."""
    body = model.model
    return {
        "body": parameters(body.language_model.layers, body.language_model.norm),
        "embeddings": parameters(body.language_model.embed_tokens),
        "lm_head": parameters(model.lm_head),
        "image_heads": parameters(model.generation_head, model.edit_head),
        "adapters": parameters(body.generation_adapter, body.edit_adapter, body.source_adapter),
    }


def step_flops(bench: Bench, lora: bool) -> float:
    """Floating-point operations that a step of ours needs: multiplications and additions of its matrix products.

    Per weight and token 2 forward, 2 for the gradient of the input and 2 for that of the weight (not where it is frozen);
    causal attention 6 * length^2 * hidden_size per layer and row; heads only where labels are. Activations that are
    computed again do not count.
    """
    counted, model = sizes(bench.model), bench.preset.model
    labels = torch.cat([batch["labels"][:, 1:].flatten() for batch in bench.mixed])
    codes = int((labels >= model.vocab_size).sum())
    texts = int((labels >= 0).sum()) - codes
    length, rows = bench.preset.rows.length, bench.tokens // bench.preset.rows.length
    attention = 6 * model.num_layers * length**2 * model.hidden_size * rows
    frozen = 4 if lora else 6
    return (
        frozen * (counted["body"] * bench.tokens + counted["lm_head"] * texts)
        + 6 * counted["image_heads"] / 2 * codes
        + attention
    )


# ------------------------------------------------------------------------------------------------------------- checks


def agreement(bench: Bench) -> dict[str, float]:
    """Largest relative difference of losses and of gradients between both ways, which must compute the same thing.

    Raises:
        RuntimeError: if they do not, on CPU in float32.
    """
    results = []
    for way in (bench.ours, bench.released):
        losses = way()
        gradients = {
            name: parameter.grad.float().cpu()
            for name, parameter in bench.model.named_parameters()
            if parameter.grad is not None
        }
        bench.model.zero_grad(set_to_none=True)
        results.append((losses, gradients))
    (ours, mine), (theirs, others) = results
    scale = max(float(gradient.abs().max()) for gradient in others.values())
    found = {
        "losses": max(abs(ours[name] / theirs[name] - 1) for name in theirs),
        "gradients": max(float((mine[name] - others[name]).abs().max()) / scale for name in others),
    }
    exact = bench.device.type == "cpu" and bench.preset.model.dtype == torch.float32
    if exact and max(found.values()) > 1e-4:
        raise RuntimeError(f"Ours and the released loss path differ: {found}.")
    return found


def peak_of_process() -> int:
    """Most bytes that this process has had in memory (`VmHWM`, which a new program starts anew)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM; peak memory on CPU is measured on Linux only.")


def memory_in_a_process(preset: str, shape: str, variant: str) -> dict[str, int]:
    """Peak memory of two steps of one variant in a process of its own, and before them."""
    command = [sys.executable, __file__, "--preset", preset, "--memory-of", f"{shape}:{variant}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"Measuring the memory of {variant} failed: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def report_memory(preset: str, shape: str, variant: str) -> None:
    """What `memory_in_a_process` reads."""
    bench = Bench(PRESETS[preset][shape], torch.device("cpu"))
    before = peak_of_process()
    for _ in range(2):
        bench.step(getattr(bench, variant))
    sys.stdout.write(json.dumps({"peak_bytes": peak_of_process(), "before_steps_bytes": before}) + "\n")


# --------------------------------------------------------------------------------------------------------------- run


def measure(args: argparse.Namespace, name: str, preset: TrainPreset, device: torch.device) -> dict[str, Any]:
    """One shape: agreement, seconds, memory."""
    log(f"{name}: building the model on {device}")
    bench = Bench(preset, device)
    report: dict[str, Any] = {"sizes": sizes(bench.model), "tokens_per_step": bench.tokens}
    report["lm_head_share_of_body"] = report["sizes"]["lm_head"] / report["sizes"]["body"]
    report |= {"rows_per_forward": preset.batch, "rows": asdict(preset.rows)}
    log(f"{name}: checking that both ways give the same losses and gradients")
    report["agreement"] = agreement(bench)
    if preset.optimizer:
        bench.add_optimizer()
    log(f"{name}: {preset.rounds} steps of each")
    ways = {"ours": bench.ours, "released": bench.released}
    timings, peaks = _interleaved(bench, ways, args.rounds or preset.rounds)
    if device.type == "cpu":
        for variant in ways:
            log(f"{name}: memory of {variant}, in a process of its own")
            peaks[variant] = memory_in_a_process(args.preset, name, variant)
    flops = step_flops(bench, lora=False)
    report["variants"] = {way: _variant(bench, timings[way], peaks[way], flops, args) for way in ways}
    report["ratios"] = {
        "tokens_per_second.ours_over_released": ratio(timings["released"], timings["ours"]),
        "peak_memory.ours_over_released": round(peaks["ours"]["peak_bytes"] / peaks["released"]["peak_bytes"], 4),
    }
    if preset.optimizer:
        log(f"{name}: LoRA of rank {LORA_RANK}")
        bench.add_lora()
        bench.add_optimizer()
        timings, peaks = _interleaved(bench, {"lora": bench.ours}, args.rounds or preset.rounds)
        report["variants"]["lora"] = _variant(
            bench, timings["lora"], peaks["lora"], step_flops(bench, lora=True), args
        )
    return report


def _interleaved(
    bench: Bench, ways: dict[str, Callable[[], dict[str, float]]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, int]]]:
    """Seconds per step by round, and on accelerators the peak memory, by variant."""
    peaks: dict[str, dict[str, int]] = {}

    def timed(name: str) -> Callable[[], float]:
        def step() -> float:
            reset_peak_memory(bench.device)
            seconds = bench.step(ways[name])
            peaks[name] = {"peak_bytes": peak_memory(bench.device) or 0}
            return seconds

        return step

    return interleave({name: timed(name) for name in ways}, rounds), peaks


def _variant(
    bench: Bench, seconds: list[float], peak: dict[str, int], flops: float, args: argparse.Namespace
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "seconds_per_step": spread(seconds, 3),
        "tokens_per_second": spread([bench.tokens / value for value in seconds], 1),
        **peak,
    }
    if bench.device.type != "cpu":
        result["flops_per_token"] = round(flops / bench.tokens)
        result["mfu"] = round(flops / result["seconds_per_step"]["median"] / (args.peak_tflops * 1e12), 4)
    return result


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every shape of the preset, as what becomes JSON."""
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
    load, start = os.getloadavg(), time.perf_counter()
    report: dict[str, Any] = {
        "preset": args.preset,
        "settings": {"threads": torch.get_num_threads(), "peak_tflops": args.peak_tflops}
        | {"clock": "process CPU time" if device.type == "cpu" else "wall"}
        | {"memory": "VmHWM of a process per variant" if device.type == "cpu" else "allocated on the device"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "transformers", "wallaroo-hf")}
        | {"python": platform.python_version()},
        "device": device_name(device),
        "shapes": {name: measure(args, name, PRESETS[args.preset][name], device) for name in args.shapes},
    }
    if args.preset == "cpu":
        report["bars"] = {
            name: judge(shape["ratios"])
            for name, shape in report["shapes"].items()
            if name.startswith("vocabulary_15")
        }
    report["load"] = {"before": load, "after": os.getloadavg(), "cores": os.cpu_count()}
    report["seconds"] = round(time.perf_counter() - start, 1)
    return report


def judge(ratios: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The bars beside what was measured."""
    bars = {}
    for name, (bar, larger) in BARS.items():
        value = ratios[name]["median"] if isinstance(ratios[name], dict) else ratios[name]
        bars[name] = {"measured": value, "bar": bar, "met": value >= bar if larger else value <= bar}
    return bars


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--shapes", nargs="+", help="some of the preset's shapes; default: all")
    parser.add_argument("--device", help="default: cpu for the presets cpu and micro, else the accelerator")
    parser.add_argument("--rounds", type=int, help="timed steps per variant; default: the preset's")
    parser.add_argument("--threads", type=int, default=1, help="on CPU")
    parser.add_argument(
        "--peak-tflops", type=float, default=790, help="of the accelerator, for MFU; H200 in bfloat16: 790"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # SHAPE:VARIANT, for the processes that measure memory
    args = parser.parse_args(arguments)
    if args.output is None and args.memory_of is None:
        parser.error("--output is missing")
    args.shapes = args.shapes or list(PRESETS[args.preset])
    unknown = set(args.shapes) - set(PRESETS[args.preset])
    if unknown:
        parser.error(f"--shapes names {', '.join(sorted(unknown))}; there are {', '.join(PRESETS[args.preset])}")
    args.device = args.device or ("cpu" if args.preset in ("cpu", "micro") else default_device())
    return args


def main() -> None:
    """Runs, writes the JSON, says the ratios."""
    args = parse()
    transformers_logging.set_verbosity_error()
    if args.memory_of is not None:
        torch.set_num_threads(args.threads)
        report_memory(args.preset, *args.memory_of.split(":"))
        return
    report = run(args)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, shape in report["shapes"].items():
        for way, values in shape["variants"].items():
            gib = values["peak_bytes"] / 2**30
            sys.stdout.write(
                f"{name:24} {way:10} {values['tokens_per_second']['median']:>10} tokens/s {gib:8.2f} GiB\n"
            )
        sys.stdout.write(f"{name:24} {json.dumps(shape['ratios'])}\n")
    for shape, bars in report.get("bars", {}).items():
        for name, bar in bars.items():
            sys.stdout.write(f"{shape}: {name:45} {bar['measured']} {'met' if bar['met'] else 'MISSED'}\n")


if __name__ == "__main__":
    main()
