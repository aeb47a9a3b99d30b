"""Several codes per forward: the codes that come one by one, whatever the cache, the batch, the guesses."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

import wallaroo_hf
from helpers import draw, generators, picture
from wallaroo_hf.generation import ImageStreamer, NullPromptCache
from wallaroo_hf.generation.plan import plan_drawing
from wallaroo_hf.generation.ragged import RaggedRows
from wallaroo_hf.generation.sampling import GumbelNoise, NoiseAhead
from wallaroo_hf.generation.windows import PATIENCE, _RecentScores, auto_window

PROMPTS = ["a red circle", "two very small green birds on a long wooden table", "蓝色的星星"]
SIZES = [(64, 96), (96, 64), (80, 80)]
SCENES = ["a red circle", "three blue stars above a green heart", "蓝色的星星", "two pink rings"]


@pytest.fixture(scope="module")
def built_in():
    folder = wallaroo_hf.default_checkpoint()
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return model.eval(), wallaroo_hf.WallarooProcessor.from_pretrained(folder)


@pytest.fixture
def inputs(processor):
    """Three drawings of different prompts and sizes."""
    heights, widths = zip(*SIZES, strict=True)
    return processor(
        text=PROMPTS, generation_mode="image", height=list(heights), width=list(widths), return_tensors="pt"
    )


@pytest.fixture
def edits(processor):
    """An edit and a drawing of different sizes."""
    return processor(
        text=PROMPTS[:2],
        images=[picture(1), None],
        generation_mode="image",
        height=[64, 96],
        width=[96, 64],
        return_tensors="pt",
    )


def _output(model, inputs, **kwargs):
    return model.generate(**inputs, generation_mode="image", return_dict_in_generate=True, **kwargs)


# On CPU in float32 other shapes of the matrix products move logits by rounding, so a near tie could in principle fall
# differently; no drawing of these, or of the 500 and more of benchmarks/windows.py, ever did.
@pytest.mark.parametrize("cache_implementation", [None, "static"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("num_images", [1, 4])
@pytest.mark.parametrize("edit", [False, True], ids=["text to image", "edit"])
def test_a_trained_model_draws_the_same(built_in, edit, num_images, guidance_scale, cache_implementation):
    """40 drawings of the built-in checkpoint, each with two windows."""
    model, processor = built_in
    inputs = processor(
        text=SCENES[:num_images],
        images=[picture(seed, 96, 96) for seed in range(num_images)] if edit else None,
        generation_mode="image",
        height=[96, 64, 128, 96][:num_images],
        width=[96, 128, 64, 96][:num_images],
        return_tensors="pt",
    )
    settings = {"guidance_scale": guidance_scale, "cache_implementation": cache_implementation}
    seeds = range(10 * num_images + edit, 10 * num_images + edit + num_images)
    expected = _output(model, inputs, generator=generators(*seeds), **settings)
    for window in (5, 32):
        windowed = _output(model, inputs, generator=generators(*seeds), window=window, **settings)
        assert torch.equal(windowed.sequences, expected.sequences)
        assert windowed.statistics.forwards < expected.statistics.forwards
        assert windowed.statistics.codes_per_forward > 1


@pytest.mark.parametrize("window", [2, 3, 16, 1000])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cache_implementation": "static"},
        {"line_breaks": False},
        {"attend_padding": True},
        {"do_sample": False},
        {"guidance_scale": 1.0},
        {"top_p": 0.5, "temperature": 0.7},
        {"num_return_sequences": 2, "guidance_scale": 1.5},
        {"guidance_min_p": 0.2},
        {"guidance_min_p": 0.5, "do_sample": False},
        {"guidance_min_p": 0.1, "repetition_penalty": 1.1},  # scores as wide as the whole vocabulary
    ],
    ids=str,
)
def test_settings(model, inputs, window, settings):
    settings = {"top_k": 50, **settings} if settings.get("do_sample", True) else settings
    copies = settings.get("num_return_sequences", 1)
    expected = draw(model, inputs, generator=generators(*range(3 * copies)), **settings)
    assert draw(model, inputs, generator=generators(*range(3 * copies)), window=window, **settings) == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cache_implementation", [None, "static"])
def test_edits_beside_drawings(model, edits, attention, cache_implementation):
    model.set_attn_implementation(attention)
    settings = {"cache_implementation": cache_implementation, "null_prompt_cache": NullPromptCache()}
    expected = draw(model, edits, generator=generators(1, 2))
    assert draw(model, edits, generator=generators(1, 2), window=6, **settings) == expected


def test_two_scale_edits(model, processor):
    inputs = processor(
        text="blue", images=[picture(1)], source_guidance=True, generation_mode="image", height=64, width=64,
        return_tensors="pt",
    )  # fmt: skip
    settings = {"source_guidance_scale": 1.5, "top_k": 30}
    expected = draw(model, inputs, generator=generators(1), **settings)
    assert draw(model, inputs, generator=generators(1), window=8, **settings) == expected


def test_only_plausible_codes(built_in):
    """The rule treats each row of scores for itself, so it does the same in windows: with two scales of guidance too."""
    model, processor = built_in
    inputs = processor(
        text=SCENES,
        images=[picture(seed, 96, 96) for seed in range(4)],
        source_guidance=True,
        generation_mode="image",
        height=96,
        width=96,
        return_tensors="pt",
    )
    for scales in ({"guidance_scale": 3.0}, {"guidance_scale": 3.0, "source_guidance_scale": 1.5}):
        drawn = [
            _output(model, inputs, generator=generators(1, 2, 3, 4), guidance_min_p=share, window=window, **scales)
            for share, window in ((0.0, 1), (0.2, 1), (0.2, 5), (0.2, 32))
        ]
        free, plausible, *windowed = (output.sequences for output in drawn)
        assert not torch.equal(plausible, free)
        assert all(torch.equal(sequences, plausible) for sequences in windowed)
        assert all(output.statistics.codes_per_forward > 1 for output in drawn[2:])


def test_wrong_guesses_cost_forwards_only(built_in, monkeypatch):
    """Guesses at random: the same codes, found later."""
    model, processor = built_in
    inputs = processor(text="a red circle", generation_mode="image", height=96, width=96, return_tensors="pt")
    expected = _output(model, inputs, generator=generators(1), window=8)
    assert torch.equal(expected.sequences, _output(model, inputs, generator=generators(1)).sequences)
    noise = torch.Generator().manual_seed(0)

    def nonsense(self, codes, last):
        return torch.rand(*codes.shape, self.kept.shape[-1], generator=noise)

    monkeypatch.setattr(_RecentScores, "above", nonsense)
    guessed = _output(model, inputs, generator=generators(1), window=8)
    assert torch.equal(guessed.sequences, expected.sequences)
    assert guessed.statistics.forwards >= expected.statistics.forwards


def test_forwards_have_one_shape(model, inputs):
    """Whatever was accepted, the steps are windows; with a static cache also their masks change in few steps only."""
    shapes = set()

    def note(module, args, kwargs):
        if isinstance(kwargs["attention_mask"], dict):
            shapes.add((*kwargs["inputs_embeds"].shape[:2], kwargs["attention_mask"]["full_attention"].shape[-1]))

    model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    draw(model, inputs, window=7, cache_implementation="static")
    assert shapes == {(6, 7, 128)}


def test_statistics(built_in):
    model, processor = built_in
    size = {"height": [96, 64], "width": [64, 64]}
    inputs = processor(text=SCENES[:2], generation_mode="image", return_tensors="pt", **size)
    alone = _output(model, inputs, generator=generators(1, 2)).statistics
    assert (alone.window, alone.codes_per_forward, alone.gave_up_at) == (1, 1.0, None)
    forwards = []
    handle = model.model.language_model.register_forward_hook(lambda *args: forwards.append(1))
    several = _output(model, inputs, generator=generators(1, 2), window=9).statistics
    handle.remove()
    assert several.window == 9 and several.forwards == len(several.decided) == len(forwards)
    assert several.decided[0] == [1, 1]
    assert [sum(counts) for counts in zip(*several.decided, strict=True)] == [24, 16]
    working = sum(count > 0 for forward in several.decided for count in forward)
    assert several.codes_per_forward == 40 / working > 1


def test_scores_and_logits(model, inputs):
    """One entry per token, the same as one by one, however many came at once."""
    wanted = {"output_scores": True, "output_logits": True, "top_k": 50}
    expected = _output(model, inputs, generator=generators(1, 2, 3), **wanted)
    windowed = _output(model, inputs, generator=generators(1, 2, 3), window=9, **wanted)
    for name in ("scores", "logits"):
        theirs, ours = torch.stack(expected[name]), torch.stack(windowed[name])
        code = torch.isfinite(theirs)
        assert torch.equal(code, torch.isfinite(ours))
        torch.testing.assert_close(ours[code], theirs[code], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("same", [False, True], ids=["global", "one generator"])
def test_images_that_share_a_generator(model, inputs, same):
    """They get its numbers in the order of images that are drawn code by code, and leave it in the same state."""
    drawn, states = [], []
    for window in (1, 8):
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(3) if same else None
        drawn.append(draw(model, inputs, generator=generator, window=window))
        states.append(generator.get_state() if same else torch.get_rng_state())
    assert drawn[0] == drawn[1] and torch.equal(*states)


@pytest.mark.parametrize("shared", [False, True])
def test_noise_ahead_is_the_noise(shared):
    """Number for number, for images of several blocks whose positions come up at different times."""
    plan = plan_drawing([(10, 20), (15, 9)], True, 1, 2, 0)
    seeds = (3,) if shared else (3, 4)
    given = generators(*seeds) * (2 if shared else 1)
    noise = GumbelNoise(given, 2, 5, torch.device("cpu"))
    expected = [[], []]
    for position, draws in enumerate(plan.is_code):
        values = noise.next(draws, plan.code_positions[:, position])
        for row in (row for row in range(2) if draws[row]):
            expected[row].append(values[row].clone())
    given = generators(*seeds) * (2 if shared else 1)
    ahead = NoiseAhead(given, 5, torch.device("cpu"), plan.is_code, reach=9)
    for first in (135, 0) if shared else (0, 7, 60, 61, 126):
        codes = torch.stack([torch.arange(first, first + 9).clamp(max=199), torch.arange(9).clamp(max=134)])
        found = ahead.at(codes, [int(codes[0].max()) + 1, 9])
        for row in range(2):
            if row == 0 or first == 0:
                assert torch.equal(found[row], torch.stack([expected[row][code] for code in codes[row]]))


# ------------------------------------------------------------------------------------------ streamers, criteria, hooks


class _Recorder(BaseStreamer):
    def __init__(self):
        self.values, self.ended = [], False

    def put(self, value):
        self.values.append(value.clone())

    def end(self):
        self.ended = True


def test_a_streamer_sees_the_codes_in_order(model, inputs):
    recorder = _Recorder()
    sequences = model.generate(
        **inputs, generation_mode="image", generator=generators(1, 2, 3), streamer=recorder, window=8
    )
    assert recorder.ended and torch.equal(recorder.values[0], inputs["input_ids"])
    assert torch.equal(torch.stack(recorder.values[1:], dim=1), sequences[:, inputs["input_ids"].shape[1] :])


def test_stopping_between_the_codes_of_a_window(built_in):
    model, processor = built_in
    size = {"height": [96, 64], "width": [64, 96]}
    inputs = processor(text=SCENES[:2], generation_mode="image", return_tensors="pt", **size)
    stopped = []
    for window in (1, 16):
        streamer = ImageStreamer(
            model, processor, inputs["target_grid_hw"], on_row=lambda s, image, rows: not (image == 1 and rows == 2)
        )
        options = {"streamer": streamer, "window": window, "generator": generators(1, 2)}
        stopped.append(model.generate(**inputs, generation_mode="image", **options))
    assert torch.equal(*stopped)
    assert stopped[1].shape[1] == inputs["input_ids"].shape[1] + 2 * 6 + 1


class _AfterTokens(StoppingCriteria):
    """Ends row r after `lengths[r]` ids."""

    def __init__(self, lengths):
        self.lengths, self.asked = torch.tensor(lengths), []

    def __call__(self, input_ids, scores, **kwargs):
        self.asked.append((input_ids.shape[1], len(scores)))
        return self.lengths <= input_ids.shape[1]


def test_stopping_criteria_are_asked_token_by_token(model, inputs):
    prompt = inputs["input_ids"].shape[1]
    results, asked = [], []
    for window in (1, 8):
        criterion = _AfterTokens([prompt + 3, prompt + 9, prompt + 5])
        options = {"stopping_criteria": StoppingCriteriaList([criterion]), "output_scores": True, "top_k": 50}
        results.append(_output(model, inputs, generator=generators(1, 2, 3), window=window, **options))
        asked.append(criterion.asked)
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert prompt < results[1].cache.get_seq_length() < prompt + 9
    assert len(results[0].scores) == len(results[1].scores) == 9
    assert asked[0] == asked[1] == [(prompt + count, count) for count in range(1, 10)]


class _Alternate(LogitsProcessor):
    """An even id after an odd one and an odd one after an even one; counts how often it is asked."""

    def __init__(self, row_wise):
        self.asked, self.row_wise = 0, row_wise

    def __call__(self, input_ids, scores):
        self.asked += 1
        return scores.masked_fill(torch.arange(scores.shape[-1]) % 2 == input_ids[:, -1:] % 2, -torch.inf)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 5.0, "no_repeat_ngram_size": 2, "top_k": 3},
        {"logits_processor": LogitsProcessorList([_Alternate(True)])},
    ],
    ids=["transformers' own", "row-wise"],
)
def test_processors_that_look_at_ids(model, inputs, settings):
    """They see, at each position, the ids before it."""
    expected = draw(model, inputs, generator=generators(1, 2, 3), **settings)
    assert draw(model, inputs, generator=generators(1, 2, 3), window=5, **settings) == expected
    assert expected != draw(model, inputs, generator=generators(1, 2, 3), top_k=settings.get("top_k"))


def test_other_processors_are_refused_or_end_guessing(model, processor, caplog):
    inputs = processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    with pytest.raises(ValueError, match=r"_Alternate may depend.*row_wise = True.*leave it out"):
        draw(model, inputs, logits_processor=LogitsProcessorList([_Alternate(False)]), window=4)
    alternate = _Alternate(False)
    output = _output(model, inputs, logits_processor=LogitsProcessorList([alternate]), window="auto")
    assert output.statistics.window == 1 and alternate.asked == output.statistics.forwards
    assert "Drawing code by code" in caplog.text and "_Alternate" in caplog.text


# ------------------------------------------------------------------------------------------------------------ caches


def test_a_static_cache_of_the_callers(model, inputs):
    expected = draw(model, inputs, do_sample=False)
    needed = max(len(inputs["input_ids"][0]), len(inputs["negative_input_ids"][0])) + max(map(len, expected))
    text_config = model.config.get_text_config()
    cache = StaticCache(config=text_config, max_cache_len=needed)
    for _ in range(2):
        assert draw(model, inputs, do_sample=False, cache=cache, window=16) == expected
        cache.reset()
    with pytest.raises(ValueError, match=rf"{needed - 1} slots.*need {needed}"):
        short = StaticCache(config=text_config, max_cache_len=needed - 1)
        draw(model, inputs, cache=short, window=16)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_the_cache_comes_back_as_it_was(model, inputs, kind):
    """Also if something raises on the way: with its own layers, and right as far as it is said to reach."""
    text_config = model.config.get_text_config()

    def fresh():
        return StaticCache(config=text_config, max_cache_len=200) if kind is StaticCache else kind(config=text_config)

    sequential, windowed, broken = fresh(), fresh(), fresh()
    options = {"generation_mode": "image", "do_sample": False}
    model.generate(**inputs, cache=sequential, **options)
    layers = list(windowed.layers)
    model.generate(**inputs, cache=windowed, window=6, **options)
    assert windowed.layers == layers
    length = int(windowed.get_seq_length())
    assert inputs["input_ids"].shape[1] < length <= int(sequential.get_seq_length())
    for ours, theirs in zip(windowed.layers, sequential.layers, strict=True):
        torch.testing.assert_close(ours.keys[:, :, :length], theirs.keys[:, :, :length], atol=1e-4, rtol=0)

    class Stop(BaseStreamer):
        def put(self, value):
            if value.ndim == 1 and value[0] == model.config.end_of_line_token_id:
                raise KeyboardInterrupt

        def end(self):
            pass

    layers = list(broken.layers)
    with pytest.raises(KeyboardInterrupt):
        model.generate(**inputs, cache=broken, window=6, streamer=Stop(), **options)
    assert broken.layers == layers


def test_other_caches_are_refused():
    prompts = torch.ones(1, 3)
    with pytest.raises(ValueError, match=r"SimpleNamespace.*dynamic or static"):
        RaggedRows(SimpleNamespace(layers=[SimpleNamespace()], offloading=False), prompts, 4, 2)
    with pytest.raises(ValueError, match="offloaded"):
        RaggedRows(SimpleNamespace(layers=[], offloading=True), prompts, 4, 2)


@pytest.mark.parametrize("edit", [False, True], ids=["text to image", "edit"])
def test_one_graph(model, processor, edit):
    """Compiled, all windows of a batch size are one graph."""
    torch._dynamo.reset()
    counters.clear()
    config = CompileConfig(backend="eager", mode=None, fullgraph=True)
    config._compile_all_devices = True
    for text in PROMPTS:
        images = [picture(1)] if edit else None
        inputs = processor(text=text, images=images, generation_mode="image", height=64, width=64, return_tensors="pt")
        compiled = {"cache_implementation": "static", "compile_config": config, "window": 6}
        expected = draw(model, inputs, generator=generators(1))
        assert draw(model, inputs, generator=generators(1), **compiled) == expected
        assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_by_inductor(model, inputs):
    torch._dynamo.reset()
    config = CompileConfig(mode="default")
    config._compile_all_devices = True
    compiled = {"cache_implementation": "static", "compile_config": config, "window": 6}
    expected = draw(model, inputs, generator=generators(1, 2, 3))
    assert draw(model, inputs, generator=generators(1, 2, 3), **compiled) == expected
    torch._dynamo.reset()


# -------------------------------------------------------------------------------------------------------------- auto


def test_the_window_of_auto(model, processor):
    counts = (1, 2, 3, 4, 5, 8, 16, 17, 100)
    assert [auto_window(count, torch.device("cuda")) for count in counts] == [32, 32, 16, 16, 8, 8, 8, 1, 1]
    assert [auto_window(count, torch.device("cpu")) for count in counts] == [8, 8, *[1] * 7]
    inputs = processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    for copies, window in ((1, 8), (2, 8), (3, 1)):
        output = _output(model, inputs, window="auto", num_return_sequences=copies, guidance_scale=1.0)
        assert output.statistics.window == window


def test_auto_gives_up_on_guesses_that_are_rarely_right(model, processor):
    """A random model's codes cannot be guessed: from some forward on one code each, in the same shape, and the same."""
    inputs = processor(
        text=PROMPTS[:2], generation_mode="image", height=[64, 96], width=[256, 160], return_tensors="pt"
    )
    expected = _output(model, inputs, generator=generators(1, 2))
    drawn = _output(model, inputs, generator=generators(1, 2), window="auto")
    assert torch.equal(drawn.sequences, expected.sequences)
    assert drawn.statistics.gave_up_at is not None and drawn.statistics.gave_up_at > PATIENCE
    behind = drawn.statistics.decided[drawn.statistics.gave_up_at :]
    assert behind and {count for forward in behind for count in forward} <= {0, 1}
    kept = _output(model, inputs, generator=generators(1, 2), window=32).statistics
    assert kept.gave_up_at is None


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"window": 0}, "from 1 on, or 'auto'"),
        ({"window": True}, "from 1 on, or 'auto'"),
        ({"window": "large"}, "from 1 on, or 'auto'"),
        ({"window": 4.0}, "from 1 on, or 'auto'"),
        ({"window": 4, "generation_mode": "text"}, "generation_mode='image'"),
        ({"window": 4, "output_hidden_states": True, "return_dict_in_generate": True}, "output_hidden_states"),
        ({"window": 4, "generator": [torch.Generator()]}, "one per image"),
    ],
)
def test_refused(model, inputs, kwargs, words):
    with pytest.raises(ValueError, match=words):
        model.generate(**inputs, **{"generation_mode": "image", **kwargs})


def test_attention_without_masks_is_refused(model, inputs, monkeypatch):
    monkeypatch.setattr(model.config.get_text_config(), "_attn_implementation", "flash_attention_2")
    with pytest.raises(ValueError, match='attn_implementation="sdpa"'):
        draw(model, inputs, window=4)


def test_the_default_is_one_code_at_a_time(model, inputs):
    config = GenerationConfig(do_sample=True)
    output = _output(model, inputs, generation_config=config)
    assert output.statistics.window == 1 and {*itertools.chain(*output.statistics.decided)} == {0, 1}
