"""A training run from paths and options: what `wallaroo train` does, as functions."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PrinterCallback, TrainerCallback

from ..families.loading import load_model, reading_checkpoint
from ..files.whole import new_folder
from ..modeling.configuration import WallarooConfig
from ..modeling.model import WallarooForConditionalGeneration
from ..processing.processor import WallarooProcessor
from .arguments import WallarooTrainingArguments
from .callbacks import StageCallback
from .checkpoints import find_last_complete_checkpoint
from .collator import WallarooDataCollator
from .data.encoding import check_encoded, is_encoded
from .data.local_paths import local_path
from .devices import training_device
from .pictures import open_pictures
from .preparation import prepare_for_stage
from .previews import Preview, PreviewCallback
from .reports import plot_losses
from .sources import DataEntry, are_map_style, load_sources, mix_rows, named_rows, read_data_config
from .stages import STAGES, Stage, stage
from .trainer import WallarooTrainer
from .validation import ValidationReport, validate_rows

__all__ = [
    "RunOptions",
    "build_trainer",
    "count_rows",
    "fine_tuning",
    "finish",
    "last_checkpoint",
    "load_training_data",
    "validate",
]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run is about, beside its stage and data.

    Attributes:
        model: checkpoint to start from, folder or Hub id.
        output: the run's folder.
        batch_size: rows of one process in one forward.
        lora: train LoRA adapters and the image parts instead of everything.
        lora_rank: of the adapters.
        quantize: load the base in 4 bits (QLoRA).
        force: start from a checkpoint of any stage.
        seed: of data order, masks and templates.
        skip_bad_rows: leave out rows that cannot be trained on, counted and named, instead of stopping.
        previews: what to draw and answer during training.
        preview_steps: steps between looks.
        save_steps, logging_steps: steps between checkpoints, and between log lines.
        report_to: trackers, as in `TrainingArguments`.
        workers: processes that prepare rows.
        gradient_checkpointing: compute activations again instead of keeping them.
        padding_free: rows follow each other; for flash-attn.
        device: "cpu" or an accelerator's kind, e.g. "cuda"; None = an accelerator if there is one.
        dtype: of the weights; None = float32, but with LoRA as in the checkpoint (what trains is float32 then too).
        check_weights: look for weights that are not finite in what is loaded.
    """

    model: str
    output: Path
    batch_size: int = 1
    lora: bool = False
    lora_rank: int = 16
    quantize: bool = False
    force: bool = False
    seed: int = 0
    skip_bad_rows: bool = False
    previews: tuple[Preview, ...] = ()
    preview_steps: int = 100
    save_steps: int = 100
    logging_steps: int = 10
    report_to: tuple[str, ...] = ()
    workers: int = 0
    gradient_checkpointing: bool = False
    padding_free: bool = False
    device: str | None = None
    dtype: str | None = None
    check_weights: bool = True


def fine_tuning(model: str, tasks: Mapping[str, int], lora: bool) -> Stage:
    """A stage for data of one's own: the checkpoint's layout and sizes, few steps, every row as often as the others.

    It trains what the paper's stage of that name trains; all but `visual` and the image tokenizer after any other stage.

    Args:
        model: the checkpoint to start from; its stage is recorded in what is trained.
        tasks: rows of each task in the data.
        lora: LoRA learns with a higher rate than all weights do (1e-4 and 1e-5).

    Raises:
        ValueError: if the checkpoint cannot be loaded.
    """
    with reading_checkpoint(model):
        config, processor = AutoConfig.from_pretrained(model), WallarooProcessor.from_pretrained(model)
    if not isinstance(config, WallarooConfig):
        raise ValueError(
            f"'{model}' is a {config.model_type} model; give a Wallaroo checkpoint (`wallaroo convert` writes one)."
        )
    without_editing = "3b" if processor.line_breaks else "2"
    of_the_paper = "4" if config.has_editing else without_editing
    return dataclasses.replace(
        stage(config.stage if config.stage in STAGES else of_the_paper),
        name=config.stage or of_the_paper,
        follows=None,
        layout=None,
        buckets=tuple(processor.buckets),
        indicator_sizes=tuple(processor.indicator_sizes),
        pixel_limits=None,
        learning_rate=1e-4 if lora else 1e-5,
        warmup_steps=10,
        max_steps=300,
        global_batch_size=8,
        task_ratio=dict(tasks),
    )


def load_training_data(data: str) -> tuple[dict[str, Any], list[str]]:
    """Rows by task, and the folders among their sources that hold encoded rows.

    Args:
        data: a `data.yaml`, or anything that `load_rows` reads.

    Raises:
        ValueError: if it cannot be read.
    """
    path = Path(local_path(data, what="The data"))
    entries = read_data_config(path) if path.suffix in (".yaml", ".yml") else [DataEntry(path=data)]
    return load_sources(entries), [entry.path for entry in entries if is_encoded(entry.path)]


def count_rows(sources: Mapping[str, Any]) -> dict[str, int]:
    """Rows of each task; streams have no number and count as one."""
    return {
        task: sum(len(source.rows) if hasattr(source.rows, "__len__") else 1 for source in found)
        for task, found in sources.items()
    }


def validate(
    sources: Mapping[str, Any], processor: WallarooProcessor, chosen: Stage, progress: Any = None
) -> ValidationReport:
    """Looks at every row as training would, without a model: what is broken or too long, by task and reason.

    Args:
        processor: one that speaks the stage's layout ([`wallaroo_hf.training.preparation.prepare_processor`]).
        progress: called with the number of rows done.
    """
    collator = WallarooDataCollator.for_stage(processor, chosen)
    return validate_rows(named_rows(sources), collator.measure, chosen.max_length, progress=progress)


def build_trainer(
    options: RunOptions,
    chosen: Stage,
    sources: Mapping[str, Any],
    encoded: Sequence[str] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> WallarooTrainer:
    """Loads the checkpoint, brings it to the stage, and puts a trainer together.

    Args:
        sources, encoded: from [`load_training_data`]; codes of another image tokenizer are refused.
        callbacks: more of them.

    Raises:
        ValueError: for a checkpoint, data or options that do not go together.
    """
    on_cpu = training_device(options.device).type == "cpu"
    model, processor = _load(options, chosen)
    for folder in encoded:
        check_encoded(folder, model.vq_model, processor)
    length = chosen.max_steps * chosen.global_batch_size
    check = None if not options.skip_bad_rows else open_pictures
    policy = "skip" if options.skip_bad_rows else "raise"
    order: dict[str, Any] = {"batch_size": options.batch_size}
    if are_map_style(sources, chosen.task_ratio):
        # micro-batches of like rows pad less; the step has the same rows, and means are over all of it
        order = {"length": length, "sorted_within": chosen.global_batch_size}
    data = mix_rows(sources, chosen.task_ratio, options.seed, check=check, on_error=policy, **order)
    trained: Any = model
    if options.lora or options.quantize:
        from .lora import add_lora

        trained = add_lora(model, rank=options.lora_rank)
    arguments = WallarooTrainingArguments.for_stage(
        chosen,
        str(options.output),
        options.batch_size,
        use_cpu=on_cpu,
        bf16=chosen.bf16 and not on_cpu,
        seed=options.seed,
        data_seed=options.seed,
        report_to=list(options.report_to),
        logging_steps=options.logging_steps,
        save_strategy="steps",
        save_steps=options.save_steps,
        save_total_limit=2,
        dataloader_num_workers=options.workers,
        activation_checkpointing=options.gradient_checkpointing,
        padding_free=options.padding_free,
        check_weights=options.check_weights,
        disable_tqdm=True,
    )
    more: list[TrainerCallback] = list(callbacks)
    if options.previews:
        more.append(PreviewCallback(processor, options.previews, options.preview_steps))
    trainer = WallarooTrainer(
        model=trained,
        args=arguments,
        train_dataset=data,
        data_collator=WallarooDataCollator.for_stage(processor, chosen, seed=options.seed, on_error=policy),
        processing_class=processor,
        callbacks=[StageCallback(chosen, options.force), *more],
    )
    trainer.remove_callback(PrinterCallback)  # what is logged goes to trackers and the progress bar
    return trainer


def _load(options: RunOptions, chosen: Stage) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
    if options.quantize:
        from .lora import load_in_4bit

        # an accelerator is the process's own, which accelerate knows
        device = training_device(options.device)
        model = load_in_4bit(
            options.model, device=device if device.type == "cpu" else None, check_weights=options.check_weights
        )
    else:
        dtype = options.dtype or ("auto" if options.lora else "float32")
        model = load_model(WallarooForConditionalGeneration, options.model, options.check_weights, dtype=dtype)
    with reading_checkpoint(options.model):
        processor = WallarooProcessor.from_pretrained(options.model)
    prepare_for_stage(model, processor, chosen, options.force)
    return model, processor


def finish(trainer: WallarooTrainer, output: Path) -> Path:
    """Writes what was trained to `output/final`, and the plot of its losses; to be called in every process."""
    final = output / "final"
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        if any("loss" in entry for entry in history):
            plot_losses(history, output / "losses.png", codebook_size=trainer.wallaroo.config.codebook_size)
        with new_folder(final) as folder:
            trainer.save_model(str(folder))
    else:
        trainer.save_model(str(final))  # takes part where weights are sharded, and writes nothing
    trainer.accelerator.wait_for_everyone()
    return final


def last_checkpoint(output: Path) -> str | None:
    """The newest complete checkpoint of a run, to resume from."""
    found = find_last_complete_checkpoint(output)
    return None if found is None else str(found)
