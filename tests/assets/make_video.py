"""Records what transformers' own video processor of Qwen2.5-VL makes of some frames: `video/stock.json`.

It needs torchvision, which the tests do not: `python tests/assets/make_video.py` in an environment with both.
"""

import json
import sys
from pathlib import Path

import torch
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from films import pattern

# frames, height, width, rate of the video, what is asked
CASES = [
    (5, 100, 140, None, {}),
    (37, 90, 160, 12.5, {"fps": 2}),
    (300, 48, 64, 29.97, {"fps": 2}),
    (100, 30, 200, 24.0, {"num_frames": 7}),
    (9, 60, 60, 3.0, {"fps": 1.5, "max_frames": 6}),
    (3, 60, 61, 30.0, {"fps": 2}),
    (40, 70, 90, 25.0, {"fps": 4, "size": {"shortest_edge": 3136, "longest_edge": 5000}}),
    (60, 40, 30, 10.0, {"fps": 20, "max_video_tokens": 2000}),
    (11, 33, 57, 30.0, {"num_frames": 4, "do_sample_frames": False}),
    (250, 28, 28, 60.0, {"fps": 0.5, "min_frames": 10}),
]
_SAMPLED = 12  # values of the patches


def record(count: int, height: int, width: int, rate: float | None, asked: dict) -> dict:
    """What the processor makes of one video."""
    options = dict(asked)
    processor = Qwen2VLVideoProcessor(
        cap_pixels_per_frame=True, max_video_tokens=options.pop("max_video_tokens", 128000)
    )
    options.setdefault("do_sample_frames", "fps" in options or "num_frames" in options)
    frames = torch.from_numpy(pattern(count, height, width)).permute(0, 3, 1, 2).contiguous()
    metadata = [{"total_num_frames": count, "fps": rate, "frames_indices": list(range(count))}]
    made = processor(frames, video_metadata=metadata, return_metadata=True, return_tensors="pt", **options)
    patches, told = made["pixel_values_videos"], made["video_metadata"][0]
    places = torch.arange(_SAMPLED) * (patches.numel() - 1) // (_SAMPLED - 1)
    return {
        "video": [count, height, width, rate],
        "asked": asked,
        "frames": [int(index) for index in told.frames_indices],
        "grid": made["video_grid_thw"][0].tolist(),
        "second_per_grid_ts": processor.temporal_patch_size / told.sampled_fps,
        "shape": list(patches.shape),
        "mean": float(patches.double().mean()),
        "values": patches.flatten()[places].tolist(),
    }


if __name__ == "__main__":
    path = Path(__file__).parent / "video" / "stock.json"
    lines = [json.dumps(record(*case)) for case in CASES]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
