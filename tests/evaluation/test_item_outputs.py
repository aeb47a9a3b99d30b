"""The tiny model itself: outputs are those of the public ways, and the same in any batch."""

import dataclasses

import numpy as np
import pytest
import torch

from wallaroo_hf import WallarooPipeline
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.evaluation import scene_items
from wallaroo_hf.evaluation.drawing_settings import read_sampling
from wallaroo_hf.evaluation.item_outputs import Subject, evaluation_mode, make_outputs
from wallaroo_hf.evaluation.items import ALL_TASKS
from wallaroo_hf.families.registry import abilities_of
from wallaroo_hf.scenes import render, render_row

SAMPLING = {"guidance_scale": 1.5, "temperature": 0.7, "top_k": 50}


@pytest.fixture(scope="module")
def subject(compact):
    sampling = read_sampling(abilities_of(compact.model, compact.processor), SAMPLING)
    return Subject(compact.model, compact.processor, sampling, 6)


def _kind(piece):
    return piece if isinstance(piece, str) else piece.size


@pytest.mark.parametrize("task", ALL_TASKS)
def test_outputs_do_not_depend_on_the_batch(subject, task):
    items = [item for item in scene_items(task, 30)[::7] if item.size != "128x64"][:3]
    assert len({item.size for item in items}) == 2
    together = make_outputs(subject, items)
    alone = [make_outputs(subject, [item])[0] for item in items]
    if task == "understanding":
        assert together == alone and len(set(alone)) > 1
        return
    if task == "chat":
        assert [list(map(_kind, pieces)) for pieces in together] == [list(map(_kind, pieces)) for pieces in alone]
        return
    assert [picture.size for picture in together] == [(item.width, item.height) for item in items]
    for one, other in zip(together, alone, strict=True):
        # codes are equal; decoded alone or together, a value may be truncated to the neighbouring grey level
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


@pytest.mark.parametrize("task", ["generation", "editing"])
def test_pictures_are_those_of_the_pipeline(subject, task):
    item = scene_items(task, 1)[0]
    drawn = WallarooPipeline(model=subject.model, processor=subject.processor)(
        item.prompt.prompt,
        image=None if item.scene is None else render(item.scene),
        height=item.height,
        width=item.width,
        generator=torch.Generator().manual_seed(item.seed),
        **SAMPLING,
    )
    assert make_outputs(subject, [item])[0].tobytes() == drawn.images[0].tobytes()


def test_a_reconstruction_is_encoded_and_decoded(subject):
    item = scene_items("reconstruction", 1)[0]
    pixels = torch.from_numpy(np.array(render(item.scene))).permute(2, 0, 1)[None] / 127.5 - 1
    vq_model = subject.model.model.vq_model
    with torch.no_grad():
        decoded = vq_model.decode(vq_model.encode(pixels).image_tokens)
    expected = subject.processor.post_process_multimodal_output(decoded, generation_mode="image")[0]
    assert np.abs(np.asarray(make_outputs(subject, [item])[0], int) - np.asarray(expected, int)).max() <= 1


def test_answers_are_greedy_and_those_of_a_chat(subject):
    item = scene_items("understanding", 2)[1]
    content = [{"type": "image", "image": render(item.scene)}, {"type": "text", "text": item.prompt.prompt}]
    inputs = subject.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    tokens = subject.model.generate(**inputs, do_sample=False, max_new_tokens=6)
    expected = subject.processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])
    assert make_outputs(subject, [item]) == [expected[0].strip()]


def test_evaluation_mode_is_left_again(model):
    model.train()
    with pytest.raises(RuntimeError), evaluation_mode(model):
        assert not model.training
        raise RuntimeError
    assert model.training


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_chat_is_answered_as_a_conversation_does(subject, number):
    """The chat before the last turn, told as it is, and then answered as [`Conversation`] answers."""
    item = scene_items("chat", 3)[number]
    told = Conversation(
        subject.model,
        subject.processor,
        item.seed,
        subject.max_new_tokens,
        {"height": item.height, "width": item.width},
    )
    shown = iter(render_row(item.chat)["images"])
    told._with = lambda text, images, videos: [
        {
            "role": turn["role"],
            "content": [
                {**part, "image": next(shown)} if part["type"] == "image" else part for part in turn["content"]
            ],
        }
        for turn in item.chat["messages"][:-1]
    ]
    own = read_sampling(subject.abilities)
    expected = told.say(item.chat["prompt"])
    pieces = make_outputs(dataclasses.replace(subject, sampling=own), [item])[0]
    assert [_kind(piece) for piece in pieces] == [_kind(piece) for piece in expected]
    drawn = [[piece.tobytes() for piece in all_ if not isinstance(piece, str)] for all_ in (pieces, expected)]
    assert drawn[0] == drawn[1]


def test_the_first_picture_of_a_composition_is_seen(subject):
    item = scene_items("composition", 1)[0]
    other = dataclasses.replace(item, references=scene_items("composition", 8)[-1].references)
    assert item.references != other.references
    one, two = (make_outputs(subject, [shown])[0] for shown in (item, other))
    assert one.tobytes() != two.tobytes()
