"""Fine-tunes a checkpoint on your pictures and shows what that did: losses, and pictures and answers before and after.

    python examples/finetune.py --output finetuned

By default the built-in checkpoint learns the signs in examples/finetune, in a minute or two on a laptop: to draw them,
to edit them and to say what they are. With your own data and a larger checkpoint:

    python examples/finetune.py --model wallaroo-7b --data my-pictures --lora --output finetuned

`wallaroo train` does the training part of this from the command line, and more; see docs/finetuning.md.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.processing.image_processor import open_image
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.reports import contact_sheet
from wallaroo_hf.training.run import RunOptions, build_trainer, count_rows, fine_tuning, finish, load_training_data
from wallaroo_hf.training.sources import named_rows

SIGNS = Path(__file__).resolve().parent / "finetune" / "signs" / "all.yaml"
SMALL = 512  # hidden size; models up to it learn at other rates than those of billions of parameters
LEARNING_RATES = {"full": (1e-3, 1e-5), "lora": (3e-3, 1e-4)}  # small, large
MAX_NEW_TOKENS = 32

Row = Mapping[str, Any]


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint: folder or Hub id (default: the one in the package)")
    parser.add_argument("--data", default=str(SIGNS), help="folder, file, data.yaml or Hub id (default: the signs)")
    parser.add_argument("--output", type=Path, default=Path("finetuned"), help="folder to write (default: finetuned)")
    parser.add_argument("--lora", action="store_true", help="train LoRA adapters and the image parts only")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps (default: 200)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows per step (default: 8)")
    parser.add_argument("--learning-rate", type=float, help="default: by the size of the model, and whether LoRA")
    parser.add_argument("--size", type=int, help="edge of the pictures in pixels (default: the checkpoint's sizes)")
    parser.add_argument("--shown", type=int, default=4, help="rows of each task to try before and after (default: 4)")
    parser.add_argument("--guidance-scale", type=float, default=1.5, help="of the pictures shown (default: 1.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, or default: an accelerator if there is one")
    return parser.parse_args()


def some(rows: list[Row], count: int) -> list[Row]:
    """A few rows, spread over all."""
    return [rows[index * len(rows) // count] for index in range(min(count, len(rows)))]


def words(message: Mapping[str, Any]) -> str:
    """The text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else " ".join(item["text"] for item in content if item.get("text"))


def draws(row: Row) -> bool:
    """Whether a row's answer is a picture."""
    answer = row["messages"][-1]["content"]
    return not isinstance(answer, str) and any(item["type"] == "image" for item in answer)


class Look:
    """What the model makes of some rows."""

    def __init__(
        self, model: WallarooForConditionalGeneration, processor: WallarooProcessor, guidance_scale: float, seed: int
    ) -> None:
        self.model, self.processor, self.guidance_scale, self.seed = model, processor, guidance_scale, seed

    def __call__(self, rows: list[Row]) -> Iterator[Image.Image | str]:
        """A drawing or an answer for each."""
        self.model.eval()
        for row in rows:
            yield self.draw(row) if draws(row) else self.answer(row)
        self.model.train()

    def draw(self, row: Row) -> Image.Image:
        """The prompt drawn, or the source edited."""
        images = [open_image(image) for image in row["images"]]
        height, width = self.target(row).shape[2:]
        inputs = self.processor(
            text=words(row["messages"][-2]),
            images=images[:-1] or None,
            generation_mode="image",
            height=height,
            width=width,
            return_tensors="pt",
        ).to(self.model.device)
        generator = torch.Generator().manual_seed(self.seed)
        tokens = self.model.generate(
            **inputs, generation_mode="image", guidance_scale=self.guidance_scale, generator=generator
        )
        return self.picture(self.model.decode_image_tokens(tokens))

    def answer(self, row: Row) -> str:
        """The question answered."""
        images = [{"type": "image", "image": open_image(image)} for image in row["images"] or []]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": [*images, {"type": "text", "text": words(row["messages"][-2])}]}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        ).to(self.model.device)
        tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        return self.processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]

    def picture(self, pixels: Any) -> Image.Image:
        """The image tokenizer's output as a picture."""
        return self.processor.post_process_multimodal_output(pixels, generation_mode="image")[0]

    def target(self, row: Row) -> torch.Tensor:
        """The picture to learn as training sees it: cut to size, `(1, 3, H, W)` in [-1, 1]."""
        collator = WallarooDataCollator(self.processor, unconditional_rate=0.0)
        return torch.as_tensor(collator.encode(row)["target_pixel_values"][0])[None].to(self.model.device)

    def best(self, row: Row) -> Image.Image:
        """The same through the image tokenizer: what the model could draw at best."""
        vq_model = self.model.vq_model
        return self.picture(vq_model.decode(vq_model.encode(self.target(row)).image_tokens))


def show_pictures(look: Look, looks: list[tuple[Row, Any, Any]], path: Path) -> None:
    """Writes a sheet: per row the source (of edits), the picture to learn, the best possible, before and after."""
    images: list[Image.Image] = []
    captions: list[str] = []
    columns = 4
    for row, before, after in looks:
        *sources, _ = row["images"]
        line = [look.picture(look.target(row)), look.best(row), before, after]
        labels = [words(row["messages"][-2]), "at best (through the tokenizer)", "before", "after"]
        if sources:
            line, labels[0] = [open_image(sources[0]), *line], "to learn"
            labels = [words(row["messages"][-2]), *labels]
            columns = 5
        images += [enlarged(image) for image in line]
        captions += labels
    print("Before and after:", contact_sheet(images, captions, path, columns))


def enlarged(image: Image.Image) -> Image.Image:
    """A small picture a whole number of times as large."""
    times = max(1, round(160 / image.width))
    return image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)


def show_answers(looks: list[tuple[Row, Any, Any]], path: Path) -> None:
    """Writes and prints answers before and after."""
    lines = []
    for row, before, after in looks:
        *_, question, answer = row["messages"]
        told = {"to learn": words(answer), "before": before, "after": after}
        lines.append("\n".join([words(question), *(f"  {when + ':':10}{text}" for when, text in told.items()), ""]))
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n" + "\n".join(lines))


def main() -> None:
    """Looks, trains, looks again."""
    arguments = read_arguments()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    options = RunOptions(
        model=arguments.model or default_checkpoint(),
        output=arguments.output,
        batch_size=arguments.batch_size,
        lora=arguments.lora,
        seed=arguments.seed,
        save_steps=arguments.steps,
        device=arguments.device,
    )
    if (options.output / "final").exists():
        raise SystemExit(f"'{options.output}' holds a finished run; choose another --output.")
    sources, encoded = load_training_data(arguments.data)
    is_large = AutoConfig.from_pretrained(options.model).text_config.hidden_size > SMALL
    settings: dict[str, Any] = {
        "max_steps": arguments.steps,
        "global_batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate or LEARNING_RATES["lora" if options.lora else "full"][is_large],
        "lr_scheduler_type": "cosine",
    }
    if arguments.size:
        settings["buckets"] = [(arguments.size, arguments.size)]
    stage = fine_tuning(options.model, count_rows(sources), options.lora).override(settings)

    trainer = build_trainer(options, stage, sources, encoded, [ProgressCallback()])
    trainer.remove_callback(PrinterCallback)
    look = Look(trainer.model, trainer.processing_class, arguments.guidance_scale, arguments.seed)
    rows = {task: some(list(named_rows({task: found})), arguments.shown) for task, found in sources.items()}
    start = time.monotonic()
    print("1/3  Looking at some rows before training ...")
    before = {task: list(look(found)) for task, found in rows.items()}
    print(f"2/3  Training {stage.max_steps} steps of {stage.global_batch_size} rows ...")
    trainer.train()
    print("3/3  Looking at the same rows ...")
    after = {task: list(look(found)) for task, found in rows.items()}
    folder = finish(trainer, options.output)
    for task, found in rows.items():
        looks = list(zip(found, before[task], after[task], strict=True))
        if task == "understanding":
            show_answers(looks, options.output / "answers.txt")
        elif task in ("generation", "editing"):
            show_pictures(look, looks, options.output / f"{task}.png")
    print(f"Losses: {options.output / 'losses.png'}\nResult: {folder} ({time.monotonic() - start:.0f} s)")
    if options.lora:
        print(f"One checkpoint of it: wallaroo merge {options.model} {folder} --output DIR")


if __name__ == "__main__":
    main()
