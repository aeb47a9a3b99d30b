"""Following a drawing: progress, rows, previews, and stopping it."""

import pytest
import torch
from PIL import ImageChops

from helpers import draw, generators
from wallaroo_hf.generation import ImageStreamer


@pytest.fixture
def inputs(processor):
    return processor(
        text=["a cat", "a dog"], generation_mode="image", height=[64, 96], width=[96, 64], return_tensors="pt"
    )


def test_reports_codes_and_rows(model, processor, inputs):
    rows, counts = [], []
    streamer = ImageStreamer(
        model, processor, inputs["target_grid_hw"], on_row=lambda s, i, r: rows.append((i, r)), on_code=counts.append
    )
    sequences = model.generate(**inputs, generation_mode="image", streamer=streamer)
    assert [r for i, r in rows if i == 0] == [1, 2, 3, 4] and [r for i, r in rows if i == 1] == [1, 2, 3, 4, 5, 6]
    assert counts[0] == [1, 1] and counts[-1] == [24, 24]
    first = model.config.text_config.vocab_size
    new = sequences[:, inputs["input_ids"].shape[1] :]
    assert streamer.codes == [[token - first for token in row.tolist() if token >= first] for row in new]


def test_the_last_preview_is_the_picture(model, processor, inputs):
    heights = []

    def look(streamer, image, rows):
        if image == 0:
            heights.append(streamer.preview(0).height)

    streamer = ImageStreamer(model, processor, inputs["target_grid_hw"], on_row=look)
    sequences = model.generate(**inputs, generation_mode="image", streamer=streamer)
    assert heights == [16, 32, 48, 64]
    images = processor.post_process_multimodal_output(model.decode_image_tokens(sequences), generation_mode="image")
    for index, image in enumerate(images):
        difference = ImageChops.difference(streamer.preview(index), image)
        assert max(high for _, high in difference.getextrema()) <= 1


def test_several_copies(model, processor, inputs):
    streamer = ImageStreamer(model, processor, inputs["target_grid_hw"])
    model.generate(**inputs, generation_mode="image", streamer=streamer, num_return_sequences=2)
    assert [streamer.preview(index).size for index in range(4)] == [(96, 64), (96, 64), (64, 96), (64, 96)]


@pytest.mark.parametrize("copies", [1, 2])
def test_generate_tells_the_grid(model, processor, inputs, copies):
    """A streamer that was given none follows one drawing after the other, of whatever sizes."""
    rows = []
    streamer = ImageStreamer(model, processor, on_row=lambda s, image, row: rows.append((image, row)))
    model.generate(**inputs, generation_mode="image", streamer=streamer, num_return_sequences=copies)
    assert [streamer.preview(index).size for index in range(2 * copies)] == [(96, 64)] * copies + [(64, 96)] * copies
    other = processor(text="a cat", generation_mode="image", height=32, width=64, return_tensors="pt")
    rows.clear()
    model.generate(**other, generation_mode="image", streamer=streamer, line_breaks=False)
    assert streamer.preview().size == (64, 32) and rows == [(0, 1), (0, 2)]


def test_auto_mode_tells_the_grid(model, processor):
    inputs = processor(
        text="<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        generation_mode="auto",
        height=32,
        width=64,
        return_tensors="pt",
    )
    length, start = inputs["input_ids"].shape[1], torch.tensor([model.config.generate_start_token_id])

    def say(ids, scores):
        return scores.index_fill(1, start, 1e4 if ids.shape[1] == length else -1e4)

    streamer = ImageStreamer(model, processor)
    model.generate(
        **inputs,
        generation_mode="auto",
        logits_processor=[say],
        max_new_tokens=2,
        streamer=streamer,
        guidance_scale=1.0,
    )
    assert streamer.preview().size == (64, 32)


def test_a_streamer_without_grids_says_what_it_needs(model, processor):
    with pytest.raises(ValueError, match="target_grid_hw"):
        ImageStreamer(model, processor).put(torch.zeros(1, 4, dtype=torch.long))


def test_stopping_gives_the_rows_that_are_there(model, processor, inputs):
    whole = model.generate(**inputs, generation_mode="image", generator=generators(1, 2))
    streamer = ImageStreamer(
        model, processor, inputs["target_grid_hw"], on_row=lambda s, image, rows: not (image == 1 and rows == 2)
    )
    stopped = model.generate(**inputs, generation_mode="image", generator=generators(1, 2), streamer=streamer)
    assert torch.equal(stopped, whole[:, : stopped.shape[1]]) and stopped.shape[1] < whole.shape[1]
    pixels = model.decode_image_tokens(stopped, allow_partial=True)
    assert [tuple(image.shape) for image in pixels] == [(3, 16, 96), (3, 32, 64)]
    with pytest.raises(ValueError, match="allow_partial=True"):
        model.decode_image_tokens(stopped)
    with pytest.raises(ValueError, match="no complete row"):
        model.decode_image_tokens(stopped[:, : inputs["input_ids"].shape[1] + 3], allow_partial=True)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_drawing_leaves_nothing_behind(model, processor, inputs, error):
    """A callback that raises, or Ctrl-C: the error comes through, and the next drawing is as if it had not been."""

    def fail(streamer, image, rows):
        raise error("enough")

    expected = draw(model, inputs, generator=generators(1, 2))
    streamer = ImageStreamer(model, processor, inputs["target_grid_hw"], on_row=fail)
    with pytest.raises(error, match="enough"):
        model.generate(**inputs, generation_mode="image", streamer=streamer)
    assert streamer.preview(1).size == (64, 16)
    assert draw(model, inputs, generator=generators(1, 2)) == expected


def test_grids_must_fit(model, processor, inputs):
    streamer = ImageStreamer(model, processor, [[4, 6], [4, 6], [4, 6]])
    with pytest.raises(ValueError, match="target_grid_hw"):
        model.generate(**inputs, generation_mode="image", streamer=streamer)
