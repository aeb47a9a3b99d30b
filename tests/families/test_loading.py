"""Every door refuses weights that are not the model's, in one sentence; transformers' own doors go on reporting them."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, pipeline

from commands import run
from damaged_weights import DAMAGES, HEAD, damaged
from helpers import picture
from wallaroo_hf import WallarooForConditionalGeneration, WallarooVQModel
from wallaroo_hf.cli import serve
from wallaroo_hf.evaluation.ablations import AblationSettings, run_ablation
from wallaroo_hf.families import loading
from wallaroo_hf.families.loading import is_finite, load_model, weights_of
from wallaroo_hf.pipelines import WallarooAnyToAnyPipeline, WallarooPipeline
from wallaroo_hf.training.lora import add_lora, merge_adapter
from wallaroo_hf.training.run import RunOptions, build_trainer, fine_tuning, load_training_data
from wallaroo_hf.training.vq.vq_checkpoints import read_checkpoint, write_checkpoint
from wallaroo_hf.training.vq.vq_loading import load_vq_model


@pytest.fixture(scope="module", params=DAMAGES)
def bad(request, compact, tmp_path_factory):
    """A damaged checkpoint and what is said of it."""
    folder = damaged(compact.folder, tmp_path_factory.mktemp("damaged") / "checkpoint", request.param)
    return folder, DAMAGES[request.param][1]


@pytest.fixture(scope="module")
def no_head(compact, tmp_path_factory):
    return damaged(compact.folder, tmp_path_factory.mktemp("damaged") / "no-head", "missing")


@pytest.fixture(scope="module")
def with_nan(compact, tmp_path_factory):
    return damaged(compact.folder, tmp_path_factory.mktemp("damaged") / "nan", "nan")


@pytest.fixture
def rows(tmp_path):
    """Two captions with pictures."""
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    lines = [json.dumps({"caption": "a cat", "image": f"{number}.png"}) for number in range(2)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "rows.jsonl"


def refusal(load, folder, words):
    """The one sentence that a door says."""
    with pytest.raises(ValueError) as caught:
        load()
    message = str(caught.value)
    assert words in message and str(folder) in message and "\n" not in message and message.endswith("."), message
    return message


def test_a_door_names_what_is_wrong(bad):
    folder, words = bad
    message = refusal(lambda: load_model(WallarooForConditionalGeneration, folder), folder, words)
    assert ("--no-check-weights" in message) == ("not finite" in message)
    out = run("generate", "a cat", "-m", folder, "-o", folder / "out", code=1).replace("\n", " ")
    assert words in out and "Traceback" not in out and not (folder / "out").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_precision(with_nan, dtype):
    folder, words = with_nan, f"`{HEAD}` ({str(dtype)[6:]}) is not finite"
    refusal(lambda: load_model(WallarooForConditionalGeneration, folder, dtype=dtype), folder, words)


def test_weights_that_a_precision_cannot_hold(compact, tmp_path):
    folder = damaged(compact.folder, tmp_path / "large", "unexpected")
    weights = load_file(folder / "model.safetensors")
    del weights["generation_head.3.weight"]
    weights["lm_head.weight"][0, 0] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(WallarooForConditionalGeneration, folder, dtype=torch.bfloat16)
    words = "`lm_head.weight` (float16) is not finite"
    refusal(lambda: load_model(WallarooForConditionalGeneration, folder, dtype=torch.float16), folder, words)


def test_five_of_many_are_named(compact, tmp_path):
    folder = damaged(compact.folder, tmp_path / "bare", "missing")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("model.visual.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(lambda: load_model(WallarooForConditionalGeneration, folder), folder, "is missing")
    assert message.count("is missing") == 5 and f"and {len(weights) - len(kept) + 1 - 5} more" in message


def test_a_good_checkpoint_is_taken(compact, tmp_path):
    assert load_model(WallarooForConditionalGeneration, compact.folder).device.type == "cpu"
    run("generate", "a cat", "-m", compact.folder, "--height", 32, "--width", 32, "-o", tmp_path / "cat.png")


@pytest.mark.parametrize("damage", ["renamed", "infinite"])
def test_sharded_checkpoints(compact, tmp_path, damage):
    folder, words = damaged(compact.folder, tmp_path / "bad", damage), DAMAGES[damage][1]
    shards = _sharded(folder, tmp_path / "shards")
    refusal(lambda: load_model(WallarooForConditionalGeneration, shards), shards, words)
    load_model(WallarooForConditionalGeneration, _sharded(compact.folder, tmp_path / "good"))


def _sharded(source, folder):
    folder.mkdir()
    for path in source.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_bytes((source / "chat_template.jinja").read_bytes())
    weights = load_file(source / "model.safetensors")
    names = sorted(weights, reverse=True)
    weight_map = {}
    for part, chosen in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{part:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in chosen}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_quantized_weights_are_looked_at_in_their_files(compact, with_nan, monkeypatch):
    """The bytes that become of a number that is none are numbers."""

    def quantize(*arguments, **options):
        model, info = real(*arguments, **options)
        stored = torch.zeros(7, dtype=torch.uint8)
        model.generation_head[2].weight = torch.nn.Parameter(stored, requires_grad=False)
        return model, info

    real = WallarooForConditionalGeneration.from_pretrained
    monkeypatch.setattr(WallarooForConditionalGeneration, "from_pretrained", quantize)
    load_model(WallarooForConditionalGeneration, compact.folder)
    words = f"`{HEAD}` is not finite"
    refusal(lambda: load_model(WallarooForConditionalGeneration, with_nan), with_nan, words)


def test_offloaded_weights_are_looked_at_in_their_files(compact, with_nan, tmp_path):
    arguments = {"device_map": {"model": "cpu", "lm_head": "cpu", "generation_head": "disk", "edit_head": "disk"}}
    arguments["offload_folder"] = str(tmp_path / "offload")
    model = load_model(WallarooForConditionalGeneration, compact.folder, **arguments)
    assert model.generation_head[2].weight.is_meta
    words = f"`{HEAD}` is not finite"
    refusal(lambda: load_model(WallarooForConditionalGeneration, with_nan, **arguments), with_nan, words)


NEEDED = {"app": ("gradio",), "serve": ("uvicorn",)}  # extras that `make test-newest` goes without


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "a cat", "-o", "{out}"),
        ("generate", "--prompts", "{prompts}", "-o", "{out}"),
        ("edit", "{picture}", "bluer", "-o", "{out}"),
        ("ask", "{picture}", "What is it?"),
        ("chat", "-o", "{out}"),
        ("app", "--no-open", "-o", "{out}"),
        ("serve", "--port", "0"),
        ("train", "-d", "{rows}", "-o", "{out}"),
        ("train", "-d", "{rows}", "-o", "{out}", "--lora"),
        ("evaluate", "scenes", "-o", "{out}"),
        ("evaluate", "sweep", "-o", "{out}"),
        ("evaluate", "geneval", "--prompts", "{geneval}", "-o", "{out}"),
        ("export", "--to", "hub", "-o", "{out}"),
        ("export", "--to", "hub", "--sample", "a cat", "-o", "{out}"),
        ("export", "--to", "hub", "--push", "org/name"),
    ],
    ids=lambda command: "-".join(word for word in command if word[0] not in "{-"),
)
def test_every_command_refuses(with_nan, rows, tmp_path, command):
    """What refuses numbers refuses what is missing, which is looked at before."""
    for package in NEEDED.get(command[0], ()):
        pytest.importorskip(package)
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    line = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}
    (tmp_path / "geneval.jsonl").write_text(json.dumps(line), encoding="utf-8")
    picture(1).save(tmp_path / "picture.png")
    places = {"out": "out", "prompts": "prompts.txt", "rows": rows.name, "geneval": "geneval.jsonl"}
    places = {name: str(tmp_path / place) for name, place in (places | {"picture": "picture.png"}).items()}
    out = run(*(word.format(**places) for word in command), "-m", with_nan, code=1).replace("\n", " ")
    assert "is not finite" in out and HEAD in out and "Traceback" not in out
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_the_look_at_every_weight_can_be_left_out(compact, with_nan, no_head, rows, tmp_path):
    """A weight that drawing does not need; others are refused without the option."""
    weights = load_file(with_nan / "model.safetensors")
    weights[HEAD].nan_to_num_(0.0)
    weights["model.visual.merger.mlp.0.bias"][0] = float("nan")
    folder = damaged(compact.folder, tmp_path / "blind", "nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    drawing = ("generate", "a cat", "-m", folder, "--height", 32, "--width", 32, "-o", tmp_path / "cat.png")
    assert "model.visual.merger.mlp.0.bias" in run(*drawing, code=1)
    run(*drawing, "--no-check-weights")
    assert (tmp_path / "cat.png").exists()
    assert "is missing" in run("generate", "a cat", "-m", no_head, "--no-check-weights", code=1).replace("\n", " ")
    out = run("train", "-d", rows, "-o", tmp_path / "run", "-m", folder, "--no-check-weights", "--steps", 1, "--set",
              "global_batch_size=1")  # fmt: skip
    assert "Trained" in out


def test_the_server_is_not_started(no_head, monkeypatch):
    pytest.importorskip("uvicorn")
    monkeypatch.setattr(serve, "_name", lambda model: "name")
    assert "is missing" in run("serve", "--port", 0, "-m", no_head, code=1).replace("\n", " ")


# -------------------------------------------------------------------------------------------------- the image tokenizer


def test_image_tokenizers(bad, compact, tmp_path):
    folder, _ = bad
    load_vq_model(folder)  # its own weights are whole
    for damage, (words, change) in {
        "missing": ("`quant_conv.weight` is missing", lambda weights, key: weights.pop(key)),
        "shape": (
            "`quant_conv.weight` has the shape",
            lambda weights, key: weights.update({key: weights[key][:1].clone()}),
        ),
        "nan": ("`quant_conv.weight`", lambda weights, key: weights[key].fill_(float("nan"))),
    }.items():
        whole = damaged(compact.folder, tmp_path / f"{damage}-whole", "unexpected")
        alone = tmp_path / f"{damage}-alone"
        compact.model.vq_model.save_pretrained(alone)
        for target, key in ((whole, "model.vq_model.quant_conv.weight"), (alone, "quant_conv.weight")):
            weights = load_file(target / "model.safetensors")
            change(weights, key)
            save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
            message = refusal(lambda target=target: load_vq_model(target), target, words)
            assert damage != "nan" or "not finite" in message
    assert isinstance(load_vq_model(alone, check_weights=False), WallarooVQModel)


def test_encode_refuses(compact, rows, tmp_path):
    folder = damaged(compact.folder, tmp_path / "bad", "missing")
    weights = load_file(folder / "model.safetensors")
    weights["model.vq_model.quant_conv.weight"][0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = run("encode", rows, "-o", tmp_path / "out", "-m", folder, code=1).replace("\n", " ")
    assert "`quant_conv.weight` is not finite" in out and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------ adapters


@pytest.fixture
def adapter(compact, tmp_path):
    model = copy.deepcopy(compact.model)
    add_lora(model, rank=2).save_pretrained(tmp_path / "adapter")
    compact.processor.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def _change_adapter(adapter, change=None, base=None):
    if change is not None:
        weights = load_file(adapter / "adapter_model.safetensors")
        change(weights)
        save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    if base is not None:
        path = adapter / "adapter_config.json"
        text = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(base)}
        path.write_text(json.dumps(text), encoding="utf-8")


@pytest.mark.parametrize("damage", ["missing", "misshapen", "nan"])
def test_adapters_that_are_loaded_as_checkpoints(compact, damage, adapter, tmp_path):
    """The base is looked at, although transformers' report is about the adapter."""
    folder, words = damaged(compact.folder, tmp_path / "bad", damage), DAMAGES[damage][1]
    _change_adapter(adapter, base=compact.folder)
    load_model(WallarooForConditionalGeneration, adapter)
    _change_adapter(adapter, base=folder)
    refusal(lambda: load_model(WallarooForConditionalGeneration, adapter), adapter, words)


def test_merging_refuses_base_and_adapter(compact, no_head, with_nan, adapter, tmp_path):
    for folder, words in ((no_head, "is missing"), (with_nan, "is not finite")):
        refusal(lambda folder=folder: merge_adapter(folder, adapter, tmp_path / "out"), folder, words)

    def nan(weights):
        next(value for key, value in weights.items() if "generation_head" in key).view(-1)[0] = float("nan")

    _change_adapter(adapter, nan)
    message = refusal(lambda: merge_adapter(compact.folder, adapter, tmp_path / "out"), adapter, "is not finite")
    assert "generation_head" in message and not (tmp_path / "out").exists()
    merge_adapter(compact.folder, adapter, tmp_path / "out", check_weights=False)


# ------------------------------------------------------------------------------------------------------------ training


def test_training_refuses_a_base(no_head, rows, tmp_path):
    folder, words = no_head, "is missing"
    sources, _ = load_training_data(str(rows))
    chosen = fine_tuning(str(folder), {"generation": 2}, lora=False)
    options = RunOptions(model=str(folder), output=tmp_path / "run", device="cpu")
    refusal(lambda: build_trainer(options, chosen, sources), folder, words)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("damage", ["missing", "nan"])
def test_resuming_refuses_a_checkpoint(compact, rows, tmp_path, lora, damage):
    """transformers goes on with the base's weights where the checkpoint lacks some."""
    arguments = (
        "train",
        "-d",
        rows,
        "-o",
        tmp_path / "run",
        "-m",
        compact.folder,
        "--save-every",
        1,
        "--device",
        "cpu",
    )
    arguments += ("--set", "global_batch_size=1", *(["--lora", "--lora-rank", 2] if lora else []))
    run(*arguments, "--steps", 1)
    path = tmp_path / "run" / "checkpoint-1" / ("adapter_model.safetensors" if lora else "model.safetensors")
    weights = load_file(path)
    name = next(name for name in sorted(weights) if "generation_head" in name)
    if damage == "missing":
        del weights[name]
    else:
        weights[name].view(-1)[0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    (tmp_path / "run" / "final").rename(tmp_path / "final")
    out = run(*arguments, "--steps", 2, code=1).replace("\n", " ")
    assert f"`{name}` is {'missing' if damage == 'missing' else 'not finite'}" in out and "Traceback" not in out


def test_ablations_refuse_a_base(no_head, with_nan, tmp_path):
    settings = AblationSettings(steps=1, seeds=1, rows=8, judged=1, validation_rows=8)
    for folder, words in ((no_head, "is missing"), (with_nan, "is not finite")):
        refusal(lambda folder=folder: run_ablation("edit_head", tmp_path, str(folder), settings, "cpu"), folder, words)


def test_an_image_tokenizers_training_refuses_a_checkpoint(compact, tmp_path):
    """What it resumes from; the model stays as it was."""
    model = copy.deepcopy(compact.model.vq_model)
    path = write_checkpoint(tmp_path, model, {"uses": torch.zeros(3)}, {"step": 1}, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read_checkpoint(path, model)
    weights = load_file(path / "model.safetensors")
    for change, words in (
        (lambda some: some.update({"quant_conv.bias": some["quant_conv.bias"] * float("nan")}), "is not finite"),
        (lambda some: some.pop("quant_conv.bias"), "`quant_conv.bias` is missing"),
    ):
        spoilt = dict(weights)
        change(spoilt)
        save_file(spoilt, path / "model.safetensors")
        refusal(lambda: read_checkpoint(path, model), path, words)
    (path / "model.safetensors").write_bytes(b"no weights")
    refusal(lambda: read_checkpoint(path, model), path, "No checkpoint could be loaded")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ----------------------------------------------------------------------------------------------------------- pipelines


def test_our_tasks_refuse(bad):
    folder, words = bad
    refusal(lambda: pipeline("text-to-image", model=str(folder)), folder, words)


def test_our_other_task_refuses(no_head):
    refusal(lambda: pipeline("image-editing", model=str(no_head), dtype="bfloat16"), no_head, "is missing")


def test_our_task_leaves_out_the_look(compact, with_nan):
    pipe = pipeline("text-to-image", model=str(with_nan), model_kwargs={"check_weights": False})
    assert isinstance(pipe, WallarooPipeline)
    assert isinstance(pipeline("text-to-image", model=str(compact.folder)), WallarooPipeline)


def test_transformers_own_doors_report(no_head, caplog, monkeypatch):
    """They load, and what is missing can be read."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    for load in (
        lambda: AutoModelForMultimodalLM.from_pretrained(no_head),
        lambda: pipeline("any-to-any", model=str(no_head), pipeline_class=WallarooAnyToAnyPipeline),
        lambda: pipeline("image-text-to-text", model=str(no_head)),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="transformers"):
            load()
        report = [record.getMessage() for record in caplog.records if "LOAD REPORT" in record.getMessage()]
        assert report and HEAD in report[0] and "MISSING" in report[0]


# ------------------------------------------------------------------------------------------------------------- details


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 500, -1])
def test_one_bad_number_is_found(dtype, value, place):
    tensor = torch.linspace(-2, 2, 1001).to(dtype)
    assert is_finite(tensor) and is_finite(tensor.view(7, 143).T)
    tensor[place] = value
    assert not is_finite(tensor) and not is_finite(tensor.view(7, 143).T)


@pytest.mark.parametrize("tensor", [torch.empty(0), torch.ones(2, dtype=torch.bool), torch.arange(3)])
def test_what_has_no_numbers_that_could_be_bad(tensor):
    assert is_finite(tensor)


def test_only_the_files_that_are_asked_for(compact, tmp_path):
    shards = _sharded(compact.folder, tmp_path / "shards")
    assert len(weights_of(shards)) == 2 and len(weights_of(shards, HEAD)) == 1 and weights_of(tmp_path) == []


def test_a_file_is_no_checkpoint(compact):
    out = run("generate", "a cat", "-m", compact.folder / "model.safetensors", code=1).replace("\n", " ")
    assert "is a file; give the folder" in out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": "wallaroo", "codebook_size": "many"}'),
        ("model.safetensors.index.json", "{}"),
        ("model.safetensors.index.json", '{"metadata": {}, "weight_map": {"a": "b.safetensors"}}'),
        ("generation_config.json", "{"),
    ],
)
def test_damaged_settings_are_one_sentence(compact, tmp_path, file, content):
    folder = damaged(compact.folder, tmp_path / "bad", "unexpected")
    if file.startswith("model"):
        (folder / "model.safetensors").unlink()
    (folder / file).write_text(content, encoding="utf-8")
    out = run("generate", "a cat", "-m", folder, code=1)
    assert "Traceback" not in out and str(folder) in out.replace("\n", "")


def test_models_that_were_built_are_not_looked_at(model, processor, monkeypatch):
    """A pipeline of a model in memory costs no pass over its weights."""
    monkeypatch.setattr(loading, "is_finite", lambda tensor: pytest.fail("looked at"))
    assert WallarooPipeline(model=model, processor=processor).model is model
