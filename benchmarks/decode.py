"""Times drawing: ms per step, images per second, counts; ours beside the released loop and Janus's `generate()`.

    python benchmarks/decode.py --preset cpu --output decode-cpu.json

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measure import (
    CountingReads,
    copy_bandwidth,
    counting_calls,
    interleave,
    now,
    peak_memory,
    ratio,
    reset_peak_memory,
    spread,
    time_steps,
)
from models import PRESETS, Preset, build_janus, build_wallaroo, prompts, sizes
from released_loop import draw_released, top_k_mask
from transformers import CompileConfig
from transformers.utils import logging as transformers_logging

from wallaroo_hf.generation import DrawingOutput
from wallaroo_hf.generation.sampling import GumbelNoise, first_largest, kth_largest

GUIDANCE, TOP_K = 3.0, 1000
# What the project asks of the `cpu` preset, eager or compiled: ratio -> (bound, whether larger is better).
BARS = {
    "released_over_{ours}.step.1_images.context_60": (1.15, True),
    "released_over_{ours}.step.8_images.context_60": (1.25, True),
    "released_over_{ours}.step.1_images.context_1055": (1.15, True),
    "per_image_cost_of_8_over_1.{ours}": (0.22, False),
    "janus_over_{ours}.step.1_images.context_60": (1.0, True),
    "janus_over_{ours}.step.8_images.context_60": (1.0, True),
}


class Bench:
    """One model of ours and one Janus, and the ways to draw with them."""

    def __init__(self, preset: Preset, device: torch.device, compiled: bool, with_janus: bool = True) -> None:
        self.preset, self.device, self.compiled = preset, device, compiled
        self.static = "ours_compiled" if compiled else "ours_static"  # what a static cache is reported as
        self.variants = ("ours", self.static)
        self.model = build_wallaroo(preset, device)
        self.janus = build_janus(preset, device) if with_janus else None
        self.inputs: dict[tuple[int, int, tuple[int, int]], dict] = {}

    def prompt(self, images: int, context: int, grid: tuple[int, int]) -> dict:
        """The prompts, made once."""
        key = (images, context, grid)
        if key not in self.inputs:
            self.inputs[key] = prompts(self.model, images, context, grid)
        return self.inputs[key]

    def ours(self, images: int, context: int, grid: tuple[int, int], **options: Any) -> torch.Tensor:
        """Draws with our `generate`; codes `(B, rows * cols)`."""
        sequences = self.output(images, context, grid, **options).sequences
        vocab_size = self.model.config.text_config.vocab_size
        new = sequences[:, context:]
        return new[new >= vocab_size].view(images, -1) - vocab_size

    def output(self, images: int, context: int, grid: tuple[int, int], **options: Any) -> DrawingOutput:
        """Draws with our `generate`; all that it returns."""
        options.setdefault("line_breaks", True)
        if options.get("do_sample", True):
            options.setdefault("top_k", min(TOP_K, self.preset.codebook_size))
            options["generator"] = [torch.Generator(self.device).manual_seed(seed) for seed in range(images)]
        settings = {"generation_mode": "image", "guidance_scale": GUIDANCE, "return_dict_in_generate": True}
        return self.model.generate(**self.prompt(images, context, grid), **settings, **options)

    def released(self, images: int, context: int, grid: tuple[int, int], **options: Any) -> torch.Tensor:
        """Draws with the released loop's structure; codes `(B, rows * cols)`."""
        return draw_released(
            self.model, self.prompt(images, context, grid), guidance_scale=GUIDANCE, top_k=TOP_K, **options
        )

    def janus_generate(self, images: int, context: int, codes: int) -> torch.Tensor:
        """Draws with Janus's `generate`, which has no line breaks."""
        assert self.janus is not None
        self.janus.model.vision_model.config.num_image_tokens = codes
        ids = self.prompt(images, context, (1, codes))["input_ids"]
        return self.janus.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_mode="image",
            guidance_scale=GUIDANCE,
            do_sample=True,
            temperature=1.0,
            top_k=min(TOP_K, self.preset.codebook_size),
            max_length=max(self.preset.contexts[0] + self.preset.grid[0] * (self.preset.grid[1] + 1), context + codes),
        )

    def ours_static(self, images: int, context: int, grid: tuple[int, int], **options: Any) -> torch.Tensor:
        """The same with a static cache as long as a whole image needs, and compiled steps if they are asked for.

        On accelerators `generate` compiles for a static cache by itself; on CPU its configuration has to say so.
        """
        return self.ours(images, context, grid, **options, **self.static_options())

    def static_options(self) -> dict[str, Any]:
        """What `generate` is told for a static cache."""
        rows, cols = self.preset.grid
        options: dict[str, Any] = {
            "cache_implementation": "static",
            "max_cache_len": self.preset.contexts[0] + rows * (cols + 1),
        }
        if not self.compiled:
            options["disable_compile"] = True
        elif self.device.type == "cpu":
            options["compile_config"] = CompileConfig(mode="default")
            options["compile_config"]._compile_all_devices = True
        return options


def log(message: str) -> None:
    """To stderr, with the time."""
    sys.stderr.write(f"[{time.strftime('%H:%M:%S')}] {message}\n")


# ------------------------------------------------------------------------------------------------------------- checks


def agreement(bench: Bench) -> dict[str, float]:
    """Share of greedy codes that are the same in ours, eager and static, and in the released loop.

    Raises:
        RuntimeError: if one differs on CPU in float32 (elsewhere near ties may fall differently).
    """
    shares = {}
    context, grid = bench.preset.contexts[0], (4, 8)
    for attend_padding in (True, False):
        settings = {"do_sample": False, "attend_padding": attend_padding}
        theirs = bench.released(2, context, grid, **settings)
        name = "attend_padding" if attend_padding else "masked_padding"
        for variant, draw in (("", bench.ours), (f"_{bench.static}", bench.ours_static)):
            codes = draw(2, context, grid, **settings)
            shares[f"{name}{variant}"] = float((codes == theirs).float().mean())
        shares[f"{name}_distinct_codes"] = len(theirs.unique())
    exact = bench.device.type == "cpu" and bench.preset.dtype == torch.float32
    if exact and min(shares.values()) < 1:
        raise RuntimeError(f"Greedy codes of ours and of the released loop differ: {shares}.")
    return shares


def counts(device: torch.device, grid: tuple[int, int]) -> dict[str, dict[str, float]]:
    """What one image costs (a grid of 32x32 is 512x512 pixels), on the micro model, which counts as well as any."""
    bench = Bench(replace(PRESETS["micro"], grid=grid), device, compiled=False, with_janus=False)
    result: dict[str, dict[str, float]] = {}
    draws: dict[str, Callable[[tuple[int, int]], Any]] = {
        "ours": lambda grid: bench.ours(1, 60, grid),
        "released": lambda grid: bench.released(1, 60, grid),
    }
    model = bench.model
    for name, draw in draws.items():
        modules = {"forwards": model.model.language_model, "text_head_calls": model.lm_head}
        with counting_calls(**modules, image_head_calls=model.generation_head) as calls:
            codes = draw(grid)
        reads, operations = [], []
        for small in ((1, 1), (2, 32)):
            with CountingReads() as counter:
                draw(small)
            reads.append(counter.reads)
            operations.append(counter.operations)
        result[name] = {
            "codes": codes.shape[1],
            **calls,
            "host_reads_per_code": round((reads[1] - reads[0]) / 63, 3),
            "tensor_operations_per_code": round((operations[1] - operations[0]) / 63, 1),
        }
    return result


# ------------------------------------------------------------------------------------------------------------ timings


def step_case(bench: Bench, images: int, context: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each variant, by round: one row of codes, so that all run the same forwards."""
    grid = (1, bench.preset.steps)
    forwards = bench.preset.steps - 1  # after the prefill
    decoder = bench.model.model.language_model
    runs: dict[str, tuple[Callable[[], Any], torch.nn.Module]] = {
        "ours": (lambda: bench.ours(images, context, grid), decoder),
        bench.static: (lambda: bench.ours_static(images, context, grid), decoder),
        "released": (lambda: bench.released(images, context, grid), decoder),
    }
    if bench.janus is not None and context == bench.preset.contexts[0]:
        theirs = bench.janus.model.language_model
        runs["janus"] = (lambda: bench.janus_generate(images, context, bench.preset.steps), theirs)

    def timed(run: Callable[[], Any], module: torch.nn.Module) -> Callable[[], float]:
        return lambda: time_steps(run, module, bench.device)[1] / forwards

    cases = {name: timed(*case) for name, case in runs.items()}
    return interleave(cases | {"products": products(bench, 2 * images, forwards)}, rounds)


def products(bench: Bench, rows: int, repeats: int) -> Callable[[], float]:
    """Measures the matrix products of one of our steps and nothing else: what no way of decoding goes below."""
    model = bench.model
    parts = (model.model.generation_adapter, model.model.language_model.layers, model.generation_head)
    layers = [module for part in parts for module in part.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {
        width: torch.randn(rows, width, device=bench.device, dtype=bench.preset.dtype)
        for width in {layer.in_features for layer in layers}
    }

    @torch.no_grad()
    def measure() -> float:
        start = now(bench.device)
        for _ in range(repeats):
            for layer in layers:
                layer(inputs[layer.in_features])
        return (now(bench.device) - start) / repeats

    return measure


def window_case(bench: Bench, images: int, rounds: int, codes_per_forward: dict[int, float]) -> dict[str, Any]:
    """Milliseconds of a forward over a window, of one code's forward beside it, and their ratio.

    Weights are random here, so guesses are nearly always wrong; what a window is worth is its cost together with the codes
    per forward of a trained model (`windows.py` counts those of the built-in one). The ratio is how many they must be.
    """
    context, grid = bench.preset.contexts[0], (1, bench.preset.steps)
    # Compiled where that is how one would draw; on CPU every window would take a minute to compile.
    options = bench.static_options() if bench.compiled and bench.device.type != "cpu" else {}
    decoder = bench.model.model.language_model

    def timed(window: int) -> Callable[[], float]:
        outputs: list[DrawingOutput] = []

        def draw() -> None:
            outputs.append(bench.output(images, context, grid, window=window, **options))

        def measure() -> float:
            seconds = time_steps(draw, decoder, bench.device)[1]
            return seconds / (outputs.pop().statistics.forwards - 1)

        return measure

    seconds = interleave({str(window): timed(window) for window in (1, *bench.preset.windows)}, rounds)
    result: dict[str, Any] = {
        "ms_per_forward": {name: spread([value * 1e3 for value in values], 3) for name, values in seconds.items()},
        "cost_over_one_code": {name: ratio(seconds[name], seconds["1"]) for name in seconds if name != "1"},
        "cache": "static, compiled" if options else "dynamic, eager",
    }
    rows, cols = bench.preset.grid
    for window, codes in codes_per_forward.items():
        if str(window) in seconds:
            forward = result["ms_per_forward"][str(window)]["median"] / 1e3
            # computed, not measured: a whole image if windows decided so many codes on average
            result.setdefault("computed_seconds_per_image", {})[str(window)] = round(
                rows * cols / codes * forward / images, 4
            )
    return result


def whole_image_case(bench: Bench, images: int) -> dict[str, Any]:
    """Seconds per image of a whole draw, prompt to codes, once; the image tokenizer's decoder is not part of it."""
    context, grid = bench.preset.contexts[0], bench.preset.grid
    runs: dict[str, Callable[[tuple[int, int]], Any]] = {
        "ours": lambda grid: bench.ours(images, context, grid),
        bench.static: lambda grid: bench.ours_static(images, context, grid),
        "released": lambda grid: bench.released(images, context, grid),
    }
    result: dict[str, Any] = {}
    for name, run in runs.items():
        run((2, grid[1]))  # compiles
        reset_peak_memory(bench.device)
        start = now(bench.device)
        run(grid)
        seconds = (now(bench.device) - start) / images
        result[name] = {
            "seconds_per_image": round(seconds, 4),
            "images_per_second": round(1 / seconds, 4),
            "peak_bytes": peak_memory(bench.device),
        }
    for name in bench.variants:
        result[f"released_over_{name}"] = round(
            result["released"]["seconds_per_image"] / result[name]["seconds_per_image"], 3
        )
    return result


def sampling_case(bench: Bench, images: int, rounds: int) -> dict[str, Any]:
    """Microseconds to choose codes from logits: ours, and the released way with top-k by threshold and by sort."""
    codes, device = bench.preset.codebook_size, bench.device
    logits = torch.randn(images, codes, device=device)
    top_k, repeats = min(TOP_K, codes), 64
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(images)]
    draws, positions = [True] * images, torch.zeros(images, dtype=torch.long, device=device)

    def gumbel() -> None:
        noise = GumbelNoise(generators, images, codes, device)
        for _ in range(repeats):
            kept = logits.masked_fill(logits < kth_largest(logits, top_k), -torch.inf)
            first_largest(kept + noise.next(draws, positions))

    def threshold() -> None:
        for _ in range(repeats):
            torch.multinomial(torch.softmax(top_k_mask(logits, top_k), dim=-1), 1)

    def by_sort() -> None:
        for _ in range(repeats):
            ordered, order = logits.sort(dim=-1, descending=True)
            ordered[:, top_k:] = -torch.inf
            torch.multinomial(torch.softmax(ordered.scatter(-1, order, ordered), dim=-1), 1)

    def timed(run: Callable[[], None]) -> Callable[[], float]:
        def measure() -> float:
            start = now(device)
            run()
            return (now(device) - start) / repeats * 1e6

        return measure

    runs = {"gumbel": gumbel, "threshold_multinomial": threshold, "sort_multinomial": by_sort}
    values = interleave({name: timed(run) for name, run in runs.items()}, rounds)
    return {name: spread(value, 1) for name, value in values.items()}


def step_bytes(bench: Bench, images: int, context: int) -> int:
    """Bytes that one of our steps has to read: weights once, and the keys and values of both branches."""
    preset, weights = bench.preset, sizes(bench.model, None)["wallaroo"]
    size = torch.finfo(preset.dtype).bits // 8
    head_size = preset.hidden_size // preset.num_heads
    per_token = 2 * preset.num_layers * preset.num_kv_heads * head_size * size
    mean_length = context + preset.steps // 2
    return (weights["body"] + weights["image_head"] + weights["adapter"]) * size + (
        2 * images * mean_length * per_token
    )


def summarize_steps(bench: Bench, images: int, context: int, seconds: dict[str, list[float]], copy: float) -> dict:
    """Medians and spreads, ratios by round, and how much of the measured bandwidth a step achieves."""
    summary: dict[str, Any] = {"ms_per_step": {}, "bandwidth_share": {}}
    for name, values in seconds.items():
        summary["ms_per_step"][name] = spread([value * 1e3 for value in values], 3)
    for name in bench.variants:
        best = summary["ms_per_step"][name]["median"] / 1e3
        summary["bandwidth_share"][name] = round(step_bytes(bench, images, context) / best / copy, 4)
        summary[f"released_over_{name}"] = ratio(seconds["released"], seconds[name])
        if "janus" in seconds:
            summary[f"janus_over_{name}"] = ratio(seconds["janus"], seconds[name])
    summary["bytes_per_step"] = step_bytes(bench, images, context)
    return summary


def headline(
    seconds: dict[tuple[int, int], dict[str, list[float]]], first_context: int, variants: Sequence[str]
) -> dict[str, float]:
    """The ratios by one name each."""
    values: dict[str, float] = {}
    for (images, context), case in seconds.items():
        for ours in variants:
            for other in ("released", "janus"):
                if other in case:
                    name = f"{other}_over_{ours}.step.{images}_images.context_{context}"
                    values[name] = ratio(case[other], case[ours])["median"]
    alone = seconds.get((1, first_context))
    for (images, context), case in seconds.items():
        if alone is not None and images > 1 and context == first_context:
            for name, times in case.items():
                relative = ratio([time / images for time in times], alone[name])["median"]
                values[f"per_image_cost_of_{images}_over_1.{name}"] = relative
    return values


# --------------------------------------------------------------------------------------------------------------- run


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, as what becomes JSON."""
    preset = PRESETS[args.preset]
    images = tuple(args.images or preset.images)
    whole_images = tuple(count for count in preset.whole_images if count in images and not args.no_whole_image)
    preset = replace(preset, rounds=args.rounds or preset.rounds, images=images, whole_images=whole_images)
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
    load = os.getloadavg()
    start = time.perf_counter()
    log(f"building the models of preset {args.preset!r} on {device}")
    compiled = args.preset != "micro" if args.compile is None else args.compile
    bench = Bench(preset, device, compiled)
    report: dict[str, Any] = {
        "preset": args.preset,
        "config": {key: str(value) if key == "dtype" else value for key, value in asdict(preset).items()},
        "settings": {"guidance_scale": GUIDANCE, "top_k": TOP_K, "threads": torch.get_num_threads()}
        | {"compiled": compiled, "clock": "process CPU time" if device.type == "cpu" else "wall"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "transformers", "wallaroo-hf")}
        | {"python": platform.python_version()},
        "device": device_name(device),
        "sizes": sizes(bench.model, bench.janus),
    }
    log("checking that ours and the released loop draw the same codes; counting")
    first = time.perf_counter()
    report["agreement"] = agreement(bench)
    report["agreement_seconds"] = round(time.perf_counter() - first, 1)  # on the wall; compiling is most of it
    report["counts"] = counts(device, preset.grid)
    copy = copy_bandwidth(device)
    report["copy_bytes_per_second"] = round(copy)
    seconds: dict[tuple[int, int], dict[str, list[float]]] = {}
    report["steps"] = {}
    for context in preset.contexts:
        for count in images if context == preset.contexts[0] else images[:1]:
            log(f"steps: {count} images, context {context}")
            seconds[count, context] = step_case(bench, count, context, preset.rounds)
            summary = summarize_steps(bench, count, context, seconds[count, context], copy)
            report["steps"][f"{count}_images.context_{context}"] = summary
    report["windows"] = {}
    for count in preset.window_images:
        log(f"windows: {count} images")
        report["windows"][f"{count}_images"] = window_case(bench, count, preset.rounds, args.codes_per_forward)
    log("choosing codes")
    report["sampling_us"] = {f"{count}_images": sampling_case(bench, count, preset.rounds) for count in images}
    report["whole_image"] = {}
    for count in preset.whole_images:
        log(f"whole image: {count} images")
        report["whole_image"][f"{count}_images"] = whole_image_case(bench, count)
    report["ratios"] = headline(seconds, preset.contexts[0], bench.variants)
    for name, case in report["windows"].items():
        for window, cost in case["cost_over_one_code"].items():
            report["ratios"][f"window_{window}_over_1.forward.{name}"] = cost["median"]
    if args.preset == "cpu":
        report["bars"] = judge(report["ratios"], bench.variants)
    report["load"] = {"before": load, "after": os.getloadavg(), "cores": os.cpu_count()}
    report["seconds"] = round(time.perf_counter() - start, 1)
    return report


def judge(ratios: dict[str, float], variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The bars beside what was measured, and which variants met them."""
    bars = {}
    for name, (bar, larger) in BARS.items():
        measured = {ours: ratios[name.format(ours=ours)] for ours in variants if name.format(ours=ours) in ratios}
        if measured:
            met = [ours for ours, value in measured.items() if (value >= bar if larger else value <= bar)]
            bars[name.format(ours="ours")] = {**measured, "bar": bar, "met_by": met}
    return bars


def device_name(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cpu":
        return f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    module: Any = getattr(torch, device.type, None)
    return module.get_device_name(device) if hasattr(module, "get_device_name") else device.type


def default_device() -> str:
    """The accelerator that PyTorch finds, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def window_and_codes(text: str) -> tuple[int, float]:
    """`"16=2.5"` as numbers."""
    window, _, codes = text.partition("=")
    return int(window), float(codes)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--images", type=int, nargs="+", help="batch sizes; default: the preset's")
    parser.add_argument("--device", help="default: cpu for the presets cpu and micro, else the accelerator")
    parser.add_argument("--rounds", type=int, help="timed runs per variant; default: the preset's")
    parser.add_argument("--threads", type=int, default=1, help="on CPU")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="compile the static step; default: but for micro, yes"
    )
    parser.add_argument(
        "--codes-per-forward",
        type=window_and_codes,
        nargs="+",
        default=[],
        metavar="W=CODES",
        help="of a trained model, by window, e.g. 16=2.5: computes seconds per image from them",
    )
    parser.add_argument("--no-whole-image", action="store_true", help="steps only")
    args = parser.parse_args(arguments)
    args.codes_per_forward = dict(args.codes_per_forward)
    args.device = args.device or ("cpu" if args.preset in ("cpu", "micro") else default_device())
    return args


def main() -> None:
    """Runs, writes the JSON, says the ratios."""
    args = parse()
    transformers_logging.set_verbosity_error()
    report = run(args)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = [f"{name:60} {value:.3f}" for name, value in report["ratios"].items()]
    lines += [f"{name:60} {', '.join(bar['met_by']) or 'MISSED'}" for name, bar in report.get("bars", {}).items()]
    sys.stdout.write("\n".join([*lines, f"counts: {report['counts']}", ""]))


if __name__ == "__main__":
    main()
