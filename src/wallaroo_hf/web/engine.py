"""Computes batches of drawings and answers, in the worker's thread."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from ..generation.seeded_text import SeededChoice
from ..pipelines import WallarooPipeline
from .answer_writers import RowsFinished, RowsStreamer, writers
from .batching import Job
from .requests import Drawing, Picture, Preview


class Engine:
    """A model at work.

    Args:
        model, processor: a loaded checkpoint, on its device. Only one thread may call [`~Engine.run`].
        window: codes of an image that a forward may decide, see `generate`.
    """

    def __init__(self, model: Any, processor: Any, window: int | str | None = None) -> None:
        self.model, self.processor, self.window = model, processor, window
        self._pipe = WallarooPipeline(model=model, processor=processor, device=model.device)

    def run(self, jobs: Sequence[Job]) -> None:
        """Computes jobs of one group and reports what comes out through them.

        A batch ends early when all of its jobs are cancelled.
        """
        if isinstance(jobs[0].request, Drawing):
            self._draw(jobs)
        else:
            self._answer(jobs)

    def _draw(self, jobs: Sequence[Job]) -> None:
        requests: list[Drawing] = [job.request for job in jobs]
        settings = requests[0].settings
        height, width = (None, None) if settings.fits_source else settings.size

        def on_row(_: WallarooPipeline, row: int, num_rows: int, details: dict[str, Any]) -> bool:
            job = jobs[details["image"]]
            due = _preview_rows(num_rows, job.request.num_previews)
            if row + 1 in due and not job.cancelled:
                job.emit(Preview(details["preview"](), due.index(row + 1)))
            return not all(job.cancelled for job in jobs)

        output = self._pipe(
            [request.prompt for request in requests],
            image=[request.source for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            height=height,
            width=width,
            guidance_scale=settings.guidance_scale,
            guidance_min_p=settings.guidance_min_p,
            do_sample=False if settings.temperature == 0 else None,
            temperature=settings.temperature or None,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            callback_on_step_end=on_row,
            window=self.window,
        )
        size = self.processor.image_token_size
        for job, image in zip(jobs, output.images, strict=True):
            if output.complete and image is not None:
                job.emit(Picture(image, (settings.size[0] // size) * (settings.size[1] // size)))

    def _answer(self, jobs: Sequence[Job]) -> None:
        first = jobs[0].request
        rows = writers(jobs, self._decode, self.model, self.decode_image)
        generators = None
        if first.settings.temperature > 0:
            generators = [torch.Generator().manual_seed(job.request.seed) for job in jobs]
        choice = SeededChoice(
            generators, first.settings.temperature or 1.0, first.settings.top_k, first.settings.top_p
        )
        arguments: dict[str, Any] = {"generation_mode": first.mode, "do_sample": False}
        if first.mode == "auto":  # one row, because drawings continue its own cache
            arguments |= {"do_sample": True, "generator": torch.Generator().manual_seed(first.seed)}
            arguments |= {"guidance_scale": first.guidance_scale, "guidance_min_p": first.guidance_min_p}
        inputs = self._collate([job.request.inputs for job in jobs])
        self.model.generate(
            **inputs.to(self.model.device, dtype=self.model.dtype),
            **arguments,
            max_new_tokens=max(job.request.max_new_tokens for job in jobs),
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=StoppingCriteriaList([RowsFinished(rows)]),
            streamer=RowsStreamer(rows),
        )

    def decode_image(self, codes: list[int], grid: tuple[int, int]) -> Image.Image:
        """Codes in raster order, of a grid `(rows, cols)`, as a picture."""
        with torch.no_grad():
            pixels = self.model.vq_model.decode(torch.tensor(codes, device=self.model.device).view(1, *grid))
        return self.processor.post_process_multimodal_output(pixels, generation_mode="image")[0]

    def _decode(self, ids: list[int]) -> str:
        tokenizer = self.processor.tokenizer
        return tokenizer.decode([token for token in ids if token < len(tokenizer)], skip_special_tokens=True)

    def _collate(self, rows: Sequence[Any]) -> Any:
        """The tensors of several rows as one batch, left-padded."""
        if len(rows) == 1:
            return rows[0]
        longest = max(row["input_ids"].shape[1] for row in rows)
        fill = {"input_ids": self.processor.tokenizer.pad_token_id, "attention_mask": 0, "mm_token_type_ids": 0}
        data = {
            name: torch.cat(
                [torch.nn.functional.pad(row[name], (longest - row[name].shape[1], 0), value=value) for row in rows]
            )
            for name, value in fill.items()
        }
        for name in ("pixel_values", "image_grid_thw"):
            parts = [row[name] for row in rows if name in row]
            if parts:
                data[name] = torch.cat(parts)
        return type(rows[0])(data)


def _preview_rows(num_rows: int, num_previews: int) -> list[int]:
    """After how many rows of an image a preview is due: evenly spread, before the end."""
    return sorted({(k + 1) * num_rows // (num_previews + 1) for k in range(num_previews)} - {0, num_rows})
