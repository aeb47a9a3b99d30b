"""Shares, means over categories, and intervals."""

import json

import numpy as np
import pytest

from wallaroo_hf.evaluation.items import scene_items
from wallaroo_hf.evaluation.scene_reports import scores_table
from wallaroo_hf.evaluation.scores import SceneScores, mean_score, score_task


def test_a_mean_over_strata_counts_each_stratum_once():
    score = mean_score([[True] * 9 + [False], [False, False]])
    assert score.value == 0.45 and score.num_items == 12
    assert 0 <= score.low < 0.45 < score.high <= 1
    assert mean_score([[True] * 9 + [False], [False, False]]) == score
    certain = mean_score([[True, True]])
    assert (certain.value, certain.low, certain.high) == (1, 1, 1)
    assert str(mean_score([[True, False]])) == "50.0 (0–100)"


def test_intervals_are_those_of_drawing_verdicts_anew():
    """The binomial short cut against resampling the verdicts themselves."""
    strata = [np.array([True] * 40 + [False] * 10), np.array([True] * 12 + [False] * 38)]
    rng = np.random.default_rng(1)
    means = [np.mean([rng.choice(stratum, len(stratum)).mean() for stratum in strata]) for _ in range(4000)]
    score = mean_score([stratum.tolist() for stratum in strata])
    # the share has steps of 0.01, and 4,000 resamples place a quantile to about 0.003
    assert [score.low, score.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.0101)


def test_scores_by_language_category_and_size():
    items = scene_items("generation", 36)
    good = {item.name: item.language == "zh" and item.category != "counting" for item in items}
    groups = score_task(items, good)
    assert list(groups) == ["all", "en", "zh"]
    assert groups["en"].overall.value == 0 and groups["en"].overall.num_items == 18
    assert groups["zh"].overall.value == pytest.approx(5 / 6, abs=1e-6)
    assert groups["all"].overall.value == pytest.approx(5 / 12, abs=1e-6)
    categories = {name: score.value for name, score in groups["all"].categories.items()}
    assert categories.pop("counting") == 0 and set(categories.values()) == {0.5}
    assert {name: score.num_items for name, score in groups["all"].sizes.items()} == dict.fromkeys(
        ("96x96", "64x128", "128x64"), 12
    )
    # uneven categories: the mean over categories, not over items
    uneven = [item for item in items if item.category == "counting"][:1] + [
        item for item in items if item.category == "colours"
    ]
    assert score_task(uneven, {item.name: item.category == "colours" for item in uneven})["all"].overall.value == 0.5


def test_an_item_without_verdict_is_never_scored():
    items = scene_items("reconstruction", 2)
    with pytest.raises(KeyError):
        score_task(items, {items[0].name: True})


def test_as_json_and_as_a_table():
    tasks = {
        task: score_task(items, {item.name: item.language != "en" for item in items})
        for task in ("reconstruction", "editing")
        for items in [scene_items(task, 12)]
    }
    scores = SceneScores({"seed": 0}, {"torch": "2"}, tasks)
    values = json.loads(json.dumps(scores.to_dict()))
    assert values["tasks"]["editing"]["zh"]["categories"]["add"]["value"] == 1 and values["settings"] == {"seed": 0}
    assert scores.overall("editing") == 0.5 and scores.overall("editing", "en") == 0
    table = scores_table(scores)
    assert [column.header for column in table.columns] == ["", "all", "English", "Chinese", "items"]
    rows = list(zip(*(list(column.cells) for column in table.columns)))
    assert rows[0][0] == "reconstruction" and rows[0][2:] == ("", "", "12")
    editing = next(row for row in rows if row[0] == "editing")
    assert [cell.split(" ")[0] for cell in editing] == ["editing", "50.0", "0.0", "100", "12"]
    assert {row[0].strip() for row in rows} >= {"recolour", "96x96", "four_objects"}
