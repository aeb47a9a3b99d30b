"""Chats through the processor: pictures, videos, and answers that draw."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from helpers import generators
from small_showo2 import new_showo2, picture
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.contract import TextSettings
from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration


@pytest.fixture(scope="module")
def checkpoint():
    return new_showo2()


def asked(processor, content, **more):
    chat = [{"role": "user", "content": content}]
    return processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, **more
    )


def test_a_question_about_a_video(checkpoint):
    """Four frames: one block of 4 * 196 tokens, frame after frame as a still; text follows it."""
    model, processor = checkpoint
    frames = [picture((number * 60, 40, 200 - number * 60)) for number in range(4)]
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "what colour is it?"}]
    inputs = asked(processor, content, processor_kwargs={"num_frames": 4})
    assert model.model.find_images(inputs["input_ids"]).lengths == [4 * 196 + 1]
    assert inputs["pixel_values"][0].shape == (4, 3, 32, 32)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6}
    told = model.generate(**inputs, **settings)
    stills = [model.encode_pixels([frame])[0] for frame in inputs.pop("pixel_values")[0]]
    same = model.generate(**inputs, image_latents=[torch.stack(stills, dim=1)], use_cache=False, **settings)
    assert torch.equal(told, same)
    other = model.generate(
        **inputs,
        image_latents=[torch.stack(stills[::-1], dim=1)],
        output_logits=True,
        return_dict_in_generate=True,
        max_new_tokens=1,
    )
    first = model.generate(
        **inputs,
        image_latents=[torch.stack(stills, dim=1)],
        output_logits=True,
        return_dict_in_generate=True,
        max_new_tokens=1,
    )
    assert not torch.allclose(other.logits[0], first.logits[0])
    assert len(processor.post_process_image_text_to_text(told[:, inputs["input_ids"].shape[1] :])) == 1


def test_a_batch_of_chats(checkpoint):
    model, processor = checkpoint
    rows = [
        asked(processor, [{"type": "image", "image": picture()}, {"type": "text", "text": "what colour is it?"}]),
        asked(processor, [{"type": "text", "text": "a red square"}]),
    ]
    settings = {"max_new_tokens": 6, "min_new_tokens": 6}
    together = model.generate(**processor.collate(rows), **settings)
    for row, tokens in zip(rows, together, strict=True):
        assert model.generate(**row, **settings)[0, -6:].tolist() == tokens[-6:].tolist()


@pytest.fixture
def draws(monkeypatch):
    """Makes the model say two words and draw, once, and say two words more."""
    write = ShowO2ForConditionalGeneration.write

    def wanting(self, generation_config, kwargs, may_draw=False):
        start, end = self.config.vision_start_token_id, self.config.eos_token_id
        length = kwargs["input_ids"].shape[1]

        def want(input_ids, scores):
            scores = scores.clone()
            scores[:, [start, end]] = -torch.inf
            if input_ids.shape[1] == length + 2:
                drawn = int(input_ids[0, length - 1]) == self.config.vision_end_token_id
                scores[:, end if drawn else start] = torch.inf
            return scores

        return write(
            self, generation_config, {**kwargs, "logits_processor": [want, *kwargs["logits_processor"]]}, may_draw
        )

    monkeypatch.setattr(ShowO2ForConditionalGeneration, "write", wanting)


def test_a_conversation_draws_and_goes_on(checkpoint, draws):
    """A picture that was drawn is part of what is said next."""
    model, processor = checkpoint
    chat = Conversation(model, processor, size={"height": 32, "width": 64}, settings={"num_inference_steps": 2})
    steps = []
    first = chat.say("a red square", on_row=lambda preview, done, of: steps.append((done, of, preview().size)))
    assert steps == [(1, 2, (64, 32)), (2, 2, (64, 32))]
    assert [piece.size for piece in first if isinstance(piece, Image.Image)] == [(64, 32)] and not chat.partial
    second = chat.say("make it green")
    assert [piece.size for piece in second if isinstance(piece, Image.Image)] == [(64, 32)]


def test_converse_takes_a_batch_of_the_processor(checkpoint, draws):
    model, processor = checkpoint
    options = {"processor_kwargs": {"generation_mode": "auto", "height": 32, "width": 32}}
    rows = [
        asked(
            processor, [{"type": "image", "image": picture()}, {"type": "text", "text": "make it green"}], **options
        ),
        asked(processor, [{"type": "text", "text": "a red square"}], **options),
    ]

    class Silent:
        def __getattr__(self, name):
            return lambda *_: None

    def answer(batch, *seeds):
        return model.converse(
            batch,
            mode="auto",
            follow=Silent(),
            generators=generators(*seeds),
            max_new_tokens=[20] * len(seeds),
            text=TextSettings(temperature=1.0),
            drawing={"num_inference_steps": 2},
        )

    together = answer(processor.collate(rows), 1, 2)
    for row, seed, told in zip(rows, (1, 2), together, strict=True):
        assert [type(piece) for piece in told.pieces] == [list, torch.Tensor, list]
        alone = answer(row, seed)[0]
        assert alone.pieces[0] == told.pieces[0] and torch.equal(alone.pieces[1], told.pieces[1])
        assert processor.pictures([told.pieces[1]])[0].size == (32, 32)
