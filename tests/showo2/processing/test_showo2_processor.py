"""Prompts, chats, pictures and videos to tensors, and back; what users get wrong."""

import copy
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from conftest import REFERENCE
from golden_showo2 import details
from helpers import picture, same_picture
from showo2_words import words_processor, words_tokenizer
from wallaroo_hf.showo2 import ShowO2Config, ShowO2ImageProcessor
from wallaroo_hf.showo2 import sequences as seq
from wallaroo_hf.showo2.processing.showo2_processor import ShowO2Processor

EDITS = ["understanding", "text-to-image", "image-editing"]
N = 8  # tokens of a picture that is understood


@pytest.fixture(scope="module")
def shared():
    return words_processor()


@pytest.fixture
def processor(shared):
    return copy.copy(shared)  # its settings may be changed; its tokenizer has 151,669 ids, and is never


@pytest.fixture
def editor(processor):
    processor.tasks = EDITS
    return processor


def _image(**more):
    return {"type": "image", "image": picture(1), **more}


def _text(words):
    return {"type": "text", "text": words}


def _chat(*parts, role="user"):
    return {"role": role, "content": list(parts)}


def _prepared(processor, messages, **settings):
    return processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=settings,
    )


def _rows(batch, prefix=""):
    pairs = zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], strict=True)
    return [row[mask.bool()].tolist() for row, mask in pairs]


def _draw(processor, text="A dog.", **more):
    return processor(text=text, generation_mode="image", return_tensors="pt", **more)


# ------------------------------------------------------------------------------------------------------------ sequences


def test_rows_to_draw_from_are_the_authors(processor):
    golden = details("sequences_qwen2_5")["t2i"]
    batch = _draw(processor, golden["prompts"])
    for index, row in enumerate(_rows(batch)):
        begins = golden["modality_positions"][index][0][0]
        assert row == golden["text_tokens"][index][:begins]
    assert _rows(batch, "negative_") == [null[:2] for null in golden["text_tokens_null"]]
    assert batch["attention_mask"].tolist()[1] == [0] * 8 + [1] * 4  # on the left
    assert batch["image_size"].tolist() == [[64, 64]] * 2
    assert set(batch) == {"input_ids", "attention_mask", "negative_input_ids", "negative_attention_mask", "image_size"}
    assert set(batch) <= set(processor.model_input_names)


def test_a_question_as_in_training_and_as_in_the_script(processor):
    golden = details("sequences_qwen2_5")
    messages = [_chat(_image(), _text(golden["understanding_inference"]["question"]))]
    before, after = golden["understanding_inference"]["before"], golden["understanding_inference"]["after"]
    image = [processor.ids.image_token_id] * (N + 1)
    published = _prepared(processor, messages, published_eval=True)
    assert _rows(published) == [before + after[:1] + image + after[1:]]
    question = after[2:-4]
    trained = _prepared(processor, messages)
    assert _rows(trained) == [before + after[:1] + image + [after[1], 198] + question + [151645] + after[-4:]]
    crop, pad = (
        ShowO2ImageProcessor(sizes=[(32, 64)], fit=fit)(picture(1), return_tensors="pt")["pixel_values"][0]
        for fit in ("crop", "pad")
    )
    assert torch.equal(published["pixel_values"][0], crop) and torch.equal(trained["pixel_values"][0], pad)


def test_a_chat_is_that_of_tuning(processor):
    golden = details("sequences_qwen2_5")["chat_tuning"]
    (asked, first), (again, second) = golden["conversation"]
    messages = [
        _chat(_image(), _text(asked.removeprefix("<image>\n"))),
        _chat(_text(first), role="assistant"),
        _chat(_text(again)),
        _chat(_text(second), role="assistant"),
    ]
    text = processor.apply_chat_template(messages)
    end = processor.tokenizer.pad_token_id
    tokens = [token for token in golden["text_tokens"] if token != end]
    assert _rows(processor(text=text, images=picture(1), return_tensors="pt")) == [[*tokens, 198]]
    # and up to the second answer, which is what is asked for
    (prompt,) = _rows(_prepared(processor, messages[:3]))
    assert prompt == tokens[: len(prompt)] and golden["text_labels"][len(prompt)] == 2132


def test_plain_text_in_auto_mode_is_that_of_mixed_generation(processor):
    golden = details("sequences_qwen2_5")["mixed_first_image"]
    words = golden["prompt"].removeprefix(seq.FLAG).strip()
    start = golden["text_tokens"][0][: golden["modality_positions"][0][0][0] - 1]
    for text in (words, golden["prompt"]):
        batch = processor(text=text, generation_mode="auto", return_tensors="pt")
        assert _rows(batch) == [start]
        assert _rows(batch, "negative_") == [golden["text_tokens_null"][0][:2]]
        assert batch["image_size"].tolist() == [[64, 64]]


@pytest.fixture(scope="module")
def qwen():
    """A processor with all of Qwen2.5's words, where another recording has them."""
    if not (REFERENCE / "tokenizer" / "tokenizer.json").is_file():
        pytest.skip("no tokenizer of Qwen2.5 is here")
    told = json.loads((REFERENCE / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    first = ShowO2Config().pad_token_id
    told["added_tokens"] = [
        token for token in told["added_tokens"] if token["id"] < first
    ]  # later ones are Wallaroo's
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(told)), eos_token="<|im_end|>")
    config = ShowO2Config(position_grid=[2, 4], drawing_sizes=[[64, 64]])
    return ShowO2Processor.of_config(config, tokenizer)


def test_sequences_with_all_of_the_tokenizers_words(qwen):
    test_rows_to_draw_from_are_the_authors(qwen)
    test_a_question_as_in_training_and_as_in_the_script(qwen)
    test_a_chat_is_that_of_tuning(qwen)
    test_plain_text_in_auto_mode_is_that_of_mixed_generation(qwen)


# --------------------------------------------------------------------------------------------------------------- drawing


def test_batches_of_different_prompts_sizes_and_negative_prompts(processor):
    batch = _draw(
        processor, ["A dog.", "A red fox."], height=[32, 64], width=[64, 48], negative_prompt=["", "A photo."]
    )
    assert batch["image_size"].tolist() == [[32, 64], [64, 48]] and batch["image_size"].dtype == torch.int64
    ids = processor.ids
    assert _rows(batch)[0] == [ids.bos_token_id, 32, 5562, 13, ids.vision_start_token_id]
    assert _rows(batch, "negative_") == [seq.null_prompt(ids), seq.drawing_prompt([32, 6548, 13], ids)]
    ratios = _draw(processor, ["A dog."] * 3, aspect_ratio=["2:1", 0.5, 1])
    assert ratios["image_size"].tolist() == [[32, 64], [64, 32], [64, 64]]


def test_a_chat_of_one_turn_is_its_words(processor):
    plain = _draw(processor, "A dog.")
    rendered = processor.apply_chat_template([_chat(_text("A dog."))], add_generation_prompt=True)
    assert torch.equal(_draw(processor, rendered)["input_ids"], plain["input_ids"])
    assert torch.equal(
        _prepared(processor, [_chat(_text("A dog."))], generation_mode="image")["input_ids"], plain["input_ids"]
    )


def test_prompts_are_cut_only_as_published(processor):
    long = "A" + " dog" * 299
    sizes = {432: 290, 512: 251}
    for edge, longest in sizes.items():
        assert len(_rows(_draw(processor, long, height=edge, width=edge))[0]) == 302
        (row,) = _rows(_draw(processor, long, height=edge, width=edge, published_eval=True))
        assert len(row) == longest + 2 and row[-1] == processor.ids.vision_start_token_id


def test_an_edit_shows_its_source_first(editor):
    batch = _draw(editor, ["A red dog.", "A dog."], images=[picture(1), None], height=32, width=32)
    ids = editor.ids
    source = seq.image_block(4, ids)
    assert _rows(batch) == [
        [ids.bos_token_id, *source, 32, 2518, 5562, 13, ids.vision_start_token_id],
        [ids.bos_token_id, 32, 5562, 13, ids.vision_start_token_id],
    ]
    assert _rows(batch, "negative_") == [seq.null_prompt(ids)] * 2
    assert [tuple(one.shape) for one in batch["pixel_values"]] == [(3, 32, 32)]
    assert torch.equal(batch["pixel_values"][0], editor.to_pixels(picture(1), 32, 32))
    padded = _draw(editor, "A dog.", images=picture(1, 120, 96), source_fit="pad")
    assert padded["image_size"].tolist() == [[64, 64]]  # the listed size nearest to its shape
    assert (padded["pixel_values"][0][:, 0] == -1).all()
    chat = _prepared(editor, [_chat(_image(), _text("A red dog."))], generation_mode="image", height=32, width=32)
    assert _rows(chat) == _rows(batch)[:1]


def test_edits_go_back_to_the_scale_of_their_source(editor):
    source = picture(1, 128, 96)
    (pixels,) = _draw(editor, "A dog.", images=source, source_fit="pad")["pixel_values"]
    (back,) = editor.fit_back(editor.pictures([pixels]), [source], "pad")
    assert back.size == source.size
    assert editor.fit_back([picture(2, 64, 64)], [source])[0].size == (96, 96)


# ---------------------------------------------------------------------------------------------------------- understanding


def test_pictures_and_videos_in_the_order_of_their_rows(processor):
    frames = [picture(index, 64, 32) for index in range(5)]
    chats = [
        [_chat(_image(), {"type": "video", "video": frames}, _text("Why?"))],
        [_chat(_text("Why?"))],
        [_chat({"type": "video", "video": np.stack([np.asarray(frame) for frame in frames])}, _image())],
    ]
    batch = _prepared(processor, chats, num_frames=3)
    assert [tuple(one.shape) for one in batch["pixel_values"]] == [
        (3, 32, 64),
        (3, 3, 32, 64),
        (3, 3, 32, 64),
        (3, 32, 64),
    ]
    runs = [[length for _, length in seq.block_positions(row, processor.ids)] for row in _rows(batch)]
    assert runs == [[N + 1, 3 * 196 + 1], [], [3 * 196 + 1, N + 1]]
    assert torch.equal(batch["pixel_values"][1], batch["pixel_values"][2])
    assert torch.equal(batch["pixel_values"][1][1], processor.to_pixels(frames[2], 32, 64))
    assert batch["attention_mask"][1, 0] == 0 and batch["attention_mask"][:, -1].all()


def test_a_call_may_say_other_sizes_and_another_fit(processor):
    messages = [_chat(_image(), {"type": "video", "video": [picture(2)]}, _text("Why?"))]
    batch = _prepared(processor, messages, num_frames=1, sizes=[(48, 48)], fit="crop")
    assert [tuple(one.shape) for one in batch["pixel_values"]] == [(3, 48, 48), (1, 3, 48, 48)]
    assert seq.block_positions(_rows(batch)[0], processor.ids)[0][1] == 10
    assert torch.equal(batch["pixel_values"][0], processor.to_pixels(picture(1), 48, 48))


def test_a_video_has_32_frames(processor):
    frames = [np.full((8, 16, 3), index, dtype=np.uint8) for index in range(64)]
    batch = _prepared(processor, [_chat({"type": "video", "video": frames}, _text("Why?"))])
    (pixels,) = batch["pixel_values"]
    assert pixels.shape == (32, 3, 32, 64)
    assert seq.block_positions(_rows(batch)[0], processor.ids)[0][1] == 6273
    shades = ((pixels[:, 0, 0, 0] + 1) / 2 * 255).round().int().tolist()
    assert shades == np.linspace(0, 63, 32).astype(int).tolist()
    rendered = processor.apply_chat_template([_chat({"type": "video"}, _text("Why?"))])
    assert "<|vision_start|><|video_pad|><|vision_end|>\nWhy?" in rendered
    direct = processor(text=rendered, videos=frames, return_tensors="pt")
    assert torch.equal(direct["pixel_values"][0], pixels)


def test_what_was_drawn_keeps_its_size_where_the_model_may_go_on(processor):
    drawn = picture(3, 64, 64)
    messages = processor.continue_chat([_chat(_text("A dog."))], ["A ", drawn, "dog."], "Why?")
    assert messages[1]["role"] == "assistant" and messages[1]["content"][1]["image"] is drawn
    text = processor.apply_chat_template(messages)
    assert "assistant\nA <|vision_start|><|image_pad|><|vision_end|>dog.<|im_end|>" in text
    auto = _prepared(processor, messages, generation_mode="auto")
    assert auto["pixel_values"][0].shape == (3, 64, 64)
    assert seq.block_positions(_rows(auto)[0], processor.ids)[0][1] == 17
    assert _prepared(processor, messages)["pixel_values"][0].shape == (3, 32, 64)
    with pytest.raises(ValueError, match="does not end with a message of role 'user'"):
        processor.continue_chat(messages[:2], ["A dog."], "Why?")


def test_counting_tokens(processor):
    frames = {"type": "video", "video": [picture(1)] * 3}
    for messages in (
        [_chat(_text("Why?"))],
        [_chat(_image(), _image(), _text("Why?"))],
        [_chat(frames, _image())],
        [{"role": "user", "content": "Why?"}],
    ):
        for mode in ("text", "auto"):
            counted = processor.count_tokens(messages, may_draw=mode == "auto")
            assert counted == _prepared(processor, messages, generation_mode=mode)["input_ids"].shape[1]


# ------------------------------------------------------------------------------------------------------------- way back


def test_rows_are_collated_as_batches_are_prepared(editor):
    one = _draw(editor, "A red fox in the snow.", images=picture(1), height=32, width=32)
    other = _draw(editor, "A dog.", height=64, width=32, negative_prompt="A photo.")
    both = editor.collate([one, other])
    whole = _draw(
        editor,
        ["A red fox in the snow.", "A dog."],
        images=[picture(1), None],
        height=[32, 64],
        width=[32, 32],
        negative_prompt=[None, "A photo."],
    )
    assert set(both) == set(whole)
    for name in set(both) - {"pixel_values"}:
        assert torch.equal(both[name], whole[name]), name
    assert torch.equal(both["pixel_values"][0], whole["pixel_values"][0]) and len(both["pixel_values"]) == 1
    assert editor.collate([one]) is one


def test_pixels_are_never_rounded(processor):
    batch = _prepared(processor, [_chat(_image())])
    before = batch["pixel_values"][0].clone()
    moved = batch.to("cpu", dtype=torch.bfloat16)
    assert moved["pixel_values"][0].dtype == torch.float32 and torch.equal(moved["pixel_values"][0], before)
    assert moved["input_ids"].dtype == torch.int64


def test_pictures_and_text_from_what_was_made(processor):
    image = picture(1, 64, 64)
    pixels = [processor.to_pixels(image, 64, 64)]
    assert same_picture(processor.pictures(pixels)[0], image)
    assert same_picture(processor.post_process_multimodal_output(pixels, generation_mode="image")[0], image)
    ids = torch.tensor([[151644, 32, 5562, 13, 151645, 151665]])
    assert processor.post_process_image_text_to_text(ids) == ["A dog."]
    assert processor.post_process_multimodal_output(ids) == ["A dog."]
    with pytest.raises(ValueError, match="`generation_mode` is 'sound'"):
        processor.post_process_multimodal_output(ids, generation_mode="sound")


def test_lists_without_a_tensor_type(processor):
    batch = processor(text="A dog.", generation_mode="image")
    assert batch["input_ids"] == [[151644, 32, 5562, 13, 151652]] and batch["image_size"] == [[64, 64]]


# ------------------------------------------------------------------------------------------------------------- saving


def test_saving_and_loading(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    again = ShowO2Processor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict() and again.chat_template == processor.chat_template
    assert again.tokenizer.padding_side == "left" and again.ids == processor.ids
    assert torch.equal(_draw(again)["input_ids"], _draw(processor)["input_ids"])
    assert [list(size) for size in again.image_processor.sizes] == [[32, 64]]
    assert "known_words" not in json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))


def test_tasks_and_sizes_are_those_of_the_model_beside(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    ShowO2Config(tasks=EDITS, drawing_sizes=[[96, 96]], text_config={"max_position_embeddings": 500}).save_pretrained(
        tmp_path
    )
    again = ShowO2Processor.from_pretrained(tmp_path)
    assert (again.tasks, again.drawing_sizes, again.max_positions) == (EDITS, [(96, 96)], 500)
    assert again.image_token_size == 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_token_id": 5}, r"`image_token_id` is 5 in config.json .*has <\|image_pad\|> at 151655"),
        ({"text_config": {"vocab_size": 1000}}, "has 151669 ids, but by config.json .* vocabulary is 1000"),
    ],
)
def test_a_model_beside_that_disagrees(tmp_path, processor, config, message):
    processor.save_pretrained(tmp_path)
    ShowO2Config(**config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        ShowO2Processor.from_pretrained(tmp_path)


def test_a_processor_of_a_configuration():
    processor = ShowO2Processor.of_config(ShowO2Config(), words_tokenizer())
    assert processor.image_processor.sizes == [(432, 432)] and processor.drawing_sizes[1] == (512, 512)
    assert processor(text="A dog.", generation_mode="image")["image_size"] == [[432, 432]]
    with pytest.raises(ValueError, match=r"`bos_token_id` is 7 in the configuration given"):
        ShowO2Processor.of_config(ShowO2Config(bos_token_id=7), words_tokenizer())
    with pytest.raises(ValueError, match=r"lacks the tokens \[PAD\]"):
        ShowO2Processor(ShowO2ImageProcessor(), words_tokenizer())


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": ""}, "The prompt is empty"),
        ({"text": " \n"}, "The prompt is empty"),
        ({"text": None}, "`text` is missing"),
        ({"text": []}, "non-empty list of strings"),
        ({"text": 3}, "non-empty list of strings"),
        ({"published_eval": "yes"}, "`published_eval` is a str, but must be True or False"),
        ({"text": ["A dog.", 3]}, "non-empty list of strings"),
        ({"text": "A \ud83d dog"}, "half of a character"),
        ({"text": "dog " * 6000}, "24,000 characters|23,999 characters"),
        ({"text": "A <|vision_start|> dog"}, r"prompt contains the special token <\|vision_start\|>"),
        ({"text": "A [PAD] dog"}, r"special token \[PAD\]"),
        ({"text": "An <image> of a dog"}, "special token <image>"),
        ({"negative_prompt": "<|im_end|>"}, "negative prompt contains the special token"),
        ({"negative_prompt": ["a", "b"]}, "`negative_prompt` has 2 entries, but there are 1 prompts"),
        ({"height": 64}, "Give both `height` and `width`"),
        ({"height": 60, "width": 64}, "`height` is 60, but must be a positive multiple of 16"),
        ({"height": "64", "width": 64}, "`height` is '64', but must be a whole number"),
        ({"height": 3200, "width": 3200}, "needs 40,003 positions"),
        ({"height": 64, "width": 64, "aspect_ratio": 1}, "not both"),
        ({"aspect_ratio": "wide"}, "`aspect_ratio` is 'wide'"),
        ({"images": picture(1)}, "does not do image-editing; it does understanding, text-to-image"),
        ({"videos": [[picture(1)]]}, "Nothing is drawn from a video"),
        ({"audio": [1.0]}, "Audio is not understood"),
        ({"generation_mode": "video"}, "`generation_mode` is 'video', but must be one of"),
        ({"source_fit": "stretch"}, "`source_fit` is 'stretch'"),
        ({"num_frames": 0}, "`num_frames` is 0"),
        ({"negative_prompt": 3}, "`negative_prompt` is a int, but must be text"),
        ({"height": torch.zeros(2, 2), "width": 64}, "`height` is tensor"),
        ({"fit": 3}, "cannot be used .*'fit' expected str, got int"),
        ({"do_resize": False}, "`do_resize` changes nothing"),
        ({"do_sample_frames": False}, "Frames are always sampled"),
        ({"truncation": True, "max_length": 4}, "`truncation` would cut"),
        ({"padding_side": "right"}, "`padding_side` must be 'left'"),
    ],
)
def test_what_cannot_be_drawn_from(processor, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        processor(**{"text": "A dog.", "generation_mode": "image", **given})
    assert "\n" not in str(caught.value)


def test_chats_that_cannot_be_drawn_from(processor):
    earlier = [_chat(_text("Why?")), _chat(_text("It barks."), role="assistant"), _chat(_text("A dog."))]
    for messages in (earlier, [_chat(_text("You are a dog."), role="system"), _chat(_text("A dog."))]):
        with pytest.raises(ValueError, match="draws from one prompt without a system's words or earlier turns"):
            _prepared(processor, messages, generation_mode="image")
    with pytest.raises(ValueError, match="last message is not from the user"):
        _draw(processor, processor.apply_chat_template(earlier[:2]))


def test_unknown_keywords(processor):
    with pytest.raises(TypeError, match="unexpected argument `hight`; did you mean `height`"):
        _draw(processor, hight=64)
    with pytest.raises(TypeError, match="unexpected argument `temperature`"):
        _draw(processor, temperature=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height": 64, "width": 64}, "`height` is for drawing"),
        ({"negative_prompt": "A dog."}, "`negative_prompt` is for drawing"),
        ({"source_fit": "pad"}, "`source_fit` is for drawing"),
        ({"images": picture(1)}, "The prompts hold 0 placeholders for images, but 1 were given"),
        ({"text": "<|vision_start|><|image_pad|><|vision_end|>"}, "hold 1 placeholders for images, but 0 were given"),
        ({"text": "<|image_pad|><|image_pad|>"}, "without the tokens around it; write <|vision_start|>"),
        ({"text": "<|video_pad|>"}, "has <.video_pad.> without the tokens around it"),
        ({"videos": [[picture(1)]]}, "0 placeholders for videos, but 1 were given"),
        ({"videos": 3}, "A video was given as a int"),
        ({"sizes": 3}, "An argument of ShowO2Processor cannot be used .*'sizes'"),
        ({"sizes": [3]}, "`sizes` is .3., but must be a list of"),
        ({"do_rescale": False}, "`do_rescale` changes nothing"),
    ],
)
def test_questions_that_cannot_be(processor, given, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|") if "<|" in message else message):
        processor(**{"text": "Why?", **given})


def test_pictures_of_another_row_are_refused(processor):
    block = "<|vision_start|><|image_pad|><|vision_end|>"
    texts = [block * 2, block]
    with pytest.raises(ValueError, match="hold 2 and 1 placeholders for images, but 1 and 2 were given"):
        processor(text=texts, images=[[picture(1)], [picture(2), picture(3)]])
    assert len(processor(text=texts, images=[picture(1), picture(2), picture(3)])["pixel_values"]) == 3


def test_a_video_that_is_too_long(processor):
    processor.max_positions = 1000
    video = {"type": "video", "video": [picture(1)] * 40}
    with pytest.raises(
        ValueError, match=r"positions, but the model has 1,000; its video alone takes 6,273.*`num_frames`"
    ):
        _prepared(processor, [_chat(video, _text("Why?"))])
    with pytest.raises(ValueError, match="its video alone takes"):
        _prepared(processor, [_chat(video)], num_frames=10**30)
    assert _prepared(processor, [_chat(video, _text("Why?"))], num_frames=4)["pixel_values"][0].shape[0] == 4
    with pytest.raises(ValueError, match="the model has 1,000; shorten it or show fewer pictures"):
        processor(text=" dog" * 1001)
    with pytest.raises(ValueError, match=r"A prompt of 990 tokens and its picture of 64x64 .*1,010 positions"):
        _draw(processor, "A" + " dog" * 989)


def test_words_cannot_break_their_turn(processor):
    for words in ("<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>", "<image>", "[PAD]", "<|vid_start|>"):
        with pytest.raises(ValueError, match="contains the special token"):
            processor.apply_chat_template([_chat(_text(f"A {words} dog."))])
        if words == "<|im_end|>":  # in a chat that is rendered already, it ends a turn
            continue
        with pytest.raises(ValueError, match="contains the special token"):
            processor(text=f"<|im_start|>user\nA {words.replace('<|image_pad|>', '')} dog.", generation_mode="auto")
    processor.tasks = ["understanding"]
    for mode in ("image", "auto"):
        with pytest.raises(ValueError, match="does not do text-to-image; it does understanding"):
            processor(text="A dog.", generation_mode=mode)
