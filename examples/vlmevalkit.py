"""Runs VLMEvalKit's own run.py with Wallaroo among its models.

python examples/vlmevalkit.py path/to/VLMEvalKit/run.py --data MMBench_DEV_EN --model wallaroo
(WALLAROO_MODEL names the checkpoint; default: the built-in one)
"""

import os
import runpy
import sys

from vlmeval.config import supported_VLM
from vlmeval.vlm.base import BaseModel

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.evaluation.answers import answer
from wallaroo_hf.processing.image_processor import open_image


class Wallaroo(BaseModel):
    """Answers with words and pictures in the order that VLMEvalKit gives them."""

    INTERLEAVE = True

    def __init__(self):
        name = os.environ.get("WALLAROO_MODEL") or default_checkpoint()
        self.model = WallarooForConditionalGeneration.from_pretrained(name, dtype="auto", device_map="auto")
        self.processor = WallarooProcessor.from_pretrained(name)

    def generate_inner(self, message, dataset=None):
        question = [item["value"] if item["type"] == "text" else open_image(item["value"]) for item in message]
        return answer(self.model, self.processor, [question], do_sample=False, max_new_tokens=1024)[0]


supported_VLM["wallaroo"] = Wallaroo
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
runpy.run_path(sys.argv[0], run_name="__main__")
