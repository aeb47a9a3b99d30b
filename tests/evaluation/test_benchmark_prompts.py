"""Reading the benchmarks' files of prompts."""

from __future__ import annotations

import json

import pytest

from wallaroo_hf.evaluation.dpg import read_dpg
from wallaroo_hf.evaluation.geneval import read_geneval
from wallaroo_hf.evaluation.imgedit import read_imgedit

LINE = '{"tag": "colors", "include": [{"class": "cow", "count": 1}], "prompt": "a red cow"}'


def test_geneval_numbers_lines_as_the_benchmark_does(tmp_path):
    (tmp_path / "g.jsonl").write_text(f"{LINE}\n\n{LINE.replace('a red', 'une')}\n", encoding="utf-8")
    plan = read_geneval(tmp_path / "g.jsonl", 2)
    assert [picture.name for picture in plan.pictures] == ["00000-0000", "00000-0001", "00001-0000", "00001-0001"]
    assert [picture.prompt for picture in plan.pictures] == ["a red cow"] * 2 + ["une cow"] * 2
    assert [file.path for file in plan.files[:2]] == ["00000/metadata.jsonl", "00000/samples/0000.png"]
    assert json.loads(plan.files[0].text) == json.loads(LINE)


def test_geneval_has_lines_of_json_only_where_lines_end(tmp_path):
    (tmp_path / "g.jsonl").write_text(LINE.replace("cow", "cow\u2028"), encoding="utf-8")
    assert len(read_geneval(tmp_path / "g.jsonl").pictures) == 4


def test_dpg_reads_the_folder_and_the_table_alike(tmp_path):
    """The table has a row per question; prompts may be quoted and of several lines."""
    (tmp_path / "prompts").mkdir()
    prompts = {"whoops2": "two\nlines, and a comma", "COCOval2014000000041279": "a bowl", "posescript0": '"quoted"'}
    rows = ["item_id,text,keywords"]
    for item, prompt in prompts.items():
        (tmp_path / "prompts" / f"{item}.txt").write_text(f"{prompt}\n", encoding="utf-8")
        quoted = prompt.replace('"', '""')
        rows += [f'{item},"{quoted}",one', f'{item},"{quoted}",two']
    (tmp_path / "dpg_bench.csv").write_text("\r\n".join(rows), encoding="utf-8", newline="")
    plan = read_dpg(tmp_path / "prompts")
    assert plan == read_dpg(tmp_path / "dpg_bench.csv")
    assert [file.path for file in plan.files] == ["COCOval2014000000041279.png", "posescript0.png", "whoops2.png"]
    assert {picture.prompt for picture in plan.pictures} == {"two\nlines, and a comma", "a bowl", "quoted"}
    assert plan.files[0].pictures == tuple(f"COCOval2014000000041279-{cell}" for cell in range(4))


def test_imgedit_goes_by_keys(tmp_path):
    table = {"1082": {"id": "animal/1.jpg", "prompt": "smooth its shell", "edit_type": "adjust"}}
    (tmp_path / "edit.json").write_text(json.dumps(table), encoding="utf-8")
    plan = read_imgedit(tmp_path / "edit.json")
    assert [(p.name, p.source, p.prompt) for p in plan.pictures] == [("1082", "animal/1.jpg", "smooth its shell")]
    assert [file.path for file in plan.files] == ["1082.png"]


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (read_geneval, "", "holds no prompts"),
        (read_geneval, f"{LINE}\nno JSON", "Line 2"),
        (read_geneval, '{"prompt": "a cow"}', '"tag"'),
        (read_geneval, '{"tag": "colors", "prompt": " "}', "Line 1 .* has no prompt"),
        (read_geneval, f"[{LINE}]", "Line 1 .* must be a JSON object"),
        (read_dpg, "id,text\n1,a cow", "columns id, text"),
        (read_dpg, "item_id,text\n../up,a cow", "named by it"),
        (read_dpg, "item_id,text\na.b,a cow", "up to the first dot"),
        (read_dpg, "item_id,text\nB,a cow\nb,a cow", "'B' and 'b'"),
        (read_dpg, "item_id,text\nb,''", "no prompt"),
        (read_imgedit, "[]", "JSON object"),
        (read_imgedit, '{"1": {"id": "../a.jpg", "prompt": "x"}}', "leads out"),
        (read_imgedit, '{"1": {"id": "/a.jpg", "prompt": "x"}}', "leads out"),
        (read_imgedit, '{"1": {"prompt": "x"}}', "Key '1'"),
        (read_imgedit, '{"a/b": {"id": "a.jpg", "prompt": "x"}}', "named by it"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, read, text, words):
    (tmp_path / "prompts").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "prompts")


@pytest.mark.parametrize(("read", "number"), [(read_dpg, 3), (read_imgedit, 4)])
def test_benchmarks_keep_their_number_of_pictures(tmp_path, read, number):
    with pytest.raises(ValueError, match=str(number)):
        read(tmp_path, number)


def test_missing_files_are_named(tmp_path):
    for read in (read_geneval, read_dpg, read_imgedit):
        with pytest.raises(ValueError, match=r"nowhere.* could not be read"):
            read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_dpg(tmp_path)
