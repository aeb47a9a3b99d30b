"""A tiny model learns its rows by heart, full and with LoRA; unconditional rows give guidance its meaning."""

from __future__ import annotations

import torch

from helpers import picture
from training.conftest import drawing_row, training_rows
from training.test_trainer import _trainer
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.processing.image_processor import open_image
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.lora import add_lora
from wallaroo_hf.training.stages import stage


def _train(model, processor, rows, folder, steps):
    trainer = _trainer(
        model,
        processor,
        rows * steps,
        folder,
        collator=WallarooDataCollator(processor, random_templates=False, unconditional_rate=0.0, source_mask_rate=0.0),
        max_steps=steps,
        per_device_train_batch_size=len(rows),
        optim="adamw_torch",
        max_grad_norm=1.0,
        adam_beta2=0.95,
        logging_steps=steps // 10,
        lr_scheduler_type="constant",
    )
    trainer.train()
    model.eval()
    return [entry for entry in trainer.state.log_history if "loss" in entry][-1]


def _batches(model, collator, rows, count):
    """Batches of the same rows with other random choices, with codes in place of the pictures to draw."""
    for start in range(0, count * len(rows), len(rows)):
        batch = collator([{**row, "draw": start + index} for index, row in enumerate(rows)])
        del batch["row_names"]
        batch["input_ids"], batch["labels"] = model.model.place_targets(
            batch["input_ids"], batch["labels"], batch.pop("target_pixel_values")
        )
        yield batch


def _fit(model, batches, steps):
    """Trains what requires gradients, without the trainer's work around it; returns the last loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for step in range(steps):
        loss = model(**batches[step % len(batches)]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return float(loss.detach())


def _parts(row):
    """Prompt, answer, and pictures of a row."""
    asked, answer = row["messages"][0]["content"], row["messages"][1]["content"]
    return "".join(item["text"] for item in asked if item["type"] == "text"), answer, row["images"]


def _target_codes(model, processor, row):
    batch = WallarooDataCollator(processor, unconditional_rate=0.0).encode({**row, "draw": 0})
    pixels = torch.from_numpy(batch["target_pixel_values"][0])
    return model.vq_model.encode(pixels[None]).image_tokens[0]


def _drawn_codes(model, processor, row, **kwargs):
    prompt, _, images = _parts(row)
    size = {"height": row["height"], "width": row["width"]}
    sources = [open_image(images[0])] if len(images) == 2 else None
    inputs = processor(text=[prompt], images=sources, generation_mode="image", return_tensors="pt", **size)
    tokens = model.generate(**inputs, generation_mode="image", do_sample=False, **kwargs)
    first = model.config.text_config.vocab_size
    return (tokens[tokens >= first] - first).view(row["height"] // 16, row["width"] // 16)


def _answer(model, processor, row):
    question, _, images = _parts(row)
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=20)
    return processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]


def _check_learned(model, processor, rows):
    drawn = 0
    for row in rows:
        _, answer, _ = _parts(row)
        if isinstance(answer, str):
            assert _answer(model, processor, row) == answer
        else:
            codes = _drawn_codes(model, processor, row, guidance_scale=1.0)
            assert torch.equal(codes, _target_codes(model, processor, row))
            drawn += 1
    assert drawn == 5


def test_rows_of_every_task_are_learned_by_heart(model, processor, tmp_path):
    """Also where answers end."""
    rows = training_rows()
    log = _train(model, processor, rows, tmp_path, steps=60)
    for name in LOSS_NAMES:
        assert log[f"loss_{name}"] < 0.05, name
    _check_learned(model, processor, rows)


def test_lora_learns_rows_by_heart(model, processor):
    rows = training_rows()
    adapted = add_lora(model, rank=8, dropout=0.0)
    collator = WallarooDataCollator(processor, random_templates=False, unconditional_rate=0.0, source_mask_rate=0.0)
    assert _fit(adapted, list(_batches(model, collator, rows, 1)), 60) < 0.5
    _check_learned(adapted, processor, rows)


def test_guidance_turns_from_the_usual_to_what_the_prompt_says(model, processor):
    """ "a red boat" goes with X more often than with Y (3 : 2), but without a prompt X is even more usual (9 : 2 in all).

    Guidance draws from `p(picture | prompt)^g / p(picture)^(g - 1)` and so must come to prefer Y.
    """
    size = {"height": 32, "width": 32}
    usual, special = picture(2), picture(22)
    rows = [drawing_row("a red boat", usual, **size)] * 3 + [drawing_row("a red boat", special, **size)] * 2
    rows += [drawing_row("two dogs in a garden", usual, **size)] * 6
    rows += [drawing_row("night", picture(42), **size), drawing_row("12345", picture(62), **size)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = stage("4").is_trained(name)
    collator = WallarooDataCollator(processor, random_templates=False, unconditional_rate=0.4)
    _fit(model, list(_batches(model, collator, rows, 16)), 160)
    x, y = (_target_codes(model, processor, row) for row in (rows[0], rows[3]))
    drawn = {scale: _drawn_codes(model, processor, rows[0], guidance_scale=scale) for scale in (1.0, 2.0, 3.0)}
    assert torch.equal(drawn[1.0], x)
    assert torch.equal(drawn[2.0], y)
    assert drawn[3.0][0, 0] == y[0, 0] != x[0, 0]
