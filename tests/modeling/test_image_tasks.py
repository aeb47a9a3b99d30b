"""The table of image tasks: what follows from it, shown by a third task that only the tests know."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

from helpers import draw, generators, picture
from inpainting import INPAINTING, InpaintingConfig, InpaintingModel, with_inpainting
from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.generation import NullPromptCache
from wallaroo_hf.layout.prompt_texts import PROMPT_TEMPLATES, START_TOKENS
from wallaroo_hf.layout.special_tokens import CONFIG_TOKEN_IDS
from wallaroo_hf.modeling.adapters import token_masks
from wallaroo_hf.modeling.losses import LOSS_NAMES, TASKS, count_labels, total_loss
from wallaroo_hf.modeling.parts import EDITING, GENERATION, IMAGE_TASKS, loss_names, part_names, task_names

SIZE = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}


@pytest.fixture
def both(model, processor):
    return with_inpainting(model, processor)


@pytest.fixture
def inpainting(both):
    return both[0]


@pytest.fixture
def filler(both):
    """The processor of `inpainting`."""
    return both[1]


TEXTS, IMAGES = ["a cat", "make it blue", "fill the hole"], [None, picture(1), picture(4)]


@pytest.fixture
def rows(filler):
    """Training rows, padded right: a drawing, an edit, an inpainting."""
    targets = [picture(2), picture(3), picture(5)]
    return filler(text=TEXTS, images=IMAGES, target_images=targets, return_labels=True, padding_side="right", **SIZE)


def _one_row(processor, index):
    return processor(text=TEXTS[index], images=None if index == 0 else [IMAGES[index]], **SIZE)


def _parts_that_run(model):
    """The image parts that forwards run from now on, in order."""
    ran = []
    for owner in (model, model.model):
        for name in part_names(model.config.image_tasks):
            if hasattr(owner, name):
                getattr(owner, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    return ran


# ------------------------------------------------------------------------------------------------- what is released


def test_names_of_the_released_tasks():
    """Checkpoints, logs and settings spell these."""
    assert TASKS == task_names() == ("understanding", "generation", "editing")
    names = ("understanding_text", "generation_text", "generation_image", "editing_text", "editing_image")
    assert LOSS_NAMES == loss_names() == names
    assert GENERATION.prefixes == ("generation_adapter.", "generation_head.")
    assert EDITING.prefixes == ("source_adapter.", "edit_adapter.", "edit_head.")


def test_edit_mask_is_the_task_of_two(model, processor):
    """The older argument, of `True` and `False`, means the same."""
    inputs = processor(text=["a cat", "blue"], images=[None, picture(1)], **SIZE)
    with torch.no_grad():
        tasks = model.model.image_tasks(inputs["input_ids"])
        arguments = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
        arguments |= {"source_pixel_values": inputs["source_pixel_values"], "output_image_logits": True}
        expected = model(**arguments).image_logits
        for given in ({"image_task": tasks}, {"edit_mask": tasks == 1}):
            assert torch.equal(model(**arguments, **given).image_logits, expected)
        one = {"input_ids": inputs["input_ids"][:1], "output_image_logits": True}
        assert torch.equal(model(**one, edit_mask=True).image_logits, model(**one, image_task=1).image_logits)
        assert not torch.equal(model(**one, edit_mask=True).image_logits, model(**one, edit_mask=False).image_logits)


def test_the_table_and_the_prompts_agree():
    """Models and processors know opening tokens by different names: settings that hold ids, and words."""
    assert {task.name: CONFIG_TOKEN_IDS[task.start_token] for task in IMAGE_TASKS} == START_TOKENS
    assert set(PROMPT_TEMPLATES) == set(START_TOKENS)


@pytest.mark.parametrize("index", [-1, 2, 7])
def test_an_index_that_is_none(model, processor, index):
    ids = processor(text="a cat", **SIZE)["input_ids"]
    with pytest.raises(ValueError, match=r"0 \(generation\), 1 \(editing\)"):
        model(input_ids=ids, image_task=index, output_image_logits=True)


# ---------------------------------------------------------------------------------------------------- a third task


def test_spans(inpainting):
    """The opening token decides first, then whether a source stands before it."""
    config = inpainting.config
    start, end, own = config.generate_start_token_id, config.generate_end_token_id, config.inpaint_start_token_id
    source, source_end = config.pixel_start_token_id, config.pixel_end_token_id
    code = config.text_config.vocab_size
    ids = [own, code, end, 1, source, source_end, own, code, end, start, code, end, source, source_end, start, code]
    tasks = [2, 2, -1, -1, -1, -1, 2, 2, -1, 0, 0, -1, -1, -1, 1, 1]
    masks = token_masks(torch.tensor([ids]), config)
    assert masks.task[0].tolist() == tasks
    assert masks.image[0].tolist() == [task >= 0 for task in tasks]
    packed = torch.zeros(1, len(ids), dtype=torch.bool)
    packed[0, [0, 14]] = True  # a row begins behind the source
    assert token_masks(torch.tensor([ids]), config, packed).task[0].tolist() == [*tasks[:14], 0, 0]


def test_parts_are_made_saved_and_loaded(inpainting, model, processor, tmp_path):
    new = {name.rpartition(".")[0] for name in set(inpainting.state_dict()) - set(model.state_dict())}
    assert {name.split(".")[-2] for name in new} == {"inpaint_adapter", "inpaint_head"}
    inpainting.save_pretrained(tmp_path)
    loaded = InpaintingModel.from_pretrained(tmp_path)
    assert type(loaded.config) is InpaintingConfig
    assert torch.equal(loaded.inpaint_head[0].weight, inpainting.inpaint_head[0].weight)
    without, _ = with_inpainting(model, processor, has_inpainting=False)
    assert not any("inpaint" in name for name, _ in without.named_parameters())


def test_losses(inpainting, rows):
    """The task's labels have a loss of their own, from its own head, in a batch of all tasks as alone."""
    names = loss_names(inpainting.config.image_tasks)
    counts = dict(zip(names, count_labels(rows["input_ids"], rows["labels"], inpainting.config).tolist(), strict=True))
    assert counts["inpainting_image"] == counts["editing_image"] == counts["generation_image"] == 16
    assert counts["inpainting_text"] == counts["editing_text"] > 0 == counts["understanding_text"]
    ran = _parts_that_run(inpainting)
    outputs = inpainting(**rows)
    assert set(outputs.losses) == {name for name, count in counts.items() if count}
    assert [name for name in ran if name.endswith("head")] == ["generation_head", "edit_head", "inpaint_head"]
    outputs.losses["inpainting_image"].backward()
    for name in ("generation_head", "edit_head", "inpaint_head"):
        gradient = getattr(inpainting, name)[2].weight.grad
        moves = gradient is not None and bool(gradient.abs().sum() > 0)
        assert moves == (name == "inpaint_head"), name
    weighted = inpainting(**rows, loss_weights={"inpainting": 0.0}).loss
    left = {name: loss for name, loss in outputs.losses.items() if not name.startswith("inpainting")}
    torch.testing.assert_close(weighted, total_loss(left))
    with pytest.raises(ValueError, match="the tasks are understanding, generation, editing, inpainting"):
        inpainting(**rows, loss_weights={"outpainting": 1.0})


def test_the_loss_is_that_of_its_head(inpainting, filler):
    row = filler(text=["fill"], images=[picture(4)], target_images=[picture(5)], return_labels=True, **SIZE)
    with torch.no_grad():
        losses = inpainting(**row).losses
        assert set(losses) == {"inpainting_text", "inpainting_image"}
        logits = inpainting(**row, output_image_logits=True).image_logits[0, :-1]
    ids, _ = inpainting.model.place_targets(row["input_ids"], None, row["target_pixel_values"])
    codes = ids[0, 1:] - inpainting.config.text_config.vocab_size
    drawn = codes >= 0
    torch.testing.assert_close(losses["inpainting_image"], F.cross_entropy(logits[drawn], codes[drawn]))


def test_every_part_runs_where_processes_must_agree(inpainting, processor):
    batch = processor(text=["a cat"], target_images=[picture(2)], return_labels=True, **SIZE)
    plain = inpainting(**batch).losses
    ran = _parts_that_run(inpainting)
    touched = inpainting(**batch, touch_all_parts=True).losses
    assert set(part_names(inpainting.config.image_tasks)) == set(ran)
    assert tuple(touched) == loss_names(inpainting.config.image_tasks)
    assert {name for name, loss in touched.items() if loss} == set(plain)


def test_generate_picks_its_parts(inpainting, filler):
    row = _one_row(filler, 2)
    ran = _parts_that_run(inpainting)
    sequences = inpainting.generate(**row, generation_mode="image", generator=generators(1))
    assert set(ran) == {"source_adapter", "generation_adapter", "edit_adapter", "inpaint_adapter", "inpaint_head"}
    steps = ran[ran.index("inpaint_head") :]  # behind the prompt, which is embedded for any task
    assert set(steps) == {"inpaint_adapter", "inpaint_head"}
    assert inpainting.decode_image_tokens(sequences).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("window", [1, 4])
def test_tasks_side_by_side(inpainting, filler, processor, window):
    """Each row of a batch of three tasks is drawn as it is alone, and an inpainting is no edit."""
    options = {"guidance_scale": 3.0, "window": window}
    prompts = filler(text=TEXTS, images=IMAGES, **SIZE)
    together = draw(inpainting, prompts, generator=generators(1, 2, 3), **options)
    alone = [
        draw(inpainting, _one_row(filler, index), generator=generators(index + 1), **options)[0] for index in range(3)
    ]
    assert together == alone
    store = NullPromptCache()
    kept = draw(inpainting, prompts, generator=generators(1, 2, 3), null_prompt_cache=store, **options)
    assert kept == alone and len(store) == 3
    as_edit = draw(inpainting, _one_row(processor, 2), generator=generators(3), **options)
    assert as_edit[0] != alone[2]


def test_steps_compute_what_a_whole_forward_does(inpainting, filler):
    row = _one_row(filler, 2)
    options = {"do_sample": False, "guidance_scale": 1.0, "output_logits": True, "return_dict_in_generate": True}
    output = inpainting.generate(**row, generation_mode="image", **options)
    arguments = {name: row[name] for name in ("pixel_values", "image_grid_thw", "source_pixel_values")}
    with torch.no_grad():
        whole = inpainting(input_ids=output.sequences, output_image_logits=True, **arguments).image_logits[0]
    length, first = row["input_ids"].shape[1], inpainting.config.text_config.vocab_size
    for step, token in enumerate(output.sequences[0, length:].tolist()):
        if token >= first:
            torch.testing.assert_close(output.logits[step][0, first:], whole[length + step - 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_auto_mode_draws_what_the_text_opens(inpainting, processor, guidance_scale):
    """The text head may say the task's opening token; the image is then drawn as in image mode."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    inputs = processor.apply_chat_template(
        chat,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"generation_mode": "auto", "height": 64, "width": 64},
    )
    length, opening = inputs["input_ids"].shape[1], inpainting.config.inpaint_start_token_id

    def say(ids, scores):
        return scores.index_fill(1, torch.tensor([opening]), 1e4 if ids.shape[1] == length else -1e4)

    story = inpainting.generate(
        **inputs,
        generation_mode="auto",
        logits_processor=[say],
        max_new_tokens=3,
        guidance_scale=guidance_scale,
        generator=generators(1)[0],
    )
    assert int(story[0, length]) == opening
    shared = {name: value for name, value in inputs.items() if name not in ("attention_mask", "mm_token_type_ids")}
    drawn = {}
    for start in (opening, inpainting.config.generate_start_token_id):
        prompt = story[:, : length + 1].clone()
        prompt[0, -1] = start
        arguments = shared | {"input_ids": prompt, "guidance_scale": guidance_scale, "generator": generators(1)}
        drawn[start] = inpainting.generate(**arguments, generation_mode="image")[0, -(16 + 3 + 1) :].tolist()
    codes = story[0, length + 1 : length + 1 + 16 + 3 + 1].tolist()
    assert [start for start, plain in drawn.items() if plain == codes] == [opening]


def test_a_checkpoint_without_the_parts_says_so(model, processor):
    without, filler = with_inpainting(model, processor, has_inpainting=False)
    with pytest.raises(ValueError, match="no inpainting parts"):
        without.generate(**_one_row(filler, 2), generation_mode="image")
    assert len(draw(without, _one_row(filler, 1))[0]) == 16 + 3 + 1


def test_a_checkpoint_without_the_token(inpainting, filler, processor):
    """Tasks that a checkpoint has no token for are nowhere, and nothing else changes."""
    rows = processor(text=TEXTS[:2], images=IMAGES[:2], **SIZE)
    expected = draw(inpainting, rows, generator=generators(1, 2))
    tasks = inpainting.model.image_tasks(rows["input_ids"])
    opening = inpainting.config.inpaint_start_token_id
    inpainting.config.inpaint_start_token_id = None
    assert torch.equal(inpainting.model.image_tasks(rows["input_ids"]), tasks)
    assert inpainting.config.image_start_token_ids == [inpainting.config.generate_start_token_id]
    assert None not in inpainting.config.drawing_token_ids and opening not in inpainting.config.drawing_token_ids
    assert draw(inpainting, rows, generator=generators(1, 2)) == expected
    with pytest.raises(ValueError, match="not prepared for drawing"):
        inpainting.generate(**_one_row(filler, 2), generation_mode="image")


def test_text_never_opens_an_image(inpainting, processor):
    opening = inpainting.config.inpaint_start_token_id
    likeliest = torch.nn.functional.one_hot(torch.tensor(opening), inpainting.config.text_config.vocab_size) * 1e4
    inpainting.lm_head.register_forward_hook(lambda module, inputs, logits: logits + likeliest)
    answer = inpainting.generate(**processor(text="Hello", return_tensors="pt"), max_new_tokens=2, do_sample=False)
    assert opening not in answer.tolist()[0]


def test_quantizers_leave_its_parts(inpainting, model):
    for tested, absent in ((inpainting, set()), (model, {"inpaint_adapter", "inpaint_head"})):
        patterns = [re.compile(pattern) for pattern in tested._keep_in_fp32_modules]
        kept = {name for name in part_names(inpainting.config.image_tasks) if any(p.match(name) for p in patterns)}
        assert kept == set(part_names(inpainting.config.image_tasks)) - absent


def test_the_table_is_the_classes(inpainting):
    """It is no setting: files hold what it names, not the table."""
    assert "image_tasks" not in inpainting.config.to_dict()
    assert WallarooForConditionalGeneration.config_class.image_tasks == IMAGE_TASKS
    assert inpainting.config.image_tasks[2] is INPAINTING
    assert len(inpainting.config.image_start_token_ids) == 2
