"""LoRA and QLoRA through PEFT: small adapters in the language model, the image parts trained whole, and merging."""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from transformers import BitsAndBytesConfig, GenerationConfig

from ..families.loading import load_model, reading_checkpoint, refuse, stored_faults
from ..families.precision import computes_in_bf16
from ..families.registry import find_family, kit_of
from ..files.whole import new_folder, require_new
from .checkpoints import ADAPTER_SETTINGS, find_last_complete_checkpoint

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

__all__ = ["add_lora", "find_adapter", "load_in_4bit", "lora_config", "merge_adapter"]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


# ---------------------------------------------------------------------------------------------------------- training


def lora_config(
    model: Any,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.05,
    target_modules: Sequence[str] | None = None,
    train_image_parts: bool = True,
) -> "LoraConfig":
    """A PEFT configuration (LoRA, arXiv 2106.09685) for the language model's linear layers.

    Neither the vision tower, nor the image tokenizer, nor the text head get adapters. The image heads and adapters that
    the checkpoint has are small and train whole.

    Args:
        rank: width of the low-rank matrices.
        alpha: their product is scaled by `alpha / rank`.
        dropout: before them, in [0, 1).
        target_modules: names of the linear layers in each block, such as `["q_proj", "v_proj"]`; None = all seven.
        train_image_parts: whether image heads and adapters train too; needless where only answers are learned.

    Raises:
        ImportError: without peft.
        ValueError: for a rank below 1, or a layer that the language model does not have.
    """
    peft = _peft()
    if rank < 1:
        raise ValueError(f"The LoRA rank is {rank}, but must be at least 1.")
    targets = kit_of(model, "lora").lora(model)
    known = targets.layers
    chosen = list(known) if target_modules is None else list(target_modules)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ValueError(
            f"`target_modules` is {chosen}, but must name linear layers of the language model: {', '.join(known)}."
        )
    return peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=f"{targets.within}({'|'.join(chosen)})",
        modules_to_save=list(targets.whole) if train_image_parts else None,
    )


def add_lora(
    model: Any,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.05,
    target_modules: Sequence[str] | None = None,
    train_image_parts: bool = True,
) -> "PeftModel":
    """Wraps a model, in place, so that only LoRA and the image parts train; see [`lora_config`].

    What trains becomes float32, whatever the model's dtype is: small steps would vanish in bfloat16. Everything else is
    frozen. The result trains with [`WallarooTrainer`] and has the model's `generate`.

    Args:
        model: it is changed.
        rank: width of the low-rank matrices.
        alpha: their product is scaled by `alpha / rank`.
        dropout: before them, in [0, 1).
        target_modules: names of the linear layers in each block; None = all seven.
        train_image_parts: whether image heads and adapters train too.

    Raises:
        ImportError, ValueError: as [`lora_config`].
    """
    config = lora_config(model, rank, alpha, dropout, target_modules, train_image_parts)
    with warnings.catch_warnings():  # PEFT asks transformers by a name that will go
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = _peft().get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def load_in_4bit(
    checkpoint: str | Path,
    compute_dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    check_weights: bool = True,
) -> Any:
    """Loads a checkpoint as the base of QLoRA (arXiv 2305.14314); give it to [`add_lora`].

    The linear layers of language model and vision tower become 4-bit (nf4, scales quantized too); image tokenizer, image
    adapters and heads, embeddings and text head stay as they are. PEFT's `prepare_model_for_kbit_training` is not needed,
    and would turn all of those to float32: [`add_lora`] freezes the base, norms compute in float32 anyway, and gradient
    checkpointing is not reentrant here.

    Args:
        checkpoint: folder or Hub id of a checkpoint that is not quantized.
        compute_dtype: what the layers compute in, and what the rest is loaded in; None = bfloat16, or float32 on a
            processor without bfloat16 instructions.
        device: where to load it; None = the process's accelerator, or the CPU without one.
        check_weights: whether to look for weights that are not finite.

    Returns:
        The model, on that device.

    Raises:
        ImportError: without bitsandbytes.
        ValueError: if there is no such checkpoint, or its weights are damaged.
    """
    if find_spec("bitsandbytes") is None:
        raise ImportError('4-bit training needs bitsandbytes; run `pip install "wallaroo-hf[train,quant]"`.')
    from accelerate import PartialState

    family = find_family(checkpoint)
    family.training_kit("quantize")
    place = device or PartialState().device
    if compute_dtype is None:
        compute_dtype = torch.bfloat16 if computes_in_bf16(place) else torch.float32
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    return load_model(
        family.resolve("model"),
        checkpoint,
        check_weights,
        quantization_config=settings,
        dtype=compute_dtype,
        device_map={"": place},
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA needs peft; run `pip install "wallaroo-hf[train]"`.') from error
    return peft


# ----------------------------------------------------------------------------------------------------------- merging


def merge_adapter(
    base: str | Path,
    adapter: str | Path,
    output: str | Path,
    dtype: str | torch.dtype = "auto",
    max_shard_size: int | str = "5GB",
    progress: Callable[[str], None] = lambda what: None,
    check_weights: bool = True,
) -> Path:
    """Writes a checkpoint in which an adapter has become part of the weights, with processor and generation settings.

    Settings that training changed (stage, layout, tokens) come from the adapter's folder where it has them, all else from
    the base. An adapter of QLoRA merges into the checkpoint that was quantized.

    Args:
        base: folder or Hub id of the checkpoint that the adapter was trained from, not quantized.
        adapter: folder or Hub id of the adapter; or the folder of a run, whose last checkpoint then counts.
        output: the folder to write; must not exist, or be empty.
        dtype: of the weights, `"auto"` = as in the base. The image tokenizer stays float32.
        max_shard_size: largest weight file.
        progress: called with a word for each step.
        check_weights: whether to look for weights that are not finite, in base and adapter.

    Returns:
        The output folder.

    Raises:
        ImportError: without peft.
        ValueError: if there is no adapter or base, or they do not belong together; nothing is left at `output` then.
    """
    peft = _peft()
    output = Path(output)
    require_new(output)
    folder = find_adapter(adapter)
    with new_folder(output) as partial:
        progress("Loading the base")
        model, processor = _load_base(base, folder, dtype, check_weights)
        progress("Merging the adapter")
        adapted = _attach(peft, model, folder, f"The adapter '{adapter}' does not fit the base '{base}'")
        if check_weights:
            file = [folder / ADAPTER_WEIGHTS]
            refuse(stored_faults(file, _adapter_shapes(folder)), f"adapter '{adapter}'")
        merged = adapted.merge_and_unload(safe_merge=check_weights)
        for part in kit_of(merged).lora(merged).whole:  # trained in float32
            merged.get_submodule(part if hasattr(merged, part) else f"model.{part}").to(merged.dtype)
        progress("Writing")
        merged.save_pretrained(partial, max_shard_size=max_shard_size)
        processor.save_pretrained(partial)
    return output


def find_adapter(adapter: str | Path) -> Path:
    """The folder of an adapter: the one given, the newest complete checkpoint in it, or a download of a Hub id.

    Raises:
        ValueError: if there is none, or its weights are not whole safetensors.
    """
    folder = Path(adapter)
    if not folder.is_dir():
        try:
            files = ["*.json", "*.jinja", "*.txt", ADAPTER_WEIGHTS]
            folder = Path(snapshot_download(str(adapter), allow_patterns=files))
        except (OSError, HFValidationError) as error:
            raise ValueError(
                f"There is no adapter '{adapter}' ({str(error).strip().splitlines()[0][:200]}); give the folder that "
                "`wallaroo train --lora` wrote, or a Hub id."
            ) from error
    if not (folder / ADAPTER_CONFIG).is_file():
        checkpoint = find_last_complete_checkpoint(folder)
        if checkpoint is None or not (checkpoint / ADAPTER_CONFIG).is_file():
            raise ValueError(
                f"'{adapter}' holds no {ADAPTER_CONFIG} and no checkpoint with one; give the folder that `wallaroo train "
                "--lora` wrote."
            )
        folder = checkpoint
    _adapter_shapes(folder)
    return folder


def _adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's tensors by name.

    Raises:
        ValueError: if its weights are missing or damaged.
    """
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The adapter weights {folder / ADAPTER_WEIGHTS} are missing or damaged; only whole safetensors are read."
        ) from error


def _load_base(base: str | Path, folder: Path, dtype: str | torch.dtype, check_weights: bool) -> tuple[Any, Any]:
    """The base with the settings that training changed."""
    what = "base checkpoint"
    family = find_family(base, what)
    kit = family.training_kit("lora")
    model = load_model(family.resolve("model"), base, check_weights, what, dtype=dtype)
    with reading_checkpoint(base, what):
        has_processor = (folder / "processor_config.json").is_file()
        processor = family.resolve("processor").from_pretrained(folder if has_processor else base)
    if getattr(model, "is_quantized", False):
        raise ValueError(f"The base '{base}' is quantized; give the checkpoint that it was made from.")
    settings = folder / ADAPTER_SETTINGS
    if (settings / "config.json").is_file():
        trained = family.resolve("config").from_pretrained(settings)
        kit.extend_base(model, trained, list(_adapter_shapes(folder)), str(base))
        model.config.stage = trained.stage
    if (settings / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(settings)
    return model, processor


def _attach(peft: Any, model: Any, folder: Path, misfit: str) -> Any:
    """The base with the adapter's weights, all of them and nowhere else."""
    try:
        with warnings.catch_warnings():  # what is missing is an error below
            warnings.simplefilter("ignore")
            adapted = peft.PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{misfit} ({' '.join(str(error).split())[:200]}).") from error
    expected = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    wrong = expected ^ _adapter_shapes(folder).keys()
    if wrong:
        raise ValueError(f"{misfit}: one has weights that the other lacks, {sorted(wrong)[0]} for example.")
    return adapted
