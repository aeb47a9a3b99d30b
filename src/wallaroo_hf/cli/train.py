"""`wallaroo train`: torch is imported when the command runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..files.run_lock import only_run
from ..files.whole import require_folder
from .options import BUILT_IN, ON_CPU_OR, CheckWeights, quiet
from .processes import place_in_world
from .train_scenes import train_scenes
from .train_vq import train_vq

if TYPE_CHECKING:
    from ..families.training_stages import TrainingStage
    from ..training.run import RunOptions
    from ..training.validation import ValidationReport

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run; the result is in its `final`.", show_default=False),
]


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", help="What to train on: a file, folder or Hub id, or a data.yaml.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="WALLAROO_MODEL",
            help="Checkpoint to start from: folder or Hub id. Default: the small built-in one.",
            show_default=False,
        ),
    ] = BUILT_IN,
    output: Output = None,
    stage: Annotated[
        str | None,
        typer.Option(help="A stage of the paper's recipe: 1, 2, 3a, 3b or 4. Default: fine-tuning on your data."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps. Default: 300, or the stage's.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one process in one forward.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for a setting, e.g. learning_rate=2e-5; may be repeated."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with such settings.", show_default=False)] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train LoRA adapters and the image parts only.")] = False,
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters.")] = 16,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="QLoRA: the base in 4 bits (needs bitsandbytes).")
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay",
            metavar="[DATA]",
            help="Mix in rows of what is known already, so that it is not forgotten: DATA, or without it the scenes that "
            "the built-in checkpoint learned.",
            show_default=False,
        ),
    ] = None,
    replay_share: Annotated[float, typer.Option(help="With --replay: the share of such rows.")] = 0.5,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on from the newest complete checkpoint in --output, or set its checkpoints aside and start over.",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look at every row, and say what training would do.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start from a checkpoint of any stage.")] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out, count and name rows that cannot be trained on.")
    ] = False,
    previews: Annotated[
        Path | None,
        typer.Option(help="JSON lines of prompts and questions to try during training.", show_default=False),
    ] = None,
    preview_every: Annotated[int, typer.Option(min=1, help="Steps between two looks.")] = 100,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between two log lines.")] = 10,
    report_to: Annotated[
        list[str] | None, typer.Option(help="Tracker, e.g. tensorboard or wandb; may be repeated.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare rows.")] = 0,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    padding_free: Annotated[
        bool, typer.Option("--padding-free", help="Rows follow each other unpadded; for flash-attn.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of order, masks and templates.")] = 0,
    device: Annotated[str | None, ON_CPU_OR] = None,
    check_weights: CheckWeights = True,
) -> None:
    """Train on your own data, or a stage of the paper's recipe.

    Fine-tunes --model on --data and writes checkpoints, losses.png and the result (final/) to --output. The same command
    goes on after a stop. Rows: docs/data.md; recipes: docs/finetuning.md, docs/training.md.
    """
    if context.invoked_subcommand is not None:
        return
    for option, value in (("--data", data), ("--output", output)):
        if value is None and not (option == "--output" and dry_run):
            raise ValueError(f"{option} is missing; `wallaroo train --help` says what it is.")
    assert data is not None
    if output is not None:
        require_folder(output)
    from .. import _registration  # noqa: F401  the command line postpones it
    from ..training.previews import read_previews
    from ..training.run import RunOptions

    quiet()
    options = RunOptions(
        model=model,
        output=output or Path(),
        batch_size=batch_size,
        lora=lora or quantize,
        lora_rank=lora_rank,
        quantize=quantize,
        force=force,
        seed=seed,
        skip_bad_rows=skip_bad_rows,
        previews=tuple(read_previews(previews)) if previews is not None else (),
        preview_steps=preview_every,
        save_steps=save_every,
        logging_steps=log_every,
        report_to=tuple(report_to or ()),
        workers=workers,
        gradient_checkpointing=gradient_checkpointing,
        padding_free=padding_free,
        device=device,
        check_weights=check_weights,
        replay=replay,
        replay_share=replay_share,
    )
    sources, encoded = _load_data(data)
    chosen = _plan(options, sources, stage, steps, config, settings or [])
    from ..training.replay import SCENES, with_replay

    mixed_stage, mixed, encoded = with_replay(options, chosen, sources, encoded)
    if not dry_run:
        _train(options, data, mixed, encoded, mixed_stage, resume)
        return
    used = {task: found for task, found in sources.items() if chosen.task_ratio.get(task)}
    report = _look_at_rows(options, sources, used if options.replay in (None, SCENES) else mixed, mixed_stage)
    _look_at_best(options, used, chosen, output)
    if report.num_broken:
        raise ValueError(
            f"{report.num_broken} of {report.total} rows cannot be trained on; mend them, or train with --skip-bad-rows."
        )


def _load_data(data: str) -> tuple[dict[str, Any], list[str]]:
    from ..training.datasets import require_datasets
    from ..training.run import load_training_data

    require_datasets().disable_progress_bars()
    return load_training_data(data)


def _plan(
    options: RunOptions,
    sources: dict[str, Any],
    stage_name: str | None,
    steps: int | None,
    config: Path | None,
    settings: list[str],
) -> TrainingStage:
    """The stage with what was overridden, made sure that the data has what it trains."""
    from ..training.overrides import read_overrides
    from ..training.run import choose_stage, count_rows, fine_tuning

    counts = count_rows(sources)
    if stage_name is None:
        chosen = fine_tuning(options.model, counts, options.lora)
    else:
        chosen = choose_stage(options.model, stage_name)
    overrides = read_overrides(config, settings) | ({} if steps is None else {"max_steps": steps})
    chosen = chosen.override(overrides)
    missing = [task for task, share in chosen.task_ratio.items() if share and task not in sources]
    if missing:
        raise ValueError(
            f"The stage trains {missing[0]}, but the data has no such rows (it has {', '.join(counts)}); add some, or set "
            f"another ratio, e.g. --set 'task_ratio={{{next(iter(counts))}: 1}}'."
        )
    return chosen


def _look_at_best(options: RunOptions, own: dict[str, Any], chosen: TrainingStage, output: Path | None) -> None:
    """Shows what drawings can be at best."""
    from statistics import median

    from ..training.best_pictures import NO_BETTER, best_pictures, write_sheet

    found = best_pictures(options, own, chosen)
    if not found:
        return
    sheet = write_sheet(found, (output or Path()) / "at-best.png")
    values = [one.psnr for one in found]
    typer.echo(
        f"At best drawings become what the image codec makes of your pictures: {sheet} ({len(found)} of them, "
        f"{min(values):.1f} to {max(values):.1f} dB PSNR)."
    )
    if median(values) < NO_BETTER:
        typer.echo(
            f"That is below {NO_BETTER:g} dB for most of them, and drawings can be no better, however long you train; take "
            "a checkpoint whose codec knows such pictures."
        )


def _look_at_rows(
    options: RunOptions, sources: dict[str, Any], used: dict[str, Any], chosen: TrainingStage
) -> ValidationReport:
    """Validates all rows that the stage trains on."""
    from rich.console import Console

    from ..training.run import count_rows, validate

    console = Console()
    with console.status("Looking at rows"):
        report = validate(options, used, chosen)
    console.print(report)
    others = ", ".join(f"{count} {task}" for task, count in count_rows(sources).items() if task not in used)
    if others:
        typer.echo(f"Not looked at, as the stage does not train on them: {others}.")
    typer.echo(
        f"Training would take {chosen.max_steps} steps of {chosen.global_batch_size} rows, "
        f"{', '.join(f'{task} {share:g}' for task, share in chosen.task_ratio.items() if share)}."
    )
    return report


def _train(
    options: RunOptions, data: str, sources: dict[str, Any], encoded: list[str], chosen: TrainingStage, resume: bool
) -> None:
    rank, _ = place_in_world()
    with only_run(options.output) if rank == 0 else contextlib.nullcontext():
        _run(options, data, sources, encoded, chosen, resume)


def _run(
    options: RunOptions, data: str, sources: dict[str, Any], encoded: list[str], chosen: TrainingStage, resume: bool
) -> None:
    """Trains in a folder that no other process writes into."""
    from ..training.checkpoints import set_checkpoints_aside
    from ..training.resuming import check_settings, run_settings, write_settings
    from ..training.run import build_trainer, finish, last_checkpoint
    from ..training.stopping import StopWhenAsked
    from ..training.trainer import NonFiniteLossError
    from .progress import TrainingProgress, say_at_once

    final = options.output / "final"
    if final.exists():
        raise ValueError(f"'{options.output}' holds a finished run; use its `final`, or choose another folder.")
    checkpoint = last_checkpoint(options.output) if resume else None
    settings = run_settings(options, chosen, data)
    if checkpoint is not None:
        check_settings(options.output, settings)
    progress, stop = TrainingProgress(chosen.max_steps), StopWhenAsked(say_at_once)
    trainer = build_trainer(options, chosen, sources, encoded, [progress, stop])
    is_main = trainer.is_world_process_zero()
    if is_main:
        aside = None if resume else set_checkpoints_aside(options.output)
        if aside is not None:
            typer.echo(f"The checkpoints of the run before are in {aside} now.", err=True)
        write_settings(options.output, settings)
        _say_plan(trainer, chosen, checkpoint)
    try:
        with progress, stop:
            trainer.train(resume_from_checkpoint=checkpoint)
    except NonFiniteLossError as error:
        raise ValueError(str(error)) from error
    if trainer.state.global_step < chosen.max_steps:
        if is_main:
            done = f"step {trainer.state.global_step} of {chosen.max_steps}"
            typer.echo(
                f"Stopped after {done}, saved in {options.output}; the same command goes on from there.", err=True
            )
        raise typer.Exit(130)
    folder = finish(trainer, options.output)
    if is_main:
        typer.echo(f"Trained {folder}; losses: {options.output / 'losses.png'}")
        if options.lora:
            typer.echo(f"Make one checkpoint of it: wallaroo merge {options.model} {folder} --output DIR")


def _say_plan(trainer: Any, chosen: TrainingStage, checkpoint: str | None) -> None:
    from ..training.callbacks import trainable_summary

    trains, total = trainable_summary(trainer.model)
    begin = f"Going on from {checkpoint}" if checkpoint else "Training"
    typer.echo(
        f"{begin}: {trains:,} of {total:,} parameters ({100 * trains / total:.1f} %), {chosen.max_steps} steps of "
        f"{chosen.global_batch_size} rows.",
        err=True,
    )


class _OptionalValues(TyperGroup):
    """Options whose value may be left out, which typer does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives `--replay` the value that it has alone."""
        words: list[str] = []
        for index, word in enumerate(args):
            words.append(word)
            if word == "--replay" and (index + 1 == len(args) or args[index + 1].startswith("-")):
                words.append("scenes")
        return super().parse_args(ctx, words)


train_app = typer.Typer(
    name="train",
    cls=_OptionalValues,
    invoke_without_command=True,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {"vq": train_vq, "scenes": train_scenes}
