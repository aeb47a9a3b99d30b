"""Rows to train on: targets that are encoded already, and chats in which the assistant draws between its words."""

import numpy as np
import pytest
import torch

from helpers import picture
from wallaroo_hf.layout import grid


def _codes(model, processor, image, height, width):
    pixels = torch.from_numpy(processor.image_processor.to_vq_pixels(image, height, width))
    return model.vq_model.encode(pixels[None]).image_tokens[0].numpy()


def _chat(processor, *turns):
    messages = [
        {
            "role": role,
            "content": [{"type": "image"} if item is None else {"type": "text", "text": item} for item in turn],
        }
        for role, turn in turns
    ]
    return processor.apply_chat_template(messages, tokenize=False)


@pytest.mark.parametrize("source", [None, picture(2)])
def test_encoded_targets_give_the_same_loss_as_images(model, processor, source):
    target = picture(1)
    common = {
        "text": "a cat",
        "images": source,
        "generation_mode": "image",
        "return_labels": True,
        "return_tensors": "pt",
    }
    codes = _codes(model, processor, target, 64, 96)
    from_image = processor(target_images=[target], height=64, width=96, **common)
    from_codes = processor(target_images=[codes], **common)
    assert "target_pixel_values" not in from_codes
    assert from_codes["target_grid_hw"].tolist() == [[4, 6]]
    assert [tokens.tolist() for tokens in from_codes["target_image_tokens"]] == [codes.tolist()]
    # where codes begin is the model's to know: the rows are the same either way
    for name in ("input_ids", "labels"):
        assert torch.equal(from_codes[name], from_image[name])
    assert torch.equal(model(**from_codes).loss, model(**from_image).loss)


def test_encoded_targets_and_images_in_one_batch(model, processor):
    first, second = picture(1), picture(3)
    kwargs = {"text": ["a", "b"], "generation_mode": "image", "return_labels": True, "padding_side": "right"}
    images = processor(target_images=[first, second], height=64, width=64, return_tensors="pt", **kwargs)
    mixed = processor(
        target_images=[_codes(model, processor, first, 64, 64), second],
        height=64,
        width=64,
        return_tensors="pt",
        **kwargs,
    )
    assert len(mixed["target_pixel_values"]) == 1
    assert [tokens is None for tokens in mixed["target_image_tokens"]] == [False, True]
    assert torch.equal(model(**mixed).loss, model(**images).loss)


def test_interleaved_chat_has_one_source_one_target_and_its_words(model, processor):
    text = _chat(
        processor, ("user", [None, "What is it? Then make it blue."]), ("assistant", ["A boat. Here:", None, " Done."])
    )
    row = processor(
        text=[text],
        images=[picture(1)],
        target_images=[[picture(2)]],
        generation_mode="auto",
        height=64,
        width=64,
        return_labels=True,
        return_tensors="pt",
    )
    ids, labels, token = row["input_ids"][0], row["labels"][0], processor.tokenizer.convert_tokens_to_ids
    said = processor.tokenizer.decode(labels[labels >= 0])
    assert said.startswith("A boat. Here:<|generate_start|><|generate_image_pad|>")
    assert said.endswith("<|generate_image_pad|><|generate_end|> Done.<|im_end|>\n")
    assert (ids == token("<|pixel_start|>")).sum() == 1
    assert (labels == token("<|generate_image_pad|>")).sum() == 16
    assert len(row["source_pixel_values"]) == len(row["target_pixel_values"]) == 1
    assert "negative_input_ids" not in row
    losses = model(**row).losses
    assert set(losses) == {"editing_text", "editing_image"}


DRAW, SHOWN = ("user", ["Draw a cat."]), ("user", [None, "Make it blue."])
SAID = ("assistant", ["Here you are."])


@pytest.mark.parametrize("encoded", [False, True], ids=["pixels", "codes"])
@pytest.mark.parametrize(
    ("turns", "images", "size", "announced"),
    [
        ([DRAW], [], {}, (512, 512)),
        ([DRAW], [], {"height": 64, "width": 96}, (64, 96)),
        ([DRAW], [], {"aspect_ratio": "2:1"}, (352, 704)),
        ([SHOWN], [picture(1, 400, 200)], {}, (352, 704)),  # a source's size is that of its edit
        ([SHOWN], [picture(1, 400, 200)], {"height": 64, "width": 64}, (64, 64)),
        ([DRAW, SAID, SHOWN], [picture(1, 64, 64)], {}, (512, 512)),
        ([SHOWN, SAID, SHOWN], [picture(1, 100, 100), picture(2, 200, 400)], {}, (704, 352)),
        ([SHOWN, SAID, DRAW], [picture(1, 200, 400)], {}, (704, 352)),
    ],
)
def test_interleaved_prompt_is_what_auto_mode_prepares(processor, turns, images, size, announced, encoded):
    """What is learned follows exactly the tokens that `generate(generation_mode="auto")` is given.

    The size is announced once, where the last of the user's words end, whether it was asked for or not.
    """
    chat = [
        {
            "role": role,
            "content": [{"type": "image"} if item is None else {"type": "text", "text": item} for item in turn],
        }
        for role, turn in turns
    ]
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    common = {"images": images or None, "generation_mode": "auto", "return_tensors": "pt"}
    prepared = processor(text=[prompt], **common, **size)
    asked = prepared["input_ids"][0]
    rows, cols = (edge // 16 for edge in announced)
    assert prepared["target_grid_hw"].tolist() == [[rows, cols]]
    target = np.zeros((rows, cols), dtype=np.int64) if encoded else picture(3)
    if encoded and "aspect_ratio" in size:
        size = {}  # codes have their size
    learned = processor(
        text=[_chat(processor, *turns, ("assistant", [None]))],
        target_images=[[target]],
        return_labels=True,
        **common,
        **size,
    )
    assert torch.equal(learned["input_ids"][0][: len(asked)], asked)
    assert (learned["labels"][0][: len(asked)] == -100).all() or len(turns) > 1
    start = len(asked)
    assert learned["labels"][0][start] == processor.tokenizer.convert_tokens_to_ids("<|generate_start|>")
    words = processor.tokenizer.decode(asked)
    listed = [grid.nearest_indicator(edge, processor.indicator_sizes) for edge in announced]
    indicators = "".join(f"<indicator:{edge}>" for edge in listed)
    assert words.endswith(f"{turns[-1][1][-1]} {indicators}<|im_end|>\n<|im_start|>assistant\n")
    assert words.count("<indicator:") == 2


def test_drawings_announce_the_size_where_chats_do(processor):
    """The turn of a drawing row ends as that of a chat does."""
    drawn = processor(text="a cat", generation_mode="image", prompt_template="{prompt}", height=64, width=96)
    chat = processor.apply_chat_template([{"role": "user", "content": "a cat"}], add_generation_prompt=True)
    told = processor(text=chat, generation_mode="auto", height=64, width=96)
    start = processor.tokenizer.convert_tokens_to_ids("<|generate_start|>")
    assert drawn["input_ids"][0] == [*told["input_ids"][0], start]


def test_without_indicators_nothing_is_announced(processor):
    """Stages 1 to 3a; and a picture that is only understood says nothing about sizes."""
    chat = processor.apply_chat_template([{"role": "user", "content": "a cat"}], add_generation_prompt=True)
    processor.size_indicators = False
    assert processor.tokenizer.decode(processor(text=chat, generation_mode="auto")["input_ids"][0]) == chat
    processor.size_indicators, processor.has_editing = True, False
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    understood = processor(text=chat, images=[picture(1, 400, 200)], generation_mode="auto", return_tensors="pt")
    assert understood["target_grid_hw"].tolist() == [[32, 32]]


def test_what_is_no_chat_has_nowhere_to_announce_a_size(processor):
    with pytest.raises(ValueError, match="render it with a chat template"):
        processor(text="a cat", generation_mode="auto")


def test_chats_without_drawing_train_beside_those_with(model, processor):
    texts = [
        _chat(processor, ("user", ["Hello"]), ("assistant", ["Hi."])),
        _chat(processor, ("user", ["Draw"]), ("assistant", [None])),
    ]
    codes = np.ones((2, 2), dtype=np.int64)
    row = processor(
        text=texts, target_images=[[], [codes]], generation_mode="auto", return_labels=True, return_tensors="pt"
    )
    assert set(model(**row).losses) == {"understanding_text", "generation_text", "generation_image"}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"target_images": [np.ones((2, 2))]}, "non-negative integers"),
        ({"target_images": [[[1, 2], [3]]]}, "non-negative integers"),
        ({"target_images": [-np.ones((2, 2), dtype=np.int64)]}, "non-negative integers"),
        (
            {"target_images": [np.ones((2, 2), dtype=np.int64)], "height": 64, "width": 64},
            "codes are of an image of 32x32",
        ),
    ],
)
def test_bad_codes_are_refused(processor, kwargs, words):
    with pytest.raises(ValueError, match=words):
        processor(text="a", generation_mode="image", return_labels=True, **kwargs)


def test_bad_interleaved_rows_are_refused(processor):
    chat = _chat(processor, ("user", ["Draw"]), ("assistant", [None]))
    codes = np.ones((2, 2), dtype=np.int64)
    common = {"generation_mode": "auto", "return_labels": True}
    with pytest.raises(ValueError, match=r"assistant shows 1 images in a chat, but `target_images` has 2"):
        processor(text=[chat], target_images=[[codes, codes]], **common)
    with pytest.raises(ValueError, match="one list of images per chat"):
        processor(text=[chat], target_images=[codes], **common)
    with pytest.raises(ValueError, match="different sizes"):
        two = _chat(processor, ("user", ["Draw"]), ("assistant", [None, None]))
        processor(text=[two], target_images=[[codes, np.ones((2, 4), dtype=np.int64)]], **common)
    with pytest.raises(ValueError, match="`negative_prompt` has no effect in training"):
        processor(text=[chat], target_images=[[codes]], negative_prompt="x", **common)


def test_codes_that_do_not_fit_the_model_are_refused(model, processor):
    common = {"text": "a", "generation_mode": "image", "return_labels": True, "return_tensors": "pt"}
    row = processor(target_images=[np.full((2, 2), model.config.codebook_size)], **common)
    with pytest.raises(ValueError, match=f"the image tokenizer has {model.config.codebook_size}"):
        model(**row)
    row["target_image_tokens"] = [torch.zeros(2, 3, dtype=torch.long)]
    with pytest.raises(ValueError, match=r"4 .* placeholders, but `target_image_tokens` has 6 codes"):
        model(**row)
    row["target_image_tokens"] = [None]
    with pytest.raises(ValueError, match="leaves 1 targets to be encoded, but `target_pixel_values` has 0 images"):
        model(**row)
