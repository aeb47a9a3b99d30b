"""Asks a question about a video: a file, or a folder with its frames.

pip install "wallaroo-hf[video]"
python examples/video.py clip.mp4 "What happens?" --model wallaroo-7b
"""

import argparse
from pathlib import Path

from transformers import TextStreamer

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True, help="a converted checkpoint: folder or Hub id")
parser.add_argument("video")
parser.add_argument("question")
parser.add_argument("--fps", type=float, default=2.0, help="frames that are seen a second; of a folder, those it has")
parser.add_argument("--max-frames", type=int, default=768)
parser.add_argument("--max-new-tokens", type=int, default=256)
arguments = parser.parse_args()

model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)

options = {"fps": arguments.fps, "max_frames": arguments.max_frames}
video = arguments.video
if Path(video).is_dir():
    video = sorted(map(str, Path(video).glob("*.png")))
    options["video_metadata"] = [{"fps": arguments.fps}]
content = [{"type": "video", "video": video}, {"type": "text", "text": arguments.question}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
    add_generation_prompt=True,
    processor_kwargs=options,
)
frames, height, width = inputs["video_grid_thw"][0].tolist()
print(
    f"{frames} pairs of frames of {width * 14}x{height * 14} pixels, {float(inputs['second_per_grid_ts'][0]):.2f} s apart"
)
streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
inputs = inputs.to(model.device, dtype=model.dtype)
model.generate(**inputs, do_sample=False, max_new_tokens=arguments.max_new_tokens, streamer=streamer)
