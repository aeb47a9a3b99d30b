"""Halves of characters are refused by name, before a tokenizer sees them."""

import pytest

from wallaroo_hf.files.whole_text import printable, refuse_halves

HALF = "\ud83d"


@pytest.mark.parametrize(
    "given", [{"text": f"a {HALF}"}, {"text": ["a", HALF]}, {"text": "a", "negative_prompt": (HALF,)}]
)
def test_halves_are_refused_by_name(given):
    with pytest.raises(ValueError, match=rf"`{list(given)[-1]}` holds half of a character \('\\ud83d' at") as refused:
        refuse_halves(**given)
    assert str(refused.value).encode()


def test_whole_text_passes():
    refuse_halves(text=["a 🦘", "", "\ufffd"], negative_prompt=None, prompt_template=3)


@pytest.mark.parametrize("mode", ["text", "image", "auto"])
def test_the_processor_refuses_them(compact, mode):
    """Whatever argument they are in, and in chats."""
    processor = compact.processor
    for given in ({"text": f"a {HALF}"}, {"text": ["a", HALF]}):
        with pytest.raises(ValueError, match="`text` holds half of a character"):
            processor(**given, generation_mode=mode, return_tensors="pt")
    chat = [{"role": "user", "content": [{"type": "text", "text": f"a {HALF}"}]}]
    with pytest.raises(ValueError, match="half of a character"):
        processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")


def test_the_processor_refuses_them_in_options(compact):
    for option in ({"negative_prompt": HALF}, {"prompt_template": "{prompt} " + HALF}):
        with pytest.raises(ValueError, match=f"`{next(iter(option))}` holds half of a character"):
            compact.processor(text="a cat", generation_mode="image", return_tensors="pt", **option)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat 猫 🦘", "a cat 猫 🦘"),
        ("a\nb\r\u2028c", "a\\nb\\r\\u2028c"),
        ("\x1b[2J\x00", "\\x1b[2J\\x00"),
        ("\u202ecat", "\\u202ecat"),
        (HALF, "\\ud83d"),
        ("'\\n", "'\\n"),
    ],
    ids=ascii,
)
def test_printable(text, shown):
    assert printable(text) == shown and shown.isprintable() and shown.encode()


def test_long_text_loses_its_middle():
    assert printable("a" * 50 + "b" * 50, 10) == "aaaaa...bbbbb"
    assert printable("a\n" * 5, 15) == "a\\na\\na\\na\\na\\n" and len(printable("\n" * 10_000, 100)) == 103
