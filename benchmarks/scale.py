"""Computes the tables of docs/scale.md: memory, time and traffic of training the 7B model on many GPUs.

    python benchmarks/scale.py

Plain arithmetic, nothing is measured. docs/scale.md explains each formula; change a constant here and see what happens.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

GIB = 2**30
# ------------------------------------------------------------------------------------------------------------ the model
LAYERS, HIDDEN, INTERMEDIATE, KV_WIDTH, VOCABULARY, CODES = 28, 3584, 18944, 512, 152064, 16384
LAYER = 2 * HIDDEN * HIDDEN + HIDDEN + 2 * (HIDDEN + 1) * KV_WIDTH + 3 * HIDDEN * INTERMEDIATE + 2 * HIDDEN
WEIGHTS = {
    "language layers": LAYERS * LAYER + HIDDEN,
    "token embeddings": VOCABULARY * HIDDEN,
    "text head": VOCABULARY * HIDDEN,
    "image heads": 2 * ((HIDDEN + 1) * HIDDEN + HIDDEN * CODES),
    "adapters": 3 * ((8 + 1) * HIDDEN + (HIDDEN + 1) * HIDDEN),
    "vision tower": 676_550_144,
    "image tokenizer": 71_883_403,
}
FROZEN = ("vision tower", "image tokenizer")
TRAINED = sum(count for name, count in WEIGHTS.items() if name not in FROZEN)
VISION, TOKENIZER, BODY = (WEIGHTS[name] for name in ("vision tower", "image tokenizer", "language layers"))
IMAGE_PARTS = WEIGHTS["image heads"] + WEIGHTS["adapters"]
LORA_RANK = 16
LORA = LAYERS * LORA_RANK * (2 * 2 * HIDDEN + 2 * (HIDDEN + KV_WIDTH) + 3 * (HIDDEN + INTERMEDIATE))

# -------------------------------------------------------------------------------------------------------------- the rows
PROMPT = 60  # text of a drawing or edit, with its start and end tokens
UNDERSTANDING_TEXT, ANSWER = 176, 100  # assumed: question, turns and answer; labels among them
NAVIT = {
    "2": 324,
    "3a": 324,
    "3b": 324,
    "4": 240,
}  # merged tokens of the largest image: 254,016 or 188,160 pixels / 28^2
CODES_OF = {"1": 576, "2": 576, "3a": 1024, "3b": 1024, "4": 1024}
LINES_OF = {"1": 0, "2": 0, "3a": 0, "3b": 31, "4": 31}


@dataclass(frozen=True)
class Row:
    """What a row of a task costs: tokens, labels of text and of codes, and merged NaViT tokens."""

    tokens: int
    texts: int
    codes: int
    vision: int


def rows_of(stage: str) -> dict[str, Row]:
    """Rows of each task in a stage of the recipe."""
    codes, lines = CODES_OF[stage], LINES_OF[stage]
    vision = NAVIT.get(stage, 0)
    return {
        "understanding": Row(vision + UNDERSTANDING_TEXT, ANSWER, 0, vision),
        "drawing": Row(PROMPT + codes + lines, lines + 4, codes, 0),
        "editing": Row(PROMPT + 2 * (codes + lines) + 4 + vision, lines + 4, codes, vision),
    }


# steps, and rows of understanding, drawing and editing in each (docs/training.md)
STAGES = {
    "1": (30_000, (0, 256, 0)),
    "2": (300_000, (64, 256, 0)),
    "3a": (50_000, (128, 256, 0)),
    "3b": (50_000, (128, 256, 0)),
    "4": (55_000, (128, 128, 128)),
}


def row_flops(row: Row, per_body_weight: int = 6) -> float:
    """Floating-point operations that a row needs, forward and backward.

    Args:
        per_body_weight: 6 where the body trains, 4 where gradients only pass through it.
    """
    layers = per_body_weight * BODY * row.tokens
    attention = 6 * LAYERS * HIDDEN * row.tokens**2  # causal
    heads = 6 * WEIGHTS["image heads"] / 2 * row.codes + per_body_weight * WEIGHTS["text head"] * row.texts
    vision = 2 * VISION * 4 * row.vision  # four patches to a merged token, forward only
    return layers + attention + heads + vision


def step_of(stage: str) -> tuple[int, float]:
    """Tokens and floating-point operations of an optimizer step."""
    _, counts = STAGES[stage]
    kinds = rows_of(stage).values()
    frozen = 4 if stage == "1" else 6
    tokens = sum(count * row.tokens for count, row in zip(counts, kinds, strict=True))
    return tokens, sum(count * row_flops(row, frozen) for count, row in zip(counts, kinds, strict=True))


# ------------------------------------------------------------------------------------------------------------------ time
PEAK, MFU = 989e12, 0.40  # H100, H200 and H800 in bfloat16, dense; 0.40 * 989 = 396 TFLOP/s


def table_of_stages() -> list[str]:
    """Tokens, operations and GPU-days of every stage."""
    lines = ["| stage | tokens per step | tokens in all | GFLOP per token | GPU-days | days on 64 |"]
    lines.append("|---|---|---|---|---|---|")
    total_tokens = total_days = 0.0
    for stage, (steps, _) in STAGES.items():
        tokens, flops = step_of(stage)
        days = steps * flops / (PEAK * MFU) / 86400
        total_tokens += steps * tokens
        total_days += days
        lines.append(
            f"| {stage} | {tokens:,} | {steps * tokens / 1e9:.1f} G | {flops / tokens / 1e9:.1f} | {days:.1f} | "
            f"{days / 64:.2f} |"
        )
    lines.append(f"| all | | {total_tokens / 1e9:.1f} G | | {total_days:.0f} | {total_days / 64:.1f} |")
    return lines


# ---------------------------------------------------------------------------------------------------------------- memory
GATHERED_LAYERS = 2  # the one that computes and the next one
BUCKET = 500_000_000  # DeepSpeed's default bucket of gradients, in elements


WAYS = ("DDP, float32", "bfloat16, AdamW in 8 bits", "ZeRO-2", "ZeRO-3", "FSDP2", "LoRA", "QLoRA")


def states(way: str, shards: int) -> float:
    """Bytes of weights, gradients and optimizer on each GPU, and what sharding keeps gathered beside them.

    Args:
        way: one of `WAYS`.
        shards: GPUs that share the states.
    """
    tokenizer = 4 * TOKENIZER
    adam = 16  # weight, gradient and two moments in float32
    adapters = adam * (LORA + IMAGE_PARTS)
    frozen_body = BODY + WEIGHTS["token embeddings"] + WEIGHTS["text head"]
    if way == "DDP, float32":
        return adam * TRAINED + 4 * VISION + tokenizer + 2 * TRAINED  # autocast keeps bfloat16 copies in a forward
    if way == "bfloat16, AdamW in 8 bits":
        return (2 + 2 + 2) * TRAINED + 2 * VISION + tokenizer
    if way == "LoRA":
        return 2 * (frozen_body + VISION) + adapters + tokenizer
    if way == "QLoRA":  # 4 bits and quantized scales; embeddings and text head stay
        packed = (BODY + VISION) * (1 / 2 + 1 / 64 + 4 / 64 / 256)
        return packed + 2 * (frozen_body - BODY) + adapters + tokenizer
    if way == "ZeRO-2":
        return 2 * (TRAINED + VISION) + tokenizer + (adam - 2) * TRAINED / shards + 4 * BUCKET
    gathered = 2 * GATHERED_LAYERS * LAYER + (2 + 4) * WEIGHTS["text head"] + (2 + 4) * IMAGE_PARTS
    weights_of_vision = 4 if way == "FSDP2" else 2  # loaded in float32, or cast by DeepSpeed
    return (adam * TRAINED + weights_of_vision * VISION) / shards + tokenizer + gathered


def table_of_states() -> list[str]:
    """GiB of each way on 1, 8 and 64 GPUs."""
    lines = ["| way | 1 GPU | 8 GPUs | 64 GPUs |", "|---|---|---|---|"]
    for way in WAYS:
        figures = [states(way, shards) / GIB for shards in (1, 8, 64)]
        lines.append(f"| {way} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return lines


KEPT_PER_TOKEN = 2 * HIDDEN * LAYERS  # with checkpointing: the input of every layer
# one layer, kept while it goes backward: gate, up, their product and its activation; queries, keys, values, the output of
# attention and of its projection, both norms' inputs and outputs (inputs in float32)
LAYER_PER_TOKEN = 2 * (4 * INTERMEDIATE + 4 * HIDDEN + 2 * KV_WIDTH + 2 * HIDDEN) + 2 * 4 * HIDDEN
LOGIT_BYTES = 2 + 4 + 4 + 2  # bfloat16, float32, and the gradients of both


def activations(rows: list[Row], checkpointing: bool = True) -> float:
    """Bytes that a forward keeps for its backward."""
    tokens = sum(row.tokens for row in rows)
    logits = LOGIT_BYTES * sum(CODES * row.codes + VOCABULARY * row.texts for row in rows)
    kept = KEPT_PER_TOKEN + LAYER_PER_TOKEN if checkpointing else LAYERS * LAYER_PER_TOKEN
    return kept * tokens + logits


def most_rows(row: Row, card: float, way: str, shards: int, checkpointing: bool = True) -> int:
    """Rows of a task that fit beside the states; 8 % of the card are left for workspaces and fragments."""
    room = 0.92 * card - states(way, shards)
    return max(0, int(room / activations([row], checkpointing)))


def table_of_fits() -> list[str]:
    """Rows per forward on cards of 80 and 141 GB."""
    lines = [
        "| way | GPUs | drawings, 80 GB | edits, 80 GB | drawings, 141 GB | edits, 141 GB |",
        "|---|---|---|---|---|---|",
    ]
    rows = rows_of("4")
    for way, gpus in (
        ("QLoRA", 1), ("LoRA", 1), ("bfloat16, AdamW in 8 bits", 1), ("DDP, float32", 1), ("ZeRO-2", 8), ("ZeRO-2", 64),
        ("ZeRO-3", 8), ("ZeRO-3", 64), ("FSDP2", 8), ("FSDP2", 64),
    ):  # fmt: skip
        figures = [most_rows(rows[task], card, way, gpus) for card in (80e9, 141e9) for task in ("drawing", "editing")]
        lines.append(f"| {way} | {gpus} | " + " | ".join(str(figure) if figure else "–" for figure in figures) + " |")
    return lines


# --------------------------------------------------------------------------------------------------------------- traffic
NETWORK = 50e9  # bytes per second of the network card that each GPU has: 400 Gbit/s
MACHINES, IN_A_MACHINE = 8, 8


def table_of_traffic() -> list[str]:
    """What each network card of 64 GPUs carries between machines for a step of stage 4, beside the time to compute it."""
    _, flops = step_of("4")
    seconds = flops / (MACHINES * IN_A_MACHINE) / (PEAK * MFU)
    # a ring over all GPUs: what is gathered or summed leaves a machine once, through its cards together
    through_a_card = (1 - 1 / (MACHINES * IN_A_MACHINE)) / IN_A_MACHINE
    gathers, sums = 2 * 2 * TRAINED, 4 * TRAINED  # weights in bfloat16, forward and backward; gradients in float32
    ways = {
        "FSDP2 and ZeRO-3": (gathers + sums) * through_a_card,
        "ZeRO-2": (2 * TRAINED + sums) * through_a_card,
        "FSDP2 within machines, copies between them": 2 * sums / IN_A_MACHINE * (1 - 1 / MACHINES),
    }
    lines = ["| way | GB per card and step | seconds at 50 GB/s | computing, seconds |", "|---|---|---|---|"]
    for way, sent in ways.items():
        lines.append(f"| {way} | {sent / 1e9:.1f} | {sent / NETWORK:.2f} | {seconds:.2f} |")
    return lines


def table_of_weights() -> list[str]:
    """Numbers of weights."""
    lines = ["| part | weights | trains in stages 2 to 4 |", "|---|---|---|"]
    lines += [f"| {name} | {count:,} | {'no' if name in FROZEN else 'yes'} |" for name, count in WEIGHTS.items()]
    return [*lines, f"| all that train | {TRAINED:,} | |", f"| LoRA, rank {LORA_RANK} | {LORA:,} | |"]


def table_of_rows() -> list[str]:
    """Tokens of rows."""
    lines = ["| stage | understanding | drawing | editing |", "|---|---|---|---|"]
    for stage in STAGES:
        tokens = [f"{row.tokens:,}" for row in rows_of(stage).values()]
        shown = [text if count else "–" for text, count in zip(tokens, STAGES[stage][1], strict=True)]
        lines.append(f"| {stage} | " + " | ".join(shown) + " |")
    return lines


TABLES = (
    table_of_weights,
    table_of_rows,
    table_of_stages,
    table_of_states,
    table_of_fits,
    table_of_traffic,
)


def main() -> None:
    """Prints every table."""
    for table in TABLES:
        sys.stdout.write("\n".join([f"{table.__doc__}\n", *table(), "", ""]))


if __name__ == "__main__":
    main()
