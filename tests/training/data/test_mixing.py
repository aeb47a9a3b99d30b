"""Rows of several sources in a ratio."""

from __future__ import annotations

import pickle
from collections import Counter
from fractions import Fraction

import pytest
from torch.utils.data import DataLoader

from helpers import picture
from helpers import training_rows as rows
from wallaroo_hf.training.data.mixing import Pattern, RowOrigin, Source, TaskMixture, permuted_index
from wallaroo_hf.training.data.training_rows import RowError, row_task
from wallaroo_hf.training.pictures import open_pictures
from wallaroo_hf.training.sources import mix_rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64, 65, 1000])
def test_shuffling_is_a_permutation_of_its_own_for_every_key(size):
    orders = {
        tuple(permuted_index(place, size, seed, epoch) for place in range(size)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert all(sorted(order) == list(range(size)) for order in orders)
    if size >= 7:
        assert len(orders) == 4 and tuple(range(size)) not in orders


def test_shuffling_favours_no_place():
    """Each of 10 things comes first about equally often: within 5 standard deviations of 200."""
    firsts = Counter(permuted_index(0, 10, seed) for seed in range(2000))
    assert set(firsts) == set(range(10)) and all(abs(count - 200) < 5 * 180**0.5 for count in firsts.values())


def test_shuffling_needs_neither_time_nor_memory_for_many_rows():
    size = 10**12
    assert len({permuted_index(place, size, 3) for place in range(1000)}) == 1000
    assert all(0 <= permuted_index(size - 1 - place, size, 3) < size for place in range(10))


@pytest.mark.parametrize(
    ("shares", "counts"),
    [([1, 4], [1, 4]), ([0.7, 0.3], [7, 3]), ([Fraction(1, 5), Fraction(2, 5), 0], [1, 2, 0]), ([0.25, 0.5], [1, 2])],
)
def test_patterns_have_exactly_the_shares(shares, counts):
    pattern = Pattern(shares)
    assert pattern.counts == counts and len(pattern) == sum(counts)
    turns = [pattern.locate(position) for position in range(3 * len(pattern))]
    for source, count in enumerate(counts):
        assert [turn for found, turn in turns if found == source] == list(range(3 * count))
    # any stretch has the ratio, to within one row of each source
    for length in range(1, len(turns)):
        found = Counter(source for source, _ in turns[:length])
        assert all(abs(found[source] - length * count / sum(counts)) <= 1 for source, count in enumerate(counts))


def test_patterns_of_odd_shares_are_close():
    pattern = Pattern([123457, 1, 999983])
    assert len(pattern) <= 10_001 and min(pattern.counts) == 1
    assert abs(pattern.counts[0] / len(pattern) - 123457 / 1123441) < 2e-4
    for shares in ([0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="positive"):
            Pattern(shares)


def test_every_batch_has_the_ratio():
    mixture = mix_rows(
        {"understanding": rows("understanding", 7), "generation": rows("generation", 50)},
        ratio={"understanding": 1, "generation": 4, "editing": 0},
        seed=3,
        length=200,
    )
    loader = DataLoader(mixture, batch_size=10, collate_fn=list)
    for batch in loader:
        assert Counter(row_task(row) for row in batch) == {"understanding": 2, "generation": 8}
    assert len(loader) == 20


def test_each_pass_over_a_source_is_whole_and_shuffled_anew():
    mixture = TaskMixture({"generation": [Source(rows("generation", 8), "a")]}, seed=5, length=24)
    numbers = [mixture[place]["number"] for place in range(24)]
    passes = [numbers[:8], numbers[8:16], numbers[16:]]
    assert all(sorted(one) == list(range(8)) for one in passes) and len(set(map(tuple, passes))) == 3
    assert [mixture.locate(place).epoch for place in (7, 8, 23)] == [0, 1, 2]
    other = TaskMixture({"generation": [Source(rows("generation", 8), "a")]}, seed=6, length=24)
    assert [other[place]["number"] for place in range(24)] != numbers
    plain = TaskMixture({"generation": [Source(rows("generation", 8), "a")]}, shuffle=False)
    assert [row["number"] for row in plain] == list(range(8))


def test_the_order_is_a_promise():
    """A changed one would make resumed runs see rows twice. Nothing depends on Python's hash seed."""
    assert [permuted_index(place, 10, 0) for place in range(10)] == [6, 1, 9, 3, 8, 4, 5, 2, 0, 7]
    assert [permuted_index(place, 10**9, 7, 2) for place in range(3)] == [352521290, 873798020, 735195356]


def test_any_position_is_known_at_once():
    mixture = mix_rows(
        {"generation": rows("generation", 100), "editing": rows("editing", 3)},
        ratio={"generation": 0.5, "editing": 0.5},
        length=10**15,
    )
    draw = mixture.locate(10**15 - 2)
    assert draw.task == "generation" and draw.epoch == (10**15 - 2) // 200
    row = mixture[10**15 - 2]
    assert (row["number"], row["ordinal"]) == (draw.index, 10**15 - 2) and mixture[-2] == mixture[10**15 - 2]
    for outside in (10**15, -(10**15) - 1):
        with pytest.raises(IndexError):
            mixture[outside]
    assert mixture.locate(0) == RowOrigin("generation", "generation", mixture[0]["number"], 0)


def test_the_default_is_everything_once():
    """Without a ratio as many rows as there are; with one, until the last source was read whole."""
    mixture = mix_rows({"generation": rows("generation", 6), "editing": rows("editing", 3)})
    assert len(mixture) == 9
    seen = Counter((row_task(row), row["number"]) for row in mixture)
    assert len(seen) == 9 and set(seen.values()) == {1}
    mixture = mix_rows(
        {"generation": rows("generation", 6), "editing": rows("editing", 3)}, ratio={"generation": 1, "editing": 2}
    )
    assert len(mixture) == 18 and len({(row_task(row), row["number"]) for row in mixture}) == 9


def test_sources_of_one_task():
    """Without weights every row counts the same; with them each source has its share."""
    sources = [Source(rows("generation", 4), "a"), Source(rows("generation", 12), "b")]
    mixture = mix_rows({"generation": sources}, seed=1)
    assert (
        Counter(row["name"][0] for row in mixture) == {"a": 4, "b": 12} and len({row["name"] for row in mixture}) == 16
    )
    weighted = [Source(rows("generation", 4), "a", 3), Source(rows("generation", 12), "b", 1)]
    mixture = mix_rows(
        {"generation": weighted, "understanding": rows("understanding", 5)},
        ratio={"generation": 4, "understanding": 1},
        length=50,
    )
    assert Counter(row["name"].partition("[")[0] for row in mixture) == {"a": 30, "b": 10, "understanding": 10}


def test_rows_keep_their_names():
    mixture = mix_rows({"generation": rows("generation", 2, name="t.jsonl:4", height=None)})
    assert mixture[0]["name"] == "t.jsonl:4" and "height" not in mixture[0]


def broken(numbers):
    return [row if row["number"] not in numbers else {**row, "images": []} for row in rows("generation", 6)]


def test_broken_rows_stop_the_mixture_or_are_replaced_and_named(caplog):
    mixture = mix_rows({"generation": broken({2, 3})}, shuffle=False)
    assert mixture[1]["number"] == 1
    with pytest.raises(RowError, match=r"generation\[2\]: It has 1 image part"):
        mixture[2]
    mixture = mix_rows({"generation": broken({2, 3})}, shuffle=False, on_error="skip")
    assert [row["number"] for row in mixture] == [0, 1, 4, 4, 4, 5]
    assert [len(row.get("skipped", ())) for row in mixture] == [0, 0, 2, 1, 0, 0]
    assert mixture[2]["skipped"][0].startswith("generation[2]: It has 1 image part")
    assert "generation[3]" in caplog.text
    with pytest.raises(RowError, match="6 rows in a row cannot be used; the last is generation"):
        mix_rows({"generation": broken(set(range(6)))}, on_error="skip")[0]
    with pytest.raises(ValueError, match="`on_error`"):
        mix_rows({"generation": broken({2})}, on_error="ignore")


def test_rows_of_another_task_are_broken():
    with pytest.raises(RowError, match="of task 'editing', but stands among 'generation'"):
        mix_rows({"generation": rows("editing", 2)})[0]


def test_a_check_of_ones_own():
    def check(row):
        if row["number"] == 1:
            raise ValueError("I do not like it.")
        return {**row, "checked": True}

    mixture = mix_rows({"generation": rows("generation", 3)}, shuffle=False, check=check, on_error="skip")
    assert mixture[0]["checked"] and mixture[1]["number"] == 2
    assert mixture[1]["skipped"] == ["generation[1]: I do not like it."]


def test_rows_with_broken_pictures_can_be_replaced_too():
    """Their pictures are then decoded where the row is drawn, in the loader's workers."""
    found = [{**row, "images": [picture(1) if row["number"] else b"broken"]} for row in rows("generation", 3)]
    mixture = mix_rows({"generation": found}, shuffle=False, check=open_pictures, on_error="skip")
    assert [row["number"] for row in mixture] == [1, 1, 2] and "could not be read" in mixture[0]["skipped"][0]
    assert mixture[0]["images"][0].tobytes() == picture(1).tobytes()


def test_mixtures_travel_to_workers():
    mixture = mix_rows({"generation": rows("generation", 9), "editing": rows("editing", 4)}, seed=2)
    again = pickle.loads(pickle.dumps(mixture))
    assert list(again) == list(mixture)
    loader = DataLoader(mixture, batch_size=3, num_workers=2, collate_fn=list)
    assert [row for batch in loader for row in batch] == list(mixture)


@pytest.mark.parametrize(
    ("found", "ratio", "words"),
    [
        ({"drawing": rows("generation", 1)}, None, "'drawing' is not known"),
        ({"generation": rows("generation", 1)}, {"generaton": 1}, "'generaton' is not known"),
        ({"generation": rows("generation", 1)}, {"generation": 1, "editing": 1}, "asks for editing rows"),
        ({"generation": rows("generation", 1)}, {"editing": 0}, "does not name them"),
        ({"generation": rows("generation", 1)}, {"generation": 0}, "leaves no rows"),
        ({"generation": []}, {"generation": 1}, "has no rows"),
        (
            {"generation": [Source(rows("generation", 1), "a", 1), Source(rows("generation", 1), "b")]},
            None,
            "'b' has none",
        ),
    ],
)
def test_ratios_without_rows_are_refused(found, ratio, words):
    with pytest.raises(ValueError, match=words):
        mix_rows(found, ratio)


def test_sorting_within_steps_moves_rows_only_within_them():
    """Every step has the rows it had, with the same random choices; within it the tasks follow each other."""
    sources = {"understanding": rows("understanding", 7), "generation": rows("generation", 50)}
    mixtures = [
        mix_rows(sources, ratio={"understanding": 1, "generation": 2}, seed=3, length=44, sorted_within=size)
        for size in (1, 8)
    ]
    plain, ordered = ([(row["name"], row["ordinal"]) for row in mixture] for mixture in mixtures)
    assert plain != ordered
    for start in range(0, 44, 8):  # the last step is shorter
        assert sorted(plain[start : start + 8]) == sorted(ordered[start : start + 8])
        tasks = [mixtures[1].locate(place).task for place in range(start, min(start + 8, 44))]
        assert tasks == sorted(tasks, reverse=True)  # understanding, then generation
    assert mixtures[1][-1] == mixtures[1][43]
    with pytest.raises(ValueError, match="sorted_within"):
        mix_rows(sources, sorted_within=0)
