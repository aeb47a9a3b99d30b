"""Training the image tokenizer from scratch: LlamaGen's losses (arXiv 2406.06525) without its GAN and LPIPS."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ...files.run_lock import only_run
from ...modeling.configuration import WallarooVQConfig
from ...modeling.vq import WallarooVQModel
from .vq_checkpoints import newest_checkpoint, read_checkpoint, remove_partial, write_checkpoint, write_model
from .vq_codebook import crowded_codes, restart_latents, spherical_kmeans
from .vq_data import ImageSource
from .vq_losses import VQPass, code_entropy, locality_loss, shuffle_tiles, vq_pass
from .vq_optimizer import VQOptimizer
from .vq_report import append_log, contact_sheet, plot_log, rewind_log

__all__ = ["VQTrainer", "VQTrainingArguments", "new_tokenizer"]


_ENDS_OF_BRANCHES = (".conv2", ".proj_out")  # of residual and of attention blocks


def new_tokenizer(config: WallarooVQConfig, seed: int = 0) -> WallarooVQModel:
    """A tokenizer to train from scratch, with initial weights that let colours through from the first step.

    Kernels are orthogonal, biases 0, and residual branches begin at 0. (transformers draws kernels with standard deviation
    `initializer_range`, which fits neither narrow nor wide ones: latents then begin almost constant, and what little
    they say takes hundreds of steps to learn.)
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WallarooVQModel(config)
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith(_ENDS_OF_BRANCHES):
                    nn.init.zeros_(module.weight)
    return model


@dataclass(frozen=True)
class VQTrainingArguments:
    """How to train an image tokenizer. Every number that shapes the weights is here; the images are the caller's.

    Args:
        max_steps: steps of the whole run; the learning rate follows half a cosine over them.
        max_minutes: stop (resumably) after so many minutes of this call; None = no limit.
        seed: of everything that is left to chance; step k follows from `seed` and k alone.
        learning_rate: peak, of both Muon and AdamW.
        warmup_steps: linear warm-up of the learning rate.
        use_muon: Muon for kernels; False = AdamW for all.
        reconstruction: `"l1"` or `"l2"`, the mean over pixels in [-1, 1].
        codebook_weight: of the squared distance that pulls codes to latents.
        commitment_weight: of the one that pulls latents to codes (LlamaGen's beta).
        entropy_weight: of LlamaGen's entropy term; it is off there too.
        locality_weight: of a loss that makes a tile's latents the same whatever is around it: half of each batch is the
            other half with its tiles in another order. It grows from 0 over `continuous_steps`.
        locality_tile: edge of such a tile in pixels.
        continuous_steps: the first steps decode the latents themselves; k-means then makes the codebook.
        kmeans_latents: how many latents k-means sees, per code.
        kmeans_iterations: rounds of k-means.
        restart_interval: after so many steps, codes not used since the last time move to where latents are far from
            their codes.
        restart_until: share of `max_steps` after which codes stay what they are.
        min_code_distance: codes are not put, and when codes are restarted not left, nearer to each other than this
            (between unit vectors); of two too near the one used less becomes the zero vector, which is never nearest, until
            it is needed elsewhere. Without it, what is seen most often gets many codes that mean the same.
        log_interval: steps between log lines.
        save_minutes: minutes between checkpoints.
        preview_minutes: minutes between contact sheets.
        save_total_limit: checkpoints to keep.

    Raises:
        ValueError: for a number out of range.
    """

    max_steps: int = 10_000
    max_minutes: float | None = None
    seed: int = 0
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    use_muon: bool = True
    reconstruction: str = "l2"
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.0
    locality_weight: float = 0.0
    locality_tile: int = 32
    continuous_steps: int = 500
    kmeans_latents: int = 16
    kmeans_iterations: int = 10
    restart_interval: int = 100
    restart_until: float = 0.7
    min_code_distance: float = 0.0
    log_interval: int = 20
    save_minutes: float = 2.0
    preview_minutes: float = 5.0
    save_total_limit: int = 2

    def __post_init__(self) -> None:
        if self.reconstruction not in ("l1", "l2"):
            raise ValueError(f"`reconstruction` is {self.reconstruction!r}; give 'l1' or 'l2'.")
        for field in fields(self):
            value = getattr(self, field.name)
            at_least = 1 if field.name in _AT_LEAST_ONE else 0
            if isinstance(value, (int, float)) and value < at_least:
                raise ValueError(f"`{field.name}` is {value}; give at least {at_least}.")


_AT_LEAST_ONE = (
    "max_steps",
    "locality_tile",
    "kmeans_latents",
    "restart_interval",
    "log_interval",
    "save_total_limit",
)
# What a resumed run may change: how long this call goes on, and what it writes when.
_MAY_CHANGE = ("max_minutes", "log_interval", "save_minutes", "preview_minutes", "save_total_limit")


class VQTrainer:
    """Trains an image tokenizer, on the device where it is, in float32.

    The run is a function of its seed: step k draws its batch, and whatever else it draws, from the seed and k. So a run
    that was stopped anywhere and resumed ends with the very weights of one that was not.

    In `output_dir` it writes `checkpoint-N` folders, `log.jsonl` (one line of JSON per `log_interval` steps),
    `previews/*.png` (images above their reconstructions), and at the end `final` (config and weights).

    Args:
        model: the tokenizer; its weights are changed in place.
        arguments: see [`VQTrainingArguments`].
        images: gives batches, see [`ImageSource`].
        output_dir: where to write.

    Raises:
        ValueError: if the tiles of the locality loss are no whole number of codes.
    """

    def __init__(
        self, model: WallarooVQModel, arguments: VQTrainingArguments, images: ImageSource, output_dir: str | Path
    ) -> None:
        token_size = model.config.image_token_size
        if arguments.locality_weight and arguments.locality_tile % token_size:
            raise ValueError(
                f"`locality_tile` is {arguments.locality_tile}, but a code has {token_size} pixels; give a multiple."
            )
        self.model = model.train()
        self.arguments = arguments
        self.output_dir = Path(output_dir)
        self.log_path = self.output_dir / "log.jsonl"
        self.step = 0
        self._images = images
        self._optimizer = VQOptimizer(model, arguments.learning_rate, arguments.use_muon)
        self._uses = torch.zeros(model.config.codebook_size, dtype=torch.int64, device=model.device)
        self._seconds = 0.0

    def train(
        self,
        resume: bool = False,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Path | None:
        """Trains until `max_steps`, or until `max_minutes` have passed.

        Args:
            resume: go on from the newest checkpoint in `output_dir`, if there is one.
            on_step: called after each step with the number of steps done and the step's losses.
            should_stop: asked after each step whether to save and stop, as when time is over.

        Returns:
            The folder of the finished tokenizer, or None if it was stopped before.

        Raises:
            ValueError: if `output_dir` holds a run that is neither resumed nor removed, a run with other settings, or one
                that another process is training.
        """
        with only_run(self.output_dir):
            return self._train(resume, on_step, should_stop)

    def _train(
        self,
        resume: bool,
        on_step: Callable[[int, dict[str, float]], None] | None,
        should_stop: Callable[[], bool],
    ) -> Path | None:
        self._begin(resume)
        started = saved = previewed = time.monotonic()
        before = self._seconds
        while self.step < self.arguments.max_steps:
            losses = self.train_step()
            now = time.monotonic()
            self._seconds = before + now - started
            out_of_time = self.arguments.max_minutes is not None and now - started > 60 * self.arguments.max_minutes
            out_of_time = out_of_time or should_stop()
            last = out_of_time or self.step == self.arguments.max_steps
            if last or self.step % self.arguments.log_interval == 0:
                append_log(self.log_path, {"step": self.step, "seconds": round(self._seconds, 1), **losses})
            if on_step is not None:
                on_step(self.step, losses)
            if now - saved > 60 * self.arguments.save_minutes or last:
                self.save()
                saved = time.monotonic()
            if now - previewed > 60 * self.arguments.preview_minutes or last:
                self.preview()
                previewed = time.monotonic()
            if out_of_time:
                break
        if self.step < self.arguments.max_steps:
            return None
        write_model(self.output_dir / "final", self.model)
        return self.output_dir / "final"

    def train_step(self) -> dict[str, float]:
        """One step: a batch, its losses, an update of the weights; every so often one of the codebook by hand.

        Returns:
            The losses by name, unweighted but for their sum `loss`; `perplexity` (of the batch's codes), `codes_used`
            (since codes were last restarted) and `learning_rate`.
        """
        arguments = self.arguments
        generator = self._generator()
        pixel_values, order = self._batch(generator)
        if self.step == arguments.continuous_steps:
            self._init_codebook()
        quantise = self.step >= arguments.continuous_steps
        passed = vq_pass(self.model, pixel_values, quantise)
        losses = self._losses(passed, pixel_values, order, quantise)
        losses["loss"].backward()
        learning_rate = self._learning_rate()
        self._optimizer.step(learning_rate)
        counts = torch.bincount(passed.codes.flatten(), minlength=len(self._uses))
        self._uses += counts
        frequencies = counts[counts > 0] / counts.sum()
        logged = {name: loss.item() for name, loss in losses.items()}
        logged["perplexity"] = math.exp(-(frequencies * frequencies.log()).sum().item())
        logged["codes_used"] = float((self._uses > 0).sum())
        logged["learning_rate"] = learning_rate
        self.step += 1
        if quantise and self.step % arguments.restart_interval == 0:
            if self.step <= arguments.restart_until * arguments.max_steps:
                self._restart_codes(passed, generator)
            self._uses.zero_()
        return logged

    @torch.no_grad()
    def preview(self) -> Path:
        """Writes a contact sheet of fixed images: `previews/step-N.png`."""
        pixel_values = self._images(self._generator(-1)).to(self.model.device)
        self.model.eval()
        reconstruction = vq_pass(self.model, pixel_values, self.step > self.arguments.continuous_steps).reconstruction
        self.model.train()
        path = self.output_dir / "previews" / f"step-{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(path, pixel_values, reconstruction)
        return path

    def plot(self) -> Path:
        """Draws the log as `losses.png`; needs matplotlib.

        Raises:
            ImportError: if matplotlib is not installed.
            ValueError: if nothing was logged yet.
        """
        plot_log(self.log_path, self.output_dir / "losses.png")
        return self.output_dir / "losses.png"

    def save(self) -> Path:
        """Writes a checkpoint that `train(resume=True)` goes on from."""
        tensors = self._optimizer.state_tensors() | {"uses": self._uses}
        state = {"step": self.step, "seconds": self._seconds, "arguments": asdict(self.arguments)}
        return write_checkpoint(self.output_dir, self.model, tensors, state, self.arguments.save_total_limit)

    def _begin(self, resume: bool) -> None:
        """Looks at what is in the folder already, and goes on from it or refuses."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        remove_partial(self.output_dir)
        checkpoint = newest_checkpoint(self.output_dir)
        if checkpoint is None:
            rewind_log(self.log_path, self.step)
            return
        if not resume:
            raise ValueError(
                f"'{self.output_dir}' holds a training run ({checkpoint.name}); resume it, or give another folder."
            )
        tensors, state = read_checkpoint(checkpoint, self.model)
        arguments = json.loads(json.dumps(asdict(self.arguments)))
        for name, value in arguments.items():
            was = state["arguments"].get(name)
            if name not in _MAY_CHANGE and was != value:
                raise ValueError(
                    f"'{checkpoint}' was trained with `{name}` {was!r}, not {value!r}; resume with the same, or train into "
                    "another folder."
                )
        self._uses.copy_(tensors.pop("uses"))
        self._optimizer.load_state_tensors(tensors)
        self.step, self._seconds = state["step"], state["seconds"]
        rewind_log(self.log_path, self.step)

    def _generator(self, step: int | None = None) -> torch.Generator:
        """All randomness of a step; -1 is the previews'. Dropout, if the model has any, uses the global one."""
        seed = (self.arguments.seed << 32) + (self.step if step is None else step) + 1
        torch.manual_seed(seed)
        return torch.Generator().manual_seed(seed)

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A batch on the model's device; with a locality loss its second half is the first one, shuffled by tiles."""
        pixel_values = self._images(generator).to(
            self.model.device, memory_format=torch.channels_last
        )  # a tenth faster
        if self.arguments.locality_weight == 0:
            return pixel_values, None
        first = pixel_values[: max(1, len(pixel_values) // 2)]
        shuffled, order = shuffle_tiles(first, self.arguments.locality_tile, generator)
        return torch.cat([first, shuffled]).contiguous(memory_format=torch.channels_last), order

    def _losses(
        self, passed: VQPass, pixel_values: torch.Tensor, order: torch.Tensor | None, quantise: bool
    ) -> dict[str, torch.Tensor]:
        """The losses by name; `loss` is their weighted sum."""
        arguments = self.arguments
        distance = F.l1_loss if arguments.reconstruction == "l1" else F.mse_loss
        losses = {"reconstruction_loss": distance(passed.reconstruction, pixel_values)}
        total = losses["reconstruction_loss"]
        if quantise:
            losses["codebook_loss"] = F.mse_loss(passed.vectors, passed.latents.detach())
            losses["commitment_loss"] = F.mse_loss(passed.latents, passed.vectors.detach())
            total = total + arguments.codebook_weight * losses["codebook_loss"]
            total = total + arguments.commitment_weight * losses["commitment_loss"]
        if quantise and arguments.entropy_weight:
            every_code = torch.arange(len(self._uses), device=self._uses.device)
            losses["entropy_loss"] = code_entropy(passed.latents, self.model.quantize.lookup(every_code))
            total = total + arguments.entropy_weight * losses["entropy_loss"]
        if order is not None:
            latents, shuffled = passed.latents.chunk(2)
            tile_size = arguments.locality_tile // self.model.config.image_token_size
            losses["locality_loss"] = locality_loss(latents, shuffled, order, tile_size)
            ramp = min(1.0, self.step / max(1, arguments.continuous_steps))  # at once, it would make all latents alike
            total = total + ramp * arguments.locality_weight * losses["locality_loss"]
        return {"loss": total, **losses}

    def _learning_rate(self) -> float:
        warmup = min(1.0, (self.step + 1) / max(1, self.arguments.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.arguments.max_steps))
        return self.arguments.learning_rate * warmup * cosine

    @torch.no_grad()
    def _init_codebook(self) -> None:
        """k-means over the latents of fresh batches."""
        generator = self._generator(-2)
        wanted = self.arguments.kmeans_latents * len(self._uses)
        latents: list[torch.Tensor] = []
        while sum(map(len, latents)) < wanted:
            pixel_values = self._images(generator).to(self.model.device)
            latents.append(self.model.encode(pixel_values).latents.flatten(0, 2).cpu())
        centres = spherical_kmeans(torch.cat(latents), len(self._uses), self.arguments.kmeans_iterations, generator)
        self._move_codes(slice(None), centres.to(self.model.device))
        self._uses.zero_()

    @torch.no_grad()
    def _restart_codes(self, passed: VQPass, generator: torch.Generator) -> None:
        """Moves codes that were not used since the last time, and takes codes out that stand too near to others."""
        min_distance = self.arguments.min_code_distance
        unused = (self._uses == 0).nonzero().flatten()
        latents, vectors = passed.latents.flatten(0, -2), passed.vectors.flatten(0, -2)
        wanted = restart_latents(latents, vectors, len(unused), min_distance, generator)
        self._move_codes(unused[: len(wanted)], wanted)
        if min_distance > 0:
            every_code = torch.arange(len(self._uses), device=self._uses.device)
            crowded = crowded_codes(self.model.quantize.lookup(every_code), self._uses, min_distance)
            self._move_codes(crowded, torch.zeros(latents.shape[-1], device=latents.device))

    def _move_codes(self, codes: torch.Tensor | slice, vectors: torch.Tensor) -> None:
        self.model.quantize.embedding.weight[codes] = vectors
        self._optimizer.forget_codes(codes)
