"""JSON and YAML nested beyond all use: one broken row or line, named, at every reader."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from wallaroo_hf.cli.prompt_files import read_prompts
from wallaroo_hf.evaluation.geneval import read_geneval
from wallaroo_hf.evaluation.imgedit import read_imgedit
from wallaroo_hf.files.checkpoint_files import read_json
from wallaroo_hf.files.parsing import MAX_NESTING, NestingError, parse_json, parse_yaml
from wallaroo_hf.scenes.prompts import read_prompts as read_scene_prompts
from wallaroo_hf.training.data.training_rows import check_row
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.previews import read_previews
from wallaroo_hf.training.sources import read_data_config
from wallaroo_hf.training.stages import read_overrides

DEPTHS = (MAX_NESTING + 1, 990, 5_000, 100_000)
YAML_DEPTH = 1_500
WORDS = f"nested more than {MAX_NESTING} levels deep"


def deep(depth, kind="list"):
    return "[" * depth + "]" * depth if kind == "list" else '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("kind", ["list", "object"])
def test_depth(kind):
    value = parse_json(deep(MAX_NESTING, kind))
    assert json.dumps(value).replace(" ", "") == deep(MAX_NESTING, kind)
    for depth in DEPTHS:
        for text in (deep(depth, kind), deep(depth, kind).encode(), f'{{"a": [1, {deep(depth, kind)}]}}'):
            with pytest.raises(NestingError, match=WORDS):
                parse_json(text)
    wide = json.dumps([{"a": "[[[{{{"}] * 1000)
    assert len(parse_json(wide)) == 1000
    for text in ("", "[", '{"a"}', b"\xff\xfe\x00", "9" * 5000):
        with pytest.raises(ValueError):
            parse_json(text)


def test_yaml():
    assert parse_yaml("- path: a\n  weight: 1.5") == [{"path": "a", "weight": 1.5}]
    for text in (deep(YAML_DEPTH), "a: b: c", "\x00", "!!python/object:os.system {}"):
        with pytest.raises(ValueError):
            parse_yaml(text)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "lines.json", "train.tar"])
@pytest.mark.parametrize("streaming", [False, True])
def test_one_broken_row_of_training_data(tmp_path, depth, name, streaming):
    good = [json.dumps({"question": f'[{{,\\"{n}', "answer": "b", "more": [n, {"a": [n]}]}) for n in range(2)]
    bad = f'{{"question": {deep(depth)}, "answer": "b"}}'
    members = [good[0], bad, good[1]]
    if name.endswith(".tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            for number, text in enumerate(members, start=1):
                member = tarfile.TarInfo(f"{number}.json")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    else:
        text = "[\n" + " ,\n".join(members) + "\n]\n" if name == "train.json" else "\n".join(members)
        (tmp_path / name).write_text(text)
    rows = list(load_rows(tmp_path / name, streaming=streaming))
    assert [row["name"] for row in rows] == [f"{name}:{number}" for number in (1, 2, 3)]
    assert [row.get("error") is None for row in rows] == [True, False, True]
    assert WORDS in rows[1]["error"]
    for row, line in zip(rows[::2], good, strict=True):
        assert check_row(row) == "understanding"
        assert row["messages"][0]["content"][0]["text"] == json.loads(line)["question"]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("read", "line", "words"),
    [
        (read_prompts, '{{"prompt": "a", "name": {}}}', "Line 2 of .*"),
        (read_previews, '{{"prompt": {}}}', "Line 2 of .*"),
        (read_geneval, '{{"tag": "a", "prompt": {}}}', "Line 2 of .*"),
        (read_scene_prompts, '{{"name": {}}}', "line 2: "),
        (read_json, '{{"a": {}}}', ".*could not be read"),
        (read_data_config, "- path: {}", ".*is not YAML"),
        (read_overrides, "buckets: {}", ".*could not be read"),
    ],
)
def test_one_broken_line_of_other_files(tmp_path, read, line, words, depth):
    if read in (read_data_config, read_overrides):
        depth = YAML_DEPTH  # it has no limit of its own, and takes long over more
    path = tmp_path / "file.jsonl"
    first = "" if read is read_json else "\n"
    path.write_text(first + line.format(deep(depth)) + "\n")
    arguments = (path, 4) if read is read_geneval else (path,)
    with pytest.raises(ValueError, match=rf"{words}.*(nested more than|too deep)"):
        read(*arguments)


def test_other_settings_and_tables(tmp_path):
    with pytest.raises(ValueError, match=r"sets no value that can be read \(it is nested"):
        read_overrides(None, [f"buckets={deep(YAML_DEPTH)}"])
    with pytest.raises(ValueError, match=r"'task_ratio={a' sets no value"):
        read_overrides(None, ["task_ratio={a"])
    (tmp_path / "basic_edit.json").write_text(f'{{"a": {deep(5_000)}}}')
    with pytest.raises(ValueError, match=WORDS):
        read_imgedit(tmp_path / "basic_edit.json")
