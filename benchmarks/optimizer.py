"""A step of torch's Muon, whose iteration is in bfloat16, against ours in float32, on the built-in checkpoint's matrices.

    python benchmarks/optimizer.py --output optimizer.json

Prints JSON: seconds per step of both, and how many times as long torch's takes. Where a processor multiplies in bfloat16
(`computes_in_bf16`), the package uses torch's.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import interleave, now, ratio, spread
from torch import nn

from wallaroo_hf import WallarooForConditionalGeneration, default_checkpoint
from wallaroo_hf.training.muon import Float32Muon, computes_in_bf16

CPU = torch.device("cpu")


def matrices() -> list[torch.Tensor]:
    """The matrices of the language model's layers in float32."""
    model = WallarooForConditionalGeneration.from_pretrained(default_checkpoint(), dtype=torch.float32)
    return [p.detach() for p in model.model.language_model.layers.parameters() if p.ndim == 2]


def timer(optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    """Something that makes a step and returns its seconds."""

    def step() -> float:
        start = now(CPU)
        optimizer.step()
        return now(CPU) - start

    return step


def measured(rounds: int) -> dict[str, Any]:
    """Both optimizers on copies of the same matrices and gradients, in turns."""
    generator = torch.Generator().manual_seed(0)
    weights = matrices()
    gradients = [torch.randn(matrix.shape, generator=generator) for matrix in weights]

    def copies() -> list[nn.Parameter]:
        parameters = [nn.Parameter(matrix.clone()) for matrix in weights]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        return parameters

    seconds = interleave(
        {
            "torch": timer(torch.optim.Muon(copies(), lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")),
            "float32": timer(Float32Muon(copies(), lr=1e-3)),
        },
        rounds,
    )
    return {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "computes_in_bf16": computes_in_bf16(CPU),
        "threads": torch.get_num_threads(),
        "matrices": len(weights),
        "seconds_per_step": {name: spread(values) for name, values in seconds.items()},
        "torch_over_float32": ratio(seconds["torch"], seconds["float32"]),
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="A JSON file; printed in any case.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = json.dumps(measured(arguments.rounds), indent=1)
    sys.stdout.write(text + "\n")
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
