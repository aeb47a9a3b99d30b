"""The pipeline behind server and page, whose notices go to the people who ask, not into the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import BatchFeature

from ..families.contract import DrawnImages, Step
from ..pictures.masks import with_masks
from ..pictures.opening import open_image
from ..pipelines import DrawingPipeline

__all__ = ["PreparedDrawing", "QuietPipeline"]


@dataclass(frozen=True)
class PreparedDrawing:
    """What a session draws from.

    Attributes:
        row: the processor's tensors, a batch of one, on the model's device.
        settings: for the session.
        source: the picture to edit, or None.
        mask: what of it is painted anew, or None.
        finishing: how pixels become a picture.
    """

    row: BatchFeature
    settings: Mapping[str, Any]
    source: Image.Image | None
    mask: Image.Image | None
    finishing: Mapping[str, Any]


class QuietPipeline(DrawingPipeline):
    """Draws without warnings: they quote prompts, so that clients could fill a log with them.

    Its parts can be called one by one, so that drawings can come and go: `prepare`, a session of the model's, `finish`.
    """

    def prepare(
        self,
        prompt: str,
        image: Image.Image | None,
        mask: Image.Image | None = None,
        references: Sequence[Image.Image] = (),
        **arguments: Any,
    ) -> PreparedDrawing:
        """One drawing or edit, up to where the model begins.

        Args:
            prompt: what to draw or to change.
            image: the picture to edit.
            mask: what of it is painted anew; None = all.
            references: further pictures that the edit takes from.
            arguments: as in a call of the pipeline, without those about generators, callbacks and copies.

        Raises:
            ValueError: for what cannot be drawn.
        """
        preparing, forward, finishing = self._sanitize_parameters(**arguments)
        sources, masks = [None if image is None else open_image(image)], [None]
        if mask is not None:
            sources, masks = with_masks(sources, [mask], None)
        batch = self.prepare_batch([prompt], sources, masks, [references], **preparing)
        return PreparedDrawing(batch.to(self.model.device), forward["settings"], sources[0], masks[0], finishing)

    def look_at(self, step: Step, prepared: PreparedDrawing) -> Image.Image | None:
        """What is there of a picture; None before there is anything.

        Args:
            step: how far it is.
            prepared: what it is drawn from.
        """
        return self._preview(step, prepared.source, prepared.mask, self._height(step))

    def finish(self, drawn: DrawnImages, prepared: PreparedDrawing) -> Image.Image | None:
        """What a call of the pipeline gives for the one picture that was drawn to its end.

        Args:
            drawn: of the session.
            prepared: what it was drawn from.
        """
        outputs = {
            "pixels": drawn.pixels,
            "native": drawn.native,
            "sources": [prepared.source],
            "masks": [prepared.mask],
            "heights": [None],
            "complete": drawn.complete,
        }
        return self.postprocess(outputs, **prepared.finishing).images[0]

    def _notify(self, notice: str) -> None:
        pass
