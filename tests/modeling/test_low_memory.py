"""Little memory: quantized loading, offloading, several devices, slices of the image tokenizer."""

import math
import weakref
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BitsAndBytesConfig, TorchAoConfig
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from helpers import draw, generators, picture
from wallaroo_hf import WallarooForConditionalGeneration, WallarooModel
from wallaroo_hf.modeling import vq

DOCUMENT = Path(__file__).parents[2] / "docs" / "memory.md"
ADAPTERS = ("generation_adapter", "source_adapter", "edit_adapter")
IMAGE_HEADS = ("generation_head", "edit_head")
PARTS = ("model.visual", "model.language_model", "model.vq_model", *(f"model.{name}" for name in ADAPTERS))
PARTS += ("lm_head", *IMAGE_HEADS)


@pytest.fixture
def everything(processor):
    """A function that draws two images, edits one, decodes it and answers a question."""
    size = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}
    drawing = processor(text=["a cat", "blue"], **size)
    edit = processor(text="blue", images=[picture(1)], **size)
    question = "<|vision_start|><|image_pad|><|vision_end|>What?"
    chat = processor(text=question, images=picture(1), return_tensors="pt")

    def run(model):
        edited = model.generate(**edit, generation_mode="image", generator=generators(3))
        pixels = model.decode_image_tokens(edited)
        assert pixels.dtype == torch.float32
        answer = model.generate(**chat, do_sample=False, max_new_tokens=4)
        codes = draw(model, drawing, generator=generators(1, 2))
        return codes, edited.tolist(), answer.tolist(), pixels.tolist()

    return run


# --------------------------------------------------------------------------------------------------- quantized loading


def _quantized_parts(model: nn.Module, skipped: list[str] | None) -> set[str]:
    """Top parts that have linear layers which transformers' quantizers would replace."""
    kept = HfQuantizer.get_modules_to_not_convert(model, skipped, model._keep_in_fp32_modules)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return {name.removeprefix("model.").split(".")[0] for name in linear if should_convert_module(name, kept)}


def test_quantizers_leave_adapters_heads_and_image_tokenizer(model):
    assert _quantized_parts(model, None) == {"visual", "language_model"}
    # a list of one's own replaces transformers' defaults, which spare the text head, but not ours
    assert _quantized_parts(model, ["model.visual"]) == {"language_model", "lm_head"}
    assert _quantized_parts(model.model, []) == {"visual", "language_model"}
    kept = HfQuantizer.get_modules_to_not_convert(model, [], model._keep_in_fp32_modules)
    for name, _ in model.named_parameters():
        ours = any(part in name for part in ("vq_model", *ADAPTERS, *IMAGE_HEADS))
        assert should_convert_module(name, kept) != ours, name


@pytest.mark.parametrize("model_class", [WallarooForConditionalGeneration, WallarooModel])
def test_float16_is_float16_but_for_the_image_tokenizer(compact, model_class):
    for name, parameter in model_class.from_pretrained(compact.folder, dtype=torch.float16).named_parameters():
        assert parameter.dtype == (torch.float32 if "vq_model" in name else torch.float16), name


def _config(kind: str) -> TorchAoConfig | BitsAndBytesConfig:
    if kind.startswith("torchao"):
        torchao = pytest.importorskip("torchao.quantization")
        skipped = ["model.visual"] if kind == "torchao with a list" else None
        embeddings = kind == "torchao with embeddings"
        return TorchAoConfig(
            torchao.Int8WeightOnlyConfig(version=2),
            modules_to_not_convert=skipped,
            include_input_output_embeddings=embeddings,
        )
    pytest.importorskip("bitsandbytes")
    if kind == "bitsandbytes 8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=kind.endswith("double"),
    )


@pytest.mark.parametrize(
    "kind",
    [
        "torchao",
        "torchao with a list",
        "torchao with embeddings",
        "bitsandbytes 8",
        "bitsandbytes 4",
        "bitsandbytes 4 double",
    ],
)
def test_quantized_model(compact, everything, tmp_path, kind):
    """Loads, works, and works the same after a round through `save_pretrained`."""
    arguments = {"quantization_config": _config(kind), "dtype": torch.bfloat16, "device_map": "cpu"}
    model = WallarooForConditionalGeneration.from_pretrained(compact.folder, **arguments)
    quantized = model.model.language_model.layers[0].mlp.up_proj
    assert type(quantized) is not nn.Linear or type(quantized.weight.data) is not torch.Tensor
    for name in (*ADAPTERS, *IMAGE_HEADS):
        module = (model.model if "adapter" in name else model).get_submodule(name)
        for parameter in module.parameters():
            assert type(parameter.data) is torch.Tensor and parameter.dtype == torch.bfloat16, name
    for ours, original in zip(model.vq_model.parameters(), compact.model.vq_model.parameters(), strict=True):
        assert type(ours.data) is torch.Tensor and torch.equal(ours, original)
    results = everything(model)
    model.save_pretrained(tmp_path)
    loaded = WallarooForConditionalGeneration.from_pretrained(tmp_path, device_map="cpu")
    assert loaded.generation_head[0].weight.dtype == torch.bfloat16 and loaded.vq_model.dtype == torch.float32
    assert everything(loaded) == results


# --------------------------------------------------------------------------------------------------------- offloading


@pytest.mark.parametrize(
    "on_disk",
    [
        ["model.vq_model"],
        ["model.visual"],
        ["model.language_model", "model.edit_adapter", "generation_head"],
        [part for part in PARTS if part != "model.vq_model"],
        PARTS,
    ],
    ids=["image tokenizer", "vision tower", "some", "all but the image tokenizer", "all"],
)
def test_disk_offload(compact, everything, tmp_path, on_disk):
    device_map = {part: "disk" if part in on_disk else "cpu" for part in PARTS}
    model = WallarooForConditionalGeneration.from_pretrained(
        compact.folder, device_map=device_map, offload_folder=tmp_path
    )
    for part in PARTS:
        kinds = {parameter.device.type for parameter in model.get_submodule(part).parameters()}
        assert kinds == {"meta" if part in on_disk else "cpu"}, part
    assert model.device.type == model.model.device.type == "cpu"
    assert everything(model) == everything(compact.model)


def test_automatic_disk_offload(compact, everything, tmp_path):
    """`device_map="auto"` never splits the image tokenizer."""
    limit = int(0.9 * sum(parameter.nbytes for parameter in compact.model.parameters()))
    model = WallarooForConditionalGeneration.from_pretrained(
        compact.folder, device_map="auto", max_memory={"cpu": limit}, offload_folder=tmp_path
    )
    assert model.hf_device_map["model.vq_model"] == "disk" and model.hf_device_map["model.visual"] == "cpu"
    assert everything(model) == everything(compact.model)


def test_offload_to_cpu_memory(model, compact, everything):
    """What a device map with "cpu" beside a GPU does, with the CPU in the GPU's place."""
    model = cpu_offload(model, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert everything(model) == everything(compact.model)


def test_parts_on_two_devices(compact):
    """Tensors find each other when a device map parts the image tokenizer, adapters and heads (fake GPUs)."""
    elsewhere = ("vq_model", "edit_adapter", "edit_head")
    with FakeTensorMode():
        model = WallarooForConditionalGeneration(compact.model.config)
        for name, module in model.named_modules():
            device = "cuda:1" if any(part in name for part in elsewhere) else "cuda:0"
            for tensors in (module._parameters, module._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        empty = torch.empty_like(tensor, device=device)
                        tensors[key] = nn.Parameter(empty, False) if tensors is module._parameters else empty
            add_hook_to_module(module, AlignDevicesHook(execution_device=torch.device(device)))
        ids = torch.zeros(2, 5, dtype=torch.long, device="cuda:0")
        assert model.model.embed_ids(ids, ids.bool()).device == torch.device("cuda:0")
        hidden_states = torch.zeros(2, 5, model.config.text_config.hidden_size, device="cuda:0")
        assert model.image_logits(hidden_states, ids.bool()).shape == (2, 5, model.config.codebook_size)
        assert model.vq_model.decode(ids.view(1, 2, 5)).shape == (1, 3, 32, 80)
        assert model.vq_model.encode(torch.zeros(1, 3, 32, 80)).image_tokens.shape == (1, 2, 5)


# ------------------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("tokens_at_once, images", [(1, 1), (24, 1), (48, 2), (71, 2), (1024, 5)])
def test_slices_of_the_image_tokenizer(model, monkeypatch, tokens_at_once, images):
    """The same images, however many go through at once: one by one bit for bit, else but for the rounding of PyTorch's
    convolutions, which depends on how many there are (seen: 3e-6 in latents, none in pixels)."""
    pixels = torch.rand(5, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        alone = [model.vq_model.encode(image[None]) for image in pixels]
        codes = torch.cat([encoded.image_tokens for encoded in alone])
        latents = torch.cat([encoded.latents for encoded in alone])
        pictures = torch.cat([model.vq_model.decode(encoded.image_tokens) for encoded in alone])
    seen = []
    for part in (model.vq_model.encoder, model.vq_model.decoder):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(vq, "_TOKENS_AT_ONCE", tokens_at_once)
    with torch.no_grad():
        encoded = model.vq_model.encode(pixels)
        decoded = model.vq_model.decode(encoded.image_tokens)
    assert seen == [min(images, 5 - first) for first in range(0, 5, images)] * 2
    assert torch.equal(encoded.image_tokens, codes)
    tolerance = 0.0 if images == 1 else 2e-5
    torch.testing.assert_close(encoded.latents, latents, atol=tolerance, rtol=0)
    torch.testing.assert_close(decoded, pictures, atol=tolerance, rtol=0)


def test_gradients_flow_through_slices(model, monkeypatch):
    monkeypatch.setattr(vq, "_TOKENS_AT_ONCE", 16)
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    encoded = model.vq_model.encode(pixels)
    (encoded.latents * torch.randn(encoded.latents.shape)).sum().backward()
    assert all(bool(image.abs().sum() > 0) for image in pixels.grad)
    (model.vq_model.decode(encoded.image_tokens) ** 2).mean().backward()
    for name, parameter in model.vq_model.named_parameters():
        if not name.endswith(".k.bias"):  # the same for all keys, so attention ignores it
            assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_the_image_tokenizer_takes_one_kind_of_input(model):
    with pytest.raises(ValueError, match="give one of them"):
        model.vq_model()
    with pytest.raises(ValueError, match="give one of them"):
        model.vq_model(torch.zeros(1, 3, 16, 16), image_tokens=torch.zeros(1, 1, 1, dtype=torch.long))


# ------------------------------------------------------------------------------------------------------- documentation


class _Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, on any device; also on "meta"."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak, self.seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return outputs

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.alive -= size


def _in_table(row: str) -> bool:
    return row in DOCUMENT.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "setting, weight_bytes, row_bytes",
    [
        ("bfloat16", 2, 0),
        ("8 bit, torchao", 1, 5),  # a float32 scale and an int8 zero point per row
        ("8 bit, bitsandbytes", 1, 4),  # a float32 scale
        ("4 bit (nf4), bitsandbytes", 1 / 2 + 4 / 64, 0),  # a float32 scale per 64 weights
        ("the same, scales quantized too", 1 / 2 + 1 / 64 + 4 / 64 / 256, 0),  # 8 bits, and a float32 per 256 of them
    ],
)
def test_documented_weights(full_size, setting, weight_bytes, row_bytes):
    kept = HfQuantizer.get_modules_to_not_convert(full_size, None, full_size._keep_in_fp32_modules)
    sizes = dict.fromkeys(("language_model.layers", "visual", "embed_tokens lm_head", "adapter _head", "vq_model"), 0)
    for name, parameter in full_size.named_parameters():
        part = next((part for part in sizes if any(word in name for word in part.split())), None)
        if part is None:
            assert parameter.numel() <= 3584, name  # the last norm
            continue
        linear = isinstance(full_size.get_submodule(name.rpartition(".")[0]), nn.Linear)
        if linear and name.endswith(".weight") and should_convert_module(name, kept):
            sizes[part] += parameter.numel() * weight_bytes + len(parameter) * row_bytes
        else:
            sizes[part] += parameter.numel() * (4 if part == "vq_model" else 2)
    figures = [*sizes.values(), sum(sizes.values())]
    assert _in_table(f"| {setting} | " + " | ".join(f"{size / 2**30:.2f}" for size in figures) + " |")


@pytest.mark.parametrize(
    "task, prompt", [("text to image", 128), ("editing", 128 + 1057 + 242)]
)  # an editing prompt: 1,024 codes, 31 line breaks and 2 marks; 240 NaViT tokens and 2 marks
def test_documented_cache(full_size, task, prompt):
    config = full_size.config.text_config
    tokens = prompt + 1024 + 31 + 1
    head = config.hidden_size // config.num_attention_heads
    size = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2 * tokens
    assert _in_table(f"| {task} | {tokens:,} | {size / 2**20:.0f} | {2 * size / 2**20:.0f} | {3 * size / 2**20:.0f} |")


@pytest.mark.parametrize("height, width", [(256, 256), (512, 512), (352, 704), (1024, 1024)])
def test_documented_activations(full_size, height, width):
    vq_model = full_size.vq_model
    images = vq._images_at_once(height // 16, width // 16)
    peaks = []
    with torch.no_grad():
        for part, shape in (
            (vq_model.encoder, (images, 3, height, width)),
            (vq_model.decoder, (images, vq_model.config.latent_channels, height // 16, width // 16)),
        ):
            inputs = torch.empty(shape, device="meta")
            with _Peak() as counted:
                part(inputs)
            peaks.append(math.ceil(counted.peak / 2**20))
    assert _in_table(f"| {height}x{width} | {images} | {peaks[1]:,} | {peaks[0]:,} |")
