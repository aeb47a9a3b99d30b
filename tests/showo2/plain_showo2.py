"""Show-o2 written out once more, in plain torch and float64, from the description of its authors' code.

Nothing here is the package's or transformers': it is what other checkpoints than the recorded one are compared with. It is
slow and simple: one row at a time, without padding, the whole row for every step, no cache. Weights have their authors'
names.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

IDS = {
    "bos_id": 50,
    "eos_id": 51,
    "boi_id": 52,
    "eoi_id": 53,
    "img_pad_id": 54,
    "vid_pad_id": 55,
    "pad_id": 56,
    "img_id": 57,
    "bov_id": 58,
    "eov_id": 59,
}
FRAME_GRID = 14  # tokens along the edge of a reduced frame


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint; defaults are small, and differ from each other."""

    vocabulary: int = 64
    width: int = 24
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 40
    rope_theta: float = 1e6
    vision_width: int = 18
    vision_layers: int = 2
    vision_heads: int = 3
    vision_mlp: int = 28
    flow_width: int = 32
    flow_layers: int = 2
    flow_heads: int = 4
    flow_kv_heads: int = 2
    flow_head: int = 8
    flow_mlp: int = 44
    frequencies: int = 256
    grid: tuple[int, int] = (4, 4)
    channels: int = 16
    patch: int = 2
    tied: bool = True
    ids: dict[str, int] = field(default_factory=lambda: dict(IDS))


class Seen(NamedTuple):
    """What one row gives: `(T, vocabulary)`, one velocity per image (None for a reduced video), `(T, width)`."""

    logits: torch.Tensor
    velocities: list[torch.Tensor | None]
    hidden: torch.Tensor


class PlainShowO2:
    """The forward, one row at a time."""

    def __init__(self, weights: dict[str, torch.Tensor], sizes: Sizes) -> None:
        self.weights = {name: one.double() for name, one in weights.items()}
        self.sizes = sizes

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        bias = self.weights.get(f"{name}.bias")
        made = values @ self.weights[f"{name}.weight"].T
        return made if bias is None else made + bias

    def _rms(self, values: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        return values / (values.square().mean(-1, keepdim=True) + eps).sqrt() * self.weights[f"{name}.weight"]

    # ----------------------------------------------------------------------------------------------------- the two paths

    def features(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fused, semantic and projector features `(N, ·)` of one still `(C, h, w)`."""
        latents = latents.double()
        patch, sizes = self.sizes.patch, self.sizes
        rows, cols = latents.shape[1] // patch, latents.shape[2] // patch
        cut = latents.reshape(-1, rows, patch, cols, patch).permute(1, 3, 0, 2, 4).reshape(rows * cols, -1)

        def patches(name: str) -> torch.Tensor:
            return cut @ self.weights[f"{name}.weight"].flatten(1).T + self.weights[f"{name}.bias"]

        table = self.weights["position_embedding.weight"]
        if (rows, cols) != sizes.grid:
            picture = table.T.reshape(1, -1, *sizes.grid)
            table = F.interpolate(picture, (rows, cols), mode="bicubic", align_corners=False)[0].flatten(1).T
        semantic = patches("image_embedder_und.proj") + table
        for layer in range(sizes.vision_layers):
            semantic = self._siglip_layer(f"und_trans.layers.{layer}", semantic)
        projector = patches("image_embedder_gen.proj")
        both = self._rms(torch.cat([semantic, projector], dim=1), "fusion_proj.0", 1e-6)
        return self._linear("fusion_proj.3", F.gelu(self._linear("fusion_proj.1", both))), semantic, projector

    def _siglip_layer(self, name: str, values: torch.Tensor) -> torch.Tensor:
        def norm(which: str, of: torch.Tensor) -> torch.Tensor:
            center = of - of.mean(-1, keepdim=True)
            scaled = center / (center.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return scaled * self.weights[f"{name}.{which}.weight"] + self.weights[f"{name}.{which}.bias"]

        heads = self.sizes.vision_heads
        inner = norm("layer_norm1", values)
        query, key, value = (
            self._linear(f"{name}.self_attn.{one}_proj", inner).unflatten(1, (heads, -1)).transpose(0, 1)
            for one in "qkv"
        )
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        values = values + self._linear(f"{name}.self_attn.out_proj", (weights @ value).transpose(0, 1).flatten(1))
        inner = F.gelu(self._linear(f"{name}.mlp.fc1", norm("layer_norm2", values)), approximate="tanh")
        return values + self._linear(f"{name}.mlp.fc2", inner)

    def time(self, when: float) -> torch.Tensor:
        """The embedded time `(1, flow width)`."""
        half = self.sizes.frequencies // 2
        angles = when * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        inner = self._linear("time_embed.mlp.0", torch.cat([angles.cos(), angles.sin()])[None])
        return self._linear("time_embed.mlp.2", F.silu(inner))

    # -------------------------------------------------------------------------------------------------------- one row

    def blocks(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """`(start, end)` of the runs of image ids: the time first."""
        marks = {self.sizes.ids["img_pad_id"], self.sizes.ids["vid_pad_id"]}
        found: list[tuple[int, int]] = []
        for place, token in enumerate(ids):
            if token in marks:
                found = (
                    [*found[:-1], (found[-1][0], place + 1)]
                    if found and found[-1][1] == place
                    else [*found, (place, place + 1)]
                )
        return found

    def row(self, ids: Sequence[int], latents: Sequence[torch.Tensor] = (), times: Sequence[float] = ()) -> Seen:
        """Logits and velocities of a row without padding."""
        blocks, embedded = self.blocks(ids), [self.time(when) for when in times]
        values = self.weights["showo.model.embed_tokens.weight"][torch.tensor(list(ids))].clone()
        for (start, end), one, when in zip(blocks, latents, embedded, strict=True):
            projected = self._linear("time_embed_proj", when) if "time_embed_proj.weight" in self.weights else when
            values[start:end] = torch.cat([projected, self._tokens(one, end - start - 1)])
        length = len(ids)
        allowed = torch.ones(length, length).tril().bool()
        for start, end in blocks:
            allowed[start:end, start:end] = True
        hidden = self._language(values, allowed)
        return Seen(self._logits(hidden), self._velocities(hidden, allowed, blocks, latents, embedded), hidden)

    def _tokens(self, latents: torch.Tensor, count: int) -> torch.Tensor:
        frames = [latents] if latents.dim() == 3 else list(latents.transpose(0, 1))
        fused = [self.features(frame)[0] for frame in frames]
        if sum(map(len, fused)) != count:
            shape = [edge // self.sizes.patch for edge in latents.shape[-2:]]
            grids = [one.T.reshape(1, -1, *shape) for one in fused]
            fused = [F.interpolate(grid, (FRAME_GRID, FRAME_GRID), mode="bilinear")[0].flatten(1).T for grid in grids]
        return torch.cat(fused)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        head = "showo.model.embed_tokens.weight" if self.sizes.tied else "showo.lm_head.weight"
        return hidden @ self.weights[head].T

    def _language(self, values: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        sizes = self.sizes
        angles = _angles(len(values), sizes.width // sizes.heads, sizes.rope_theta, scaled=False)
        for layer in range(sizes.layers):
            name = f"showo.model.layers.{layer}"
            inner = self._rms(values, f"{name}.input_layernorm", 1e-6)
            values = values + self._attended(f"{name}.self_attn", inner, allowed, angles, sizes.heads, sizes.kv_heads)
            values = values + self._swiglu(f"{name}.mlp", self._rms(values, f"{name}.post_attention_layernorm", 1e-6))
        return self._rms(values, "showo.model.norm", 1e-6)

    def _attended(
        self, name: str, values: torch.Tensor, allowed: torch.Tensor, angles: torch.Tensor, heads: int, kv_heads: int
    ) -> torch.Tensor:
        query = self._linear(f"{name}.q_proj", values).unflatten(1, (heads, -1)).transpose(0, 1)
        key, value = (
            self._linear(f"{name}.{one}_proj", values).unflatten(1, (kv_heads, -1)).transpose(0, 1) for one in "kv"
        )
        if f"{name}.q_norm.weight" in self.weights:
            query, key = self._rms(query, f"{name}.q_norm", 1e-6), self._rms(key, f"{name}.k_norm", 1e-6)
        query, key = _rotated(query, angles), _rotated(key, angles)
        key, value = (one.repeat_interleave(heads // kv_heads, dim=0) for one in (key, value))
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        weights = scores.masked_fill(~allowed, -math.inf).softmax(-1)
        return self._linear(f"{name}.o_proj", (weights @ value).transpose(0, 1).flatten(1))

    def _swiglu(self, name: str, values: torch.Tensor) -> torch.Tensor:
        gate = F.silu(self._linear(f"{name}.gate_proj", values))
        return self._linear(f"{name}.down_proj", gate * self._linear(f"{name}.up_proj", values))

    def _velocities(
        self,
        values: torch.Tensor,
        allowed: torch.Tensor,
        blocks: Sequence[tuple[int, int]],
        latents: Sequence[torch.Tensor],
        embedded: Sequence[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        sizes = self.sizes
        if "diff_proj.0.weight" in self.weights:
            values = self._linear("diff_proj.2", F.gelu(self._linear("diff_proj.0", values)))

        def modulation(name: str, chunks: int, gates: Sequence[int]) -> list[torch.Tensor]:
            made = torch.stack([torch.full_like(values, float(number in gates)) for number in range(chunks)])
            for (start, end), when in zip(blocks, embedded, strict=True):
                own = self._linear(f"{name}.adaLN_modulation.1", F.silu(when))
                made[:, start:end] = own.reshape(chunks, 1, -1)
            return list(made)

        angles = _angles(len(values), sizes.flow_head, 500000.0, scaled=True)
        for layer in range(sizes.flow_layers):
            name = f"diffusion_head_a.{layer}"
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation(name, 6, (2, 5))
            inner = self._rms(values, f"{name}.input_layernorm", 1e-5) * (1 + scale) + shift
            heads = sizes.flow_heads, sizes.flow_kv_heads
            values = values + gate * self._attended(f"{name}.self_attn", inner, allowed, angles, *heads)
            inner = self._rms(values, f"{name}.post_attention_layernorm", 1e-5) * (1 + mlp_scale) + mlp_shift
            values = values + mlp_gate * self._swiglu(f"{name}.mlp", inner)
        shift, scale = modulation("diffusion_head_b", 2, ())
        inner = self._rms(values, "diffusion_head_b.norm_final", 1e-6) * (1 + scale) + shift
        made = self._linear("diffusion_head_b.linear", inner)
        found: list[torch.Tensor | None] = []
        for (start, end), one in zip(blocks, latents, strict=True):
            tokens = made[start + 1 : end]
            is_whole = tokens.numel() == one.numel()
            # places in raster order, channel fastest; not the patches of the input
            found.append(tokens.reshape(-1, sizes.channels).T.reshape(one.shape) if is_whole else None)
        return found

    # ------------------------------------------------------------------------------------------------ what is done with it

    def losses(
        self,
        rows: Sequence[tuple[Sequence[int], Sequence[int], Sequence[torch.Tensor], Sequence[float]]],
        targets: Sequence[torch.Tensor | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of all labels, and mean squared error of all velocities that have a target."""
        entropies, errors = [], []
        queue = iter(targets)
        for ids, labels, latents, times in rows:
            seen = self.row(ids, latents, times)
            wanted = torch.tensor(list(labels))[1:]
            learned = wanted >= 0
            entropies.append(F.cross_entropy(seen.logits[:-1][learned], wanted[learned], reduction="none"))
            for velocity in seen.velocities:
                target = next(queue)
                if target is not None:
                    errors.append((velocity - target.double()).square().flatten())
        return torch.cat(entropies).mean(), torch.cat(errors).mean()

    def drawn(
        self,
        prompt: Sequence[int],
        noise: torch.Tensor,
        guidance: float,
        steps: int,
        null: Sequence[int] | None = None,
        history: Sequence[torch.Tensor] = (),
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Latents and guided velocities: Euler, `steps` calls; `history` are images of the prompt, clean."""
        ids = self.sizes.ids
        tokens = noise[0].numel() // self.sizes.patch**2
        tail = [*[ids["img_pad_id"]] * (tokens + 1), ids["eoi_id"], ids["eos_id"]]
        null = [ids["bos_id"], ids["boi_id"]] if null is None else null
        latents, velocities = noise.double(), []
        points = [number / steps for number in range(steps + 1)]
        points = [t / (t + 3 - 3 * t) for t in points]
        for now, then in itertools.pairwise(points):
            clean = [1.0] * len(history)
            given = self.row([*prompt, *tail], [*history, latents], [*clean, now]).velocities[-1]
            free = self.row([*null, *tail], [latents], [now]).velocities[-1]
            velocities.append(free + guidance * (given - free))
            latents = latents + (then - now) * velocities[-1]
        return latents, velocities

    def answered(
        self, prompt: Sequence[int], latents: Sequence[torch.Tensor], count: int, never: Sequence[int] = ()
    ) -> list[int]:
        """The likeliest next tokens, `count` of them unless the answer ends before."""
        ids = list(prompt)
        while len(ids) < len(prompt) + count:
            logits = self.row(ids, latents, [1.0] * len(latents)).logits[-1]
            logits[list(never)] = -math.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == self.sizes.ids["eos_id"]:
                break
        return ids[len(prompt) :]


def _angles(length: int, head: int, theta: float, scaled: bool) -> torch.Tensor:
    """`(T, head)` of rotary positions; `scaled` as Llama 3 does: 32-fold for waves longer than 8,192 positions."""
    frequencies = theta ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    if scaled:
        waves = 2 * math.pi / frequencies
        blend = ((8192 / waves - 1) / (4 - 1)).clamp(0, 1)
        frequencies = (1 - blend) * frequencies / 32 + blend * frequencies
    return (torch.arange(length, dtype=torch.float64)[:, None] * frequencies).repeat(1, 2)


def _rotated(values: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = values.chunk(2, dim=-1)
    return values * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


# ------------------------------------------------------------------------------------------------------------- checkpoints


def random_weights(sizes: Sizes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a layout by their authors' names, large enough that everything matters; float32."""
    shapes = _shapes(sizes)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_norm = ("norm" in name and name.endswith("weight")) or name == "fusion_proj.0.weight"
        fan = math.prod(shape[1:]) if len(shape) > 1 else 1
        weights[name] = 1 + 0.2 * noise if is_norm else noise * (0.1 if len(shape) == 1 else 1 / fan**0.5)
    if sizes.tied:
        weights["showo.lm_head.weight"] = weights["showo.model.embed_tokens.weight"].clone()
    return weights


def _shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, given: int, made: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (made, given)
        if bias:
            shapes[f"{name}.bias"] = (made,)

    def decoder(name: str, width: int, mlp: int, queries: int, keys: int, bias: bool) -> None:
        linear(f"{name}.self_attn.q_proj", width, queries, bias)
        linear(f"{name}.self_attn.k_proj", width, keys, bias)
        linear(f"{name}.self_attn.v_proj", width, keys, bias)
        linear(f"{name}.self_attn.o_proj", queries, width, False)
        for part in ("gate_proj", "up_proj"):
            linear(f"{name}.mlp.{part}", width, mlp, False)
        linear(f"{name}.mlp.down_proj", mlp, width, False)
        for part in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}.{part}.weight"] = (width,)

    s = sizes
    shapes["showo.model.embed_tokens.weight"] = shapes["showo.lm_head.weight"] = (s.vocabulary, s.width)
    for layer in range(s.layers):
        decoder(f"showo.model.layers.{layer}", s.width, s.mlp, s.width, s.width // s.heads * s.kv_heads, True)
    shapes["showo.model.norm.weight"] = (s.width,)
    for part, width in (("und", s.vision_width), ("gen", s.width)):
        shapes[f"image_embedder_{part}.proj.weight"] = (width, s.channels, s.patch, s.patch)
        shapes[f"image_embedder_{part}.proj.bias"] = (width,)
    shapes["position_embedding.weight"] = (s.grid[0] * s.grid[1], s.vision_width)
    for layer in range(s.vision_layers):
        name = f"und_trans.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{name}.self_attn.{part}", s.vision_width, s.vision_width)
        linear(f"{name}.mlp.fc1", s.vision_width, s.vision_mlp)
        linear(f"{name}.mlp.fc2", s.vision_mlp, s.vision_width)
        for part in ("layer_norm1", "layer_norm2"):
            shapes[f"{name}.{part}.weight"] = shapes[f"{name}.{part}.bias"] = (s.vision_width,)
    shapes["fusion_proj.0.weight"] = (s.vision_width + s.width,)
    linear("fusion_proj.1", s.vision_width + s.width, s.width)
    linear("fusion_proj.3", s.width, s.width)
    linear("time_embed.mlp.0", s.frequencies, s.flow_width)
    linear("time_embed.mlp.2", s.flow_width, s.flow_width)
    if s.width != s.flow_width:
        linear("diff_proj.0", s.width, s.flow_width)
        linear("diff_proj.2", s.flow_width, s.flow_width)
        linear("time_embed_proj", s.flow_width, s.width)
    for layer in range(s.flow_layers):
        name = f"diffusion_head_a.{layer}"
        decoder(name, s.flow_width, s.flow_mlp, s.flow_heads * s.flow_head, s.flow_kv_heads * s.flow_head, False)
        for part in "qk":
            shapes[f"{name}.self_attn.{part}_norm.weight"] = (s.flow_head,)
        linear(f"{name}.adaLN_modulation.1", s.flow_width, 6 * s.flow_width)
    shapes["diffusion_head_b.norm_final.weight"] = (s.flow_width,)
    linear("diffusion_head_b.linear", s.flow_width, s.channels * s.patch**2)
    linear("diffusion_head_b.adaLN_modulation.1", s.flow_width, 2 * s.flow_width)
    return shapes


def write_checkpoint(folder: Path, weights: dict[str, torch.Tensor], sizes: Sizes) -> dict[str, object]:
    """Writes what the authors release, and the configurations beside it; returns the sources of a conversion."""
    s = sizes
    text = {
        "model_type": "qwen2",
        "vocab_size": s.vocabulary + 20,  # before the table was cut
        "hidden_size": s.width,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "intermediate_size": s.mlp,
        "rope_theta": s.rope_theta,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": s.tied,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": s.vision_width,
        "num_hidden_layers": s.vision_layers + 1,
        "num_attention_heads": s.vision_heads,
        "intermediate_size": s.vision_mlp,
    }
    released = {
        "_class_name": "Showo2Qwen2_5",
        "image_latent_dim": s.channels,
        "image_latent_height": s.grid[0],
        "image_latent_width": s.grid[1],
        "hidden_size": s.width,
        "patch_size": s.patch,
    }
    for part, content in (("base", text), ("vision", vision), ("checkpoint", released)):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(content), encoding="utf-8")
    torch.save(weights, folder / "checkpoint" / "pytorch_model.bin")
    return {part: folder / part for part in ("base", "vision", "checkpoint")} | {"token_ids": s.ids}
