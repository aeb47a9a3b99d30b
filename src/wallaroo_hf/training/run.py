"""A training run from paths and options: what `wallaroo train` does, as functions."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from ..families.loading import load_model, reading_checkpoint
from ..families.precision import loading_dtype, read_dtype
from ..families.registry import find_family, read_abilities
from ..families.training_kit import TrainingKit
from ..families.training_stages import TrainingStage, find_stage
from ..files.checkpoint_files import find_checkpoint
from ..files.whole import new_folder
from .arguments import WallarooTrainingArguments
from .callbacks import StageCallback
from .checkpoints import find_last_complete_checkpoint
from .data.encoding import check_encoded, is_encoded
from .data.local_paths import local_path
from .devices import training_device
from .pictures import open_pictures
from .previews import Preview, PreviewCallback
from .reports import plot_losses
from .sources import DataEntry, are_map_style, load_sources, mix_rows, named_rows, read_data_config
from .trainer import WallarooTrainer
from .validation import ValidationReport, validate_rows

__all__ = [
    "RunOptions",
    "build_trainer",
    "choose_stage",
    "count_rows",
    "fine_tuning",
    "finish",
    "last_checkpoint",
    "load_training_data",
    "prepared_processor",
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
        dtype: of the weights; None = float32, but with LoRA "auto" (what trains is float32 then too), see
            [`wallaroo_hf.families.precision.loading_dtype`].
        check_weights: look for weights that are not finite in what is loaded.
        replay: data that keep what the checkpoint knows, or "scenes"; see [`wallaroo_hf.training.replay.with_replay`].
        replay_share: of the rows that are replayed.
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
    replay: str | None = None
    replay_share: float = 0.5


def fine_tuning(model: str, tasks: Mapping[str, int], lora: bool) -> Any:
    """A stage for data of one's own: the checkpoint's layout and sizes, few steps, every row as often as the others.

    It trains what the recipe's stage of that name trains; see the family's `fine_tuning`.

    Args:
        model: the checkpoint to start from; its stage is recorded in what is trained.
        tasks: rows of each task in the data.
        lora: LoRA learns with a higher rate than all weights do.

    Raises:
        ValueError: if the checkpoint cannot be loaded, or is not trained on rows of such tasks.
    """
    family = find_family(model)
    kit = family.training_kit()
    others = [task for task in tasks if task not in kit.tasks]
    if others:
        raise ValueError(
            f"The data has {others[0]} rows, but {family.title} models are trained on {' and '.join(kit.tasks)} here; "
            "leave these rows out, or take a checkpoint of another family."
        )
    return kit.fine_tuning(model, tasks, lora)


def choose_stage(model: str, name: str) -> Any:
    """A stage of the recipe of a checkpoint's family.

    Args:
        model: the checkpoint to start from.
        name: such as "3b".

    Raises:
        ValueError: if the checkpoint cannot be loaded, or its family has no such stage.
    """
    return find_stage(find_family(model).training_kit().stages(), name)()


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
    options: RunOptions, sources: Mapping[str, Any], chosen: TrainingStage, progress: Any = None
) -> ValidationReport:
    """Looks at every row as training would, without weights: what is broken or too long, by task and reason.

    Args:
        options: name the checkpoint.
        sources: rows by task.
        chosen: the stage.
        progress: called with the number of rows done.

    Raises:
        ValueError: for a checkpoint that cannot be loaded, or that the stage does not follow.
    """
    kit, processor = prepared_processor(options, chosen)
    return validate_rows(
        named_rows(sources),
        kit.collator(processor, chosen).measure,
        chosen.max_length,
        tasks=kit.tasks,
        size_multiple=_size_multiple(options.model),
        progress=progress,
    )


def prepared_processor(options: RunOptions, chosen: TrainingStage) -> tuple[TrainingKit, Any]:
    """The kit of the checkpoint's family, and its processor as the stage has it; for looking at rows without weights.

    Raises:
        ValueError: for a checkpoint that cannot be loaded, or that the stage does not follow.
    """
    family, kit = find_family(options.model), _kit_with(options)
    with reading_checkpoint(options.model):
        processor = family.resolve("processor").from_pretrained(options.model)
        config = family.resolve("config").from_pretrained(options.model)
    kit.prepare_processor(processor, config, chosen, options.force)
    return kit, processor


def _size_multiple(model: str) -> int:
    return read_abilities(find_checkpoint(model, weights=False), model).size_multiple


def build_trainer(
    options: RunOptions,
    chosen: TrainingStage,
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
    kit = _kit_with(options, encoded)
    model, processor = _load(options, chosen, kit)
    for folder in encoded:
        check_encoded(folder, kit.codec(model), processor)
    length = chosen.max_steps * chosen.global_batch_size
    check = None if not options.skip_bad_rows else open_pictures
    policy = "skip" if options.skip_bad_rows else "raise"
    order: dict[str, Any] = {"batch_size": options.batch_size, "size_multiple": _size_multiple(options.model)}
    if are_map_style(sources, chosen.task_ratio):
        # micro-batches of like rows pad less; the step has the same rows, and means are over all of it
        del order["batch_size"]
        order |= {"length": length, "sorted_within": chosen.global_batch_size}
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
        data_collator=kit.collator(processor, chosen, seed=options.seed, on_error=policy),
        processing_class=processor,
        callbacks=[StageCallback(chosen, options.force), *more],
    )
    trainer.remove_callback(PrinterCallback)  # what is logged goes to trackers and the progress bar
    return trainer


def _kit_with(options: RunOptions, encoded: Sequence[str] = ()) -> TrainingKit:
    """The kit of the checkpoint's family, which has what the options ask for."""
    family = find_family(options.model)
    asked = {
        "lora": options.lora,
        "quantize": options.quantize,
        "padding_free": options.padding_free,
        "encode": bool(encoded),
    }
    for option in [name for name, is_asked in asked.items() if is_asked]:
        family.training_kit(option)
    return family.training_kit()


def _load(options: RunOptions, chosen: TrainingStage, kit: TrainingKit) -> tuple[Any, Any]:
    family = find_family(options.model)
    if options.quantize:
        from .lora import load_in_4bit

        # an accelerator is the process's own, which accelerate knows
        device = training_device(options.device)
        model = load_in_4bit(
            options.model, device=device if device.type == "cpu" else None, check_weights=options.check_weights
        )
    else:
        dtype = options.dtype or ("auto" if options.lora else "float32")
        dtype = loading_dtype(read_dtype(dtype), training_device(options.device))
        model = load_model(family.resolve("model"), options.model, options.check_weights, dtype=dtype)
    with reading_checkpoint(options.model):
        processor = family.resolve("processor").from_pretrained(options.model)
    kit.prepare_for_stage(model, processor, chosen, options.force)
    return model, processor


def finish(trainer: WallarooTrainer, output: Path) -> Path:
    """Writes what was trained to `output/final`, and the plot of its losses; to be called in every process."""
    final = output / "final"
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        if any("loss" in entry for entry in history):
            plot_losses(history, output / "losses.png", codebook_size=trainer.kit.guesses(trainer.wallaroo.config))
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
