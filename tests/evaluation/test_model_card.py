"""The model card says what the run and the evaluation say."""

import json

import pytest
from huggingface_hub import ModelCard

from wallaroo_hf.evaluation.model_card import update_checkpoint, write_model_card

SCORE = {"value": 0.875, "low": 0.8, "high": 0.95, "num_items": 300}
BREAKDOWN = {"overall": SCORE, "categories": {"two_object": SCORE, "counting": SCORE}, "sizes": {}}
RUN = {
    "parts": {
        "vq": {"steps": 12, "note": "A note."},
        "stage-4": {
            "stage": {"trains": "all", "learning_rate": 0.0015, "task_ratio": {"understanding": 1, "editing": 1}},
            "steps": 20,
            "rows": 1280,
            "process_seconds": 600.0,
        },
    }
}


def test_card_has_numbers_and_metadata(tmp_path):
    scores = {"settings": {"guidance_scale": 2.0}, "tasks": {"generation": {"all": BREAKDOWN, "zh": BREAKDOWN}}}
    card = ModelCard.load(write_model_card(tmp_path, RUN, scores))
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "any-to-any"
    assert card.data.language == ["en", "zh"]
    for words in (
        "0.875 (0.800–0.950)",
        "| stage-4 | all | 20 | 1,280 | 0.0015 | 1 : 0 : 1 : 0 | 10 |",
        "A note.",
        "two object",
    ):
        assert words in card.text


def test_parts_without_a_word_are_named(tmp_path):
    part = RUN["parts"]["stage-4"]
    own = part | {"stage": part["stage"] | {"trains": ["edit_head.", "edit_adapter."]}}
    text = write_model_card(tmp_path, {"parts": {"stage-5": own}}).read_text(encoding="utf-8")
    assert "| stage-5 | `edit_head.`, `edit_adapter.` | 20 |" in text


def test_a_card_without_scores_says_so(tmp_path):
    assert "not scored yet" in write_model_card(tmp_path, RUN).read_text(encoding="utf-8")


def test_scores_go_into_a_checkpoint_of_a_run_only(tmp_path):
    scores = {"settings": {}, "tasks": {"generation": {"all": BREAKDOWN}}}
    with pytest.raises(ValueError, match=r"has no run\.json"):
        update_checkpoint(tmp_path, scores)
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.json").write_text(json.dumps(RUN), encoding="utf-8")
    assert "0.875" in update_checkpoint(tmp_path, scores).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == scores
