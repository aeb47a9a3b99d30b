"""Previews: written and reported, with fixed seeds, and without any effect on training."""

import copy
import json

import pytest
import torch
from PIL import Image

from helpers import picture
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.previews import Preview, PreviewCallback, read_previews
from wallaroo_hf.training.stages import stage
from wallaroo_hf.training.trainer import WallarooTrainer

SMALL = {"height": 32, "width": 32}


def _train(model, processor, rows, folder, callbacks, **kwargs):
    arguments = WallarooTrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        save_strategy="no",
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        **{"report_to": [], **kwargs},
    )
    trainer = WallarooTrainer(
        model=model,
        args=arguments,
        train_dataset=Numbered(rows),
        data_collator=WallarooDataCollator(processor),
        callbacks=[StageCallback(stage(4), force=True), *callbacks],
    )
    trainer.train()
    return trainer


def test_previews_are_written_and_change_nothing(model, processor, rows, tmp_path):
    previews = [
        Preview(prompt="a red boat", **SMALL),
        Preview(prompt="换成绿色", image=picture(1), **SMALL),
        Preview(question="What is it?", image=picture(2, 56, 56)),
    ]
    plain, looked = model, copy.deepcopy(model)
    _train(plain, processor, rows, tmp_path / "plain", [])
    callback = PreviewCallback(processor, previews, every=1, max_new_tokens=4)
    _train(looked, processor, rows, tmp_path / "looked", [callback])
    for one, other in zip(plain.parameters(), looked.parameters(), strict=True):
        assert torch.equal(one, other)
    folder = tmp_path / "looked" / "previews"
    names = [f"step-{step:06d}" for step in range(3)]
    assert {path.stem for path in folder.glob("*.png")} == {path.stem for path in folder.glob("*.json")} == set(names)
    record = json.loads((folder / "step-000002.json").read_text(encoding="utf-8"))
    assert record["step"] == 2 and record["drawings"][1]["prompt"] == "换成绿色"
    assert isinstance(record["answers"][0]["answer"], str)
    assert looked.training
    sheets = [Image.open(folder / f"{name}.png").tobytes() for name in names]
    assert sheets[0] != sheets[2], "the weights moved, so the pictures did"
    callback._look(
        WallarooTrainingArguments(output_dir=str(tmp_path / "again"), use_cpu=True), callback._trainer.state
    )
    assert Image.open(tmp_path / "again" / "previews" / "step-000002.png").tobytes() == sheets[2]


def test_previews_reach_tensorboard(model, processor, rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = PreviewCallback(
        processor, [Preview(prompt="a boat", **SMALL), Preview(question="Hi?")], 2, max_new_tokens=2
    )
    _train(model, processor, rows, tmp_path, [callback], report_to=["tensorboard"], logging_steps=1)
    folders = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    found = set()
    for folder in folders:
        events = EventAccumulator(str(folder), {"images": 0, "tensors": 0}).Reload()
        found |= set(events.Tags()["images"]) | set(events.Tags()["tensors"])
    assert "previews/a boat" in found and "previews/answers/text_summary" in found


def test_previews_are_read_from_json_lines(tmp_path):
    file = tmp_path / "previews.jsonl"
    file.write_text('{"prompt": "a cat", "height": 32, "width": 48}\n\n{"question": "What?", "image": "a.png"}\n')
    first, second = read_previews(file)
    assert (first.prompt, first.width) == ("a cat", 48)
    assert second.image == str(tmp_path / "a.png")
    file.write_text('{"prompt": "a"}\n{"promt": "a cat"}\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*promt"):
        read_previews(file)
    file.write_text('{"image": "a.png"}\n')
    with pytest.raises(ValueError, match="either a `prompt`"):
        read_previews(file)
    with pytest.raises(ValueError, match="could not be read"):
        read_previews(tmp_path / "none.jsonl")


def test_previews_need_our_trainer(processor, tmp_path):
    callback = PreviewCallback(processor, [], every=1)
    with pytest.raises(RuntimeError, match="WallarooTrainer"):
        callback._look(WallarooTrainingArguments(output_dir=str(tmp_path), use_cpu=True), None)
    with pytest.raises(ValueError, match="at least 1"):
        PreviewCallback(processor, [], every=0)
    for preview in (Preview(prompt="<|im_start|>user"), Preview(question="<|im_end|>")):
        with pytest.raises(ValueError, match="The preview contains the special token"):
            PreviewCallback(processor, [preview], every=1)
