"""The model in transformers' world: Auto classes, saving, training, masks and losses."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

import wallaroo_hf
from helpers import draw, generators, picture
from wallaroo_hf.modeling.adapters import token_masks
from wallaroo_hf.modeling.losses import total_loss


def _rows(processor, **kwargs):
    """Training rows: an edit, or with `images=None` a text-to-image row."""
    arguments = {"text": "make it blue", "images": [picture(1)], "target_images": [picture(2)], **kwargs}
    return processor(
        generation_mode="image", height=64, width=96, return_labels=True, return_tensors="pt", **arguments
    )


def _mixed(processor):
    """An edit and a text-to-image row in one batch."""
    return processor(
        text=["make it blue", "a cat"],
        images=[picture(1), None],
        target_images=[picture(2), picture(3)],
        generation_mode="image",
        height=64,
        width=64,
        return_labels=True,
        padding_side="right",
        return_tensors="pt",
    )


def test_auto_classes(compact):
    for auto, expected in (
        (AutoConfig, "WallarooConfig"),
        (AutoProcessor, "WallarooProcessor"),
        (AutoImageProcessor, "WallarooImageProcessor"),
        (AutoTokenizer, "Qwen2Tokenizer"),
        (AutoModel, "WallarooModel"),
        (AutoModelForImageTextToText, "WallarooForConditionalGeneration"),
        (AutoModelForMultimodalLM, "WallarooForConditionalGeneration"),
    ):
        assert type(auto.from_pretrained(compact.folder)).__name__ == expected


def test_stock_image_text_to_text_pipeline(compact):
    pipe = pipeline("image-text-to-text", model=str(compact.folder))
    chat = [{"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "What?"}]}]
    answer = pipe(text=chat, max_new_tokens=4, generate_kwargs={"do_sample": False}, return_full_text=False)
    inputs = compact.processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    tokens = compact.model.generate(**inputs, do_sample=False, max_new_tokens=4)
    expected = compact.processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])
    assert answer[0]["generated_text"] == expected[0]


def test_save_load_generate(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.generation_config.image_top_k == model.generation_config.image_top_k == 1000
    inputs = processor(
        text="blue", images=[picture(1)], generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    assert draw(loaded, inputs, generator=generators(1)) == draw(model, inputs, generator=generators(1))
    for (name, ours), theirs in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_loading_in_bfloat16_spares_the_image_tokenizer(compact):
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(compact.folder, dtype=torch.bfloat16)
    assert model.lm_head.weight.dtype == model.generation_head[0].weight.dtype == torch.bfloat16
    for ours, original in zip(model.vq_model.parameters(), compact.model.vq_model.parameters(), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, original)


def test_answers_batch_equals_single(model, processor):
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        for text in ("What?", "Which colour has the large shape in the middle?")
    ]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    images = [picture(1), picture(2, 200, 60)]
    options = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None}
    inputs = processor(text=texts, images=images, return_tensors="pt")
    together = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    for row in range(2):
        single = processor(text=texts[row], images=images[row], return_tensors="pt")
        alone = model.generate(**single, **options)[:, single["input_ids"].shape[1] :]
        assert torch.equal(alone[0], together[row])


def test_answer_changes_with_the_image(model, processor):
    text = "<|vision_start|><|image_pad|><|vision_end|>What?"
    with torch.no_grad():
        logits = [
            model(**processor(text=text, images=picture(seed), return_tensors="pt")).logits[0, -1] for seed in (1, 2)
        ]
    assert not torch.allclose(*logits, atol=1e-4)


def test_image_type_ids_are_derived(model, processor):
    """Without them Qwen2.5-VL silently computes other positions; we derive them."""
    inputs = processor(text="<|vision_start|><|image_pad|><|vision_end|>What?", images=picture(1), return_tensors="pt")
    bare = {key: value for key, value in inputs.items() if key != "mm_token_type_ids"}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**bare).logits)
    options = {"do_sample": False, "max_new_tokens": 4}
    assert torch.equal(model.generate(**inputs, **options), model.generate(**bare, **options))


def test_an_answer_about_an_edit(model, processor):
    """Text mode over a context with a source block, several answers at once."""
    inputs = processor(
        text="blue", images=[picture(1)], generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "source_pixel_values")
    context = {name: inputs[name] for name in names}
    one = model.generate(**context, do_sample=False, max_new_tokens=3)
    torch.manual_seed(0)
    several = model.generate(**context, do_sample=True, top_k=1, num_return_sequences=2, max_new_tokens=3)
    assert torch.equal(several, one.repeat(2, 1))


def test_codes_in_place_equal_target_pixels(model, processor):
    rows = _rows(processor)
    with torch.no_grad():
        encoded = model(**rows)
        ids, labels = model.model.place_targets(rows["input_ids"], rows["labels"], rows["target_pixel_values"])
        names = ("attention_mask", "pixel_values", "image_grid_thw", "source_pixel_values")
        placed = model(input_ids=ids, labels=labels, **{key: rows[key] for key in names})
    assert torch.equal(encoded.loss, placed.loss)
    assert encoded.image_logits.shape == (24, model.config.codebook_size)
    assert encoded.logits.shape == (1 + 3 + 1 + 2, model.config.text_config.vocab_size)


def test_text_logits_on_demand(model, processor):
    rows = _rows(processor, images=None)
    with torch.no_grad():
        output = model(**rows, logits_to_keep=2)
        assert output.logits.shape == (1, 2, model.config.text_config.vocab_size)
        assert model(**rows).losses.keys() == output.losses.keys() == {"generation_text", "generation_image"}


def test_losses_of_a_mixed_batch(model, processor):
    """Each task's means equal those of its rows alone; the loss is their weighted sum."""
    rows = _mixed(processor)
    with torch.no_grad():
        output = model(**rows)
        weighted = model(**rows, loss_weights={"editing": 2.0})
    names = {"editing_text", "editing_image", "generation_text", "generation_image"}
    assert set(output.losses) == names
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    extra = output.losses["editing_text"] + output.losses["editing_image"]
    torch.testing.assert_close(weighted.loss, output.loss + extra)
    arguments = {"generation_mode": "image", "height": 64, "width": 64, "return_labels": True, "return_tensors": "pt"}
    alone = processor(text="a cat", target_images=[picture(3)], **arguments)
    with torch.no_grad():
        losses = model(**alone).losses
    for name in ("generation_text", "generation_image"):
        torch.testing.assert_close(losses[name], output.losses[name], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="understanding, generation, editing"):
        total_loss(output.losses, {"drawing": 1.0})


def test_gradient_checkpointing_gives_equal_losses_and_gradients(model, processor):
    rows = _mixed(processor)
    model.train()
    twin = copy.deepcopy(model)
    twin.activation_checkpointing_enable()
    losses = []
    for each in (model, twin):
        loss = each(**rows).loss
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_gradients_reach_every_part_but_the_image_tokenizer(model, processor):
    rows = _mixed(processor)
    model(**rows).loss.backward()
    for name, parameter in model.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        if name.startswith("model.vq_model."):
            assert parameter.grad is None, name
        elif "adapter" in name or "_head" in name or "language_model.layers" in name:
            assert moved, name


def test_lora_trains_and_draws(model, processor):
    """PEFT wraps the model: adapters and a whole head train, all else stays, and drawing goes through the wrapper."""
    inputs = processor(
        text="blue", images=[picture(1)], generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    before = draw(model, inputs, do_sample=False)
    original = {name: parameter.clone() for name, parameter in model.named_parameters()}
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["edit_head"])
    wrapped = get_peft_model(model, lora)
    assert draw(wrapped, inputs, do_sample=False) == before
    rows = _rows(processor)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    first = [parameter.clone() for parameter in trained]
    for _ in range(2):  # LoRA's second factor is zero at first, so its first one moves in the second step
        optimizer.zero_grad()
        wrapped(**rows).loss.backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(first, trained, strict=True))
    for name, parameter in wrapped.get_base_model().named_parameters():
        plain = name.replace(".base_layer", "").replace(".original_module", "")
        if plain in original:
            assert torch.equal(parameter, original[plain]), name
    assert draw(wrapped, inputs, do_sample=False) != before


def test_forward_refuses_misspelt_arguments(model, processor):
    rows = _rows(processor)
    with pytest.raises(TypeError, match="source_maks"):
        model(**rows, source_maks=None)
    loss = model(**rows).loss
    assert torch.equal(model(**rows, return_dict=False)[0], loss)


def test_spans(model):
    """A span is an edit iff a source came between the previous image's end (or the row's start) and its start."""
    config = model.config
    start, end = config.generate_start_token_id, config.generate_end_token_id
    source, source_end = config.pixel_start_token_id, config.pixel_end_token_id
    code = config.text_config.vocab_size
    ids = torch.tensor([[source, source_end, start, code, end, 1, start, code, end, source, source_end, start, code]])
    masks = token_masks(ids, config)
    assert masks.image[0].tolist() == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2 + [False] * 3 + [True] * 2
    assert (masks.task[0] == 1).tolist() == [False] * 2 + [True] * 2 + [False] * 7 + [True] * 2


def test_placeholder_errors(model, processor):
    rows = _rows(processor)
    without = {key: value for key, value in rows.items() if key != "target_pixel_values"}
    with pytest.raises(ValueError, match="target_pixel_values"):
        model(**without)
    with pytest.raises(ValueError, match=r"24 <\|generate_image_pad\|> placeholders"):
        model(**{**rows, "target_pixel_values": rows["target_pixel_values"] * 2})
    with pytest.raises(ValueError, match="source_mask"):
        model(**rows, source_mask=torch.zeros(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="`pixel_values_videos` needs `video_grid_thw`"):
        model(**rows, pixel_values_videos=torch.ones(1))
    with pytest.raises(ValueError, match="vision tokens"):
        model(
            **{
                **rows,
                "pixel_values": rows["pixel_values"].repeat(2, 1),
                "image_grid_thw": rows["image_grid_thw"].repeat(2, 1),
            }
        )


def test_codes_that_continue_a_cache_need_their_task(model, processor):
    inputs = processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    with torch.no_grad():
        past = model(input_ids=inputs["input_ids"], use_cache=True).cache
        code = torch.tensor([[model.config.text_config.vocab_size + 3]])
        with pytest.raises(ValueError, match="edit_mask"):
            model(input_ids=code, cache=copy.deepcopy(past))
        stepwise = model(input_ids=code, cache=past, edit_mask=False, output_image_logits=True)
        whole = model(
            input_ids=torch.cat([inputs["input_ids"], code], dim=1), output_image_logits=True, logits_to_keep=1
        )
    torch.testing.assert_close(stepwise.image_logits, whole.image_logits, atol=1e-4, rtol=0)


def test_without_editing_parts(model, processor):
    config = copy.deepcopy(model.config)
    config.has_editing = False
    small = wallaroo_hf.WallarooForConditionalGeneration(config).eval()
    assert not any("edit" in name or "source" in name for name, _ in small.named_parameters())
    arguments = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}
    inputs = processor(text="a cat", **arguments)
    assert len(draw(small, inputs)[0]) == 16 + 3 + 1
    with pytest.raises(ValueError, match="stage 4"):
        small.generate(**processor(text="blue", images=[picture(1)], **arguments), generation_mode="image")
