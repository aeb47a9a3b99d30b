"""Mixed generation: the same as reading everything anew at each step, with everything read once."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.streamers import BaseStreamer

from helpers import generators
from showo2.tiny_showo2 import BOS, END, EOS, IMAGE, START, image_ids, left_padded, tiny_showo2

PICTURE = torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(1))
ROW = [BOS, 1, 2, *image_ids(4), 5, 6]
SIZE = torch.tensor([[32, 48]])
TOKENS = 6
DRAWING = {"num_inference_steps": 3, "guidance_scale": 2.5}


@pytest.fixture(scope="module")
def model():
    return tiny_showo2()


class Wanting:
    """Makes a story: five words behind each image or the beginning, images between them, then the end."""

    def __init__(self, images: int = 2) -> None:
        self.images = images

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        for ids, own in zip(input_ids.tolist(), scores, strict=True):
            drawn = ids.count(IMAGE) // (TOKENS + 1)  # the prompt's image has fewer tokens
            said = len(ids) - 1 - max((place for place, token in enumerate(ids) if token in (BOS, END)), default=0)
            if said < 5:
                own[[START, EOS]] = -torch.inf
            else:
                own.fill_(-torch.inf)
                own[START if drawn < self.images else EOS] = 0.0
        return scores


def story(model, seed=3, **settings):
    own = {
        "image_latents": [PICTURE],
        "image_size": SIZE,
        "generator": torch.Generator().manual_seed(seed),
        "logits_processor": [Wanting()],
    }
    return model.generate(torch.tensor([ROW]), generation_mode="auto", **{**own, **DRAWING, **settings})


def close(one, other):
    """Up to what float32 loses on the way, at the scale of these latents."""
    torch.testing.assert_close(one, other, rtol=0, atol=5e-5 * float(other.abs().max()))


@torch.no_grad()
def anew(model, seed=3, history=1.0, later_guidance=None):
    """The same, by full forwards for words and drawings from the whole row."""
    ids, images, generator = list(ROW), [PICTURE], torch.Generator().manual_seed(seed)
    never = [token for token in model.config.special_token_ids if token != START]
    while ids[-1] != EOS:
        batch = torch.tensor([ids])
        logits = model(input_ids=batch, image_latents=images, timesteps=[history] * len(images)).logits[:, -1]
        logits = Wanting()(batch, logits.index_fill(1, torch.tensor(never), -torch.inf))
        ids.append(int(logits.argmax()))
        if ids[-1] == START:
            settings = {**DRAWING}
            if len(images) > 1 and later_guidance:
                settings["guidance_scale"] = later_guidance
            noise = torch.randn(16, 4, 6, generator=generator)
            if history == 0:
                noise = noise.bfloat16().float()
            batch = torch.tensor([ids])
            images += model.generate(batch, image_latents=images, noise=[noise], generation_mode="image", **settings)
            ids += [*[IMAGE] * (TOKENS + 1), END]
    return ids, images[1:]


def test_a_story_is_that_of_reading_everything_anew(model):
    told, (ids, images) = story(model), anew(model)
    assert told.sequences[0].tolist() == ids
    assert ids.count(START) == 3 and len(told.latents[0]) == 2
    for one, other in zip(told.latents[0], images, strict=True):
        close(one, other)
    assert not torch.equal(*told.latents[0])


def test_the_published_story(model):
    """Finished images have the time 0 while text is written, later ones the guidance 5, noise is bfloat16's."""
    told, (ids, images) = story(model, published_eval=True), anew(model, history=0.0, later_guidance=5.0)
    assert told.sequences[0].tolist() == ids
    for one, other in zip(told.latents[0], images, strict=True):
        close(one, other)
    ours = story(model)
    assert (ours.latents[0][1] - told.latents[0][1]).abs().max() > 1e-2


def test_everything_is_read_once(model):
    """Positions of the language model and the flow head, row by row, and images of the visual path, counted."""
    language, flow, visual = [], [], []
    hooks = [
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: language.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
        model.flow_head.register_forward_pre_hook(
            lambda _, args, kwargs: flow.append(args[0].shape[:2]), with_kwargs=True
        ),
        model.model.visual.register_forward_pre_hook(lambda _, args: visual.append(len(args[0]))),
    ]
    told = story(model)
    for hook in hooks:
        hook.remove()
    steps, block = DRAWING["num_inference_steps"], TOKENS + 1
    drawing = [(2, block)] * steps
    assert [shape for shape in language if shape[0] == 2] == [*drawing, *drawing]
    read = [shape for shape in language if shape[0] == 1]
    null = (1, 2)
    assert read.count(null) == 1
    # all but what was said last, and the null prompt once
    assert sum(length for _, length in read) == told.sequences.shape[1] - 1 + 2
    assert [shape for shape in map(tuple, flow) if shape[0] == 2] == [*drawing, *drawing]
    heard = sum(shape[1] for shape in flow if shape[0] == 1) - 2
    last_start = max(place for place, token in enumerate(told.sequences[0].tolist()) if token == START)
    assert heard == last_start + 1  # what follows what opens the last image is never heard
    assert sum(visual) == 1 + 2 * (steps + 1)


def test_a_text_without_images_never_asks_the_flow_head(model, monkeypatch):
    monkeypatch.setattr(model.flow_head, "forward", None)
    told = story(model, logits_processor=[Wanting(images=1)], max_new_tokens=3)
    assert told.sequences.shape[1] == len(ROW) + 3 and told.latents == [[]]


def test_rows_of_a_batch_are_told_as_alone(model):
    rows = [ROW, [BOS, 7, 8]]
    inputs = left_padded(*rows)
    settings = {"generation_mode": "auto", "logits_processor": [Wanting()], **DRAWING, "max_new_tokens": 9}
    both = model.generate(
        **inputs,
        image_latents=[PICTURE],
        image_size=torch.tensor([[32, 48], [32, 48]]),
        generator=generators(3, 4),
        **settings,
    )
    assert both.sequences.shape[0] == 2
    for number, row in enumerate(rows):
        images = {"image_latents": [PICTURE]} if number == 0 else {}
        alone = model.generate(
            torch.tensor([row]), image_size=SIZE, generator=generators(3 + number)[0], **images, **settings
        )
        ids = alone.sequences[0, len(row) :].tolist()
        padded = both.sequences[number, inputs["input_ids"].shape[1] :].tolist()
        assert padded[: len(ids)] == ids and set(padded[len(ids) :]) <= {model.config.pad_token_id}
        for one, other in zip(both.latents[number], alone.latents[0], strict=True):
            assert torch.equal(one, other)


def test_a_prompt_may_end_with_what_opens_an_image(model):
    told = model.generate(
        torch.tensor([[*ROW, START]]),
        image_latents=[PICTURE],
        image_size=SIZE,
        generation_mode="auto",
        generator=torch.Generator().manual_seed(3),
        logits_processor=[Wanting(images=1)],
        **DRAWING,
    )
    noise = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(3))
    drawn = model.generate(
        torch.tensor([[*ROW, START]]), image_latents=[PICTURE], noise=[noise], generation_mode="image", **DRAWING
    )
    close(told.latents[0][0], drawn[0])
    assert told.sequences[0, len(ROW) + 1 :].tolist()[: TOKENS + 2] == [*[IMAGE] * (TOKENS + 1), END]


def test_budget_counts_text_and_what_opens_an_image(model):
    told = story(model, max_new_tokens=4)
    assert told.sequences.shape[1] == len(ROW) + 4 + TOKENS + 2 and len(told.latents[0]) == 1


def test_negative_prompts(model):
    plain = story(model, max_new_tokens=4)
    same = story(model, max_new_tokens=4, negative_input_ids=torch.tensor([[BOS, START]]))
    other = story(model, max_new_tokens=4, negative_input_ids=torch.tensor([[BOS, 9, START]]))
    assert torch.equal(plain.latents[0][0], same.latents[0][0])
    assert not torch.equal(plain.latents[0][0], other.latents[0][0])


def test_streaming_is_one_stream_of_text(model):
    heard = []

    class Streamer(BaseStreamer):
        def put(self, value):
            heard.append(value.tolist())

        def end(self):
            heard.append("end")

    told = story(model, streamer=Streamer())
    new = told.sequences[0, len(ROW) :].tolist()
    words = [token for number, token in enumerate(new) if token not in (IMAGE, END)]
    assert heard == [[ROW], *[[word] for word in words], "end"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": None}, "`image_size`"),
        ({"image_size": torch.tensor([[32, 40]])}, "32x40"),
        ({"num_beams": 2}, "num_beams"),
        ({"use_cache": False}, "the cache"),
        ({"noise": [PICTURE]}, "`noise`"),
        ({"guidance_scale": 0.0}, "`guidance_scale` is 0"),
        ({"generator": generators(1, 2)}, "1 rows, but 2 generators"),
        ({"image_latents": [PICTURE, PICTURE]}, "1 images in `input_ids`, but 2"),
        ({"image_size": torch.tensor([[1024, 1024]])}, "ask for a smaller image"),
        ({"num_step": 3}, "num_step"),
    ],
)
def test_what_cannot_work_is_said(model, settings, words):
    with pytest.raises(ValueError, match=words):
        story(model, **settings)
