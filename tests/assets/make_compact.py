"""Makes the compact golden set (`tests/assets/compact`) out of the full one.

The full set holds recordings of the authors' implementation, but is too large for a repository: its vocabulary and its
image tokenizer alone take 60 MB. Here both become small. Token layouts stay the authors' recordings, with renumbered
ids; all that follows from the smaller weights is recorded from `wallaroo_hf` itself, so run this only where the parity
tests pass on the full set:

    python tests/assets/make_compact.py --reference ../shared/reference --output tests/assets/compact
"""

from __future__ import annotations

import argparse
import bisect
import json
import logging
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden import GoldenSet
from wallaroo_hf import WallarooForConditionalGeneration, WallarooVQConfig
from wallaroo_hf.conversion.key_map import VQ_IGNORED, vq_key
from wallaroo_hf.modeling.vq import WallarooVQModel

logger = logging.getLogger("make_compact")

Tensors = dict[str, torch.Tensor]

TITLE = "# Compact golden data"

# ---- what is kept

# Recorded variants that are not the model's (see tests/parity/test_layouts.py).
DROPPED_LAYOUTS = ("train_edit_pixel_block_right", "train_t2i_512x512_stage4_script_vocab")
LAYOUT_TENSORS = ("input_ids", "attention_mask", "position_ids", "labels", "image_grid_thw")
PREPROCESS_TENSORS = ("image_grid_thw", "semantic_sum_per_patch", "semantic_values", "vq_pixels_rowmean")
FORWARD_INPUTS = (
    "input_ids",
    "attention_mask",
    "labels",
    "position_ids",
    "text_label",
    "image_grid_thw",
    "masked",
    "pixels",
    "source_pixels",
    "target_pixels",
    "pixel_values",
    "semantic_pixel_values",
)
BRANCH_INPUTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "image_grid_thw",
    "source_pixels",
    "semantic_pixel_values",
)
ID_TENSORS = ("input_ids", "labels", "text_label")  # how names of tensors of ids end
# Decoded pixels do not compress (`vq/` has some too), so the other cases have their pictures only.
CASES_WITH_PIXELS = ("t2i_no_line_96x96_cfg1",)

# ---- how it is stored

PIXEL_STEP = 2.0**-18  # recordings are rounded to multiples of a step, at most a tenth of the tests' tolerance
HIDDEN_STEP = 2.0**-17
LOGIT_STEP = 2.0**-15
# Four bytes to a number: literals are coded by their place in it.
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 1, "lp": 2, "pb": 2}]
VOCABULARY_MULTIPLE = 64  # rows beyond the tokenizer's ids stay in use, as in the released checkpoint

# ---- the small image tokenizer

VQ_SEED = 0
VQ_CONFIG = WallarooVQConfig(
    codebook_size=1024,
    embed_dim=8,
    base_channels=32,
    channel_multiplier=[1, 1, 1, 1, 1],
    num_res_blocks=1,
    latent_channels=32,
)
# Our names of a LlamaGen tokenizer's tensors -> LlamaGen's, by pattern, applied in order.
LLAMAGEN_NAMES = (
    (re.compile(r"^(encoder|decoder)\.(?:down|up)\."), r"\1.conv_blocks."),
    (re.compile(r"(conv_blocks\.\d+)\.block\."), r"\1.res."),
    (re.compile(r"\.mid\.block_1\."), ".mid.0."),
    (re.compile(r"\.mid\.attn_1\."), ".mid.1."),
    (re.compile(r"\.mid\.block_2\."), ".mid.2."),
)

# ---- what makes a decision safe to compare exactly

CHOICE_MARGIN = 1e-3  # between the two largest logits
CODE_MARGIN = 5e-5  # between the squared distances to the two nearest codes


class UnsafeMarginError(RuntimeError):
    """A choice is so close that another machine's rounding could turn it."""


# -------------------------------------------------------------------------------------------------------- vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """The ids that are kept.

    Attributes:
        old_ids: reference ids in ascending order; the place of an id in it is its new id.
        num_tokens: how many of them the tokenizer knows; the rest are unused rows at the end.
    """

    old_ids: tuple[int, ...]
    num_tokens: int

    def new_id(self, old_id: int) -> int:
        """The new id of a reference id.

        Raises:
            KeyError: if it was not kept.
        """
        place = bisect.bisect_left(self.old_ids, old_id)
        if place == len(self.old_ids) or self.old_ids[place] != old_id:
            raise KeyError(f"id {old_id} was not kept")
        return place

    def remap(self, ids: torch.Tensor) -> torch.Tensor:
        """New ids of a tensor of reference ids; ignored labels (negative) stay."""
        new = [old if old < 0 else self.new_id(old) for old in ids.flatten().tolist()]
        return torch.tensor(new, dtype=ids.dtype).view(ids.shape)


def layout_names(reference: GoldenSet) -> list[str]:
    """The layouts that the compact set has."""
    return [name for name in reference.json("layouts/layouts") if name not in DROPPED_LAYOUTS]


def case_names(golden: GoldenSet, folder: str) -> list[str]:
    """The recordings in a folder of a golden set."""
    return sorted(path.stem for path in (golden.root / folder).glob("*.json"))


def used_ids(reference: GoldenSet) -> set[int]:
    """Every id in a kept recording, the ids of generated text included."""
    layouts = reference.tensors("layouts/layouts")
    tensors = [layouts[f"{name}.input_ids"] for name in layout_names(reference)]
    for name in case_names(reference, "forward"):
        tensors.append(reference.tensors(f"forward/{name}")["input_ids"])
    for name in case_names(reference, "generate"):
        data = reference.tensors(f"generate/{name}")
        tensors += [value for key, value in data.items() if key.endswith("input_ids")]
    tensors.append(reference.tensors("generate/understanding_text")["tokens"])
    return set(torch.cat([tensor.flatten() for tensor in tensors]).tolist())


def with_derivations(tokens: Iterable[str], merges: Iterable[tuple[str, str]]) -> set[str]:
    """Tokens, and all that they are merged from. Each token is made by one merge only; bytes by none."""
    parts = {left + right: (left, right) for left, right in merges}
    kept: set[str] = set()
    queue = list(tokens)
    while queue:
        token = queue.pop()
        if token not in kept:
            kept.add(token)
            queue += parts.get(token, ())
    return kept


def choose_vocabulary(tokenizer: Mapping[str, Any], ids: set[int], vocab_size: int) -> Vocabulary:
    """Keeps the ids given, the bytes, all added tokens, and what merging needs.

    Args:
        tokenizer: the content of `tokenizer.json`.
        ids: what the recordings use.
        vocab_size: rows of the reference's embedding.
    """
    bpe: dict[str, int] = tokenizer["model"]["vocab"]
    merges = [(left, right) for left, right in tokenizer["model"]["merges"]]
    bytes_only = set(bpe) - {left + right for left, right in merges}
    kept = with_derivations(bytes_only | {token for token, index in bpe.items() if index in ids}, merges)
    added = [token["id"] for token in tokenizer["added_tokens"]]
    known = sorted({bpe[token] for token in kept} | set(added))
    unused = range(max(added) + 1, vocab_size)
    return Vocabulary((*known, *unused[: -len(known) % VOCABULARY_MULTIPLE]), len(known))


def write_tokenizer(source: Path, target: Path, vocabulary: Vocabulary) -> None:
    """Writes the tokenizer's files, cut to the vocabulary; `tokenizer.json` has its words and merges too."""
    target.mkdir(parents=True)
    for name in ("preprocessor_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, target / name)
    settings = read_json(source / "tokenizer_config.json")
    added = settings["added_tokens_decoder"]
    settings["added_tokens_decoder"] = {str(vocabulary.new_id(int(index))): token for index, token in added.items()}
    write_json(target / "tokenizer_config.json", settings)
    tokenizer = read_json(source / "tokenizer.json")
    for token in tokenizer["added_tokens"]:
        token["id"] = vocabulary.new_id(token["id"])
    model = tokenizer["model"]
    kept = set(vocabulary.old_ids)
    model["vocab"] = {word: vocabulary.new_id(index) for word, index in model["vocab"].items() if index in kept}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    write_json(target / "tokenizer.json", tokenizer)


# ------------------------------------------------------------------------------------------------------------ weights


def write_model(source: Path, target: Path, vocabulary: Vocabulary) -> None:
    """Writes configuration and checkpoint: the same weights in float16, fewer rows in both vocabulary tables."""
    target.mkdir(parents=True)
    config = read_json(source / "config.json")
    for key in config:
        if key.endswith("_token_id"):
            config[key] = vocabulary.new_id(config[key])
    config["vocab_size"] = len(vocabulary.old_ids)
    write_json(target / "config.json", config)
    checkpoint = torch.load(source / "checkpoint.ckpt", weights_only=True)
    rows = torch.tensor(vocabulary.old_ids)
    for name, tensor in checkpoint["state_dict"].items():
        if name in ("wallaroo.model.embed_tokens.weight", "wallaroo.lm_head.weight"):
            tensor = tensor[rows]
        checkpoint["state_dict"][name] = tensor.half()
    torch.save(checkpoint, target / "checkpoint.ckpt")


def write_vq(path: Path, seed: int) -> None:
    """Writes a small image tokenizer with random weights, float16, as LlamaGen names them."""
    generator = torch.Generator().manual_seed(seed)
    weights: Tensors = {}
    for ours, tensor in WallarooVQModel(VQ_CONFIG).state_dict().items():
        name = ours
        for pattern, replacement in LLAMAGEN_NAMES:
            name = pattern.sub(replacement, name)
        if vq_key(name) != ours:
            raise ValueError(f"the converter reads {name} as {vq_key(name)}, not as {ours}")
        weights[name] = random_weight(name, tensor.shape, generator).half()
    weights[VQ_IGNORED[0]] = torch.zeros(16)  # 65536 long in the released file; nobody reads it
    torch.save({"model": weights}, path)


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Random numbers at a scale that keeps activations near one and decoded pixels within about [-1, 1].

    The decoder's kernels lean towards a blur: its pictures are coloured clouds, which pack better than noise.
    """
    noise = torch.randn(shape, generator=generator)
    if name.startswith("quantize"):
        return noise
    if len(shape) == 1:
        return 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    fan_in = shape[1:].numel()
    if name.startswith("decoder") and shape[-1] == 3:
        line = torch.tensor([1.0, 2.0, 1.0])
        blur = torch.outer(line, line) / 16.0
        channels = torch.randn(shape[:2], generator=generator)[:, :, None, None]
        mixed = 1.3 * (channels * blur) / shape[1] ** 0.5 + 0.25 * noise / fan_in**0.5
        return 0.5 * mixed if name == "decoder.conv_out.weight" else mixed
    return 1.2 * noise / fan_in**0.5


# --------------------------------------------------------------------------------------------------------- recording


class Recorder:
    """Writes the recordings of a compact set, whose model is in place already.

    Args:
        reference: the full set.
        compact: the compact set.
        vocabulary: from the one's ids to the other's.
    """

    def __init__(self, reference: GoldenSet, compact: GoldenSet, vocabulary: Vocabulary) -> None:
        self.reference, self.compact, self.vocabulary = reference, compact, vocabulary
        self.smallest: dict[str, float] = {}

    @property
    def model(self) -> WallarooForConditionalGeneration:
        """The compact set's model."""
        return self.compact.model

    def record_all(self) -> None:
        """Writes everything but model, tokenizer and README."""
        for folder in ("layouts", "vq", "forward", "generate"):
            (self.compact.root / folder).mkdir()
        self.copy_layouts()
        self.copy_preprocessing()
        self.record_vq()
        for name in case_names(self.reference, "forward"):
            self.record_forward(name)
        for name in case_names(self.reference, "generate"):
            if name == "understanding_text":
                self.record_answer(name)
            else:
                self.record_drawing(name)

    # ------------------------------------------------------------------------------------- the authors' recordings

    def copy_layouts(self) -> None:
        """Layouts, with new ids, and the resize table."""
        records, data = self.reference.json("layouts/layouts"), self.reference.tensors("layouts/layouts")
        names = layout_names(self.reference)
        tensors: Tensors = {}
        for name in names:
            tensors |= self._taken(data, [f"{name}.{key}" for key in LAYOUT_TENSORS])
        self._save("layouts/layouts", tensors, {name: records[name] for name in names})
        write_json(self.compact.root / "layouts" / "resize_table.json", self.reference.json("layouts/resize_table"))

    def copy_preprocessing(self) -> None:
        """Image preparation, without the large image-tokenizer pixels."""
        data = self.reference.tensors("layouts/preprocess")
        names = sorted({key.split(".")[0] for key in data})
        kept = self._taken(data, [f"{name}.{key}" for name in names for key in PREPROCESS_TENSORS])
        self._save("layouts/preprocess", kept)
        for name in names:
            self._copy_png(f"layouts/pre_{name}")

    # ----------------------------------------------------------------------------------------------- our recordings

    @torch.no_grad()
    def record_vq(self) -> None:
        """Round trips of the image tokenizer."""
        data, records = self.reference.tensors("vq/vq"), self.reference.json("vq/vq")
        tensors: Tensors = {}
        for name, record in records.items():
            pixels = data[f"{name}.pixels"]
            encoded = self.model.vq_model.encode(pixels)
            record["min_distance_margin"] = self._check_codes(f"vq/{name}", pixels)
            record["unique"] = len(encoded.image_tokens.unique())
            decoded = self.model.vq_model.decode(encoded.image_tokens)
            tensors |= {
                f"{name}.pixels": pixels,
                f"{name}.z": encoded.latents.flatten(1, 2),
                f"{name}.indices": encoded.image_tokens.flatten(),
                f"{name}.codebook_entry": self.model.vq_model.codebook_lookup(encoded.image_tokens).flatten(0, 2),
                f"{name}.decoded": rounded(decoded, PIXEL_STEP),
            }
            low, high = decoded.quantile(torch.tensor([0.02, 0.98])).tolist()
            logger.info("%s: decoded pixels mostly within [%.2f, %.2f], %s", name, low, high, record)
            self._copy_png(f"vq/{name}")
        self._save("vq/vq", tensors, records)

    @torch.no_grad()
    def record_forward(self, name: str) -> None:
        """One training pass: hidden states, logits at the labels, losses."""
        record, data = self.reference.json(f"forward/{name}"), self.reference.tensors(f"forward/{name}")
        tensors = self._taken(data, FORWARD_INPUTS)
        inputs = training_inputs(tensors)
        output = self.model(**inputs, output_hidden_states=True)
        logits = output.logits
        self._check_choices(f"forward/{name} text", logits)
        hidden = output.hidden_states[-1] * tensors["attention_mask"].unsqueeze(-1)
        tensors |= {
            "last_hidden_state": rounded(hidden, HIDDEN_STEP),
            "text_logits_cols": rounded(logits, LOGIT_STEP),
            "text_logits_logsumexp": logits.logsumexp(dim=-1),
            "text_logits_argmax": logits.argmax(dim=-1),
            "text_logits_at_label": logits.gather(1, tensors["text_label"].unsqueeze(1)).squeeze(1),
            "loss": output.loss,
        }
        targets = inputs.get("target_pixel_values", ())
        if targets:
            tensors["image_logits"] = rounded(output.image_logits, LOGIT_STEP)
            for part in ("text", "image"):
                tensors[f"{part}_token_loss"] = one(v for k, v in output.losses.items() if k.endswith(f"_{part}"))
        for target in targets:
            self._check_codes(f"forward/{name}", target.unsqueeze(0))
        if "source_pixels" in tensors:
            tensors |= self._edit_features(tensors)
        record |= {key: tensors[key].item() for key in record if key.endswith("loss")}
        self._save(f"forward/{name}", tensors, record)
        for picture in sorted((self.reference.root / "forward").glob(f"{name}*.png")):
            self._copy_png(f"forward/{picture.stem}")

    def _edit_features(self, data: Tensors) -> Tensors:
        """What an edit's images become: latents, adapter outputs, vision features."""
        model = self.model.model
        latents = model.encode_images([data["source_pixels"]])[1]
        codes = model.encode_images([data["target_pixels"]])[0][0]
        vision = model.get_image_features(data["semantic_pixel_values"], data["image_grid_thw"]).pooler_output
        return {
            "z": latents[0].unsqueeze(0),
            "pixel_features": model._adapt_sources(model.encode_images([data["source_pixels"]])[1], data["masked"]),
            "edit_features": model.edit_adapter(model.vq_model.codebook_lookup(codes)).unsqueeze(0),
            "vision_features": torch.cat(vision),
        }

    @torch.no_grad()
    def record_drawing(self, name: str) -> None:
        """One greedy generation of images, with and without attending to padding where there is some."""
        record, data = self.reference.json(f"generate/{name}"), self.reference.tensors(f"generate/{name}")
        tensors = self._taken(data, [f"{branch}_{key}" for branch in ("cond", "uncond") for key in BRANCH_INPUTS])
        pixels = tensors
        if "pixel_inputs_in" in record:
            pixels = self.reference.tensors(f"generate/{Path(record['pixel_inputs_in']).stem}")
        inputs = drawing_inputs(tensors, pixels, record)
        variants = {".pad_masked": False, ".as_published_cuda": True} if record["has_padding"] else {"": False}
        record["min_margin"] = {}
        for suffix, attend_padding in variants.items():
            sequences, scores = self._draw(name, inputs, record["cfg_scale"], attend_padding)
            margin = self._check_choices(f"generate/{name}{suffix}", scores)
            record["min_margin"][suffix.removeprefix(".") or "all"] = margin
            tensors[f"tokens{suffix}"] = self._codes(sequences, inputs)
            tensors[f"guided_logits_first8{suffix}"] = rounded(scores[:8], LOGIT_STEP)
            if record["decoded_from"] == f"tokens{suffix}":
                decoded = self.model.decode_image_tokens(sequences)
        if name in CASES_WITH_PIXELS:
            tensors["decoded_pixels"] = rounded(decoded, PIXEL_STEP)
        self._save(f"generate/{name}", tensors, record)
        images = self.compact.processor.post_process_multimodal_output(decoded, generation_mode="image")
        for index, image in enumerate(images):
            image.save(self.compact.root / "generate" / f"{name}.{index}.png", optimize=True)
        if "source" in record:
            self._copy_png(f"generate/{Path(record['source']).stem}")

    def _draw(
        self, name: str, inputs: Mapping[str, Any], guidance_scale: float, attend_padding: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws greedily: ids `(B, T)` and the guided logits of every code `(codes, B, codebook_size)`."""
        output = self.model.generate(
            **inputs,
            generation_mode="image",
            guidance_scale=guidance_scale,
            do_sample=False,
            line_breaks="no_line" not in name,
            attend_padding=attend_padding,
            return_dict_in_generate=True,
            output_scores=True,
        )
        first_code = self.model.config.text_config.vocab_size
        new = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()  # rows of a case share one grid
        steps = [step for step, token in enumerate(new) if token >= first_code]
        return output.sequences, torch.stack([output.scores[step][:, first_code:] for step in steps])

    def _codes(self, sequences: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The image codes `(B, N)` in ids from `generate`."""
        first_code = self.model.config.text_config.vocab_size
        new = sequences[:, inputs["input_ids"].shape[1] :]
        return torch.stack([row[row >= first_code] - first_code for row in new])

    @torch.no_grad()
    def record_answer(self, name: str) -> None:
        """Greedy text about an image."""
        record, data = self.reference.json(f"generate/{name}"), self.reference.tensors(f"generate/{name}")
        inputs = self._taken(data, ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"))
        output = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=data["tokens"].shape[1],
            eos_token_id=None,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logits = torch.stack(output.logits)
        record["min_margin"] = self._check_choices(f"generate/{name}", logits)
        tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
        record["generated_text"] = self.compact.processor.post_process_image_text_to_text(tokens)[0]
        recorded = {
            "tokens": tokens,
            "logits_cols_first8": rounded(logits[:8], LOGIT_STEP),
            "logits_logsumexp": logits.logsumexp(dim=-1),
        }
        self._save(f"generate/{name}", inputs | recorded, record)
        self._copy_png(f"generate/{name}")

    # ------------------------------------------------------------------------------------------------- shared steps

    def _taken(self, data: Tensors, keys: Iterable[str]) -> Tensors:
        """Those of the keys that the data has; ids renumbered."""
        taken = {key: data[key] for key in keys if key in data}
        return {
            key: self.vocabulary.remap(value) if key.endswith(ID_TENSORS) else value for key, value in taken.items()
        }

    def _check_choices(self, what: str, logits: torch.Tensor) -> float:
        """The smallest gap between the two largest logits."""
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        return self._check(what, "choice", float((first - second).min()), CHOICE_MARGIN)

    def _check_codes(self, what: str, pixels: torch.Tensor) -> float:
        """The smallest gap between the squared distances of a latent to the two nearest codes."""
        vq_model = self.model.vq_model
        codebook = F.normalize(vq_model.quantize.embedding.weight.double(), dim=-1)
        similarity = vq_model.encode(pixels).latents.double() @ codebook.T
        first, second = similarity.topk(2, dim=-1).values.unbind(-1)
        return self._check(what, "code", float(2 * (first - second).min()), CODE_MARGIN)

    def _check(self, what: str, kind: str, margin: float, floor: float) -> float:
        if margin < floor:
            raise UnsafeMarginError(f"{what}: {kind} margin {margin:.2e} is below {floor:.0e}; try another --vq-seed")
        self.smallest[kind] = min(margin, self.smallest.get(kind, margin))
        return margin

    def _save(self, path: str, tensors: Tensors, record: Any = None) -> None:
        """Writes tensors, and a json beside them."""
        target = self.compact.root / path
        narrow = {
            key: (value.to(torch.int32) if value.dtype == torch.int64 else value).contiguous()
            for key, value in sorted(tensors.items())
        }
        packed = lzma.compress(safetensors.torch.save(narrow), filters=XZ_FILTERS)
        target.with_name(f"{target.name}.safetensors.xz").write_bytes(packed)
        if record is not None:
            write_json(target.with_name(f"{target.name}.json"), record)

    def _copy_png(self, path: str) -> None:
        shutil.copyfile(self.reference.root / f"{path}.png", self.compact.root / f"{path}.png")


def training_inputs(data: Tensors) -> dict[str, Any]:
    """Arguments of `forward` for a recorded training pass."""
    inputs: dict[str, Any] = {key: data[key] for key in ("input_ids", "attention_mask", "labels")}
    inputs |= {key: data[key] for key in ("image_grid_thw", "pixel_values") if key in data}
    if "pixels" in data:
        inputs["target_pixel_values"] = list(data["pixels"])
    if "source_pixels" in data:
        inputs["pixel_values"] = data["semantic_pixel_values"]
        inputs["source_pixel_values"] = [data["source_pixels"]]
        inputs["source_mask"] = data["masked"]
        inputs["target_pixel_values"] = [data["target_pixels"]]
    return inputs


def drawing_inputs(data: Tensors, pixels: Tensors, record: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` for a recorded drawing, both branches; `pixels` holds the images of edits."""
    grid = [record["height"] // VQ_CONFIG.image_token_size, record["width"] // VQ_CONFIG.image_token_size]
    inputs: dict[str, Any] = {"target_grid_hw": torch.tensor([grid] * len(data["cond_input_ids"]))}
    for branch, prefix in (("cond", ""), ("uncond", "negative_")):
        for key in ("input_ids", "attention_mask", "image_grid_thw"):
            if f"{branch}_{key}" in data:
                inputs[prefix + key] = data[f"{branch}_{key}"]
        if f"{branch}_source_pixels" in pixels:
            inputs[f"{prefix}pixel_values"] = pixels[f"{branch}_semantic_pixel_values"]
            inputs[f"{prefix}source_pixel_values"] = list(pixels[f"{branch}_source_pixels"])
    return inputs


def rounded(values: torch.Tensor, step: float) -> torch.Tensor:
    """Values rounded to multiples of a power of two: their last bits would be noise, and noise does not pack."""
    return (values.double() / step).round().mul(step).float()


def one(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """The only element."""
    (value,) = values
    return value


# ------------------------------------------------------------------------------------------------------------- files


def read_json(path: Path) -> Any:
    """Content of a json file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes json, one space deep as the reference has it."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


README = f"""{TITLE}

The golden data that ships with the repository: a tiny model with random weights, inputs, and what must come out. It
has the layout of the full golden data, so the tests in `tests/parity` run on both. The model is also good for demos:
it converts, draws, edits and answers like a real one, only without sense.

| part | size | what it is |
|---|---|---|
{{rows}}

`*.safetensors.xz` are safetensors files packed with xz (`xz -dk` unpacks them), because images as tensors are large
but pack well; int64 is stored as int32. `GoldenSet` in `tests/golden.py` reads them. Tensor names mean the same as in
the full set; tensors that no test reads were left out.

## Where the numbers come from

**Recorded by the authors' implementation** (copied from the full golden data; only token ids are renumbered):

* `layouts/`: ids, masks, positions, labels, grids, the resize table and image preparation;
* in `forward/` and `generate/`: all inputs (ids, labels, positions, pixels, vision patches).

**Recorded by this project's own implementation** (float32, CPU), because the authors never ran these smaller weights:

* `vq/`: latents, codes, codebook entries, decoded pixels;
* `forward/`: hidden states, features, logits, losses;
* `generate/`: codes, text, logits, decoded pixels, pictures.

They were recorded at commit
`{{commit}}`,
where all parity tests passed on the full golden data. So these numbers do not show by themselves that the
implementation equals the authors': they show that it has not changed since it did.

## How the model differs from the full set's

* Vocabulary: {{num_tokens}} tokens and {{vocab_size}} embedding rows instead of 151683 and 152064: all that the
  recordings use, what these are merged from, the 256 bytes and all added tokens. The recorded texts are split exactly
  as by the full tokenizer; any other text works too, in smaller pieces. **Ids differ from the released ones**: read
  them from the configuration.
* Checkpoint: the same tiny weights, rounded to float16, with fewer rows in the two vocabulary tables.
* Image tokenizer: base width 32, multipliers 1, 1, 1, 1, 1, one residual block per level, 32 latent channels, 1024
  codes of 8; random weights (seed {{seed}}), float16, in LlamaGen's key layout. `quantize.codebook_used` is cut to 16
  entries.
* Recordings that do not compress are rounded to multiples of a step: {LOGIT_STEP:.1e} for logits, {HIDDEN_STEP:.1e}
  for hidden states, {PIXEL_STEP:.1e} for decoded pixels. Hidden states of padding are zero.
* `decoded_pixels` is there for {" and ".join(f"`{name}`" for name in CASES_WITH_PIXELS)} only; every drawing has its
  picture.

The smallest gap between the two best choices of any recorded greedy step (and of any recorded text argmax) is
{{choice:.1e}}, and between the squared distances to the two nearest codes {{code:.1e}}, so tokens and codes can be
compared exactly.

## Making it again

With the full golden data at hand, and all parity tests passing on it:

    python tests/assets/make_compact.py --reference ../shared/reference --output tests/assets/compact

## Licence

`tokenizer/` is cut from the tokenizer of Qwen2.5-VL (vocabulary, merges, chat template, image processor settings), which
Alibaba Cloud publishes with [Qwen2.5-VL-7B-Instruct](https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct) under the Apache
License 2.0; what was changed is said above. Its added tokens are those of Wallaroo's authors. The text of that licence is
in this repository's `LICENSE`.
"""

PARTS = {
    "model/": "`checkpoint.ckpt` (the authors' key layout), `vq_ds16_t2i.pt` (LlamaGen's), `config.json`",
    "tokenizer/": "the cut tokenizer, chat template, image processor settings",
    "vq/": "image tokenizer round trips",
    "layouts/": "token layouts, resize table, image preparation",
    "forward/": "training passes",
    "generate/": "greedy drawing, editing, answering",
}


def write_readme(root: Path, vocabulary: Vocabulary, smallest: Mapping[str, float], seed: int) -> None:
    """Writes what everything is and where it comes from."""
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    rows = [f"| `{part}` | {folder_size(root / part) / 1000:.0f} kB | {text} |" for part, text in PARTS.items()]
    text = README.format(
        rows="\n".join([*rows, f"| all | {folder_size(root) / 1000:.0f} kB | |"]),
        commit=commit.stdout.strip(),
        num_tokens=vocabulary.num_tokens,
        vocab_size=len(vocabulary.old_ids),
        seed=seed,
        **smallest,
    )
    (root / "README.md").write_text(text, encoding="utf-8")


def folder_size(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def replace_folder(new: Path, old: Path) -> None:
    """Puts a new compact set in the place of an old one.

    Raises:
        ValueError: if something else is there.
    """
    if old.exists():
        readme = old / "README.md"
        if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(TITLE):
            raise ValueError(f"'{old}' exists and is not a compact golden set; choose another --output")
        shutil.rmtree(old)
    shutil.copytree(new, old)


def make_compact(reference_root: Path, output: Path, seed: int, workspace: Path) -> None:
    """Makes the set in a workspace and puts it in place when it is whole."""
    reference = GoldenSet("full", reference_root, workspace / "full")
    compact = GoldenSet("compact", workspace / "set", workspace / "compact")
    tokenizer = read_json(reference_root / "tokenizer" / "tokenizer.json")
    vocab_size = read_json(reference_root / "model" / "config.json")["vocab_size"]
    vocabulary = choose_vocabulary(tokenizer, used_ids(reference), vocab_size)
    logger.info("%d tokens, %d rows", vocabulary.num_tokens, len(vocabulary.old_ids))
    write_tokenizer(reference_root / "tokenizer", compact.root / "tokenizer", vocabulary)
    write_model(reference_root / "model", compact.root / "model", vocabulary)
    write_vq(compact.vq, seed)
    recorder = Recorder(reference, compact, vocabulary)
    recorder.record_all()
    logger.info("smallest margins: %s", recorder.smallest)
    write_readme(compact.root, vocabulary, recorder.smallest, seed)
    replace_folder(compact.root, output)
    logger.info("%s: %.2f MB", output, folder_size(output) / 1e6)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="folder of the full golden data")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, or to replace")
    parser.add_argument("--vq-seed", type=int, default=VQ_SEED, help="seed of the image tokenizer's weights")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as workspace:
        make_compact(arguments.reference, arguments.output, arguments.vq_seed, Path(workspace))


if __name__ == "__main__":
    main()
