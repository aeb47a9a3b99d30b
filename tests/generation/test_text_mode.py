"""Text mode is transformers' own, in which no drawing token is chosen: they would draw nothing, and not end."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from wallaroo_hf.layout.special_tokens import added_tokens


@pytest.fixture
def pushed(model):
    """The model with a head that would rather say drawing tokens than anything else."""
    pushed = copy.deepcopy(model)
    ids = pushed.config.drawing_token_ids
    pushed.lm_head.register_forward_hook(
        lambda module, inputs, output: output.index_add(
            -1, torch.tensor(ids), torch.full((*output.shape[:-1], len(ids)), 1e3)
        )
    )
    return pushed


def _prompt(processor, *texts):
    messages = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in texts]
    return processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
    )


def test_the_ids_are_the_tokenizers(model, processor):
    tokens = added_tokens(processor.indicator_sizes)
    assert model.config.drawing_token_ids == processor.tokenizer.convert_tokens_to_ids(tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 50, "temperature": 2.0},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": False, "prompt_lookup_num_tokens": 3},
        {"do_sample": False, "suppress_tokens": [5]},
        {"do_sample": False, "generation_mode": "text"},
    ],
    ids=lambda options: ", ".join(options),
)
def test_no_drawing_token_is_chosen(pushed, processor, options):
    inputs = _prompt(processor, *(["hi"] if "prompt_lookup_num_tokens" in options else ["hi", "a longer one"]))
    tokens = pushed.generate(**inputs, **options, max_new_tokens=12, min_new_tokens=12)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    assert new.shape[1] == 12
    assert not torch.isin(new, torch.tensor(pushed.config.drawing_token_ids)).any()
    assert int(new.max()) < pushed.config.text_config.vocab_size
    if "suppress_tokens" in options:
        assert not (new == 5).any()


def test_assisted_decoding_chooses_none(pushed, model, processor):
    inputs = _prompt(processor, "hi")
    options = {"do_sample": False, "max_new_tokens": 10, "min_new_tokens": 10}
    alone = pushed.generate(**inputs, **options)
    assert torch.equal(pushed.generate(**inputs, **options, assistant_model=copy.deepcopy(pushed)), alone)
    assert not torch.isin(alone[:, inputs["input_ids"].shape[1] :], torch.tensor(model.config.drawing_token_ids)).any()


def test_the_generation_configs_own_list_counts_too(pushed, processor):
    inputs = _prompt(processor, "hi")
    first = int(pushed.generate(**inputs, do_sample=False, max_new_tokens=1)[0, -1])
    pushed.generation_config.suppress_tokens = [first]
    assert int(pushed.generate(**inputs, do_sample=False, max_new_tokens=1)[0, -1]) != first


def test_only_auto_mode_begins_to_draw(pushed, processor):
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
        processor_kwargs={"generation_mode": "auto", "height": 64, "width": 64},
    )  # fmt: skip
    tokens = pushed.generate(**inputs, generation_mode="auto", do_sample=False, max_new_tokens=2)
    new = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    assert new[0] == pushed.config.generate_start_token_id
    assert pushed.config.generate_end_token_id in new
    assert not set(pushed.config.indicator_token_ids) & set(new)


def test_a_callers_processor_is_still_honoured(model, processor):
    inputs = _prompt(processor, "hi")
    seen = []

    class Watch(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append(scores)
            return scores

    model.generate(**inputs, do_sample=False, max_new_tokens=2, logits_processor=LogitsProcessorList([Watch()]))
    assert len(seen) == 2
    assert torch.isneginf(seen[0][:, model.config.drawing_token_ids]).all()
