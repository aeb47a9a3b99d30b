"""Makes the compact set of Show-o2's recordings (`tests/assets/showo2`) out of the whole one.

The whole set holds what was recorded by running the authors' code on tiny weights; it is too large for a repository. This
takes a part of it as it is: nothing is computed, rounded or renumbered, and no number in the result is this project's.
Logits are cut to their last positions, which depend on all those before. Run it where the whole set is at hand:

    python tests/assets/make_showo2.py --reference ../shared/reference_showo2 --output tests/assets/showo2
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import shutil
import tempfile
from pathlib import Path

import safetensors.torch
import torch

logger = logging.getLogger("make_showo2")

TITLE = "# Compact recordings of Show-o2"
LIMIT = 2_000_000  # bytes of all files
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 1, "lp": 2, "pb": 2}]

# ---- what is kept

LAST_POSITIONS = 4  # of logits
WHOLE_FILES = (
    *(f"preprocess/{name}" for name in ("in0.png", "in1.png", "pad0.png", "pad1.png")),
    "tiny_a/checkpoint/pytorch_model.bin",  # converted as it is, so it stays what torch wrote
)
CHECKPOINT_JSON = ("config", "flow_head_config", "llm_config", "siglip_config", "token_ids")
JSON_FILES = (
    *("schedules", "sequences_qwen2_5", "token_ids_qwen2_5", "preprocess/preprocess", "vae/vae"),
    *(f"tiny_a/checkpoint/{name}" for name in CHECKPOINT_JSON),
    *(f"tiny_a/{name}" for name in ("chat_pre_training", "chat_tuning", "mixed_generation", "mixed_mask")),
    *(f"tiny_a/{name}" for name in ("sampling_steps4", "understanding", "interp_4x7", "interp_8x8")),
    *(f"tiny_a/{name}" for name in ("train_t2i_caption", "train_interleaved")),
)
PACKED_JSON_FILES = ("keys/showo2-1.5b", "keys/showo2-7b", "keys/wan2.1_vae")
ROWS = ("text_tokens", "text_labels", "modality_positions")
CHAT_ROWS = ("sources", "image_mask", "text_mask")
TENSORS: dict[str, tuple[str, ...]] = {
    "preprocess/preprocess": ("0_crop", "0_pad", "1_crop", "1_pad", "denorm_in", "denorm_out"),
    "tiny_a/fused_native": (
        *("latents", "fused", "projector", "semantic", "position_embedding"),
        *(f"time_embed_t{time}{suffix}" for time in ("0.0", "0.3", "1.0") for suffix in ("", "_proj")),
    ),
    "tiny_a/velocity": (*ROWS, "latents", "t", "logits", "v_pred"),
    "tiny_a/interp_4x7": (*ROWS, "latents", "t", "logits", "v_pred"),
    "tiny_a/interp_8x8": (*ROWS, "latents", "t", "logits", "v_pred"),
    "tiny_a/text_only": ("input_ids", "logits"),
    "tiny_a/understanding": (
        *("input_ids", "latents", "logits", "v_pred_t1", "script_logits", "script_greedy_tokens"),
        *("modality_positions", "script_positions", "tokens_before", "tokens_after"),
    ),
    "tiny_a/video": (*ROWS, "latents", "t", "logits", "v_pred", "v_pred_first_frame_fixed"),
    "tiny_a/chat_pre_training": (*ROWS, *CHAT_ROWS, "latents", "logits", "loss_ntp"),
    "tiny_a/chat_tuning": (*ROWS, *CHAT_ROWS, "latents", "logits", "loss_ntp"),
    "tiny_a/mixed_mask": ("allowed", "modality_positions", "additive_min"),
    "tiny_a/mixed_text_step": (*ROWS, "latents", "logits_t0_as_in_script", "logits_t1_as_in_paper"),
    "tiny_a/train_t2i_caption": (
        *(*ROWS, "u_normal", "t", "noise", "clean_latents", "noised_latents", "velocity_target", "logits"),
        *("image_masks", "loss_flow", "loss_ntp", "loss_total_coeff_0p2", "loss_total_coeff_1"),
    ),
    "tiny_a/train_interleaved": (
        *(*ROWS, "image_masks", "t", "noised_latents", "velocity_target", "logits", "loss_flow", "loss_ntp"),
    ),
    "tiny_a/sampling_steps4": (
        *(*ROWS, "text_tokens_null", "modality_positions_null", "noise", "guided_velocity", "trajectory", "latents"),
        *("time_grid", "model_times"),
    ),
    "tiny_a/mixed_generation": (*ROWS, "history", "noise", "guided_velocity", "latents"),
}


def is_cut(name: str) -> bool:
    """Whether a tensor is kept for its last positions only."""
    return name.startswith(("logits", "script_logits"))


def copy_tensors(reference: Path, output: Path, path: str, names: tuple[str, ...]) -> list[str]:
    """Writes the chosen tensors of one recording, packed.

    Returns:
        What of the recording was left out.
    """
    whole = safetensors.torch.load_file(reference / f"{path}.safetensors")
    chosen: dict[str, torch.Tensor] = {}
    for name in names:
        if name in whole:
            tensor = whole.pop(name)
            chosen[name] = (tensor[:, -LAST_POSITIONS:] if is_cut(name) else tensor).contiguous()
    target = output / f"{path}.safetensors.xz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(safetensors.torch.save(chosen), filters=XZ_FILTERS))
    return sorted(whole)


def copy_json(reference: Path, output: Path, path: str, packed: bool) -> None:
    """Writes a json file without its spaces, packed where it is long."""
    content = json.loads((reference / f"{path}.json").read_text(encoding="utf-8"))
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
    target = output / f"{path}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        target.with_name(f"{target.name}.xz").write_bytes(lzma.compress(text.encode(), filters=XZ_FILTERS))
    else:
        target.write_text(text, encoding="utf-8")


README = f"""{TITLE}

A part of what was recorded by running the authors' code of Show-o2 (Show-o repository, folder `show-o2`, commit
45a5a2de01d1) on CPU in float32, on tiny random weights. It has the layout of the whole set, so that the tests of
`tests/showo2` run on either (`tests/golden_showo2.py`): on the whole one where it is, on this one in any other clone.

**Nothing here is ours.** Numbers are as recorded, none was computed, rounded or renumbered:

* `tiny_a/checkpoint/` is what the authors' `save_pretrained` wrote, with the configurations of its language model, its
  SigLIP and its flow head, and the ids of its tokens;
* `*.safetensors.xz` are safetensors files packed with xz (`xz -dk` unpacks them), with the tensors named below. Logits have
  their last {LAST_POSITIONS} positions only, which depend on all those before;
* `*.json` lost their spaces; those of `keys/` are packed.

Left out are the VAE and its recordings (4.9 MB; tests that need some codec make one with random weights in the released
layout), the gradients (1.4 MB; their norms are in `train_t2i_caption.json`), and what the table does not name.

| recording | bytes | tensors | not here |
|---|---|---|---|
{{rows}}

All files: {{size}} bytes. To make it again where the whole set is at hand:

    python tests/assets/make_showo2.py --reference ../shared/reference_showo2 --output tests/assets/showo2
"""


def folder_size(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_readme(output: Path, left_out: dict[str, list[str]]) -> None:
    """Says what is there and what is not."""
    rows = []
    for path, missing in left_out.items():
        packed = output / f"{path}.safetensors.xz"
        kept = safetensors.torch.load(lzma.decompress(packed.read_bytes()))
        names = (", ".join(f"`{name}`" for name in listed) or "–" for listed in (sorted(kept), missing))
        rows.append(f"| `{path}` | {packed.stat().st_size} | {next(names)} | {next(names)} |")
    text = README.format(rows="\n".join(rows), size="SIZE")
    # the number of bytes has as many digits as its stand-in has letters or more; the file counts itself
    size = folder_size(output) + len(text.encode()) + 3
    (output / "README.md").write_text(text.replace("SIZE", str(size)), encoding="utf-8")


def replace_folder(new: Path, old: Path) -> None:
    """Puts a new compact set in the place of an old one.

    Raises:
        ValueError: if something else is there.
    """
    if old.exists():
        readme = old / "README.md"
        if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(TITLE):
            raise ValueError(f"'{old}' exists and is not the compact set of Show-o2; choose another --output")
        shutil.rmtree(old)
    shutil.copytree(new, old)


def make_showo2(reference: Path, output: Path, workspace: Path) -> None:
    """Makes the set in a workspace and puts it in place when it is whole.

    Raises:
        ValueError: if it is larger than a repository should hold.
    """
    for path in WHOLE_FILES:
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reference / path, workspace / path)
    for path in (*JSON_FILES, *PACKED_JSON_FILES):
        copy_json(reference, workspace, path, path in PACKED_JSON_FILES)
    left_out = {path: copy_tensors(reference, workspace, path, names) for path, names in TENSORS.items()}
    write_readme(workspace, left_out)
    size = folder_size(workspace)
    if size > LIMIT:
        raise ValueError(f"The set has {size} bytes, but {LIMIT} are the limit; keep fewer tensors")
    replace_folder(workspace, output)
    logger.info("%s: %d bytes", output, size)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="folder of the whole set")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, or to replace")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as workspace:
        make_showo2(arguments.reference, arguments.output, Path(workspace))


if __name__ == "__main__":
    main()
