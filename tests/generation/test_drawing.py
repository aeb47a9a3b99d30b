"""Drawing and editing through `generate()`: batches, seeds, caches, outputs, the caller's own hooks."""

import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from helpers import draw, generators, new_tokens, picture
from wallaroo_hf.generation.cache import roomy_cache

PROMPTS = ["a red circle", "two very small green birds on a long wooden table", "蓝色的星星"]
SIZES = [(64, 96), (96, 64), (80, 80)]
SEEDS = (3, 4, 5)


def _text_to_image(processor, rows=(0, 1, 2), **kwargs):
    heights, widths = zip(*(SIZES[row] for row in rows), strict=True)
    return processor(
        text=[PROMPTS[row] for row in rows],
        generation_mode="image",
        height=list(heights),
        width=list(widths),
        return_tensors="pt",
        **kwargs,
    )


def _edit(processor, rows=(0, 1, 2), **kwargs):
    heights, widths = zip(*(SIZES[row] for row in rows), strict=True)
    return processor(
        text=[PROMPTS[row] for row in rows],
        images=[picture(row, 120 + 40 * row, 100) for row in rows],
        generation_mode="image",
        height=list(heights),
        width=list(widths),
        return_tensors="pt",
        **kwargs,
    )


@pytest.mark.parametrize("prepare", [_text_to_image, _edit])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_batch_equals_single(model, processor, prepare, guidance_scale):
    """Different prompts, sizes and sources in one left-padded batch give what each gives alone."""
    settings = {"guidance_scale": guidance_scale, "top_k": 50}
    together = draw(model, prepare(processor), generator=generators(*SEEDS), **settings)
    for row, seed in enumerate(SEEDS):
        alone = draw(model, prepare(processor, rows=[row]), generator=generators(seed), **settings)
        assert alone[0] == together[row]


def test_batch_logits_equal_single(model, processor):
    """The logits behind the codes move by rounding only."""
    options = {"generation_mode": "image", "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    together = model.generate(**_edit(processor), **options)
    for row in range(3):
        alone = model.generate(**_edit(processor, rows=[row]), **options)
        for step, logits in enumerate(alone.logits[:-1]):
            torch.testing.assert_close(logits[0], together.logits[step][row], atol=1e-4, rtol=0)


def test_edits_and_drawings_in_one_batch(model, processor):
    """Each image span picks its own adapter and head."""
    source = picture(1)
    size = {"height": 64, "width": 64, "generation_mode": "image", "return_tensors": "pt"}
    mixed = processor(text=PROMPTS[:2], images=[None, source], **size)
    together = draw(model, mixed, generator=generators(1, 2))
    drawn = draw(model, processor(text=PROMPTS[0], **size), generator=generators(1))
    edited = draw(model, processor(text=PROMPTS[1], images=[source], **size), generator=generators(2))
    assert together == [drawn[0], edited[0]]


def test_edit_uses_its_own_head(model, processor):
    inputs = _edit(processor, rows=[0])
    before = draw(model, inputs, do_sample=False)
    with torch.no_grad():
        for parameter in model.generation_head.parameters():
            parameter.add_(1.0)
    assert draw(model, inputs, do_sample=False) == before
    with torch.no_grad():
        model.edit_head[2].weight.copy_(model.edit_head[2].weight.flip(0))
    assert draw(model, inputs, do_sample=False) != before


def test_repeated_calls_agree(model, processor):
    """Nothing of one call (positions, caches) leaks into the next, whatever was done in between."""
    inputs = _text_to_image(processor)
    first = draw(model, inputs, generator=generators(*SEEDS))
    draw(model, _edit(processor), generator=generators(7, 8, 9))
    model.generate(**processor(text="Hello", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert draw(model, inputs, generator=generators(*SEEDS)) == first


def test_seeds(model, processor):
    inputs = _text_to_image(processor, rows=[0])
    assert draw(model, inputs, generator=generators(1)) == draw(
        model, inputs, generator=torch.Generator().manual_seed(1)
    )
    assert draw(model, inputs, generator=generators(1)) != draw(model, inputs, generator=generators(2))
    torch.manual_seed(5)
    first = draw(model, inputs)
    torch.manual_seed(5)
    assert draw(model, inputs) == first


def test_codes_follow_from_logits_and_noise(model, processor):
    """A code is the argmax of the filtered logits plus Gumbel noise that the generator fixes per position."""
    inputs = _text_to_image(processor, rows=[0])
    output = model.generate(
        **inputs,
        generation_mode="image",
        top_k=20,
        temperature=0.8,
        generator=generators(11),
        return_dict_in_generate=True,
        output_scores=True,
    )
    vocab_size, codes = model.config.text_config.vocab_size, model.config.codebook_size
    generator = torch.Generator().manual_seed(11)
    noise = -torch.log(-torch.log(torch.rand(64, codes, generator=generator)))
    position = 0
    for scores, token in zip(output.scores, new_tokens(model, output.sequences, inputs)[0], strict=True):
        if token < vocab_size:
            continue
        assert torch.isfinite(scores[0]).sum() == 20
        assert token - vocab_size == int((scores[0, vocab_size:] + noise[position]).argmax())
        position += 1
    assert position == 4 * 6


def test_noise_is_drawn_64_positions_at_a_time(model, processor):
    """Beyond 64 codes the generator continues with its next block, whatever the image size."""
    large = processor(text="a cat", generation_mode="image", height=144, width=144, return_tensors="pt")
    output = model.generate(
        **large, generation_mode="image", generator=generators(2), return_dict_in_generate=True, output_scores=True
    )
    generator = torch.Generator().manual_seed(2)
    codes, vocab_size = model.config.codebook_size, model.config.text_config.vocab_size
    blocks = torch.cat([torch.rand(64, codes, generator=generator) for _ in range(2)])
    drawn = [step for step, t in enumerate(new_tokens(model, output.sequences, large)[0]) if t >= vocab_size]
    step = drawn[80]
    chosen = int(output.sequences[0, large["input_ids"].shape[1] + step]) - vocab_size
    gumbel = -torch.log(-torch.log(blocks[80]))
    assert chosen == int((output.scores[step][0, vocab_size:] + gumbel).argmax())


def test_num_return_sequences(model, processor):
    inputs = _edit(processor, rows=[0, 1])
    together = model.generate(
        **inputs, generation_mode="image", num_return_sequences=2, generator=generators(1, 2, 3, 4), top_k=50
    )
    assert together.shape[0] == 4
    for row in range(2):
        single = _edit(processor, rows=[row])
        for copy in range(2):
            alone = draw(model, single, generator=generators(1 + 2 * row + copy), top_k=50)
            assert alone[0] == new_tokens(model, together, inputs)[2 * row + copy]


@pytest.mark.parametrize("prepare", [_text_to_image, _edit])
@pytest.mark.parametrize("attend_padding", [False, True])
def test_static_cache_equals_dynamic(model, processor, prepare, attend_padding):
    inputs = prepare(processor)
    settings = {"do_sample": False, "attend_padding": attend_padding}
    assert draw(model, inputs, cache_implementation="static", **settings) == draw(model, inputs, **settings)


def test_return_sequences_from_a_generation_config(model, processor):
    inputs = _text_to_image(processor, rows=[0])
    config = GenerationConfig(num_return_sequences=2, do_sample=True, image_top_k=1)
    drawn = model.generate(**inputs, generation_mode="image", generation_config=config)
    assert torch.equal(drawn[0], drawn[1])
    assert new_tokens(model, drawn, inputs)[:1] == draw(model, inputs, do_sample=False)


def test_a_cache_of_the_callers(model, processor):
    inputs = _text_to_image(processor, rows=[0])
    expected = draw(model, inputs, do_sample=False)
    length = inputs["input_ids"].shape[1] + len(expected[0])
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=length)
    assert draw(model, inputs, do_sample=False, cache=cache) == expected
    cache.reset()
    assert draw(model, inputs, do_sample=False, cache=cache) == expected


def test_attend_padding_concerns_padded_rows_only(model, processor):
    inputs = processor(
        text="a cat", negative_prompt="a cat", generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    assert inputs["attention_mask"].all() and inputs["negative_attention_mask"].all()
    assert draw(model, inputs, do_sample=False, attend_padding=True) == draw(model, inputs, do_sample=False)
    padded = _text_to_image(processor, rows=[1])
    options = {"generation_mode": "image", "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    ours = model.generate(**padded, **options).scores[3]
    published = model.generate(**padded, attend_padding=True, **options).scores[3]
    assert not torch.allclose(ours, published)


def test_settings_are_looked_up_in_order(model, processor):
    """Argument, then generation config, then default."""
    inputs = processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    line_break = model.config.end_of_line_token_id
    assert line_break in draw(model, inputs)[0]
    model.generation_config.line_breaks = False
    assert line_break not in draw(model, inputs)[0]
    assert line_break in draw(model, inputs, line_breaks=True)[0]
    model.generation_config.image_guidance_scale = 1.0
    unguided = draw(model, inputs, do_sample=False)
    assert unguided == draw(model, inputs, do_sample=False, guidance_scale=1.0)
    assert unguided != draw(model, inputs, do_sample=False, guidance_scale=5.0)


def test_text_settings_do_not_reach_drawing(model, processor):
    """Qwen's own entries (`top_p` 0.001, `repetition_penalty`) are about text; a pipeline's config too."""
    inputs = _text_to_image(processor, rows=[0])
    clean = draw(model, inputs, generator=generators(1))
    model.generation_config.update(top_p=0.001, temperature=1e-6, repetition_penalty=1.05, eos_token_id=[1, 2])
    model.generation_config.max_new_tokens = 7
    assert draw(model, inputs, generator=generators(1)) == clean
    assert draw(model, inputs, generator=generators(1), generation_config=model.generation_config) == clean
    assert draw(model, inputs, generator=generators(1), top_p=0.001) != clean


def test_only_the_needed_work_is_done(model, processor):
    """One forward per code for equally wide rows (line breaks and the end are free), and never a text logit."""
    forwards, text_heads = [], []
    model.model.language_model.register_forward_hook(lambda *args: forwards.append(1))
    model.lm_head.register_forward_hook(lambda *args: text_heads.append(1))
    inputs = processor(text=PROMPTS[:2], generation_mode="image", height=64, width=96, return_tensors="pt")
    draw(model, inputs)
    assert (len(forwards), len(text_heads)) == (4 * 6, 0)


@pytest.mark.parametrize("cache_implementation", [None, "static"])
def test_the_cache_is_never_reallocated(model, processor, cache_implementation):
    """From the first step to the last the keys stay where they are."""
    places = set()

    def note(module, args, kwargs, output):
        places.add(kwargs["cache"].layers[0].keys.data_ptr())

    model.model.language_model.register_forward_hook(note, with_kwargs=True)
    draw(model, _text_to_image(processor), cache_implementation=cache_implementation)
    assert len(places) == 1


def test_the_room_of_a_cache(model, processor):
    """A cache with too little room, or whose rows were changed, goes on as transformers' own does."""
    inputs = _text_to_image(processor, rows=[0])
    text_config = model.config.get_text_config()
    expected = draw(model, inputs, do_sample=False)
    for room in (inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] + 7):
        assert draw(model, inputs, do_sample=False, cache=roomy_cache(text_config, room)) == expected
    caches = [DynamicCache(config=text_config), roomy_cache(text_config, 20)]
    states = [torch.randn(2, 1, length, 4) for length in (3, 1, 2)]
    for cache in caches:
        cache.update(states[0], states[0], 0)
        cache.update(states[1], states[1], 0)
        cache.crop(-1)
        cache.batch_select_indices(torch.tensor([1, 0, 1]))
        last = cache.update(states[2][[0, 1, 1]], states[2][[0, 1, 1]], 0)[0]
        assert last.shape == (3, 1, 5, 4)
    assert torch.equal(caches[0].layers[0].keys, caches[1].layers[0].keys)


def test_no_look_at_the_mask_between_codes(model, processor, monkeypatch):
    """Rows with padding: the steps bring a ready mask, because making one waits for the device at every step."""
    kinds = []
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: kinds.append(type(kwargs["attention_mask"])), with_kwargs=True
    )
    draw(model, _text_to_image(processor))
    assert set(kinds[1:]) == {dict}


def test_a_512_image_takes_1024_forwards(model, processor):
    forwards = []
    model.model.language_model.register_forward_hook(lambda *args: forwards.append(1))
    inputs = processor(text="a cat", generation_mode="image", return_tensors="pt")
    tokens = draw(model, inputs, guidance_scale=1.0)[0]
    assert (len(forwards), len(tokens)) == (1024, 1024 + 31 + 1)


class _OnlyCode(LogitsProcessor):
    def __init__(self, token_id):
        self.token_id, self.widths = token_id, set()

    def __call__(self, input_ids, scores):
        self.widths.add(scores.shape[-1])
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([self.token_id]), 0.0)


def test_callers_logits_processor(model, processor):
    vocab_size, codes = model.config.text_config.vocab_size, model.config.codebook_size
    only = _OnlyCode(vocab_size + 5)
    inputs = _text_to_image(processor, rows=[0])
    tokens = draw(model, inputs, logits_processor=LogitsProcessorList([only]))[0]
    assert {token for token in tokens if token >= vocab_size} == {vocab_size + 5}
    assert tokens.count(model.config.end_of_line_token_id) == 3
    assert only.widths == {vocab_size + codes}


class _AfterTokens(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


def test_callers_stopping_criteria(model, processor):
    inputs = _text_to_image(processor, rows=[0])
    length = inputs["input_ids"].shape[1] + 5
    sequences = model.generate(
        **inputs, generation_mode="image", stopping_criteria=StoppingCriteriaList([_AfterTokens(length)])
    )
    assert sequences.shape[1] == length
    with pytest.raises(ValueError, match="incomplete"):
        model.decode_image_tokens(sequences)


class _Recorder(BaseStreamer):
    def __init__(self):
        self.values, self.ended = [], False

    def put(self, value):
        self.values.append(value.clone())

    def end(self):
        self.ended = True


def test_callers_streamer(model, processor):
    inputs, recorder = _text_to_image(processor), _Recorder()
    sequences = model.generate(**inputs, generation_mode="image", streamer=recorder)
    assert recorder.ended
    assert torch.equal(recorder.values[0], inputs["input_ids"])
    assert torch.equal(torch.stack(recorder.values[1:], dim=1), sequences[:, inputs["input_ids"].shape[1] :])


def test_outputs(model, processor):
    inputs = _text_to_image(processor)
    output = model.generate(
        **inputs,
        generation_mode="image",
        generator=generators(*SEEDS),
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
    )
    plain = model.generate(**inputs, generation_mode="image", generator=generators(*SEEDS))
    assert torch.equal(output.sequences, plain)
    prompt = inputs["input_ids"].shape[1]
    steps = output.sequences.shape[1] - prompt
    width = model.config.text_config.vocab_size + model.config.codebook_size
    assert len(output.scores) == len(output.logits) == steps
    assert {tuple(entry.shape) for entry in (*output.scores, *output.logits)} == {(3, width)}
    for step in range(steps):
        chosen = output.sequences[:, prompt + step]
        assert torch.isfinite(output.scores[step].gather(1, chosen[:, None])).all()
        assert (output.scores[step][:, : model.config.text_config.vocab_size] == 0).sum() == (
            chosen < model.config.text_config.vocab_size
        ).sum()
    layers = model.config.text_config.num_hidden_layers + 1
    assert len(output.hidden_states[0]) == layers
    assert output.hidden_states[0][0].shape[:2] == (3, prompt)
    for states in output.hidden_states:  # the other branch's rows are not kept alive
        assert states[0].untyped_storage().nbytes() == states[0].numel() * states[0].element_size()
    assert output.cache.get_seq_length() > prompt


def test_eager_equals_sdpa(model, processor):
    inputs = _edit(processor)
    for attend_padding in (False, True):
        settings = {"do_sample": False, "attend_padding": attend_padding}
        model.set_attn_implementation("sdpa")
        expected = draw(model, inputs, **settings)
        model.set_attn_implementation("eager")
        assert draw(model, inputs, **settings) == expected


def test_bfloat16_runs_with_the_image_tokenizer_in_float32(model, processor):
    model.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.vq_model.parameters()} == {torch.float32}
    inputs = _edit(processor).to(dtype=torch.bfloat16)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["source_pixel_values"][0].dtype == torch.float32
    sequences = model.generate(**inputs, generation_mode="image", generator=generators(*SEEDS))
    pixels = model.decode_image_tokens(sequences)
    assert pixels[0].dtype == torch.float32 and all(torch.isfinite(image).all() for image in pixels)


def test_changing_the_source_changes_the_logits(model, processor):
    options = {"generation_mode": "image", "return_dict_in_generate": True, "output_scores": True}
    size = {"height": 64, "width": 64, "generation_mode": "image", "return_tensors": "pt"}
    scores = [
        model.generate(**processor(text="blue", images=[picture(seed)], **size), do_sample=False, **options).scores[0]
        for seed in (1, 2)
    ]
    assert not torch.allclose(*scores, atol=1e-3)


def test_pictures(model, processor):
    """Sizes come out as asked; equal sizes as one tensor, different ones as a list."""
    sequences = model.generate(**_text_to_image(processor), generation_mode="image")
    pixels = model.decode_image_tokens(sequences)
    images = processor.post_process_multimodal_output(pixels, generation_mode="image")
    assert [image.size for image in images] == [(width, height) for height, width in SIZES]
    same = model.decode_image_tokens(model.generate(**_text_to_image(processor, rows=[0]), generation_mode="image"))
    assert same.shape == (1, 3, 64, 96)
