"""Two processes do what one does, whatever rows each of them has, and neither waits for the other in vain."""

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import training_pairs
from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.training.checkpoints import find_last_complete_checkpoint, why_incomplete

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
)
pytestmark = pytest.mark.timeout(3600)  # of the first test, which waits for the pairs of all
WAYS = ["ddp", "fsdp2", pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_pair(model_folder: Path, output: Path, *ways: str) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(_free_port()),
    ]
    result = subprocess.run(
        [*command, training_pairs.__file__, str(model_folder), str(output), *ways],
        capture_output=True,
        text=True,
        timeout=1500,  # three processes import torch, and others may want the machine too
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert result.returncode == 0, result.stderr[-6000:]


@pytest.fixture(scope="module")
def sorted_rows(rows_of_module) -> list[dict]:
    """Four answers, two edits, two drawings: the first process has nothing but answers, the second one none."""
    draws = [row for row in rows_of_module if isinstance(row["messages"][-1]["content"], list)]
    answers = [row for row in rows_of_module if row not in draws]
    edits = [row for row in draws if len(row["images"]) == 2]
    return [*answers, answers[0], *edits, *(row for row in draws if row not in edits)][:8]


@pytest.fixture(scope="module")
def folder(compact, sorted_rows, tmp_path_factory) -> Path:
    """Where pairs of processes leave what they saw, by the way they work together."""
    output = tmp_path_factory.mktemp("pairs")
    (output / "rows.pickle").write_bytes(pickle.dumps(sorted_rows))
    _run_pair(compact.folder, output, "ddp", "fsdp2")
    return output


@pytest.fixture(scope="module", params=WAYS)
def way(request, compact, folder) -> str:
    """How the two work together."""
    if not (folder / request.param).exists():
        _run_pair(compact.folder, folder, request.param)
    return request.param


@pytest.fixture(scope="module")
def pair(way, folder) -> list[dict]:
    """What the two processes saw."""
    return [torch.load(folder / way / f"process-{index}.pt", weights_only=False) for index in range(2)]


@pytest.fixture(scope="module")
def alone(compact, sorted_rows, tmp_path_factory) -> tuple[dict, Path]:
    """What one process sees with the same rows, and where it leaves its model."""
    output = tmp_path_factory.mktemp("alone")
    return training_pairs.one_step(compact.folder, sorted_rows, output, 1), output


@pytest.mark.parametrize("split", list(training_pairs.SPLITS))
def test_two_processes_move_the_weights_as_one_does(way, pair, folder, compact, alone, split):
    if split not in pair[0]:
        pytest.skip("sharded ways run one split")
    before = load_file(compact.folder / "model.safetensors")
    one, two = (load_file(path / "model.safetensors") for path in (alone[1], folder / way / split))
    assert one.keys() == two.keys() == before.keys()
    scale = max(float((one[name] - before[name]).abs().max()) for name in before)
    for name in before:
        assert float((two[name] - one[name]).abs().max()) / scale < 1e-5, name
    moved = [name for name in before if not torch.equal(one[name], before[name])]
    assert any("edit_head" in name for name in moved) and any("language_model" in name for name in moved)
    assert not any("vq_model" in name or "visual" in name for name in moved)


def test_losses_are_logged_over_both_processes(pair, alone):
    for process in pair:
        for split in set(training_pairs.SPLITS) & process.keys():
            for name in ("loss", *(f"loss_{name}" for name in LOSS_NAMES)):
                assert process[split][name] == pytest.approx(alone[0][name], rel=1e-5)


def test_a_bad_row_in_one_process_leaves_the_step_out_in_both(way, pair):
    for process in pair:
        bad = process["bad"]
        assert bad["left_out"] == 1
        first, second, third = bad["weights"][:3]
        assert torch.equal(first, second)
        assert not torch.equal(second, third)
        assert torch.isfinite(third).all()
        assert [torch.tensor(entry["loss"]).isfinite() for entry in bad["log"]] == [True, False, True]
        if way == "ddp":  # the others hold different parts
            assert torch.equal(third, pair[0]["bad"]["weights"][2])


def test_checkpoints_are_written_once_and_whole(way, folder):
    run = folder / way / "run"
    names = {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert {path.name for path in run.iterdir()} == names
    for path in run.iterdir():
        assert why_incomplete(path) is None
        assert sorted(file.name for file in path.glob("rng_state*")) == ["rng_state_0.pth", "rng_state_1.pth"]
    if way in ("ddp", "zero2", "zero3"):
        assert len(list(run.rglob("*.safetensors"))) == 3
    last = {"fsdp2": "optimizer_0/.metadata", "zero2": "latest", "zero3": "latest"}.get(way, "optimizer.pt")
    (run / "checkpoint-3" / last).rename(folder / way / "aside")
    assert find_last_complete_checkpoint(run) == run / "checkpoint-2"
    (folder / way / "aside").rename(run / "checkpoint-3" / last)


def test_two_processes_resume_to_the_same_losses(way, pair, folder):
    def timeless(log):
        return [
            {key: value for key, value in entry.items() if "per_second" not in key and "time" not in key}
            for entry in log[:-1]
        ]

    for process in pair:
        whole, again = process["interrupted"]["whole"], process["interrupted"]["again"]
        assert timeless(whole["log"]) == timeless(again["log"])
        assert torch.equal(whole["weights"], again["weights"])
        assert whole["best"] == pair[0]["interrupted"]["whole"]["best"] == str(folder / way / "run" / "checkpoint-3")


def test_evaluation_counts_every_row_once(folder, compact, sorted_rows, tmp_path):
    """Seven rows in batches of three for each process: accelerate repeats some."""
    alone = training_pairs.build_trainer(compact.folder, sorted_rows[:7], tmp_path).evaluate()
    for index in range(2):
        process = torch.load(folder / "ddp" / f"process-{index}.pt", weights_only=False)
        for name in ("eval_loss", *(f"eval_loss_{name}" for name in LOSS_NAMES)):
            assert process["evaluation"][name] == pytest.approx(alone[name], rel=1e-5)


def test_the_result_is_written_once_and_can_be_loaded(way, folder, compact):
    names = {path.name for path in (folder / way / "again").iterdir()}
    assert names == {"checkpoint-2", "checkpoint-3", "final", "losses.png"}
    loaded = WallarooForConditionalGeneration.from_pretrained(folder / way / "again" / "final")
    tokens = compact.model.vq_model.encode(torch.zeros(1, 3, 32, 32)).image_tokens
    assert torch.equal(loaded.vq_model.encode(torch.zeros(1, 3, 32, 32)).image_tokens, tokens)
