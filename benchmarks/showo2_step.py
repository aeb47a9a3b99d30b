"""A step of Show-o2's drawing: over prompts that are read once, against the authors' over the whole padded sequence.

    python benchmarks/showo2_step.py --output showo2-step.json

The model has random weights and the proportions of the released 1.5B: all its layers, every width an eighth, heads of the
released sizes (of 64 in the language model) and fewer of them. CPU seconds, in rounds that take turns; ratios by round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from measure import interleave, now, ratio, spread

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration
from wallaroo_hf.showo2.flow_head import TimeOfPositions, unpack_latents
from wallaroo_hf.showo2.generation.denoising import Denoiser
from wallaroo_hf.showo2.generation.prompt_cache import read_prompt

GUIDANCE = 5.0
CONTEXT = {27: 1024, 32: 1280, 64: 4352}  # of the released settings, by the grid's edge


def build(share: int = 8, layers: tuple[int, int, int] = (28, 26, 10)) -> ShowO2ForConditionalGeneration:
    """Show-o2 1.5B with every width divided.

    Args:
        share: by which.
        layers: of language model, semantic path and flow head.
    """
    config = ShowO2Config(
        text_config={
            **{"hidden_size": 1536 // share, "intermediate_size": 8960 // share, "num_hidden_layers": layers[0]},
            **{
                "num_attention_heads": 24 // share,
                "num_key_value_heads": 1,
                "vocab_size": 512,
                "rope_theta": 1000000.0,
            },
        },
        vision_config={
            **{"hidden_size": 1152 // share, "intermediate_size": 4304 // share, "num_hidden_layers": layers[1]},
            "num_attention_heads": 16 // share,
        },
        flow_config={
            **{"hidden_size": 2048 // share, "intermediate_size": 8192 // share, "num_hidden_layers": layers[2]},
            **{"num_attention_heads": 32 // share, "num_key_value_heads": max(1, 8 // share), "head_dim": 64},
        },
        codec_config={"type": "linear"},
        **{"bos_token_id": 500, "eos_token_id": 501, "pad_token_id": 502, "vision_start_token_id": 503},
        **{
            "vision_end_token_id": 504,
            "image_token_id": 505,
            "video_token_id": 506,
            "image_placeholder_token_id": 507,
        },
        **{"video_start_token_id": 508, "video_end_token_id": 509},
    )
    torch.manual_seed(0)
    model = ShowO2ForConditionalGeneration(config).eval()
    for layer in [*model.flow_head.layers, model.flow_head]:  # begins at zero, where nothing could be compared
        torch.nn.init.normal_(layer.modulation.weight, std=0.02)
    torch.nn.init.normal_(model.flow_head.output.weight, std=0.02)
    return model


class TimeAtEveryPosition(TimeOfPositions):
    """As released: what the layers make of the time is computed at every position of the sequence, text included."""

    def modulate(self, layer: torch.nn.Linear, chunks: int, gates: Any = ()) -> list[torch.Tensor]:
        """See [`TimeOfPositions.modulate`]."""
        assert self.positions is not None
        is_image = (self.positions >= 0)[..., None]
        times = self.embeddings[self.positions.clamp(min=0)]
        made = layer(torch.nn.functional.silu(times)).chunk(chunks, dim=-1)
        return [torch.where(is_image, one, float(number in gates)) for number, one in enumerate(made)]


class WholeSequence:
    """The authors' step in our own words: both branches, every position, a dense mask, padding included.

    Their projection to the vocabulary, whose result drawing does not use, is left out, so that ratios err against us.

    Args:
        model: draws.
        prompt: ids of one prompt, the token that opens the image at its end.
        grid: rows and columns of image tokens.
        context: positions of the padded sequence.
    """

    def __init__(self, model: ShowO2ForConditionalGeneration, prompt: list[int], grid: int, context: int) -> None:
        config = model.config
        image = [config.image_token_id] * (grid * grid + 1)
        end = [config.vision_end_token_id, config.eos_token_id]
        rows = [[*start, *image, *end] for start in (prompt, [config.bos_token_id, config.vision_start_token_id])]
        self.ids = torch.tensor([row + [config.pad_token_id] * (context - len(row)) for row in rows])
        self.model, self.edge = model, grid * config.patch_size

    @torch.no_grad()
    def velocity(self, latents: torch.Tensor, time: float) -> torch.Tensor:
        """The guided velocity of `(1, C, h, w)`."""
        both = [latents[0], latents[0]]
        outputs = self.model.model(input_ids=self.ids, image_latents=both, timesteps=[time, time])
        blocks = outputs.blocks
        times = TimeAtEveryPosition(outputs.time_embeddings, blocks.numbers)
        tokens = self.model.flow_head(
            outputs.last_hidden_state, times, outputs.flow_mask, outputs.position_ids
        )  # (2, context, 64)
        size, channels = (self.edge, self.edge), self.model.config.latent_channels
        parts = tokens[blocks.is_image].split(blocks.lengths)
        given, null = (unpack_latents(part[1:], size, channels) for part in parts)
        return (null + GUIDANCE * (given - null))[None]


def denoiser(model: ShowO2ForConditionalGeneration, prompt: list[int], grid: int, padding: int = 0) -> Denoiser:
    """Ours, with a prompt that is padded on the left by so many positions."""
    config, edge = model.config, grid * model.config.patch_size
    null = [config.bos_token_id, config.vision_start_token_id]
    width = len(prompt) + padding
    rows = [[config.pad_token_id] * (width - len(row)) + row for row in (prompt, null)]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in (prompt, null)]
    read = read_prompt(model, torch.tensor(rows), torch.tensor(mask))
    return Denoiser(model, read.select([0, 1]), (edge, edge), GUIDANCE)


def measured(
    model: ShowO2ForConditionalGeneration, grid: int, context: int, prompt_tokens: int, rounds: int
) -> dict[str, Any]:
    """Seconds of a step of each way, and their ratios.

    Args:
        model: from [`build`].
        grid: rows and columns of image tokens.
        context: positions of the authors' padded sequence.
        prompt_tokens: of the prompt.
        rounds: how often each way takes its turn.
    """
    prompt = [model.config.bos_token_id, *range(1, prompt_tokens - 1), model.config.vision_start_token_id]
    edge = grid * model.config.patch_size
    noise = torch.randn(1, model.config.latent_channels, edge, edge, generator=torch.Generator().manual_seed(1))
    ways: dict[str, Any] = {
        "ours": denoiser(model, prompt, grid),
        "ours_padded": denoiser(model, prompt, grid, len(prompt)),  # a row of twice its length
        "whole_sequence": WholeSequence(model, prompt, grid, context),
    }
    device = torch.device("cpu")
    results = {name: way.velocity(noise, 0.3) for name, way in ways.items()}
    differences = {name: float((one - results["whole_sequence"]).abs().max()) for name, one in results.items()}

    def timed(way: Any) -> float:
        start = now(device)
        way.velocity(noise, 0.3)
        return now(device) - start

    seconds = interleave({name: (lambda way=way: timed(way)) for name, way in ways.items()}, rounds)
    return {
        "positions": {"prompt": prompt_tokens, "image": grid * grid + 1, "whole_sequence": context},
        "largest_difference": differences,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "whole_sequence_over_ours": ratio(seconds["whole_sequence"], seconds["ours"]),
        "padded_over_ours": ratio(seconds["ours_padded"], seconds["ours"]),
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument(
        "--grid", type=int, default=27, choices=sorted(CONTEXT), help="edge in tokens: 27 = 432 pixels"
    )
    parser.add_argument("--prompt-tokens", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = build()
    result = measured(model, arguments.grid, CONTEXT[arguments.grid], arguments.prompt_tokens, arguments.rounds)
    result["machine"] = {"cpu": platform.processor(), "torch": torch.__version__, "load": os.getloadavg()[0]}
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
