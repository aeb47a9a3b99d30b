"""Show-o2 through the doors: Auto classes, pipelines, conversations and commands."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    pipeline,
)

import wallaroo_hf
from commands import run
from small_showo2 import picture, save_showo2
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.registry import find_family, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_showo2(tmp_path_factory.mktemp("showo2"))


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("text-to-image", model=str(folder), dtype="float32")


def draw(pipe, prompt="a red square", seed=1, **options):
    options = {"num_inference_steps": 3, "output_type": "native", **options}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **options).images


def test_auto_classes(folder):
    assert find_family(folder).title == "Show-o2"
    assert isinstance(AutoConfig.from_pretrained(folder), wallaroo_hf.ShowO2Config)
    for auto in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        assert isinstance(auto.from_pretrained(folder), wallaroo_hf.ShowO2ForConditionalGeneration)
    assert isinstance(AutoModel.from_pretrained(folder), wallaroo_hf.ShowO2Model)
    assert isinstance(AutoProcessor.from_pretrained(folder), wallaroo_hf.ShowO2Processor)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), wallaroo_hf.ShowO2ImageProcessor)


def test_the_codec_stays_in_float32_and_folders_round_trip(folder, tmp_path):
    model = AutoModelForMultimodalLM.from_pretrained(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and model.vae.basis.dtype == torch.float32
    model.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype="bfloat16", device_map="cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_pipeline(pipe):
    assert isinstance(pipe, wallaroo_hf.DrawingPipeline)
    image = pipe("a red square", num_inference_steps=2, height=32, width=64).images[0]
    assert image.size == (64, 32)
    alone = draw(pipe)[0]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 1)]
    words = ["make it green, one red one", "a red square"]
    both = pipe(words, generator=generators, num_inference_steps=3, output_type="native").images
    torch.testing.assert_close(both[1], alone, rtol=0, atol=2e-5)
    copies = draw(pipe, num_images_per_prompt=2)
    assert len(copies) == 2 and not torch.equal(copies[0], copies[1])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "blue"},
        {"seed": 2},
        {"guidance_scale": 1.0},
        {"negative_prompt": "blue"},
        {"num_inference_steps": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_asked_for_matters(pipe, change):
    assert not torch.allclose(draw(pipe)[0], draw(pipe, **change)[0], atol=1e-3)


def test_schedulers_of_diffusers(pipe):
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert torch.equal(draw(pipe)[0], draw(pipe, scheduler=euler)[0])
    assert not hasattr(euler, "num_inference_steps")  # it was not touched
    other = draw(pipe, scheduler=FlowMatchHeunDiscreteScheduler())[0]
    assert other.isfinite().all() and not torch.equal(draw(pipe)[0], other)
    with pytest.raises(ValueError, match="is the class FlowMatchHeunDiscreteScheduler, but must be an object"):
        draw(pipe, scheduler=FlowMatchHeunDiscreteScheduler)
    with pytest.raises(ValueError, match="`scheduler` is a str, but Show-o2 draws by flow matching"):
        draw(pipe, scheduler="ddim")


def test_pipeline_follows_and_stops(pipe):
    seen = []

    def callback(own, step, of, details):
        seen.append((step, of, details["preview"]().size))
        return step < 1

    output = pipe("a red square", num_inference_steps=5, callback_on_step_end=callback)
    assert seen == [(0, 5, (32, 32)), (1, 5, (32, 32))] and not output.complete


def test_settings_that_it_lacks_are_refused_by_name(pipe):
    for name, value in (("temperature", 0.5), ("top_k", 5), ("window", 4)):
        with pytest.raises(TypeError, match=f"no setting `{name}`; it has `guidance_scale`, `num_inference_steps`"):
            draw(pipe, **{name: value})
    for scale in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"`guidance_scale` is .*, but must be a number above 0"):
            draw(pipe, guidance_scale=scale)
    with pytest.raises(ValueError, match="does not do image-editing"):
        pipe("make it green", image=picture())


def test_editing_where_it_was_trained(folder, tmp_path):
    checkpoint = load(str(folder), "cpu")
    checkpoint.model.config.tasks = ["understanding", "text-to-image", "image-editing"]
    checkpoint.model.save_pretrained(tmp_path)
    checkpoint.processor.save_pretrained(tmp_path)
    edits = pipeline("image-editing", model=str(tmp_path), dtype="float32")
    options = {"num_inference_steps": 2, "output_type": "native"}
    red, blue = (
        edits("make it green", image=picture(colour), generator=torch.Generator().manual_seed(1), **options).images[0]
        for colour in ((200, 40, 40), (40, 40, 200))
    )
    assert not torch.allclose(red, blue, atol=1e-3)  # the source matters
    with pytest.raises(ValueError, match="This Show-o2 checkpoint does not do inpainting; it does"):
        edits("make it green", image=picture("red"), mask_image=Image.new("L", picture("red").size, 255), **options)


def test_other_pipelines_of_transformers(folder):
    ask = pipeline("image-text-to-text", model=str(folder))
    chat = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "red"}]}]
    assert isinstance(ask(text=chat, max_new_tokens=3, return_full_text=False)[0]["generated_text"], str)


def test_batches_of_pipelines(folder):
    """transformers puts what rows have into lists of lists."""
    ask = pipeline("image-text-to-text", model=str(folder), dtype="float32")
    chats = [
        [{"role": "user", "content": [*shown, {"type": "text", "text": "what colour is it?"}]}]
        for shown in (
            [{"type": "image", "image": picture()}],
            [{"type": "image", "image": picture((0, 200, 0))}, {"type": "image", "image": picture((0, 0, 200))}],
        )
    ]
    options = {"max_new_tokens": 4, "return_full_text": False, "generate_kwargs": {"do_sample": False}}
    alone = [ask(text=chat, **options)[0]["generated_text"] for chat in chats]
    together = ask(text=chats, batch_size=2, **options)
    assert [answers[0]["generated_text"] for answers in together] == alone


def test_any_to_any(folder, pipe):
    both = pipeline(
        "any-to-any", model=str(folder), dtype="float32", pipeline_class=wallaroo_hf.WallarooAnyToAnyPipeline
    )
    told = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(1)}
    drawn = both(
        text="a red square",
        generation_mode="image",
        processor_kwargs={"height": 32, "width": 64},
        generate_kwargs=told,
    )[0]["generated_image"]
    options = {"height": 32, "width": 64, "output_type": "pil", "num_inference_steps": 2}
    assert drawn.size == (64, 32) and drawn.tobytes() == draw(pipe, **options)[0].tobytes()
    two = both(
        text="red", generation_mode="image", generate_kwargs={"num_inference_steps": 2, "num_return_sequences": 2}
    )
    assert [one["input_text"] for one in two] == ["red"] * 2
    with pytest.raises(ValueError, match="no drawing setting `temperature`"):
        both(text="red", generation_mode="image", generate_kwargs={"temperature": 2.0})
    chat = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "red"}]}]
    assert isinstance(both(text=chat, max_new_tokens=3, return_full_text=False)[0]["generated_text"], str)


def test_commands(folder, tmp_path):
    steps = ("--set", "num_inference_steps=10")
    drawn = json.loads(
        run("generate", "a red square", "-m", folder, "-o", tmp_path, "--seed", 1, *steps, "--json").splitlines()[-1]
    )
    with Image.open(drawn["path"]) as image:
        assert image.size == (32, 32) and json.loads(image.info["settings"])["num_inference_steps"] == 10
    refused = run("generate", "red", "-m", folder, "-o", tmp_path, "--temperature", 0.5, code=1)
    assert "no setting `temperature`; it has `guidance_scale`" in " ".join(refused.split())
    refused = run("edit", drawn["path"], "make it green", "-m", folder, code=1)
    assert "does not do image-editing" in " ".join(refused.split())
    run("ask", drawn["path"], "what colour is it?", "-m", folder)
    facts = json.loads(run("info", folder, "--json"))
    assert facts["family"] == "Show-o2" and {"language model", "flow head", "image codec"} <= set(facts["parameters"])
    assert facts["sampling"]["num_inference_steps"] == 49 and facts["sampling"]["guidance_scale"] == 2.0


def test_a_file_of_prompts_gives_its_notice_once(folder, tmp_path):
    """As a note on the terminal, not as a warning of Python's."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red square\nblue\n", encoding="utf-8")
    given = ("--prompts", prompts, "-m", folder, "-o", tmp_path / "out", "--num-inference-steps", 2, "--batch-size", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        out = run("generate", *given)
    assert out.count("Note: `num_inference_steps` is 2; this checkpoint does well between") == 1
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize("may_draw", [False, True])
def test_conversation(folder, may_draw):
    checkpoint = load(str(folder), "cpu", "float32")
    chat = Conversation(checkpoint.model, checkpoint.processor, settings={"num_inference_steps": 2})
    first = chat.say("a red square", images=[] if may_draw else [picture()])
    second = chat.say("what colour is it?")
    assert all(isinstance(piece, str | Image.Image) for piece in (*first, *second))
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "user"]


def test_export_for_the_hub(folder, tmp_path):
    run("export", "-m", folder, "--to", "hub", "-o", tmp_path / "out")
    auto_map = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert auto_map["AutoModelForMultimodalLM"] == "wallaroo_remote.ShowO2ForConditionalGeneration"
    assert auto_map["AutoModel"] == "wallaroo_remote.ShowO2Model"
    code = (tmp_path / "out" / "wallaroo_remote.py").read_text(encoding="utf-8")
    assert "import ShowO2Config, ShowO2ForConditionalGeneration, ShowO2Model, ShowO2Processor" in code
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "[Show-o2](https://arxiv.org/abs/2506.15564)" in card and 'pip install "wallaroo-hf[showo2]"' in card
    assert "- showo2\n- text-to-image\n- autoregressive\n" in card and "not trained to edit" in card
    assert isinstance(
        AutoModelForMultimodalLM.from_pretrained(tmp_path / "out"), wallaroo_hf.ShowO2ForConditionalGeneration
    )
    refused = run("export", "-m", folder, "--to", "qwen2.5-vl", "-o", tmp_path / "no", code=1)
    assert "Wallaroo" in refused and not (tmp_path / "no").exists()
