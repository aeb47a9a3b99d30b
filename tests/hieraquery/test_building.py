"""Folders of transformers and diffusers become a HieraQuery checkpoint, bit by bit, or one sentence and nothing."""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM, Qwen2Model

from commands import run
from hieraquery_parts import SANA, SCALES, save_connector, save_qwen, save_sana, save_sd3
from wallaroo_hf import HieraQueryForConditionalGeneration, HieraQueryProcessor, default_checkpoint
from wallaroo_hf.families.registry import load
from wallaroo_hf.files import checkpoint_files
from wallaroo_hf.hieraquery import build_hieraquery

SMALL = {"connector": "1x16", "scales": SCALES}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return save_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def sana(tmp_path_factory):
    return save_sana(tmp_path_factory.mktemp("sana"))


@pytest.fixture(scope="module")
def built(qwen, sd3, tmp_path_factory):
    return build_hieraquery(qwen, sd3, tmp_path_factory.mktemp("built") / "start", **SMALL, dtype="float32")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert not [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' DPM-Solver with NumPy 2
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["sd3", "sana"])
def test_every_weight_is_where_it_belongs(kind, tied, sd3, sana, tmp_path):
    qwen = save_qwen(tmp_path / "qwen", tied, shard="30KB")
    pipeline = {"sd3": sd3, "sana": sana}[kind]
    folder = build_hieraquery(qwen, pipeline, tmp_path / "start", **SMALL, dtype="float32")
    model, info = HieraQueryForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_equal(model.mllm.state_dict(), Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen).state_dict())
    assert (model.mllm.lm_head.weight is model.mllm.get_input_embeddings().weight) is tied
    transformer, vae = (getattr(diffusers, model.config.dit["_class_name"]), type(model.codec.vae))
    loaded = transformer.from_pretrained(pipeline / "transformer")
    assert_equal(model.dit.state_dict(), loaded.state_dict())
    assert_equal(dict(model.dit.named_buffers()), dict(loaded.named_buffers()))  # Sana's is in no file
    assert_equal(model.codec.vae.state_dict(), vae.from_pretrained(pipeline / "vae").state_dict())
    model.save_pretrained(tmp_path / "again")
    assert_equal(stored(tmp_path / "again"), stored(folder))
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_is_that_of_the_sources(sd3, tied, tmp_path):
    qwen = save_qwen(tmp_path / "qwen", tied)
    folder = build_hieraquery(qwen, sd3, tmp_path / "start", **SMALL)
    tensors = stored(folder)
    codec = part(tensors, "codec.vae.")
    assert {tensor.dtype for name, tensor in tensors.items() if not name.startswith("codec.")} == {torch.bfloat16}
    assert_equal(codec, load_file(sd3 / "vae" / "diffusion_pytorch_model.safetensors"))  # float32
    loaded = load(folder, "cpu")
    model = loaded.model
    assert model.dtype == torch.bfloat16 and {one.dtype for one in model.codec.parameters()} == {torch.float32}
    expected = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen, dtype=torch.bfloat16)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(model.mllm(ids).logits, expected(ids).logits)
    model.save_pretrained(tmp_path / "again")
    assert_equal(stored(tmp_path / "again"), tensors)


def test_a_checkpoint_that_draws_and_answers(built, tmp_path):
    checkpoint = load(built, "cpu")
    config = checkpoint.model.config
    assert isinstance(checkpoint.processor, HieraQueryProcessor) and checkpoint.abilities.sizes[0] == (32, 32)
    assert config.size == [32, 32] and config.scheduler["shift"] == 3.0  # 16 latents of 2 pixels
    batch = checkpoint.processor(text="a red square", generation_mode="image", return_tensors="pt")
    drawn = checkpoint.model.draw(batch, num_inference_steps=2, generators=torch.Generator().manual_seed(1))
    assert drawn.pixels[0].shape == (3, 32, 32) and drawn.pixels[0].isfinite().all()
    generation = checkpoint.model.generation_config
    assert (generation.temperature, generation.repetition_penalty) == (0.5, 1.05)  # the language model's
    assert (generation.image_guidance_scale, generation.image_num_inference_steps) == (5.0, 30)
    assert "Sana" not in run("info", built) and "1 + 4 = 5, coarse to fine" in " ".join(run("info", built).split())


def test_seeds_decide_what_is_new_and_nothing_else(qwen, sd3, built, tmp_path):
    state = torch.get_rng_state()
    again = build_hieraquery(qwen, sd3, tmp_path / "again", **SMALL, dtype="float32")
    other = build_hieraquery(qwen, sd3, tmp_path / "other", **SMALL, dtype="float32", seed=1)
    one_scale = {**SMALL, "scales": SCALES[1:]}
    single = build_hieraquery(qwen, sd3, tmp_path / "single", **one_scale, dtype="float32")
    assert torch.equal(torch.get_rng_state(), state)
    assert (again / "model.safetensors").read_bytes() == (built / "model.safetensors").read_bytes()
    first, second = stored(built), stored(other)
    changed = {name.partition(".")[0] for name, tensor in first.items() if not torch.equal(tensor, second[name])}
    assert changed == {"queries", "connector", "alignment"}
    assert_equal(part(stored(single), "alignment."), part(first, "alignment."))  # whatever else is new


def test_queries_are_as_far_apart_as_words(built):
    tensors, config = stored(built), json.loads((built / "config.json").read_text())
    table = tensors["mllm.model.embed_tokens.weight"].double()
    assert config["query_std"] == pytest.approx(float(table.std()), rel=1e-3)
    queries = torch.cat([tensor for name, tensor in tensors.items() if name.startswith("queries.group_")])
    assert float(queries.std()) == pytest.approx(config["query_std"], rel=0.2)


def test_a_wallaroo_lends_its_language_model_and_its_image_tokenizer(sd3, tmp_path):
    from wallaroo_hf import WallarooForConditionalGeneration

    dit = {**SANA, "_class_name": "SanaTransformer2DModel", "in_channels": 8, "out_channels": 8, "sample_size": 6}
    folder = build_hieraquery("built-in", dit, tmp_path / "start", **SMALL, codec="built-in", dtype="float32")
    assert [path.name for path in tmp_path.iterdir()] == ["start"]  # what was exported is gone
    theirs = WallarooForConditionalGeneration.from_pretrained(default_checkpoint(), dtype=torch.float32).eval()
    checkpoint = load(folder, "cpu")
    model = checkpoint.model
    assert_equal(model.codec.tokenizer.state_dict(), theirs.model.vq_model.state_dict())
    assert model.config.size == [96, 96] and checkpoint.abilities.unknown_words("a red giraffe") == ["giraffe"]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model.mllm(ids).logits, theirs(input_ids=ids).logits, rtol=0, atol=1e-5)
    pixels = torch.rand(3, 96, 96) * 2 - 1
    codes = theirs.model.vq_model.encode(pixels[None]).image_tokens
    expected = theirs.model.vq_model.decode(codes).clamp(-1, 1)[0]
    torch.testing.assert_close(model.reconstruct([pixels])[0], expected)
    loaded = HieraQueryForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    assert_equal(loaded.codec.state_dict(), model.codec.state_dict())  # rounding would change codes


def test_a_connector_may_begin_with_a_qwen2(qwen, sd3, tmp_path):
    source = save_connector(tmp_path / "qwen2")
    first = build_hieraquery(qwen, sd3, tmp_path / "a", connector=source, scales=SCALES, dtype="float32")
    model = HieraQueryForConditionalGeneration.from_pretrained(first)
    expected = Qwen2ForCausalLM.from_pretrained(source).model.state_dict()
    expected.pop("embed_tokens.weight")
    assert_equal(model.connector.transformer.state_dict(), expected)
    assert model.connector.transformer.config.rope_parameters["rope_theta"] == 1000000.0
    Qwen2Model.from_pretrained(source).save_pretrained(tmp_path / "bare")
    again = build_hieraquery(qwen, sd3, tmp_path / "b", connector=tmp_path / "bare", scales=SCALES, dtype="float32")
    assert_equal(stored(again), stored(first))


@pytest.mark.parametrize("options", [{"max_shard_size": "20KB"}, {"variant": "fp16", "max_shard_size": "20KB"}])
def test_sharded_pipelines_and_variants(qwen, sd3, built, options, tmp_path):
    pipeline = save_sd3(tmp_path / "sharded", **options)
    assert len(list((pipeline / "transformer").glob("*.safetensors"))) > 1
    variant = options.get("variant")
    folder = build_hieraquery(
        qwen, pipeline, tmp_path / "start", **SMALL, dtype="float32", variant=variant, max_shard_size="50KB"
    )
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert_equal(stored(folder), stored(built))
    if variant:
        with pytest.raises(ValueError, match="as fp16 only; ask for that variant"):
            build_hieraquery(qwen, pipeline, tmp_path / "no", **SMALL)


def test_from_the_hub_only_what_is_needed_is_fetched(qwen, sd3, built, tmp_path, monkeypatch):
    """A repository as SD3's: with text encoders, other variants and single files beside."""
    repository = tmp_path / "repository"
    shutil.copytree(sd3, repository)
    other = ("text_encoder_3/model-00001-of-00002.safetensors", "transformer/diffusion_pytorch_model.fp16.safetensors")
    other += ("sd3_medium.safetensors", "tokenizer/vocab.json", "vae/diffusion_pytorch_model.bin")
    for name in other:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"not to be fetched")
    asked = []

    def download(name, revision, allow_patterns):
        asked.append(name)
        files = [path.relative_to(repository) for path in repository.rglob("*") if path.is_file()]
        snapshot = tmp_path / "snapshot"
        for path in files:
            if any(fnmatch.fnmatch(path.as_posix(), pattern) for pattern in allow_patterns):
                (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / path, snapshot / path)
        return str(snapshot)

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    folder = build_hieraquery(qwen, "org/sd3", tmp_path / "start", **SMALL, dtype="float32")
    fetched = {path.relative_to(tmp_path / "snapshot").as_posix() for path in (tmp_path / "snapshot").rglob("*.*")}
    weights = {f"{one}/diffusion_pytorch_model.safetensors" for one in ("transformer", "vae")}
    configs = {"transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"}
    assert asked == ["org/sd3"] and fetched == weights | configs
    assert_equal(stored(folder), stored(built))


def test_the_command(qwen, sd3, built, tmp_path):
    words = ("build", "hieraquery", "--mllm", qwen, "--dit", sd3, "-o", tmp_path / "start")
    small = ("--connector", "1x16", "--scales", "1x1:0.5, 2x2:1:1", "--dtype", "float32")
    out = run(
        *words, *small, "--size", "16x24", "--set", "condition=prefix", "--set", "alignment_width=8", "--seed", 2
    )
    config = json.loads((tmp_path / "start" / "config.json").read_text())
    assert f"Built {tmp_path / 'start'}" in out.replace("\n", "")
    assert (config["size"], config["condition"], config["alignment_width"]) == ([16, 24], "prefix", 8)
    assert config["scales"] == json.loads((built / "config.json").read_text())["scales"]
    before = (tmp_path / "start" / "model.safetensors").read_bytes()
    assert "already exists and is not empty" in run(*words, *small, code=1).replace("\n", " ")
    assert (tmp_path / "start" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wallaroo",), "'wallaroo' cannot be built; give one of hieraquery."),
        (("hieraquery", "--mllm", "x"), "Building HieraQuery needs --dit as well."),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--set", "size"), "'size' sets nothing"),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--size", "16"), "The size '16' cannot be read"),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--scales", "4x4"), "The scale '4x4' cannot be read"),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--dtype", "int4"), "`dtype` is 'int4'"),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--connector", "0x7"), "A connector of 0x7"),
        (("hieraquery", "--mllm", "QWEN", "--dit", "SD3", "--connector", "SD3"), "The connector"),
    ],
)
def test_what_the_command_cannot_read(arguments, words, qwen, sd3, tmp_path):
    given = [{"QWEN": qwen, "SD3": sd3}.get(one, one) for one in arguments]
    out = run("build", *given, "-o", tmp_path / "start", code=1).replace("\n", " ")
    assert words in out and "Traceback" not in out and not list(tmp_path.iterdir())


def test_help_names_what_can_be_built():
    assert "What to build: hieraquery." in " ".join(run("build", "--help").replace("│", " ").split())


def _no_pipeline(folder):
    shutil.rmtree(folder / "transformer")


def _another_transformer(folder):
    _change(folder / "transformer" / "config.json", _class_name="FluxTransformer2DModel")


def _unknown_setting(folder):
    _change(folder / "transformer" / "config.json", num_experts=8)


def _no_codec(folder):
    shutil.rmtree(folder / "vae")


def _another_codec(folder):
    _change(folder / "vae" / "config.json", _class_name="AutoencoderTiny")


def _no_flow(folder):
    _change(folder / "scheduler" / "scheduler_config.json", _class_name="DDPMScheduler")


def _missing_weights(folder):
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()


def _missing_shard(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    index = {"metadata": {}, "weight_map": {"proj_out.weight": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))


def _truncated(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _missing_tensor(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("decoder.conv_in.bias")
    save_file(tensors, weights)


def _not_finite(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.bias"][0] = float("nan")
    save_file(tensors, weights)


def _quantized(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"proj_out.bias": tensors["proj_out.bias"].to(torch.int8)}, weights)


def _change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_pipeline, r"has no diffusion transformer of diffusers \(there is no transformer/config.json\); give the"),
        (_another_transformer, "is a 'FluxTransformer2DModel', but this needs a SanaTransformer2DModel or a SD3"),
        (_unknown_setting, "SD3Transformer2DModel has no setting `num_experts`"),
        (_no_codec, r"has no image codec of diffusers \(there is no vae/config.json\)"),
        (_another_codec, "The image codec is a 'AutoencoderTiny', but this needs AutoencoderKL, AutoencoderDC"),
        (_no_flow, "`scheduler` is a DDPMScheduler, but HieraQuery draws by flow matching"),
        (_missing_weights, "lacks the weights diffusion_pytorch_model.safetensors; download or save it again"),
        (_missing_shard, "lacks the weights diffusion_pytorch_model-00001-of-00001.safetensors; download"),
        (_truncated, "diffusion_pytorch_model.safetensors' cannot be read"),
        (_missing_tensor, r"weights of the image codec '.*' are damaged: `codec.vae.decoder.conv_in.bias` is missing"),
        (_not_finite, "`dit.proj_out.bias` is not finite"),
        (_quantized, "`dit.proj_out.bias` is of torch.int8"),
    ],
)
def test_damaged_pipelines(damage, words, qwen, sd3, tmp_path):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(sd3, pipeline)
    damage(pipeline)
    _refused(words, tmp_path, qwen, pipeline)


def _refused(words, tmp_path, mllm, dit, **options):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=words) as caught:
        build_hieraquery(mllm, dit, tmp_path / "start", **{**SMALL, **options})
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"codec": "pixels"},
            "codec has 3 latent channels, but the diffusion transformer takes 4; give an image codec",
        ),
        (
            {"size": (36, 32)},
            r"A picture of 36x32 .* does not fit scale 0, whose factor is 0.5: its edges must be mult",
        ),
        ({"scales": None, "size": (32, 24)}, r"A picture of 32x24 .* does not fit scale 0, whose factor is 0.25"),
        ({"size": (64, 64)}, "positions for edges up to 32 pixels"),
        ({"scales": "20x20:0.5,30x30:1"}, "take 1,304 positions, but the language model has 1,024; give fewer"),
        ({"scales": "2x2:1,1x1:0.5"}, "from coarse to fine"),
        (
            {"settings": {"alignment_layer": 2}},
            "`alignment_layer` is 2, but the diffusion transformer has blocks 0 to 1",
        ),
        ({"settings": {"condtion": "all"}}, "no setting `condtion`; did you mean `condition`"),
        ({"settings": {"condition": "none"}}, "`condition` is 'none', but must be one of own, prefix, all"),
        ({"settings": {"alignment_width": "wide"}}, "cannot have these settings"),
        ({"settings": {"scheduler": "Euler"}}, "`scheduler` is 'Euler', but must be settings of one of diffusers'"),
        ({"settings": {"dit": {}}}, "`dit` is none of the further settings"),
        ({"connector": {"hidden": 3}}, "Qwen2Config has no setting `hidden`"),
        ({"codec": "nowhere/at/all"}, "No image codec could be loaded from 'nowhere/at/all', which does not exist"),
    ],
)
def test_what_does_not_fit(options, words, qwen, sd3, tmp_path):
    _refused(words, tmp_path, qwen, sd3, **options)


def test_language_models_that_see_nothing(qwen, sd3, built, tmp_path):
    text = save_connector(tmp_path / "text")
    _refused("holds a model of type 'qwen2', but the language model must be a Qwen2.5-VL, which", tmp_path, text, sd3)
    _refused("type 'hieraquery', but .* or a Wallaroo checkpoint, whose language model is", tmp_path, built, sd3)
    blind = tmp_path / "blind"
    shutil.copytree(qwen, blind)
    tensors = load_file(blind / "model.safetensors")
    save_file({name: one for name, one in tensors.items() if "visual" not in name}, blind / "model.safetensors")
    _refused("has no vision encoder, but HieraQuery's sees pictures; give", tmp_path, blind, sd3)
    _refused("No language model is in", tmp_path, sd3, sd3)
    (blind / "model.safetensors").unlink()
    _refused("lacks the weights model.safetensors", tmp_path, blind, sd3)
    _refused("No language model could be loaded from '/nowhere', which does not", tmp_path, "/nowhere", sd3)


def test_language_models_without_tokenizer(qwen, sd3, tmp_path):
    mute = tmp_path / "mute"
    shutil.copytree(qwen, mute)
    (mute / "tokenizer.json").unlink()
    (mute / "tokenizer_config.json").unlink()
    _refused("The tokenizer lacks the tokens", tmp_path, mute, sd3)


def test_diffusers_may_be_missing(qwen, sd3, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models", None)
    out = run("build", "hieraquery", "--mllm", qwen, "--dit", sd3, "-o", tmp_path / "start", code=1)
    assert "run `pip install wallaroo-hf[hieraquery]`" in out.replace("\n", " ") and not list(tmp_path.iterdir())
