"""transformers' own Trainer trains the model as it is; nothing of ours is needed for a first try."""

import torch
from transformers import Trainer, TrainingArguments

import wallaroo_hf
from helpers import draw, generators, picture

FROZEN = ("model.visual.", "model.vq_model.")


def test_trainer_trains_saves_and_the_checkpoint_draws(model, processor, tmp_path):
    rows = [("make it blue", picture(1), picture(2)), ("a cat", None, picture(3))] * 2

    def collate(batch):
        texts, sources, targets = zip(*batch, strict=True)
        return processor(
            text=list(texts),
            images=list(sources),
            target_images=list(targets),
            generation_mode="image",
            height=64,
            width=64,
            return_labels=True,
            padding_side="right",
            return_tensors="pt",
        ).data

    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=2,
        save_steps=2,
        learning_rate=1e-3,
        bf16=True,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model.train(),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collate,
        processing_class=processor,
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved != name.startswith(FROZEN), name

    folder = tmp_path / "checkpoint-2"
    loaded = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(folder)
    again = wallaroo_hf.WallarooProcessor.from_pretrained(folder)
    inputs = again(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    assert draw(loaded, inputs, generator=generators(1)) == draw(model.eval(), inputs, generator=generators(1))
