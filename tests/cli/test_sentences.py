"""What a newcomer types wrongly: one sentence, before anything is loaded."""

from __future__ import annotations

import pytest

from commands import run
from helpers import picture
from wallaroo_hf.training.stages import STAGES

SENTENCES = [
    (("generate", ""), "The prompt is empty; say what to draw"),
    (("generate", "a heart", " "), "The prompt is empty; say what to draw"),
    (("edit", "{picture}", ""), "what to change, which is empty"),
    (("generate", "a heart", "-m", "nowhere"), "No checkpoint could be loaded from 'nowhere', which does not exist"),
    (("train", "--data", "{picture}", "-m", "./nowhere", "--dry-run"), "'{picture}' is of no known type"),
    (("generate", "a heart", "--temperature", "-1"), "`temperature` is -1.0, but must be a number from 0 to 10"),
    (("ask", "{picture}", "What?", "--sample", "--temperature", "-1"), "`--temperature` is -1, but must be a number"),
    (
        ("ask", "{picture}", "What?", "--sample", "--temperature", "nan"),
        "`--temperature` is nan, but must be a number",
    ),
    (("generate", "a heart", "--guidance-scale", "nan"), "`guidance_scale` is nan, but must be a number from 0"),
]


@pytest.mark.parametrize(("words", "sentence"), SENTENCES, ids=[" ".join(words)[:40] for words, _ in SENTENCES])
def test_sentences(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wallaroo_hf.cli.running.load_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    picture(1, 32, 32).save(tmp_path / "p.png")
    out = run(*(word.format(picture="p.png") for word in words), code=1)
    assert sentence.format(picture="p.png") in " ".join(out.split()) and out.startswith("Error: ")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", "abc", "`learning_rate` is 'abc', but must be a number, such as 1e-05"),
        ("learning_rate", -1, "must be a finite number of at least 0"),
        ("learning_rate", float("nan"), "must be a finite number"),
        ("weight_decay", float("inf"), "must be a finite number"),
        ("max_steps", "many", "must be a whole number, such as"),
        ("max_steps", float("inf"), "must be a whole number"),
        ("max_steps", 1.5, "must be a whole number"),
        ("bf16", "perhaps", "must be true or false, such as True"),
        ("lr_scheduler_type", 3, "must be a word, such as 'constant_with_warmup'"),
        ("task_ratio", 3, "must be of the kind of"),
    ],
)
def test_settings_of_stages(name, value, words):
    with pytest.raises(ValueError) as caught:
        STAGES["4"]().override({name: value})
    assert words in str(caught.value) and f"`{name}` is {value!r}" in str(caught.value)
