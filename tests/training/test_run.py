"""What `wallaroo train` puts together."""

from __future__ import annotations

import datasets
import pytest

from helpers import training_rows
from wallaroo_hf.training.data.mixing import Source, TaskMixture
from wallaroo_hf.training.data.stream_mixing import StreamMixture
from wallaroo_hf.training.run import RunOptions, build_trainer, fine_tuning


def _stream(task):
    rows = [{"messages": row["messages"], "images": row["images"]} for row in training_rows(task, 4)]
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


@pytest.mark.parametrize("share", [1, 0])
def test_streams_that_take_part_know_the_batches_of_the_loader(compact, tmp_path, share):
    """Without it the batches of a worker can be of one task only; streams that are left out change nothing."""
    sources = {
        "understanding": [Source(training_rows("understanding", 4), "chats")],
        "generation": [Source(_stream("generation"), "drawings")],
    }
    chosen = fine_tuning(str(compact.folder), {"understanding": 1, "generation": share}, lora=False)
    options = RunOptions(str(compact.folder), tmp_path, batch_size=4, device="cpu")
    data = build_trainer(options, chosen.override({"max_steps": 5}), sources).train_dataset
    if share:
        assert isinstance(data, StreamMixture) and data.batch_size == 4
    else:
        assert isinstance(data, TaskMixture) and (len(data), data.sorted_within) == (40, 8)
