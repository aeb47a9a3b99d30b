"""Reports on rows."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from rich.console import Console

from helpers import picture, training_rows
from wallaroo_hf.training.data.training_rows import RowError, row_task
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.validation import ValidationReport, valid_rows, validate_rows


@pytest.fixture
def rows(tmp_path):
    """Eleven rows, five of them good."""
    picture(1).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    lines = [
        {"image": "whole.png", "caption": "a cat"},
        {"image": "nowhere.png", "caption": "a cat"},
        {"image": "half.png", "caption": "a cat"},
        {"source": "whole.png", "target": "whole.png", "instruction": "bluer"},
        {"question": "what?", "answer": "a cat " * 50},
        {"image": "nowhere.png", "caption": "a dog"},
        {"question": "what?", "answer": "a cat"},
        {"messages": []},
        {"image": "whole.png", "question": "and this?", "answer": "a cat"},
        {"image": "whole.png", "caption": "<|forbidden|>"},
        {"image": "whole.png", "caption": "a dog"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return load_rows(tmp_path / "t.jsonl")


def measure(row):
    words = json.dumps(row["messages"])
    if "<|" in words:
        raise ValueError("The prompt contains the special token <|forbidden|>.")
    return len(words)


def summed_up(report):
    return {
        (task, reason): (problem.count, [name for name, _ in problem.examples])
        for task, found in report.problems.items()
        for reason, problem in found.items()
    }


@pytest.mark.parametrize("num_workers", [0, 3])
def test_every_broken_row_is_counted_and_named(rows, num_workers):
    seen = []
    report = validate_rows(rows, measure, 300, num_workers=num_workers, progress=seen.append)
    assert seen == list(range(1, 12)) and report.total == 11
    assert {task: count.rows for task, count in report.tasks.items()} == {
        "generation": 2,
        "editing": 1,
        "understanding": 2,
    }
    assert summed_up(report) == {
        ("generation", "missing_image"): (2, ["t.jsonl:2", "t.jsonl:6"]),
        ("generation", "broken_image"): (1, ["t.jsonl:3"]),
        ("understanding", "too_long"): (1, ["t.jsonl:5"]),
        ("unknown", "wrong_messages"): (1, ["t.jsonl:8"]),
        ("generation", "unusable_row"): (1, ["t.jsonl:10"]),
    }
    assert report.broken == [1, 2, 4, 5, 7, 9] and report.num_broken == 6
    longest = report.tasks["understanding"]
    assert longest.longest_name == "t.jsonl:9" and longest.longest == measure(rows[8])
    assert longest.tokens == measure(rows[6]) + measure(rows[8])


def test_less_can_be_asked_for(rows):
    assert validate_rows(rows, limit=2).total == 2
    quick = summed_up(validate_rows(rows, decode=False))
    assert ("generation", "broken_image") not in quick and ("generation", "missing_image") in quick
    drawing = validate_rows(rows, tasks=("generation",))
    assert drawing.problems["editing"]["unsupported_task"].count == 1 and set(drawing.tasks) == {"generation"}


def test_rows_without_names_are_called_by_their_place():
    report = validate_rows([*training_rows("understanding", 1), {"messages": []}])
    assert report.problems["unknown"]["wrong_messages"].examples == [("row 1", "It has no messages.")]


def test_only_the_first_few_are_named():
    report = validate_rows(itertools.repeat({"messages": []}, 1000))
    problem = report.problems["unknown"]["wrong_messages"]
    assert problem.count == 1000 and len(problem.examples) == 5


def test_iterating_over_good_rows(rows):
    report = ValidationReport()
    good = list(valid_rows(rows, report, measure=measure, max_length=300))
    assert [row["name"] for row in good] == [f"t.jsonl:{line}" for line in (1, 4, 7, 9, 11)]
    assert report.as_dict() == validate_rows(rows, measure, 300).as_dict()
    with pytest.raises(RowError, match=r"t.jsonl:2: The image .*nowhere.png' does not exist") as error:
        list(valid_rows(rows, ValidationReport(), "raise", num_workers=2))
    assert error.value.reason == "missing_image"
    with pytest.raises(ValueError, match="`on_error`"):
        next(valid_rows(rows, report, "ignore"))


def test_reports_can_be_joined_and_stored(rows):
    whole = validate_rows(rows, measure, 300)
    parts = [validate_rows(rows.select(part), measure, 300) for part in (range(5), range(5, 11))]
    joined = ValidationReport()
    for part in parts:
        joined.merge(part)
    assert joined == whole
    again = ValidationReport.from_dict(json.loads(whole.to_json()))
    assert again.as_dict() == whole.as_dict()


def test_reports_for_people(rows):
    report = validate_rows(rows, measure, 300)
    assert report.summary() == "11 rows: 2 understanding, 2 generation, 1 editing; 6 broken."
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(report)
    text = console.export_text()
    for words in ("missing_image", "t.jsonl:2", "does not exist", "understanding", report.summary()):
        assert words in text
    assert validate_rows([]).summary() == "0 rows: none; 0 broken."


def test_good_rows_can_be_selected(rows):
    report = validate_rows(rows)
    broken = set(report.broken)
    kept = rows.select([place for place in range(len(rows)) if place not in broken])
    assert validate_rows(kept).num_broken == 0 and len(kept) == len(rows) - report.num_broken
    assert [row_task(row) for row in kept].count("generation") == report.tasks["generation"].rows
