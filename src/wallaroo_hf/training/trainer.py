"""`WallarooTrainer`: mixed tasks in one forward, means over the whole global batch, losses by name, and a guard."""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ..families.registry import kit_of
from ..families.training_kit import TrainingKit
from ..files.run_lock import only_run
from ..files.whole import full_disk_said, give_usual_modes
from .arguments import WallarooTrainingArguments
from .callbacks import StageCallback
from .checkpoints import ADAPTER_SETTINGS, AtomicCheckpointMixin, find_last_complete_checkpoint
from .data.stream_mixing import StreamMixture
from .optimizers import muon_adamw, with_own_settings
from .previews import PreviewCallback
from .resuming_weights import check_resumed, load_resumed
from .sharding import adjust_fsdp, frozen_weights, hide_frozen_parts

__all__ = ["NonFiniteLossError", "WallarooTrainer"]

logger = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """Training stopped because several steps in a row had no finite loss or gradient."""


class WallarooTrainer(AtomicCheckpointMixin, Trainer):
    r"""transformers' `Trainer` for the models of every family; how one is trained says its
    [`wallaroo_hf.families.training_kit.TrainingKit`], which is found by the model.

    - One forward per micro-batch, whatever tasks its rows have. The loss is the sum of its parts, weighted by task (of
      Wallaroo `sum over tasks of weight * (text mean + code mean)`, paper section 4). With `loss_reduction="global"` each
      mean is over all labels of its kind in the optimizer step, over accumulation steps and processes, so that 8 x 1 rows,
      1 x 8 and 2 processes x 4 give the same gradients.
    - Every part of the loss is logged under its own name, `loss_editing_image` for example, as a mean over the labels since
      the last log; evaluation reports them as `eval_loss_...`.
    - A step whose loss or gradient is not finite does not reach the optimizer; it is counted, its rows are named, and
      after `max_non_finite_steps` in a row training stops.
    - A checkpoint appears when it is whole.
    - On several processes every one runs the same parts of the model, whatever its rows are.

    Args: as in `Trainer`; `args` are [`WallarooTrainingArguments`], the collator is the kit's.

    Raises:
        TypeError: for arguments of another class.
    """

    args: WallarooTrainingArguments
    optimizer: Any
    # The losses are divided here, for both reductions.
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.args, WallarooTrainingArguments):
            raise TypeError(
                f"`args` are {type(self.args).__name__}, but `WallarooTrainer` needs `WallarooTrainingArguments`; they "
                "take everything that `TrainingArguments` take."
            )
        self.kit: TrainingKit = kit_of(self.wallaroo)
        self.kit.agree(self.wallaroo, self.processing_class)  # the model may have been resized since they were loaded
        self.can_return_loss = True  # also of a batch without `labels`
        if self.args.label_names is None:  # transformers takes every argument of a forward with `label` in it for one
            self.label_names: list[str] = [name for name in self.label_names if name == "labels"]
        self._is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        device = self.args.device
        if self._is_sharded:
            hide_frozen_parts(self.wallaroo, self.kit.frozen_parts, device)
        self._loss_names = self.kit.loss_names(self.wallaroo.config)
        self._step_counts = torch.ones(len(self._loss_names), device=device)  # labels of the whole optimizer step
        # since the last log: sums of losses over labels, and label counts
        self._train_parts = torch.zeros(2, len(self._loss_names), device=device)
        self._eval_parts = torch.zeros_like(self._train_parts)
        self._rows_without_loss: list[str] = []  # of this optimizer step
        self._bad_steps_in_a_row = 0
        self._bad_steps_since_log = 0
        self._steps_since_log = 0
        self._skipped_rows = 0  # of this process, in all
        self.non_finite_steps = 0
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, PreviewCallback):
                callback.bind_trainer(self)

    @property
    def wallaroo(self) -> Any:
        """The model, of whatever family, without wrappers of accelerate and PEFT."""
        model: Any = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def create_accelerator_and_postprocess(self) -> None:
        """As in `Trainer`, with FSDP adjusted to this model."""
        super().create_accelerator_and_postprocess()
        adjust_fsdp(self.accelerator, self.wallaroo, kit_of(self.wallaroo).frozen_parts)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As in `Trainer`; with `use_muon` our own, and with what the stage says of some parameters only."""
        if self.optimizer is not None:
            return super().create_optimizer(*(() if model is None else (model,)))
        if self.args.use_muon:
            self.optimizer = muon_adamw(self.model if model is None else model, self.args, self.kit.token_parts)
        optimizer = super().create_optimizer(*(() if model is None else (model,)))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, StageCallback):
                with_own_settings(optimizer, self.kit.parameter_groups(self.wallaroo, callback.stage))
        return optimizer

    # ------------------------------------------------------------------------------------------------------ the loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The micro-batches of one optimizer step; counts their labels over accumulation steps and processes.

        transformers' own count is one number for all labels, but here each part of the loss has a mean of its own.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(len(self._loss_names), device=device)
        for batch in batches:
            counts += self.kit.count(batch, self.wallaroo.config).to(counts)
        self._step_counts = self.accelerator.reduce(counts, "sum")
        return batches, None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a micro-batch, scaled so that the step's gradients are those of the mean; see the class.

        Args:
            model: what trains, with its wrappers.
            inputs: from the collator.
            return_outputs: also the model's output.
            num_items_in_batch: not looked at; the step's labels were counted ahead.
        """
        bare = self.wallaroo
        inputs = self.kit.prepare(bare, inputs)
        names, skipped = inputs.pop("row_names", []), inputs.pop("skipped_rows", 0)
        if model.training:
            self._skipped_rows += skipped
        else:
            inputs = self._without_repeated_rows(inputs)
        counts = self.kit.count(inputs, bare.config)
        processes = self.accelerator.num_processes
        every_part = processes > 1 and model.training
        outputs = model(**self.kit.arrange(bare, inputs, every_part, self.args.padding_free))
        losses = outputs.losses
        parts = self._train_parts if model.training else self._eval_parts
        if not model.training or self._is_finite(torch.stack([*losses.values(), outputs.loss.new_zeros(())]).sum()):
            for index, name in enumerate(self._loss_names):
                if name in losses:
                    parts[0, index] += losses[name].detach() * counts[index]
                    parts[1, index] += counts[index]
        else:  # it goes backward as any other, so that processes stay in step; the gradients are thrown away in the end
            self._rows_without_loss += names or ["(unnamed)"]
        if model.training and self.args.loss_reduction == "global":
            # gradients are averaged over processes later
            shares = self._shares(processes * counts, self._step_counts)
        else:
            shares = self._shares(counts, counts)
        losses = {name: loss * shares[self._loss_names.index(name)] for name, loss in losses.items()}
        loss = self.kit.total_loss(losses, self.args.loss_weights, bare.config)
        if model.training and self.args.loss_reduction == "micro_batch":
            loss = loss / self.current_gradient_accumulation_steps
        # a batch without labels belongs to the graph too, and so do the parts that it only touched
        loss = loss + 0.0 * (outputs.loss if outputs.logits is None else outputs.loss + outputs.logits.sum())
        if model.training and not loss.requires_grad:
            # its rows have nothing to do with what is trained, and still take their turn in the step
            loss = loss + 0.0 * sum(part.sum().to(loss) for part in model.parameters() if part.requires_grad)
        return (loss, outputs) if return_outputs else loss

    def _shares(self, counts: torch.Tensor, all_counts: torch.Tensor) -> torch.Tensor:
        """What each part's mean over `counts` labels is of the loss over `all_counts`."""
        return counts / self.kit.denominators(all_counts, self.wallaroo.config).clamp(min=1)

    def _without_repeated_rows(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """No labels for the rows that accelerate repeats to give every process as many in the last batch of a set."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return inputs
        own = max(0, state.remainder - self.accelerator.process_index * self.args.eval_batch_size)
        return self.kit.keep_rows(inputs, own)

    def _is_finite(self, value: torch.Tensor) -> bool:
        """Whether a number is finite on every process."""
        finite = torch.isfinite(value.detach()).float()
        if self.accelerator.num_processes > 1:
            finite = self.accelerator.reduce(finite, "mean")
        return bool(finite == 1)

    # ----------------------------------------------------------------------------------------------------- the guard

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """A forward and backward; a loss that is not finite counts as 0 in what is logged."""
        bad = len(self._rows_without_loss)
        loss = super().training_step(model, inputs, num_items_in_batch)
        return loss if len(self._rows_without_loss) == bad else torch.zeros_like(loss)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called just before each optimizer step: takes the gradients away from a step that must not be."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = norm if isinstance(norm, torch.Tensor) else torch.tensor(float(norm or 0.0))
        if hasattr(value, "full_tensor"):
            value = value.full_tensor()
        self._steps_since_log += 1
        if not self._rows_without_loss and self._is_finite(value.to(self.args.device)):
            self._bad_steps_in_a_row = 0
            return norm
        model.zero_grad()  # an optimizer moves nothing that has no gradient; DeepSpeed has left the step out by itself
        self._report_bad_step()
        return norm

    def _report_bad_step(self) -> None:
        self.non_finite_steps += 1
        self._bad_steps_since_log += 1
        self._bad_steps_in_a_row += 1
        step = self.state.global_step + 1
        what = f"the loss of rows {', '.join(self._rows_without_loss)}" if self._rows_without_loss else "the gradient"
        self._rows_without_loss = []
        logger.warning(
            "Step %d was left out: %s is not finite (%d in a row, %d in all).",
            step,
            what,
            self._bad_steps_in_a_row,
            self.non_finite_steps,
        )
        if self._bad_steps_in_a_row >= self.args.max_non_finite_steps:
            kept = find_last_complete_checkpoint(self.args.output_dir)
            raise NonFiniteLossError(
                f"Training stopped at step {step}: {what} is not finite, for the {self._bad_steps_in_a_row}. step in a "
                f"row. The weights are those before that; the last checkpoint is {kept or 'none'}. Lower the learning "
                "rate, look at these rows, or train in bfloat16 or float32 (not float16)."
            )

    # ------------------------------------------------------------------------------------------------------- logging

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the named parts of the loss, and the numbers of steps and rows left out, to what is logged in training."""
        if "loss" in logs:
            steps = self._steps_since_log
            counted = steps - self._bad_steps_since_log
            if self._bad_steps_since_log:
                logs["loss"] = logs["loss"] * steps / counted if counted else math.nan
                logs["non_finite_steps"] = self.non_finite_steps
            logs |= {f"loss_{name}": value for name, value in self._drain(self._train_parts)[0].items()}
            self._steps_since_log = self._bad_steps_since_log = 0
            skipped = torch.tensor(self._skipped_rows, device=self.args.device)
            skipped = int(self.accelerator.reduce(skipped, "sum"))
            if skipped:
                logs["skipped_rows"] = skipped
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """transformers' loop; the losses are means over all labels of the data set, by name."""
        self._eval_parts.zero_()
        output = super().evaluation_loop(*args, **kwargs)
        means, counts = self._drain(self._eval_parts)
        prefix = kwargs.get("metric_key_prefix", "eval")
        named = {f"{prefix}_loss_{name}": value for name, value in means.items()}
        if means:
            shares = dict(zip(self._loss_names, self._shares(counts, counts).cpu(), strict=True))
            tensors = {name: torch.tensor(value) * shares[name] for name, value in means.items()}
            total = self.kit.total_loss(tensors, self.args.loss_weights, self.wallaroo.config)
            named[f"{prefix}_loss"] = float(total)
        return output._replace(metrics={**output.metrics, **named})

    def _drain(self, parts: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
        """Means by name over all processes, of the parts that had labels, and all label counts; the sums start anew."""
        sums, counts = self.accelerator.reduce(parts.clone(), "sum")
        parts.zero_()
        means = {
            name: float(sums[index] / counts[index])
            for index, name in enumerate(self._loss_names)
            if float(counts[index]) > 0
        }
        return means, counts

    # -------------------------------------------------------------------------------------------------------- saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model for `from_pretrained`, also if FSDP's checkpoints are in shards."""
        if not self.is_fsdp_enabled or _internal_call:
            super().save_model(output_dir, _internal_call)
        else:
            self._save(output_dir or self.args.output_dir, self.accelerator.get_state_dict(self.model))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """With sharding also the frozen parts; with PEFT also the model's settings, which adapters come without.

        Checkpoints of a run lack what the kit leaves out; the model that is saved in the end has everything.
        """
        is_peft = self.wallaroo is not self.accelerator.unwrap_model(self.model)
        if state_dict and self._is_sharded and not is_peft:
            state_dict = {**state_dict, **frozen_weights(self.wallaroo, self.kit.frozen_parts)}
        if self._writing_checkpoint and self.kit.left_out and not is_peft:
            weights = self.wallaroo.state_dict() if state_dict is None else state_dict
            state_dict = {name: weight for name, weight in weights.items() if not self._is_left_out(name)}
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        with full_disk_said(folder):
            super()._save(output_dir, state_dict)
            if self.args.should_save and is_peft:  # a stage may have changed them
                self.wallaroo.config.save_pretrained(folder / ADAPTER_SETTINGS)
                self.wallaroo.generation_config.save_pretrained(folder / ADAPTER_SETTINGS)
        if self.args.should_save:
            give_usual_modes(folder)

    # ---------------------------------------------------------------------------------------------------------- data

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in `Trainer`, but never while another process trains into the same folder.

        Checkpoints do not keep where a stream was: resumed, it is read again from its beginning.

        Raises:
            ValueError: if another process trains into `output_dir`.
        """
        streams = isinstance(self.train_dataset, StreamMixture)
        if resume_from_checkpoint and streams and not self.args.ignore_data_skip:
            logger.warning(
                "The data is streamed, so all rows before the checkpoint are read and prepared again first."
            )
        with only_run(Path(self.args.output_dir)) if self.is_world_process_zero() else contextlib.nullcontext():
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As in `Trainer`, which goes on with the base's weights where the checkpoint has none; so do we, where the kit
        leaves them out.
        """
        trained = self.model if model is None else model
        checkpoint = Path(resume_from_checkpoint)
        is_peft = self.wallaroo is not self.accelerator.unwrap_model(trained)
        left_out = () if is_peft else self.kit.left_out
        check_resumed(trained, checkpoint, self.args.check_weights, left_out)
        if left_out and not self._is_sharded:
            load_resumed(trained, checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _is_left_out(self, name: str) -> bool:
        """Whether the checkpoints of a run lack a weight."""
        return name.startswith(tuple(f"{part}." for part in self.kit.left_out))

    def get_train_dataloader(self) -> DataLoader:
        """As in `Trainer`; a mixture of streams divides itself among processes and workers, so accelerate must not."""
        if not isinstance(self.train_dataset, StreamMixture):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.accelerator.is_available(),
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """A mixture of tasks is in order already; all else is sampled as the arguments say."""
        chosen = self.train_dataset if train_dataset is None else train_dataset
        if getattr(chosen, "in_training_order", False) and not isinstance(chosen, IterableDataset):
            return SequentialSampler(chosen)
        return super()._get_train_sampler(train_dataset)
