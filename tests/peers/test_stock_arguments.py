"""What stock Qwen2.5-VL takes and does, beyond the common checks."""

import copy

import pytest
import torch
from transformers import ContinuousBatchingConfig, Qwen2Config, Qwen2ForCausalLM

from helpers import picture

from .model_checks import without_pixels
from .subjects import drawing_subject, question_subject, stock_model, text_subject


@pytest.fixture(scope="module")
def stock(compact):
    return stock_model(compact.model)


@pytest.fixture(scope="module")
def text(compact):
    return text_subject(compact, compact.model)


def test_labels_with_embeddings(compact, stock, text):
    """The loss of rows that the caller embedded, as prompt tuning does; of codes whose task is said."""
    batch = dict(text.training)
    embedded = {**batch, "inputs_embeds": compact.model.get_input_embeddings()(batch["input_ids"])}
    del embedded["input_ids"]
    expected = stock(**embedded).loss
    torch.testing.assert_close(compact.model(**embedded).loss, expected)
    torch.testing.assert_close(compact.model(**batch).loss, expected)

    edit = dict(drawing_subject(compact, edit=True).training)
    vocab_size, model = compact.model.config.text_config.vocab_size, compact.model
    targets = edit.pop("target_pixel_values")
    ids, labels = model.model.place_targets(edit["input_ids"], edit["labels"], targets)
    edit |= {"input_ids": ids, "labels": labels}
    whole = model(**edit).losses
    hidden = {
        **edit,
        "inputs_embeds": model.model.embed_prompt(
            ids, edit["pixel_values"], edit["image_grid_thw"], edit.pop("source_pixel_values")
        ),
    }
    hidden = {name: value for name, value in hidden.items() if name not in ("input_ids", "source_pixel_values")}
    hidden["position_ids"] = model.model.get_rope_index(
        ids, edit["mm_token_type_ids"], image_grid_thw=edit["image_grid_thw"], attention_mask=edit["attention_mask"]
    )[0]
    for name in ("pixel_values", "image_grid_thw"):
        hidden.pop(name)
    alone = model(**hidden, image_task=1).losses
    assert alone.keys() == whole.keys() == {"editing_text", "editing_image"} and bool((labels >= vocab_size).any())
    for name, loss in whole.items():
        torch.testing.assert_close(alone[name], loss)
    with pytest.raises(
        ValueError, match="it cannot be seen which task they belong to; pass `input_ids` or `image_task`"
    ):
        model(**hidden)
    with pytest.raises(ValueError, match="Images to learn need `input_ids`"):
        model(**hidden, image_task=1, target_pixel_values=targets)


def test_prompt_tuning(compact, text):
    """PEFT's learned prompts get gradients, and answer where they stand before a prompt's embeddings."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    tuned = peft.get_peft_model(text.fresh(), settings).train()
    batch = {name: text.training[name] for name in ("input_ids", "attention_mask", "labels")}
    tuned(**batch).loss.backward()
    learned = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    assert len(learned) == 1 and learned[0].grad.abs().max() > 0
    table = compact.model.get_input_embeddings()
    embeds = torch.cat([tuned.get_prompt(batch_size=1), table(text.single_prompt["input_ids"])], dim=1).detach()
    assert text.generate(compact.model, {"inputs_embeds": embeds}).shape == (1, 4)
    drawing = drawing_subject(compact)
    with pytest.raises(ValueError, match=r"has a learned prompt .*, which drawing would leave out"):
        tuned.generate(**drawing.prompt, **drawing.settings)


def test_assistant_with_another_tokenizer(compact, text):
    tokenizer = copy.deepcopy(compact.processor.tokenizer)
    tokenizer.add_tokens(["zebra"])
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen2Config(**shape, num_key_value_heads=1, vocab_size=len(tokenizer) + 40)
    given = {"tokenizer": compact.processor.tokenizer, "assistant_tokenizer": tokenizer}
    helped = text.generate(compact.model, text.single_prompt, assistant_model=Qwen2ForCausalLM(config).eval(), **given)
    assert torch.equal(helped, text.generate(compact.model, text.single_prompt))


def test_sources_of_edits_are_not_cut_in_two(compact):
    """A prefill in chunks is refused where a row holds a source; images to understand are cut, see the common checks."""
    edit = drawing_subject(compact, edit=True).prompt
    prompt = {name: edit[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
    prompt["source_pixel_values"] = edit["source_pixel_values"]
    assert compact.model.generate(**prompt, max_new_tokens=1).shape[0] == 2
    with pytest.raises(ValueError, match="`prefill_chunk_size=4` would cut the source of an edit in two"):
        compact.model.generate(**prompt, max_new_tokens=1, prefill_chunk_size=4)


def test_continuous_batching(compact, stock, text):
    """The same text as stock and as `generate`, without a drawing token; prompts with images are refused at once."""
    prompt = text.prompt
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(prompt["input_ids"], prompt["attention_mask"], strict=True)]
    said = {}
    for name, model in (("ours", text.fresh()), ("stock", copy.deepcopy(stock))):
        model.set_attn_implementation("eager")
        config = copy.deepcopy(model.generation_config)
        config.update(do_sample=False, max_new_tokens=4, eos_token_id=-1)
        room = ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64)  # else it takes all memory there is
        outputs = model.generate_batch(inputs=rows, generation_config=config, continuous_batching_config=room)
        assert [output.error for output in outputs.values()] == [None, None]
        said[name] = [outputs[f"req_{row}"].generated_tokens for row in range(2)]
    assert said["ours"] == said["stock"] == text.generate(compact.model)[:, -4:].tolist()
    config = compact.model.config
    for token in (config.image_token_id, config.generate_image_token_id, config.text_config.vocab_size):
        with pytest.raises(ValueError, match="Prompt 1 holds an image, but continuous batching takes text only"):
            compact.model.generate_batch(inputs=[rows[0], [*rows[1], token]])


def test_suppressed_tokens_join_those_of_drawing(compact):
    manager = compact.model.init_continuous_batching
    config = copy.deepcopy(compact.model.generation_config)
    config.suppress_tokens = [5]
    used = manager(config).generation_config
    assert set(used.suppress_tokens) == {5, *compact.model.config.drawing_token_ids}
    assert config.suppress_tokens == [5]


def test_forward_refuses_what_no_model_takes(compact, text):
    with pytest.raises(TypeError, match=r"unexpected arguments: \['tokenizer'\]"):
        compact.model(**text.batch, tokenizer=None)
    with pytest.raises(ValueError, match=r"not used by the model: .'heigth'"):
        compact.model.generate(**text.prompt, heigth=3)
    subject = question_subject(compact, compact.model)
    with pytest.raises(ValueError, match="vision block, but there is no `image_grid_thw`"):
        compact.model(input_ids=subject.batch["input_ids"])


def test_fullgraph(compact, text):
    """One graph without breaks, of text and of rows that draw."""
    drawing = drawing_subject(compact)
    drawn = without_pixels(drawing)
    for subject, batch in ((text, text.batch), (drawing, drawn)):
        torch._dynamo.reset()
        compiled = torch.compile(subject.model, fullgraph=True, backend="eager")
        with torch.no_grad():
            said, expected = subject.read(compiled(**batch)), subject.read(subject.model(**batch))
        torch.testing.assert_close(said, expected)
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------------------------ processors


def test_rows_without_padding(compact):
    """Lists of different lengths, as tokenizers give them; no tensor is made of them."""
    for mode, more in (("text", {}), ("image", {"height": 32, "width": 32})):
        ragged = compact.processor(text=["a", "b c d e"], padding=False, generation_mode=mode, **more)
        padded = compact.processor(text=["a", "b c d e"], generation_mode=mode, return_tensors="pt", **more)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            assert len(ragged[name][0]) < len(ragged[name][1])
            for row, mine in enumerate(ragged[name]):
                assert mine == padded[name][row][padded["attention_mask"][row].bool()].tolist()
    with pytest.raises(ValueError, match="make no tensor; pass padding=True"):
        compact.processor(text=["a", "b c d e"], padding=False, return_tensors="pt")
    same = compact.processor(text=["a b", "c d"], padding=False, return_tensors="pt")
    assert same["input_ids"].shape[0] == 2


def test_truncation_never_cuts_an_image(compact):
    shown = "<|vision_start|><|image_pad|><|vision_end|>What is this thing?"
    whole = compact.processor(text=shown, images=picture(0))["input_ids"][0]
    image = whole.count(compact.model.config.image_token_id)
    cut = compact.processor(text=shown, images=picture(0), truncation=True, max_length=len(whole) - 2)["input_ids"][0]
    assert cut == whole[:-2]
    for length in (image, image + 1 - image // 2, 1):
        with pytest.raises(
            ValueError, match=f"to {length} tokens would leave {max(0, length - 1)} of the {image} image"
        ):
            compact.processor(text=["hi", shown], images=picture(0), truncation=True, max_length=length)
    assert len(compact.processor(text="a b c d e f", truncation=True, max_length=3)["input_ids"][0]) == 3
    chat = compact.processor.apply_chat_template([{"role": "user", "content": "draw"}])
    with pytest.raises(ValueError, match="`truncation` would cut"):
        compact.processor(text=chat, generation_mode="auto", truncation=True, max_length=5)


def test_a_lone_placeholder_is_an_image(compact, stock):
    """As in stock, also without the tokens that chats put around one."""
    inputs = dict(compact.processor(text="<|image_pad|> hi", images=picture(0, 64, 64), return_tensors="pt"))
    assert torch.equal(
        inputs["mm_token_type_ids"], (inputs["input_ids"] == compact.model.config.image_token_id).long()
    )
    with torch.no_grad():
        torch.testing.assert_close(compact.model(**inputs).logits, stock(**inputs).logits)


@pytest.mark.parametrize("family", ["showo2", "hieraquery"])
def test_rows_of_other_families(family):
    """Their processors leave rows as they are without padding, and cut no picture either."""
    pytest.importorskip("diffusers")
    if family == "showo2":
        from small_showo2 import new_showo2 as new
    else:
        from small_hieraquery import new_hieraquery as new
    processor = new()[1]
    content = [{"type": "image", "image": picture(1, 32, 32)}, {"type": "text", "text": "What?"}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    whole = processor(text=[chat, "red"], images=[picture(1, 32, 32)], padding=False)
    lengths = [len(row) for row in whole["input_ids"]]
    assert lengths[0] > lengths[1] and lengths == [len(row) for row in whole["attention_mask"]]
    with pytest.raises(ValueError, match="make no tensor; pass padding=True"):
        processor(text=[chat, "red"], images=[picture(1, 32, 32)], padding=False, return_tensors="pt")
    with pytest.raises(ValueError, match="`truncation` to 3 tokens would leave 0 of the"):
        processor(text=chat, images=[picture(1, 32, 32)], truncation=True, max_length=3)
