"""What drawings are given: prompts, sizes, noise, settings and schedulers; each fault is one sentence."""

from __future__ import annotations

import pytest
import torch

from showo2.tiny_showo2 import BOS, START, image_ids, left_padded, tiny_showo2
from wallaroo_hf.showo2.generation.denoising import FlowSteps

PROMPTS = left_padded([BOS, 1, 2, START], [BOS, START])
NOISE = [torch.randn(16, 4, width, generator=torch.Generator().manual_seed(width)) for width in (4, 6)]
SIZES = torch.tensor([[32, 32], [32, 48]])
NULL = torch.tensor([[BOS, START]])


@pytest.fixture(scope="module")
def model():
    return tiny_showo2()


def drawn(model, **changes):
    settings = {"generation_mode": "image", "num_inference_steps": 2, "noise": NOISE}
    return model.generate(**{**PROMPTS, **settings, **changes})


@pytest.mark.parametrize(
    "same",
    [
        {"guidance_scale": torch.tensor(5.0)},
        {"num_inference_steps": 2.0},
        {"negative_input_ids": NULL.expand(2, -1)},
        {"attention_mask": PROMPTS["attention_mask"].bool()},
        {"noise": [one.double() for one in NOISE]},
        {"num_return_sequences": 1.0},
    ],
)
def test_every_form_is_the_same(model, same):
    for one, other in zip(drawn(model, **same), drawn(model), strict=True):
        assert torch.equal(one, other)


def test_sizes_as_a_list(model):
    sizes = [tuple(one.shape) for one in drawn(model, noise=None, image_size=SIZES.tolist())]
    assert sizes == [(16, 4, 4), (16, 4, 6)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guidance_scale": "5"}, "`guidance_scale` is '5', but must be a number"),
        ({"guidance_scale": True}, "`guidance_scale` is True"),
        ({"guidance_scale": 0}, "`guidance_scale` is 0, but must be above 0"),
        ({"guidance_scale": float("nan")}, "`guidance_scale` is nan"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps` is 2.5, but must be a whole number from 1 on"),
        ({"num_inference_steps": float("inf")}, "`num_inference_steps` is inf"),
        ({"num_inference_steps": 0}, "`num_inference_steps` is 0"),
        ({"published_eval": "no"}, "`published_eval` is 'no'"),
        ({"num_return_sequences": 0}, "`num_return_sequences` is 0"),
        ({"noise": NOISE[:1]}, "2 images, but 1 tensors in `noise`"),
        ({"noise": 3}, "a int in `noise`"),
        ({"noise": [None, NOISE[0]]}, "are a NoneType"),
        ({"noise": [torch.zeros(16, 0, 4)] * 2}, r"size \(16, 0, 4\)"),
        ({"noise": [torch.zeros(16, 2, 4, 4)] * 2}, "but an image's is"),
        ({"noise": [NOISE[0], NOISE[1] / 0]}, "`noise` holds numbers that are not finite"),
        ({"noise": None, "image_size": SIZES[:1]}, r"the shape \(1, 2\), but must be whole numbers of shape \(2, 2\)"),
        ({"noise": None, "image_size": SIZES.float()}, "type torch.float32"),
        ({"noise": None, "image_size": SIZES + 1}, "edges must be multiples of 16"),
        ({"noise": None, "image_size": SIZES, "generator": 3}, "A generator is a int"),
        ({"noise": None, "image_size": SIZES, "generator": [torch.Generator()]}, "2 images, but 1 generators"),
        ({"noise": None, "image_size": torch.tensor([[1024, 1024]] * 2)}, "together need 4101 positions"),
        ({"negative_input_ids": NULL}, r"`negative_input_ids` are of shape \(1, 2\), but must be \(2, T\)"),
        ({"negative_attention_mask": torch.ones(2, 2)}, "without `negative_input_ids`"),
        ({"attention_mask": torch.ones(2, 9)}, r"`attention_mask` is of shape \(2, 9\)"),
        ({"input_ids": torch.tensor([BOS, START]), "attention_mask": None}, r"must be \(B, T\)"),
    ],
)
def test_what_is_wrong_is_said(model, given, message):
    with pytest.raises(ValueError, match=message):
        drawn(model, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"max_length": 20}, "`max_length` cannot be used"),
        ({"noise": torch.zeros(1, 16, 4, 4)}, "`noise` cannot be used"),
        ({"image_size": SIZES}, r"of shape \(1, 2\)"),
        ({"negative_input_ids": NULL.expand(2, -1)}, "`negative_input_ids` are of shape"),
    ],
)
def test_what_is_wrong_in_auto_mode_is_said(model, given, message):
    batch = left_padded([BOS, 1, *image_ids(4), START])
    batch |= {"image_size": SIZES[:1], "image_latents": NOISE[0][None], "generation_mode": "auto", "max_new_tokens": 2}
    settings = {"num_inference_steps": 1, "num_return_sequences": 1}
    assert len(model.generate(**batch, **settings).latents[0]) >= 1
    with pytest.raises(ValueError, match=message):
        model.generate(**{**batch, **settings, **given})


class TestSchedulers:
    FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
    @pytest.mark.parametrize(
        ("name", "settings", "calls"),
        [
            ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 12),
            ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, 23),
            ("UniPCMultistepScheduler", FLOW, 12),
            ("DPMSolverMultistepScheduler", FLOW, 12),
        ],
    )
    def test_along_a_straight_line_all_come_to_its_end(self, name, settings, calls):
        diffusers = pytest.importorskip("diffusers")
        start, end = NOISE[0][None], NOISE[0][None].flip(1)
        steps = FlowSteps(getattr(diffusers, name)(**settings), 12, torch.device("cpu"))
        latents, times = start, [float(steps.time(step)) for step in range(steps.total)]
        for step in range(steps.total):
            latents = steps.advance(step, end - start, latents)
        assert len(times) == calls and times == sorted(times) and times[0] < 1e-3
        torch.testing.assert_close(latents, end, rtol=0, atol=5e-3)

    @pytest.mark.parametrize(
        ("name", "settings", "message"),
        [
            ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "takes what a model says for 'epsilon'"),
            ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, "has dynamic shifting"),
            ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "goes from clean to noise"),
            ("DDIMScheduler", {}, "draws by flow matching"),
        ],
    )
    def test_others_are_refused(self, model, name, settings, message):
        diffusers = pytest.importorskip("diffusers")
        with pytest.raises(ValueError, match=message):
            drawn(model, scheduler=getattr(diffusers, name)(**settings))
