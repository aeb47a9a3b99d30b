"""Auto mode: text and images alternate over one cache. No released data interleaves, so the tests force the token."""

import copy

import pytest
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from helpers import generators, picture
from wallaroo_hf import WallarooForConditionalGeneration

SIZE = {"height": 64, "width": 96}


class _Say(LogitsProcessor):
    """Forces text tokens: new text token number k is `tokens[k]`, where there is one."""

    def __init__(self, model, tokens):
        self.model, self.tokens, self.said = model, tokens, 0

    def __call__(self, input_ids, scores):
        token = self.tokens.get(self.said)
        self.said += 1
        if token is None:
            return scores.index_fill(1, torch.tensor([self.model.config.generate_start_token_id]), -torch.inf)
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token]), 0.0)


def _chat(processor, images=(), **kwargs):
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": "Tell and draw."}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"generation_mode": "auto", **SIZE, **kwargs},
    )


def _tell(model, inputs, tokens, **kwargs):
    options = {"do_sample": False, "max_new_tokens": 8, **kwargs}
    say = LogitsProcessorList([_Say(model, tokens)])
    return model.generate(**inputs, generation_mode="auto", logits_processor=say, **options)


def _starts(model, tokens):
    return [index for index, token in enumerate(tokens.tolist()) if token == model.config.generate_start_token_id]


def _as_drawing(inputs, ids):
    """The inputs of a plain drawing whose prompt is a story so far."""
    shared = {name: value for name, value in inputs.items() if name not in ("attention_mask", "mm_token_type_ids")}
    return shared | {"input_ids": ids}


@pytest.mark.parametrize("images", [(), (picture(1),)], ids=["text-to-image", "edit"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_images_equal_plain_drawings(model, processor, images, guidance_scale):
    """Codes are those of `generation_mode="image"` behind the same text, and so is the task's head."""
    inputs = _chat(processor, images)
    start = model.config.generate_start_token_id
    options = {"guidance_scale": guidance_scale, "do_sample": True, "top_k": 1}
    story = _tell(model, inputs, {2: start}, generator=generators(5), **options)[0]
    (begin,) = _starts(model, story)
    assert begin == inputs["input_ids"].shape[1] + 2
    prefix = story[: begin + 1].unsqueeze(0)
    assert bool(model.model.last_image_tasks(prefix) == 1) == bool(images)
    drawn = model.generate(
        **_as_drawing(inputs, prefix),
        generation_mode="image",
        guidance_scale=guidance_scale,
        do_sample=True,
        generator=generators(5),
    )[0]
    length = 4 * 6 + 3 + 1
    assert torch.equal(story[begin + 1 : begin + 1 + length], drawn[-length:])


def test_only_plausible_codes(model, processor):
    """`guidance_min_p` is as in image mode, with windows too."""
    inputs, start = _chat(processor, [picture(1)]), model.config.generate_start_token_id
    options = {"guidance_scale": 3.0, "do_sample": True, "top_k": 1}
    free, plausible, windowed = (
        _tell(model, inputs, {2: start}, generator=generators(5), guidance_min_p=share, window=window, **options)[0]
        for share, window in ((0, None), (0.5, None), (0.5, 7))
    )
    (begin,) = _starts(model, plausible)
    drawn = model.generate(
        **_as_drawing(inputs, plausible[: begin + 1].unsqueeze(0)),
        generation_mode="image",
        guidance_scale=3.0,
        guidance_min_p=0.5,
        generator=generators(5),
    )[0]
    length = 4 * 6 + 3 + 1
    assert torch.equal(plausible[begin + 1 : begin + 1 + length], drawn[-length:])
    assert torch.equal(plausible, windowed) and not torch.equal(plausible, free)


@pytest.mark.parametrize("images", [(), (picture(1),)], ids=["text-to-image", "edit"])
def test_text_behind_an_image_sees_it(model, processor, images):
    """Text after an image is what a fresh forward over everything before it predicts."""
    inputs = _chat(processor, images)
    start = model.config.generate_start_token_id
    story = _tell(model, inputs, {1: start}, generator=generators(3))
    end = story[0].tolist().index(model.config.generate_end_token_id)
    assert story.shape[1] == end + 1 + 6
    names = ("pixel_values", "image_grid_thw", "source_pixel_values")
    with torch.no_grad():
        logits = model(
            input_ids=story, logits_to_keep=7, **{name: inputs[name] for name in names if name in inputs}
        ).logits
    logits[..., start] = -torch.inf
    assert torch.equal(logits[0, :-1].argmax(dim=-1), story[0, -6:])


def test_the_last_code_of_a_drawing_behind_an_edit_is_no_edits(model, processor):
    """Each image's codes enter by the adapter of its own task, also the one that is read together with the next text."""
    used = []
    hooks = [
        getattr(model.model, f"{name}_adapter").register_forward_hook(lambda *_, name=name: used.append(name))
        for name in ("edit", "generation")
    ]
    inputs, start = _chat(processor, [picture(1)]), model.config.generate_start_token_id
    story = _tell(model, inputs, {0: start, 1: start}, generator=generators(3))
    for hook in hooks:
        hook.remove()
    first, second = (begin + 1 for begin in _starts(model, story[0]))
    edits = model.model.image_tasks(story)[0] == 1
    assert edits[first] and not edits[second]
    assert used[-6] == "generation"  # the first of six steps of text, which reads that code


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_windows_draw_the_same(model, processor, guidance_scale):
    """Images of several codes per forward, and the text behind them, which continues their cache."""
    inputs, start = _chat(processor, [picture(1)]), model.config.generate_start_token_id
    stories = [
        _tell(model, inputs, {0: start, 3: start}, guidance_scale=guidance_scale, window=window)
        for window in (None, 7)
    ]
    assert torch.equal(*stories)


def test_several_images(model, processor):
    inputs = _chat(processor)
    start = model.config.generate_start_token_id
    story = _tell(model, inputs, {0: start, 3: start}, generator=generators(1))[0]
    assert len(_starts(model, story)) == 2
    pieces = processor.split_output(story[inputs["input_ids"].shape[1] :])
    shapes = [piece.shape for piece in pieces if not isinstance(piece, str)]
    assert shapes == [(4, 6), (4, 6)]


def test_without_images_it_is_plain_text(model, processor):
    inputs = _chat(processor, [picture(1)])
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "source_pixel_values")
    never = LogitsProcessorList([_Say(model, {})])
    text = model.generate(
        **{name: inputs[name] for name in names}, do_sample=False, max_new_tokens=8, logits_processor=never
    )
    assert torch.equal(_tell(model, inputs, {}), text)


def test_without_editing_parts_images_are_understood_only(model, processor):
    """Chats with images work for stages 1 to 3 too; what is drawn is then no edit."""
    config = copy.deepcopy(model.config)
    config.has_editing, processor.has_editing = False, False
    small = WallarooForConditionalGeneration(config).eval()
    inputs = _chat(processor, [picture(1)])
    assert "source_pixel_values" not in inputs and "pixel_values" in inputs
    story = _tell(small, inputs, {1: config.generate_start_token_id}, generator=generators(1))
    begin = _starts(small, story[0])[0]
    assert not bool(small.model.last_image_tasks(story[:, : begin + 1]) == 1)
    with pytest.raises(ValueError, match="stage 4"):
        processor(text="blue", images=[picture(1)], generation_mode="image")


def test_rows_of_a_batch_equal_single_rows(model, processor):
    start = model.config.generate_start_token_id
    texts = [
        processor.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in ("Draw.", "Say something and then draw it for me.")
    ]
    inputs = processor(text=texts, generation_mode="auto", return_tensors="pt", **SIZE)
    together = model.generate(
        **inputs,
        generation_mode="auto",
        generator=generators(1, 2),
        do_sample=False,
        max_new_tokens=4,
        logits_processor=LogitsProcessorList([_Say(model, {1: start, 4 + 1: start})]),
    )
    for row in range(2):
        single = processor(text=texts[row], generation_mode="auto", return_tensors="pt", **SIZE)
        alone = _tell(model, single, {1: start}, generator=generators(row + 1), max_new_tokens=4)
        assert torch.equal(together[row, inputs["input_ids"].shape[1] :], alone[0, single["input_ids"].shape[1] :])


def test_a_drawn_image_can_be_edited_in_the_next_turn(model, processor):
    """Two turns: draw, then edit what was drawn."""
    start = model.config.generate_start_token_id
    messages = [{"role": "user", "content": [{"type": "text", "text": "Draw a cat."}]}]
    size = {"generation_mode": "auto", **SIZE}
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(messages, processor_kwargs=size, **options)
    story = _tell(model, inputs, {0: start}, generator=generators(1))
    pieces = processor.split_output(story[0, inputs["input_ids"].shape[1] :])
    shown = [
        piece
        if isinstance(piece, str)
        else processor.post_process_multimodal_output(
            model.vq_model.decode(torch.from_numpy(piece)[None]).detach(), generation_mode="image"
        )[0]
        for piece in pieces
    ]
    assert [image.size for image in shown if isinstance(image, Image.Image)] == [(96, 64)]
    second = processor.continue_chat(messages, shown, "Make it blue.")
    assert [message["role"] for message in second] == ["user", "assistant", "user"] and len(messages) == 1
    inputs = processor.apply_chat_template(second, processor_kwargs=size, **options)
    assert len(inputs["source_pixel_values"]) == 1
    story = _tell(model, inputs, {0: start}, generator=generators(2))
    begin = _starts(model, story[0])[-1]
    assert bool(model.model.last_image_tasks(story[:, : begin + 1]) == 1)


class _Recorder(BaseStreamer):
    def __init__(self):
        self.prompts, self.ids, self.ends = 0, [], 0

    def put(self, value):
        if value.ndim == 2:
            self.prompts += 1
        else:
            self.ids += value.tolist()

    def end(self):
        self.ends += 1


def test_one_stream_of_text_and_codes(model, processor):
    inputs, recorder = _chat(processor), _Recorder()
    start = model.config.generate_start_token_id
    story = _tell(model, inputs, {1: start}, generator=generators(1), streamer=recorder)
    assert (recorder.prompts, recorder.ends) == (1, 1)
    assert recorder.ids == story[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_streamer_stops_text(model, processor):
    """As it stops drawings; beside it, criteria of one's own count."""

    class Stopping(BaseStreamer):
        def __init__(self, after):
            self.left, self.stopped = after, False

        def put(self, value):
            self.left -= value.ndim == 1
            self.stopped = self.left <= 0

        def end(self):
            pass

    inputs = _chat(processor)
    length = inputs["input_ids"].shape[1]
    start = model.config.generate_start_token_id
    late = 1
    assert _tell(model, inputs, {}, streamer=Stopping(3)).shape[1] == length + 3 + late
    assert _tell(model, inputs, {3: start}, streamer=Stopping(3)).shape[1] == length + 3 + late  # nothing is drawn
    image = len(_tell(model, inputs, {0: start}, max_new_tokens=1)[0, length:])
    behind = _tell(model, inputs, {0: start}, streamer=Stopping(image + 2))[0, length:]
    assert len(behind) == image + 2 + late
    own = StoppingCriteriaList([MaxLengthCriteria(length + 2)])
    assert _tell(model, inputs, {}, streamer=Stopping(3), stopping_criteria=own).shape[1] == length + 2


def test_prompts_of_auto_mode(processor):
    """Images get both streams; the size is announced where the user's words end: the one asked for, else the square one."""
    decode = processor.tokenizer.decode
    text = decode(_chat(processor, [picture(1)])["input_ids"][0])
    assert text.index("<|pixel_start|>") < text.index("<|vision_start|>") < text.index("Tell and draw.")
    assert "Tell and draw. <indicator:352><indicator:352><|im_end|>" in text
    chat = processor.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    plain = processor(text=chat, generation_mode="auto", return_tensors="pt")
    assert decode(plain["input_ids"][0]) == chat.replace("Hello", "Hello <indicator:512><indicator:512>")
    assert plain["target_grid_hw"].tolist() == [[32, 32]]
    assert '""' in decode(plain["negative_input_ids"][0])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate"),
        ({"num_beams": 2}, "num_beams=1"),
        ({"attend_padding": True}, "attend_padding"),
        ({"source_guidance_scale": 1.5}, "source_guidance_scale"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "one each"),
    ],
)
def test_refused(model, processor, kwargs, words):
    with pytest.raises(ValueError, match=words):
        model.generate(**_chat(processor), generation_mode="auto", **kwargs)


def test_inputs_must_be_prepared_for_it(model, processor):
    with pytest.raises(ValueError, match='generation_mode="auto"'):
        model.generate(**processor(text="Hello", return_tensors="pt"), generation_mode="auto")
    with pytest.raises(ValueError, match="placeholders"):
        processor(text="Hello", images=[picture(1)], generation_mode="auto")


def test_split_output_needs_whole_images(processor):
    first = processor.first_image_token_id
    line_break = processor.tokenizer.convert_tokens_to_ids("<|end_of_line>|")
    with pytest.raises(ValueError, match="not whole"):
        processor.split_output([first, first, line_break, first])
    square = processor.split_output([first, first + 1, first + 2, first + 3])
    assert square[0].tolist() == [[0, 1], [2, 3]]
    processor.first_image_token_id = None
    with pytest.raises(ValueError, match="first_image_token_id"):
        processor.split_output([first])
