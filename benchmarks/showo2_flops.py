"""FLOPs of an answer of the released Show-o2 models, with the keys and values of its prompt kept and without, as published.

    python benchmarks/showo2_flops.py --tokens 100

Counted, not measured: the language model runs at its real size on torch's meta device, without weights, and torch counts
the matrix products of each forward, those of attention over all that is there included. The authors run the whole sequence
for each token, the projection to the vocabulary at each position; what images are read with is counted once for both.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration

VOCABULARY = 151_669
SIZES = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16}
WORDS = 60  # of the chat's form and a question
GRID = 27  # of a picture of 432x432, and of a frame before it is reduced
PROMPTS = {"a picture": (WORDS + GRID * GRID + 3, 1), "a video of 32 frames": (WORDS + 32 * 14 * 14 + 3, 32)}


def build(name: str, layers: int = 28) -> ShowO2ForConditionalGeneration:
    """A released model's shapes, without memory.

    Args:
        name: which.
        layers: of the language model.
    """
    text = {**SIZES[name], "num_hidden_layers": layers, "vocab_size": VOCABULARY}
    with torch.device("meta"):
        config = ShowO2Config(text_config=text, vision_config=SIGLIP, codec_config={"type": "linear"})
        config._attn_implementation = "eager"  # all products are in sight
        return ShowO2ForConditionalGeneration(config).eval()


@torch.no_grad()
def count(call: Any) -> int:
    """FLOPs of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def answer(model: ShowO2ForConditionalGeneration, prompt: int, tokens: int, frames: int) -> dict[str, int]:
    """FLOPs of an answer, by how it is written.

    Args:
        model: on the meta device.
        prompt: its positions, those of images included.
        tokens: of the answer.
        frames: pictures, or frames of a video.
    """
    width = model.config.text_config.hidden_size

    def read(length: int, cache: DynamicCache | None, projected: int) -> Any:
        hidden_states = model.model.language_model(
            inputs_embeds=torch.empty(1, length, width, device="meta"),
            attention_mask={"full_attention": None},  # adds nothing to the products
            position_ids=torch.empty(1, length, dtype=torch.long, device="meta"),
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return model.lm_head(hidden_states[:, -projected:])

    cache = DynamicCache()
    prefill = count(lambda: read(prompt, cache, 1))
    # counts are polynomials of degree 2 in the length of sequence and cache, so that three of them tell all
    steps = [count(lambda: read(1, cache, 1)) for _ in range(3)]
    whole = [count(lambda length=length: read(length, None, length)) for length in range(prompt, prompt + 3)]
    kept = prefill + sum(_at(steps, step) for step in range(tokens - 1))
    anew = sum(_at(whole, step) for step in range(tokens))
    edge = GRID * model.config.patch_size
    latents = torch.empty(1, model.config.latent_channels, edge, edge, device="meta")
    time = count(lambda: model.model.time_tokens(model.model.embed_times([1.0])))
    images = frames * count(lambda: model.model.visual(latents)) + time
    return {"with the cache": kept + images, "without": anew + images, "of which images": images}


def _at(known: list[int], step: int) -> int:
    """The value at a step of the polynomial of degree 2 through the steps 0, 1 and 2 (Newton's forward differences)."""
    first, second = known[1] - known[0], known[2] - 2 * known[1] + known[0]
    return known[0] + step * first + step * (step - 1) // 2 * second


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    print("| model | question about | TFLOPs with the cache | without | factor |\n|---|---|---:|---:|---:|")  # noqa: T201
    for name in arguments.models:
        model = build(name)
        for what, (prompt, frames) in PROMPTS.items():
            found = answer(model, prompt, arguments.tokens, frames)
            kept, anew = found["with the cache"], found["without"]
            print(f"| {name} | {what} | {kept / 1e12:,.1f} | {anew / 1e12:,.1f} | {anew / kept:.0f} |")  # noqa: T201


if __name__ == "__main__":
    main()
