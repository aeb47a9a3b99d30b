"""`WallarooTrainer`: the same gradients however a step is split, named losses, steps that are left out."""

import copy
import logging
import math

import datasets
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from training.conftest import answer_row
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.data.training_rows import row_task
from wallaroo_hf.training.sources import mix_rows
from wallaroo_hf.training.stages import stage
from wallaroo_hf.training.trainer import NonFiniteLossError, WallarooTrainer


def _arguments(folder, **kwargs):
    defaults = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return WallarooTrainingArguments(**{**defaults, **kwargs})


def _trainer(model, processor, rows, folder, callbacks=None, collator=None, **kwargs):
    return WallarooTrainer(
        model=model,
        args=_arguments(folder, **kwargs),
        train_dataset=Numbered(rows),
        data_collator=collator or WallarooDataCollator(processor, unconditional_rate=0.0),
        processing_class=processor,
        callbacks=[StageCallback(stage("4"), force=True), *(callbacks or [])],
    )


def _moved(model, processor, rows, folder, **kwargs):
    trained = copy.deepcopy(model)
    trainer = _trainer(trained, processor, rows, folder, **kwargs)
    trainer.train()
    moves = {
        name: (after - before).detach()
        for (name, after), before in zip(trained.named_parameters(), model.parameters())
    }
    return moves, trainer.state.log_history


def _difference(moves, others):
    scale = max(float(move.abs().max()) for move in moves.values())
    return max(float((moves[name] - others[name]).abs().max()) for name in moves) / scale


def test_a_step_is_the_same_however_it_is_split(model, processor, rows, tmp_path):
    whole, log = _moved(model, processor, rows, tmp_path)
    for size in (1, 2):
        split, split_log = _moved(
            model, processor, rows, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size
        )
        assert _difference(whole, split) < 1e-5
        for name in LOSS_NAMES:
            assert split_log[0][f"loss_{name}"] == pytest.approx(log[0][f"loss_{name}"], rel=1e-5)
        assert split_log[0]["loss"] == pytest.approx(log[0]["loss"], rel=1e-5)
    assert log[0]["loss"] == pytest.approx(sum(log[0][f"loss_{name}"] for name in LOSS_NAMES), rel=1e-5)


def test_micro_batch_reduction_is_the_mean_of_the_model_losses(model, processor, rows, tmp_path):
    """As released: each micro-batch has its own means."""
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)
    numbered = Numbered(rows)
    _, log = _moved(
        model,
        processor,
        rows,
        tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        loss_reduction="micro_batch",
    )
    expected = []
    with torch.no_grad():
        for start in range(0, 8, 2):
            batch = collator([numbered[start], numbered[start + 1]])
            batch.pop("row_names")
            expected.append(float(model(**batch).loss))
    assert log[0]["loss"] == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_loss_weights_scale_a_task(model, processor, rows, tmp_path):
    _, log = _moved(model, processor, rows, tmp_path, loss_weights={"editing": 0.5})
    parts = {name: log[0][f"loss_{name}"] for name in LOSS_NAMES}
    halved = sum(value * (0.5 if name.startswith("editing") else 1.0) for name, value in parts.items())
    assert log[0]["loss"] == pytest.approx(halved, rel=1e-5)


def test_rows_without_padding_train_the_same(model, processor, rows, tmp_path):
    padded, log = _moved(model, processor, rows, tmp_path)
    packed, packed_log = _moved(model, processor, rows, tmp_path, padding_free=True)
    assert packed_log[0]["loss"] == pytest.approx(log[0]["loss"], rel=1e-5)
    assert _difference(padded, packed) < 1e-4


def test_gradient_checkpointing_trains_the_same(model, processor, rows, tmp_path):
    plain, _ = _moved(model, processor, rows, tmp_path)
    recomputed, _ = _moved(model, processor, rows, tmp_path, activation_checkpointing=True)
    assert _difference(plain, recomputed) < 1e-5


def test_evaluation_reports_parts_over_the_whole_set(model, processor, rows, tmp_path):
    results = []
    for size in (8, 3):
        trainer = _trainer(model, processor, rows, tmp_path, per_device_eval_batch_size=size)
        results.append(trainer.evaluate(Numbered(rows)))
    for name in LOSS_NAMES:
        assert results[0][f"eval_loss_{name}"] == pytest.approx(results[1][f"eval_loss_{name}"], rel=1e-5)
    total = sum(results[0][f"eval_loss_{name}"] for name in LOSS_NAMES)
    assert results[0]["eval_loss"] == pytest.approx(total, rel=1e-5)


class _Poison(TrainerCallback):
    """Makes the weights give no finite loss in some steps, without the optimizer's doing."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        model.model.language_model.norm.weight.data[0] = math.nan if state.global_step in self.steps else 1.0


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_without_finite_loss_is_left_out_named_and_counted(
    model, processor, rows, tmp_path, caplog, accumulate
):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer = _trainer(
        model,
        processor,
        [{**row, "name": f"row-{index}"} for index, row in enumerate(rows)],
        tmp_path,
        [_Poison({0})],
        per_device_train_batch_size=8 // accumulate,
        gradient_accumulation_steps=accumulate,
        optim="adamw_torch",
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.non_finite_steps == 1
    assert "row-0" in caplog.text and "row-7" in caplog.text
    assert math.isnan(trainer.state.log_history[0]["loss"])
    assert trainer.state.log_history[0]["non_finite_steps"] == 1
    skipped = "model.language_model.norm.weight"  # poisoned by hand
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters() if name != skipped)


def test_training_goes_on_after_a_bad_step(model, processor, rows, tmp_path):
    trainer = _trainer(model, processor, rows * 3, tmp_path, [_Poison({1})], max_steps=3, logging_steps=3)
    trainer.train()
    assert trainer.non_finite_steps == 1
    assert trainer.state.global_step == 3
    assert math.isfinite(trainer.state.log_history[0]["loss"])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_training_stops_after_bad_steps_in_a_row(model, processor, rows, tmp_path):
    trainer = _trainer(
        model,
        processor,
        rows * 10,
        tmp_path,
        [_Poison({2, 3, 4, 5})],
        max_steps=10,
        max_non_finite_steps=3,
        save_strategy="steps",
        save_steps=1,
    )
    with pytest.raises(NonFiniteLossError, match=r"step 5.*3\. step in a row.*checkpoint-4"):
        trainer.train()


def test_a_gradient_that_is_not_finite_is_left_out_too(model, processor, rows, tmp_path):
    before = copy.deepcopy(model.state_dict())
    model.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer = _trainer(model, processor, rows, tmp_path, max_grad_norm=1.0)
    trainer.train()
    assert trainer.non_finite_steps == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_plain_arguments_are_refused(model, processor, rows, tmp_path):
    with pytest.raises(TypeError, match="WallarooTrainingArguments"):
        WallarooTrainer(model=model, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[]))
    with pytest.raises(ValueError, match="loss_reduction"):
        _arguments(tmp_path, loss_reduction="sum")
    with pytest.raises(ValueError, match="max_non_finite_steps"):
        _arguments(tmp_path, max_non_finite_steps=0)


def test_rows_without_labels_are_no_reason_to_stop(model, processor, rows, tmp_path):
    """A micro-batch whose rows were all skipped has no loss, and training goes on."""
    collator = WallarooDataCollator(processor, max_length=10, on_error="skip")
    trainer = _trainer(model, processor, rows, tmp_path, collator=collator)
    trainer.train()
    assert trainer.state.log_history[0]["skipped_rows"] == 8
    assert trainer.state.log_history[0]["loss"] == 0.0


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_left_out_are_counted_wherever_that_happens(model, processor, rows, tmp_path, workers):
    """By the mixture, which takes others instead, and by the collator; both may be in a worker."""
    drawings = [row for row in rows if row_task(row) == "generation"]
    broken = {"error": "not JSON"}
    long = {"messages": [{"role": "user", "content": "why? " * 2000}, {"role": "assistant", "content": "so"}]}
    mixture = mix_rows(
        {"generation": [drawings[0], broken, broken, drawings[1]], "understanding": [long]},
        {"generation": 4, "understanding": 1},
        length=10,
        shuffle=False,
        on_error="skip",
    )
    collator = WallarooDataCollator(processor, max_length=1500, on_error="skip")
    trainer = _trainer(
        model,
        processor,
        rows,
        tmp_path,
        collator=collator,
        per_device_train_batch_size=5,
        max_steps=2,
        dataloader_num_workers=workers,
    )
    trainer.train_dataset = mixture
    trainer.train()
    # the first broken row's turn comes to the second, whose own turn comes next
    assert [entry["skipped_rows"] for entry in trainer.state.log_history if "loss" in entry] == [4, 8]


def test_a_resumed_stream_is_read_again_and_says_so(model, processor, rows, tmp_path, caplog):
    read = []

    def chats():
        for number in range(12):
            read.append(number)
            yield {"messages": answer_row("Count.", "one two " * (number + 1))["messages"]}

    def run(checkpoint):
        trained = copy.deepcopy(model)
        trainer = _trainer(
            trained,
            processor,
            rows,
            tmp_path,
            per_device_train_batch_size=2,
            max_steps=3,
            save_strategy="steps",
            save_steps=2,
        )
        stream = datasets.IterableDataset.from_generator(chats)
        trainer.train_dataset = mix_rows({"understanding": stream}, batch_size=2, block_size=2)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trained.state_dict(), trainer.state.log_history[2]["loss"]

    whole, loss = run(None)
    assert "streamed" not in caplog.text
    read.clear()
    resumed, same_loss = run(str(tmp_path / "checkpoint-2"))
    assert "read and prepared again" in caplog.text and read[0] == 0
    assert same_loss == loss and all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
