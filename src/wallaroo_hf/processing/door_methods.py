"""What doors ask of the processor in the same words for every family: [`ProcessorDoorsMixin`]."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..common.navit_videos import VideoSettings, choose_within, count_video_tokens
from ..pictures.videos import flatten_videos
from .batch import WallarooBatchFeature
from .refused_words import refused_tokens
from .row_preparation import PreparationMixin

__all__ = ["ProcessorDoorsMixin"]


class ProcessorDoorsMixin(PreparationMixin):
    """Wallaroo's side of [`wallaroo_hf.families.contract.DrawingProcessor`], beside what every processor has."""

    apply_chat_template: Any  # of the processor

    @property
    def special_words(self) -> tuple[str, ...]:
        """The tokens that users' words must not spell; see [`wallaroo_hf.processing.refused_words.refused_tokens`]."""
        return refused_tokens(self.tokenizer)

    def collate(self, rows: Sequence[WallarooBatchFeature]) -> WallarooBatchFeature:
        """Rows that were prepared with `return_tensors="pt"` in one mode as one batch, padded on the left."""
        return rows[0] if len(rows) == 1 else WallarooBatchFeature.join(rows, self.tokenizer.pad_token_id)

    def to_pixels(self, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """A picture as the image tokenizer takes it: `(3, height, width)` float32 in [-1, 1], cropped as in training."""
        return torch.from_numpy(self.image_processor.to_vq_pixels(image, height, width))

    def pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Decoded pixels `(3, H, W)` as pictures; see [`WallarooImageProcessor.from_vq_pixels`]."""
        return self.image_processor.from_vq_pixels(list(pixels))

    def choose_frames(self, num_frames: int, rate: float | None, max_tokens: int) -> list[int]:
        """See [`wallaroo_hf.common.navit_videos.choose_within`]."""
        return choose_within(num_frames, rate, max_tokens, self.image_processor, self.video_limits)

    def count_tokens(self, messages: Sequence[dict[str, Any]], may_draw: bool = False) -> int:
        """How many tokens a chat has at least, its pictures included, told without preparing them.

        Args:
            messages: the chat; pictures stand in it as PIL images under `image`, videos in any form under `video`.
            may_draw: whether it is meant for `generation_mode="auto"`.
        """
        text = self.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        parts = [part for message in messages for part in message["content"]]
        images = [part["image"] for part in parts if "image" in part]
        task = "editing" if may_draw else "understanding"
        # the placeholder of each is among the tokens of the text
        num_seen = sum(self.num_vision_tokens(image, task) - 1 for image in images)
        settings = VideoSettings.read({}, self.video_limits)
        for video in flatten_videos([part["video"] for part in parts if "video" in part]):
            num_seen += count_video_tokens(self.image_processor, video, settings) - 1
        return len(self.tokenizer(text)["input_ids"]) + num_seen
