"""FLOPs and memory of the released Show-o2 models: of an answer and of a picture, with what is kept of prompts and without.

    python benchmarks/showo2_flops.py --tokens 100 --steps 49

Counted, not measured: the models run at their real sizes on torch's meta device, without weights, and torch counts the
matrix products of each forward, those of attention over all that is there included.

- Answers: the authors run the whole sequence for each token, the projection to the vocabulary at each position; what images
  are read with is counted once for both.
- Pictures: in each step the authors run both branches of guidance over the whole padded sequence, SigLIP's layers in each
  of them, and what the time does to the flow head's layers at every position. Their projection to the vocabulary, whose
  result drawing does not use, is left out, so that factors err against us. Decoding is counted for both.
- Memory: bytes of the tensors that are alive at once, found by following what each operation makes, in bfloat16 (the codec
  in float32), with an attention that keeps no scores. What allocators and compilers add is not in it.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from transformers.cache_utils import Cache

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration
from wallaroo_hf.showo2.flow_head import TimeOfPositions
from wallaroo_hf.showo2.generation.prompt_cache import FrozenLayer
from wallaroo_hf.showo2.image_codecs import make_codec

VOCABULARY = 151_669
SIZES = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16}
WORDS = 60  # of the chat's form and a question
GRID = 27  # of a picture of 432x432, and of a frame before it is reduced
PROMPTS = {"a picture": (WORDS + GRID * GRID + 3, 1), "a video of 32 frames": (WORDS + 32 * 14 * 14 + 3, 32)}

DRAWN = {432: 1024, 512: 1280, 1024: 4352}  # pixels of an edge -> positions of the authors' padded sequence
BRANCHES = 2  # of guidance


def build(name: str, layers: int = 28) -> ShowO2ForConditionalGeneration:
    """A released model's shapes, without memory.

    Args:
        name: which.
        layers: of the language model.
    """
    text = {**SIZES[name], "num_hidden_layers": layers, "vocab_size": VOCABULARY}
    with torch.device("meta"):
        parts = {"text_config": text, "vision_config": SIGLIP, "codec_config": {"type": "linear"}}
        config = ShowO2Config(**parts, tie_word_embeddings=name == "1.5B")
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


# ---------------------------------------------------------------------------------------------------------------- pictures


def prompt_caches(model: ShowO2ForConditionalGeneration, prompt: int) -> tuple[Cache, Cache]:
    """Keys and values of the prompts of both branches: of the language model, and of the flow head.

    Args:
        model: on the meta device.
        prompt: positions of the longer one, to which the other is padded.
    """
    text, flow = model.config.text_config, model.config.flow_config
    caches = []
    for config, width in ((text, text.hidden_size // text.num_attention_heads), (flow, flow.head_dim)):
        size = (BRANCHES, config.num_key_value_heads, prompt, width)
        parts = [torch.empty(size, dtype=model.dtype, device="meta") for _ in range(2 * config.num_hidden_layers)]
        caches.append(Cache(layers=[FrozenLayer(*pair) for pair in zip(parts[::2], parts[1::2])]))
    return caches[0], caches[1]


def run(model: ShowO2ForConditionalGeneration, embeds: torch.Tensor, caches: Any = (None, None)) -> None:
    """Language model and flow head over the same positions, without what the time does.

    Args:
        model: on the meta device.
        embeds: `(rows, T, width)`.
        caches: what both have read before.
    """
    positions = torch.empty(embeds.shape[:2], dtype=torch.long, device="meta")
    hidden_states = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask={"full_attention": None},
        position_ids=positions,
        cache=caches[0],
        use_cache=False,
        is_causal=False,
    ).last_hidden_state
    none = torch.empty(0, model.config.flow_config.hidden_size, dtype=model.dtype, device="meta")
    of_nobody = TimeOfPositions(none, torch.empty(1, 1, dtype=torch.long, device="meta"))
    model.flow_head(hidden_states, of_nobody, None, positions, cache=caches[1], is_causal=False)


def see(model: ShowO2ForConditionalGeneration, edge: int, rows: int, modulated: int) -> None:
    """What a step does with latents and time before and beside that.

    Args:
        model: on the meta device.
        edge: of the latents.
        rows: how often the same picture is read.
        modulated: at how many positions it is computed what the time does to the flow head's layers.
    """
    model.model.visual(torch.empty(rows, model.config.latent_channels, edge, edge, device="meta"))
    times = model.model.embed_times([0.5] * rows)
    model.model.time_tokens(times)
    for layer in (*model.flow_head.layers, model.flow_head):
        layer.modulation(times[:1].expand(modulated, -1))


def step(model: ShowO2ForConditionalGeneration, edge: int, caches: tuple[Cache, Cache]) -> None:
    """Our step: the picture's positions only.

    Args:
        model: on the meta device.
        edge: of the latents.
        caches: see [`prompt_caches`].
    """
    see(model, edge, 1, 1)
    run(model, _embeds(model, model.config.image_tokens((edge, edge)) + 1), caches)


def their_step(model: ShowO2ForConditionalGeneration, edge: int, context: int) -> None:
    """The authors': the whole padded sequence.

    Args:
        model: on the meta device.
        edge: of the latents.
        context: its positions.
    """
    see(model, edge, BRANCHES, BRANCHES * context)
    run(model, _embeds(model, context))


def decode(codec: Any, latents: torch.Tensor) -> None:
    """What `decode_latents` does, whose autocast knows no meta device."""
    codec.decode(latents.unsqueeze(2))


def drawing(model: ShowO2ForConditionalGeneration, edge: int, prompt: int, context: int, steps: int) -> dict[str, int]:
    """FLOPs of a picture before it is decoded, and of a step.

    Args:
        model: on the meta device.
        edge: of the latents.
        prompt: positions of the longer prompt of both branches.
        context: positions of the authors' padded sequence.
        steps: calls of the model.
    """
    caches = prompt_caches(model, prompt)
    ours, theirs = count(lambda: step(model, edge, caches)), count(lambda: their_step(model, edge, context))
    prefix = count(lambda: run(model, _embeds(model, prompt)))
    return {"step": ours, "their step": theirs, "image": prefix + steps * ours, "their image": steps * theirs}


def _embeds(model: ShowO2ForConditionalGeneration, length: int) -> torch.Tensor:
    return torch.empty(BRANCHES, length, model.config.text_config.hidden_size, dtype=model.dtype, device="meta")


# ------------------------------------------------------------------------------------------------------------------ memory


class AliveBytes(TorchDispatchMode):
    """Follows what operations make; `most` is how many bytes of it were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation."""
        result = function(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in _tensors((args, kwargs))}
        for one in _tensors(result):
            storage = one.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.alive.values()))
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@torch.no_grad()
def alive(call: Callable[[], Any]) -> int:
    """Bytes that a call makes and has alive at once, scores of attention apart."""

    def no_scores(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.empty_like(query)

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", no_scores), AliveBytes() as mode:
        call()
    return mode.most


def memory(model: ShowO2ForConditionalGeneration, codec: torch.nn.Module, edge: int, prompt: int) -> dict[str, int]:
    """Bytes of a picture.

    Args:
        model: on the meta device, with an attention that keeps no scores.
        codec: its real one.
        edge: of the latents.
        prompt: as in [`drawing`].
    """
    caches = prompt_caches(model, prompt)
    kept = sum(one.nbytes for cache in caches for layer in cache.layers for one in (layer.keys, layer.values))
    latents = torch.empty(1, model.config.latent_channels, edge, edge, device="meta")
    own = [one for name, one in model.named_parameters() if not name.startswith("vae.")]
    return {
        "weights": sum(one.nbytes for one in own) + sum(one.nbytes for one in codec.parameters()),
        "prompts": kept,
        "step": alive(lambda: step(model, edge, caches)),
        "decoding": alive(lambda: decode(codec, latents)),
    }


# ------------------------------------------------------------------------------------------------------------------ tables


def _table(*heads: str) -> None:
    _row(*heads)
    print("|---|---" + "|---:" * (len(heads) - 2) + "|")  # noqa: T201


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")  # noqa: T201


def print_answers(models: dict[str, ShowO2ForConditionalGeneration], tokens: int) -> None:
    """The table of answers."""
    _table("model", "question about", "TFLOPs with the cache", "without", "factor")
    for name, model in models.items():
        for what, (prompt, frames) in PROMPTS.items():
            found = answer(model, prompt, tokens, frames)
            kept, anew = found["with the cache"], found["without"]
            _row(name, what, f"{kept / 1e12:,.1f}", f"{anew / 1e12:,.1f}", f"{anew / kept:.0f}")


def print_pictures(models: dict[str, ShowO2ForConditionalGeneration], codec: Any, prompt: int, steps: int) -> None:
    """The tables of pictures: FLOPs, then memory."""
    heads = ("TFLOPs of a step", "as released", "decoding", "of a picture", "as released", "factor")
    _table("model", "picture", *heads)
    edges = {size: size // codec.spatial_factor for size in DRAWN}
    for name, model in models.items():
        for size, edge in edges.items():
            latents = torch.empty(1, model.config.latent_channels, edge, edge, device="meta")
            decoding = count(lambda latents=latents: decode(codec, latents))
            found = drawing(model, edge, prompt, DRAWN[size], steps)
            whole, theirs = found["image"] + decoding, found["their image"] + decoding
            parts = (found["step"], found["their step"], decoding, whole, theirs)
            _row(name, f"{size}x{size}", *(f"{one / 1e12:,.1f}" for one in parts), f"{theirs / whole:.2f}")
    _table("model", "picture", "GB of weights", "prompts", "a step", "decoding", "at most")
    for name, model in models.items():
        model.bfloat16().set_attn_implementation("sdpa")
        for size, edge in edges.items():
            found = memory(model, codec, edge, prompt)
            most = found["weights"] + max(found["prompts"] + found["step"], found["decoding"])
            _row(name, f"{size}x{size}", *(f"{one / 1e9:,.3g}" for one in (*found.values(), most)))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100, help="of an answer")
    parser.add_argument("--steps", type=int, default=49, help="of a picture")
    parser.add_argument("--prompt", type=int, default=32, help="positions of a prompt to draw from")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    models = {name: build(name) for name in arguments.models}
    with torch.device("meta"):
        codec = make_codec({"type": "wan"}).eval()
    print_answers(models, arguments.tokens)
    print_pictures(models, codec, arguments.prompt, arguments.steps)


if __name__ == "__main__":
    main()
