"""Templates and turns."""

import pytest

from wallaroo_hf.layout.prompt_texts import (
    PROMPT_TEMPLATES,
    DrawingTurn,
    answer_spans,
    fill_template,
    prompt_language,
    split_chat,
)

CHAT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nA cat.<|im_end|>\n<|im_start|>assistant\n"


def test_every_template_takes_prompt_and_size():
    for by_language in PROMPT_TEMPLATES.values():
        for language, templates in by_language.items():
            assert len(templates) == 10
            for index in range(10):
                text = fill_template(index, {language: templates}, language, "XYZ", 352, 704)
                assert "XYZ" in text and "704x352" in text


def test_language():
    assert prompt_language("a fox") == "en"
    assert prompt_language("一只狐狸") == "zh"
    assert prompt_language("draw 狐狸") == "zh"


def test_own_template():
    assert fill_template("{prompt}!", {}, "en", "fox", 16, 16) == "fox!"


@pytest.mark.parametrize("template", ["no field", "{promt}", "{prompt} {size}", "{prompt", "{}"])
def test_bad_template(template):
    with pytest.raises(ValueError, match=r"\{prompt\}"):
        fill_template(template, {}, "en", "fox", 16, 16)


def test_template_out_of_range():
    with pytest.raises(ValueError, match="pass 0 to 9"):
        fill_template(10, PROMPT_TEMPLATES["generation"], "en", "fox", 16, 16)


def test_source_comes_before_the_vision_block():
    text = DrawingTurn("make it blue", source="SOURCE").render("trained")
    assert text.index("<|pixel_start|>SOURCE<|pixel_end|><|vision_start|>") < text.index("make it blue")
    assert text.endswith("<|im_start|>assistant\n<|generate_start|>")
    assert "assistant" not in DrawingTurn("x", source="SOURCE").render("published_eval").split("user")[1]


def test_last_user_turn_of_a_chat():
    history, prompt = split_chat(CHAT)
    assert prompt == "A cat."
    assert history == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_chat_must_end_with_the_user():
    with pytest.raises(ValueError, match="role 'user'"):
        split_chat(CHAT + "A cat it is.<|im_end|>\n")


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nA cat.<|im_end|>\nAnd a dog.",
        "<|im_start|>user\nA cat.<|im_end|>\nAnd\n<|im_start|>assistant\n",
        "<|im_start|>user\nA cat.<|im_end|>\n<|im_start|>assistant\n<|im_end|>\nAnd a dog.",
        "<|im_start|>user\nA cat.<|im_end|>\n<|im_end|>",
    ],
)
def test_words_behind_the_last_turn_are_not_dropped(text, compact):
    with pytest.raises(ValueError, match="follows the end of its last message"):
        split_chat(text)
    with pytest.raises(ValueError, match="follows the end of its last message"):
        compact.processor(text=text, generation_mode="image", height=32, width=32)


@pytest.mark.parametrize("end", ["", "<|im_end|>", "<|im_end|>\n\n", "<|im_end|>\n<|im_start|>assistant\n"])
def test_ways_to_end_a_chat(end):
    assert split_chat(f"<|im_start|>user\nA cat.{end}") == ("", "A cat.")


def test_answers_include_their_end():
    text = CHAT + "Yes.<|im_end|>\n"
    assert [text[start:end] for start, end in answer_spans(text)] == ["Yes.<|im_end|>\n"]
