"""A vocabulary of another size than the processor was saved with: image codes begin where the model's own ends."""

import json
from unittest.mock import MagicMock

import pytest
import torch

from helpers import draw, generators, picture
from training.conftest import drawing_row
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.generation.answering import RowFollower
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.trainer import WallarooTrainer


def _resize(model, processor, by):
    """Another vocabulary; a larger one with tokens of the user's own in it."""
    if by > 0:
        processor.tokenizer.add_tokens([f"<mine{number}>" for number in range(by)])
    model.resize_token_embeddings(model.config.text_config.vocab_size + by)


def _encoded(model, processor, row):
    pixels = processor.image_processor.to_vq_pixels(row["images"][-1], 32, 48)
    codes = model.vq_model.encode(torch.from_numpy(pixels)[None]).image_tokens[0].tolist()
    return {**row, "images": [*row["images"][:-1], None], "image_tokens": [codes]}


def _drawn(model, processor):
    inputs = processor(text="a boat", generation_mode="image", height=32, width=48, return_tensors="pt")
    codes = draw(model, inputs, generator=generators(3))[0]
    first = model.config.text_config.vocab_size
    return [code - first for code in codes if code >= first]


@pytest.mark.parametrize("by", [90, -3])
@pytest.mark.parametrize("source", [None, picture(2)])
def test_encoded_rows_give_the_loss_of_their_pictures(model, processor, by, source):
    row = drawing_row("a boat", picture(1), source, height=32, width=48, draw=1)
    _resize(model, processor, by)
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)  # of the processor as it was loaded
    losses = []
    for rows in ([row, row], [_encoded(model, processor, row), row]):
        batch = collator(rows)
        batch.pop("row_names")
        with torch.no_grad():
            losses.append(model(**batch).losses)
    assert losses[0] == losses[1]
    task = "generation" if source is None else "editing"
    assert set(losses[0]) == {f"{task}_text", f"{task}_image"}


@pytest.mark.parametrize("by", [90, -3])
@pytest.mark.parametrize("model_first", [True, False])
def test_saved_loaded_and_drawn_again(model, processor, tmp_path, by, model_first):
    before = _drawn(model, processor)
    _resize(model, processor, by)
    assert _drawn(model, processor) == before
    for part in (model, processor) if model_first else (processor, model):
        part.save_pretrained(tmp_path)
    loaded, its_processor = (
        kind.from_pretrained(tmp_path) for kind in (WallarooForConditionalGeneration, WallarooProcessor)
    )
    first = model.config.text_config.vocab_size
    assert its_processor.first_image_token_id == loaded.config.text_config.vocab_size == first
    assert its_processor.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert _drawn(loaded, its_processor) == before
    assert its_processor.split_output([first + code for code in (4, 3, 2, 1)])[0].tolist() == [[4, 3], [2, 1]]


def test_trained_and_loaded_again(model, processor, tmp_path):
    _resize(model, processor, 90)
    row = _encoded(model, processor, drawing_row("a boat", picture(1), height=32, width=48))
    arguments = {"max_steps": 2, "save_steps": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True}
    trainer = WallarooTrainer(
        model=model,
        args=WallarooTrainingArguments(output_dir=str(tmp_path), **arguments),
        train_dataset=Numbered([row] * 2),
        data_collator=WallarooDataCollator(processor),
        processing_class=processor,
    )
    assert processor.first_image_token_id == model.config.text_config.vocab_size
    trainer.train()
    for name in ("checkpoint-2", "final"):
        folder = tmp_path / name
        if name == "final":
            trainer.save_model(str(folder))
        saved = json.loads((folder / "processor_config.json").read_text())
        assert saved["first_image_token_id"] == model.config.text_config.vocab_size
        loaded = WallarooForConditionalGeneration.from_pretrained(folder)
        assert _drawn(loaded, WallarooProcessor.from_pretrained(folder)) == _drawn(model, processor)


@torch.no_grad()
def test_a_chat_with_a_resized_model_reads_its_own_codes(model, processor):
    _resize(model, processor, -3)
    conversation = Conversation(model, processor)
    first = model.config.text_config.vocab_size
    told = MagicMock()
    row = RowFollower(model, told, 0, (2, 2), 1, 10)
    codes = [first, first + 1, model.config.end_of_line_token_id, first + 2, first + 3]
    for token in (model.config.generate_start_token_id, *codes, model.config.generate_end_token_id):
        row.put(token)
    (picture,) = conversation._pieces(row.answer)
    decoded = model.vq_model.decode(torch.tensor([[[0, 1], [2, 3]]]))
    assert picture.tobytes() == processor.pictures(decoded)[0].tobytes()
    assert told.image_done.call_count == 1


def test_more_tokens_than_the_model_knows_are_said(model, processor, tmp_path):
    room = model.config.text_config.vocab_size - len(processor.tokenizer)
    processor.tokenizer.add_tokens([f"<mine{number}>" for number in range(room + 1)])
    with pytest.raises(ValueError, match="does not know where image codes begin any more"):
        processor.split_output([1, 2])
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer has \d+ ids, .*resize_token_embeddings"):
        WallarooProcessor.from_pretrained(tmp_path)
