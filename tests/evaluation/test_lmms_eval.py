"""The plug-in within lmms-eval itself, where that is installed: its evaluator runs tasks of our own, without a network.

lmms-eval requires torchvision, which does not go with every build of torch; so it is in none of our extras. See
docs/benchmarks.md for an environment in which these tests run.
"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from PIL import Image

from helpers import picture

pytest.importorskip("lmms_eval", reason="lmms_eval is not installed; docs/benchmarks.md says how to test the plug-in")

from lmms_eval import evaluator
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.tasks import TaskManager

from wallaroo_hf.evaluation.lmms_eval_model import WallarooLmmsEval

FUNCTIONS = """
import json
from PIL import Image


def visuals(doc):
    return [Image.open(path) for path in doc["pictures"]]


def words(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def judge_answer(doc, results):
    return {"answered": float(isinstance(results[0], str))}


def judge_picture(doc, results):
    made = json.loads(results[0])["images"]
    return {"answered": float(list(Image.open(made[0]).size) == doc["size"] and len(made) == 1)}
"""


def write_task(folder: Path, name: str, rows: list[dict], judge: str, **generation) -> None:
    """A task of lmms-eval over a local file."""
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / f"{name}.json").write_text(json.dumps(rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.json")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "question",
        "generation_kwargs": generation,
        "metric_list": [{"metric": "answered", "aggregation": "mean", "higher_is_better": True}],
    }
    functions = "doc_to_visual: !function functions.visuals\ndoc_to_text: !function functions.words\n"
    functions += f"process_results: !function functions.{judge}\n"
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task) + functions)


def evaluate(folder: Path, task: str, model_args: str, batch_size: int = 2):
    """The answers, and the mean of what the task judges."""
    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name="wallaroo")
    results = evaluator.simple_evaluate(
        model="wallaroo",
        model_args=model_args,
        tasks=[task],
        batch_size=batch_size,
        device="cpu",
        task_manager=manager,
        process_docs_parallel=1,
    )
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples], results["results"][task]["answered,none"]


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"picture{index}.png" for index in range(2)]
    for index, (path, size) in enumerate(zip(paths, [(128, 96), (64, 80)])):
        picture(index, *size).save(path)
    return [str(path) for path in paths]


def test_the_entry_point_is_ours():
    found = [point for point in entry_points(group="lmms_eval.models") if point.name == "wallaroo"]
    assert [point.value for point in found] == ["wallaroo_hf.evaluation.lmms_eval_plugin:manifest"]
    assert MODEL_REGISTRY_V2.get_model_class("wallaroo") is WallarooLmmsEval


def test_understanding(compact, tmp_path, pictures):
    """Answers do not depend on the batch, and are those of the model itself."""
    from wallaroo_hf.evaluation.answers import answer

    rows = [
        {"question": "What is it?", "pictures": pictures[:1]},
        {"question": "Compare <image> with <image>, please.", "pictures": pictures},
        {"question": "Hello, who are you?", "pictures": []},
    ]
    write_task(
        tmp_path, "asks", rows, "judge_answer", max_new_tokens=5, do_sample=False, temperature=0, until=["ASSISTANT:"]
    )
    model_args = f"pretrained={compact.folder},dtype=float32"
    answers, judged = evaluate(tmp_path, "asks", model_args)
    assert judged == 1.0
    assert evaluate(tmp_path, "asks", model_args, batch_size=1)[0] == answers
    first, second = (Image.open(path) for path in pictures)
    compared = ["Compare", first, "with", second, ", please."]
    for question, given in zip([[first, "What is it?"], compared, ["Hello, who are you?"]], answers, strict=True):
        assert given == answer(compact.model, compact.processor, [question], do_sample=False, max_new_tokens=5)[0]


def test_drawing_and_editing(compact, tmp_path, pictures):
    rows = [
        {"question": "make it blue", "pictures": pictures[:1], "size": [128, 96]},
        {"question": "a red star", "pictures": [], "size": [96, 96]},
        {"question": "make it green <image>", "pictures": pictures[1:], "size": [64, 80]},
    ]
    write_task(tmp_path, "draws", rows, "judge_picture")
    model_args = (
        f"pretrained={compact.folder},dtype=float32,mode=drawing,source_fit=pad,resolution=96,template=random,"
        f"output_dir={tmp_path / 'made'}"
    )
    answers, judged = evaluate(tmp_path, "draws", model_args)
    assert judged == 1.0
    assert [Path(json.loads(text)["images"][0]).name for text in answers] == [f"draws_{k}.png" for k in range(3)]
