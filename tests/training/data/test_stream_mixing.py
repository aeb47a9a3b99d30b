"""Mixtures of streams: every row once, in the ratio, and exactly where they were left."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import datasets
import pytest
from torch.utils.data import DataLoader

from helpers import training_rows as rows
from wallaroo_hf.training.data.mixing import Source
from wallaroo_hf.training.data.stream_mixing import StreamMixture
from wallaroo_hf.training.data.training_rows import RowError, row_task
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.sources import mix_rows


def _parse(record):
    name = record["name"]
    return {**rows(name.partition(" ")[0], 1)[0], "name": name}


def stream(task, count, shards):
    """A stream of that many rows in that many shards."""
    size = count // shards
    given = [(task, shard * size, size) for shard in range(shards)]
    features = datasets.Features({"name": datasets.Value("string")})
    made = datasets.IterableDataset.from_generator(_records, features=features, gen_kwargs={"shards": given})
    return made.map(_parse)


def _records(shards):
    for task, first, count in shards:
        for number in range(first, first + count):
            yield {"name": f"{task} {number}"}


def names(mixture, count):
    return [row["name"] for row in islice(mixture, count)]


def first_pass(mixture, place="0"):
    """Names of the rows that a reader gives before one of its streams begins anew."""
    found = []
    for row in mixture:
        if mixture.state_dict()["streams"][place]["epoch"]:
            return found
        found += [row["name"]] if row_task(row) == mixture.tasks[int(place)] else []


@pytest.mark.parametrize("readers", [1, 2, 3, 4, 7])
def test_readers_share_a_stream(readers):
    """Together they read every row once per pass, with more shards than readers and with fewer."""
    source = stream("generation", 84, 3)
    found = []
    for rank in range(readers):
        mixture = StreamMixture(
            {"generation": [Source(source, "s")]}, seed=1, rank=rank, world_size=readers, block_size=10
        )
        found += first_pass(mixture)
    assert sorted(found) == sorted(f"generation {number}" for number in range(84))


def test_passes_are_shuffled_anew():
    mixture = mix_rows({"generation": stream("generation", 40, 4)}, seed=1, block_size=5)
    found = names(mixture, 120)
    passes = [found[:40], found[40:80], found[80:]]
    assert len({tuple(one) for one in passes}) == 3 and len({tuple(sorted(one)) for one in passes}) == 1
    assert names(mixture, 120) == found  # from the beginning, and the same
    ordered = names(mix_rows({"generation": stream("generation", 40, 4)}, shuffle=False), 40)
    assert ordered == [f"generation {number}" for number in range(40)] and sorted(passes[0]) == sorted(ordered)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_all_processes_have_the_ratio(workers):
    """As a `TaskMixture`: the k-th batches of all processes together."""
    sources = {"generation": stream("generation", 40, 4), "understanding": rows("understanding", 9)}
    loaders = [
        DataLoader(
            mix_rows(
                sources, {"generation": 4, "understanding": 1}, batch_size=5, rank=rank, world_size=2, block_size=4
            ),
            batch_size=5,
            num_workers=workers,
            collate_fn=list,
        )
        for rank in range(2)
    ]
    draws = []
    for batches in islice(zip(*loaders), 6):
        draws += [row["ordinal"] for batch in batches for row in batch]
        assert Counter(row_task(row) for batch in batches for row in batch) == {"generation": 8, "understanding": 2}
    assert draws == list(range(60))  # what the collator's random choices follow from


def test_no_rows_are_left_unread_where_a_task_falls_to_some_readers_only():
    """Batches of one row and as many processes as tasks: each process only ever draws one task."""
    sources = {"generation": stream("generation", 40, 4), "editing": stream("editing", 12, 2)}
    mixtures = [mix_rows(sources, {"generation": 1, "editing": 1}, rank=rank, world_size=2) for rank in range(2)]
    found = [first_pass(mixture, str(rank)) for rank, mixture in enumerate(mixtures)]
    assert sorted(found[0]) == sorted(f"generation {number}" for number in range(40))
    assert sorted(found[1]) == sorted(f"editing {number}" for number in range(12))


def test_map_style_sources_are_shared_too():
    sources = {"generation": stream("generation", 40, 4), "understanding": rows("understanding", 6)}
    found = []
    for rank in range(2):
        mixture = mix_rows(sources, {"generation": 1, "understanding": 1}, rank=rank, world_size=2, batch_size=3)
        found += [row["number"] for row in islice(mixture, 6) if row_task(row) == "understanding"]
    assert sorted(found) == list(range(6))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tasks"])
def test_positions_are_restored_to_the_row(kind, tmp_path):
    if kind == "tasks":
        sources = {"generation": stream("generation", 30, 3), "editing": stream("editing", 8, 1)}
        sources["understanding"] = rows("understanding", 5)
        ratio = {"generation": 3, "editing": 1, "understanding": 1}
    else:
        for number in range(3):
            lines = [{"image": "x.png", "caption": f"{number} {line}"} for line in range(10)]
            if kind == "jsonl":
                (tmp_path / f"{number}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            else:
                datasets.Dataset.from_list(lines).to_parquet(tmp_path / f"{number}.parquet")
        sources, ratio = {"generation": load_rows(tmp_path, streaming=True)}, None

    def mixture():
        return mix_rows(sources, ratio, seed=4, block_size=4, rank=0, world_size=1)

    whole = [json.dumps(row["messages"]) + row["name"] for row in islice(mixture(), 100)]
    assert len(set(whole)) > 25
    for stop in (0, 1, 4, 10, 29, 30, 31, 77):
        first = mixture()
        consumed = sum(1 for _ in islice(first, stop))
        state = json.loads(json.dumps(first.state_dict()))
        assert consumed == stop == state["drawn"]
        second = mixture()
        second.load_state_dict(state)
        assert second.state_dict() == state
        again = [json.dumps(row["messages"]) + row["name"] for row in islice(second, 100 - stop)]
        assert again == whole[stop:], stop


def test_positions_of_other_readers_are_refused():
    source = stream("generation", 8, 2)
    mixture = mix_rows({"generation": source}, rank=0, world_size=2)
    next(iter(mixture))
    for other, words in (
        (mix_rows({"generation": source}, rank=1, world_size=2), "reader 0 of 2, but this is reader 1 of 2"),
        (
            mix_rows(
                {"generation": source, "editing": stream("editing", 2, 1)},
                {"generation": 1, "editing": 1},
                rank=0,
                world_size=2,
            ),
            "other streams",
        ),
    ):
        other.load_state_dict(mixture.state_dict())
        with pytest.raises(ValueError, match=words):
            next(iter(other))


def test_processes_are_found(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "5")
    mixture = mix_rows({"generation": stream("generation", 8, 2)})
    assert (mixture.rank, mixture.world_size) == (3, 5)


def test_broken_rows_stop_the_stream_or_are_named(tmp_path, caplog):
    lines = ['{"image": "x.png", "caption": "a cat"}', "{broken", '{"image": "x.png", "caption": "a dog"}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = load_rows(tmp_path / "t.jsonl", streaming=True)
    mixture = iter(mix_rows({"generation": source}, shuffle=False))
    next(mixture)
    with pytest.raises(RowError, match=r"t.jsonl:2: It is not JSON"):
        next(mixture)
    found = list(islice(mix_rows({"generation": source}, shuffle=False, on_error="skip"), 2))
    assert [row["name"] for row in found] == ["t.jsonl:1", "t.jsonl:3"]
    assert found[1]["skipped"][0].startswith("t.jsonl:2") and "t.jsonl:2" in caplog.text
    (tmp_path / "t.jsonl").write_text("{broken\n" * 150, encoding="utf-8")
    with pytest.raises(RowError, match="100 rows in a row"):
        next(iter(mix_rows({"generation": load_rows(tmp_path / "t.jsonl", streaming=True)}, on_error="skip")))


def test_what_streams_need():
    source = stream("generation", 8, 2)
    with pytest.raises(ValueError, match="give the `ratio`"):
        mix_rows({"generation": source, "editing": stream("editing", 2, 1)})
    with pytest.raises(ValueError, match="give 'b' a weight"):
        mix_rows({"generation": [Source(source, "a", 1), Source(source, "b")]})
    with pytest.raises(ValueError, match="use fewer workers"):
        next(iter(mix_rows({"generation": stream("generation", 2, 1)}, rank=2, world_size=3)))
    # one whose share is 0 may be anything
    assert len(mix_rows({"generation": source, "editing": rows("editing", 2)}, {"generation": 0, "editing": 1})) == 2
