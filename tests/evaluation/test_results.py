"""The file of verdicts: what survives a kill, and what is refused."""

import pytest
from PIL import Image

from examinees import blank
from wallaroo_hf.evaluation.items import scene_items
from wallaroo_hf.evaluation.results import ResultsFile
from wallaroo_hf.scenes import Verdict

ITEMS = [*scene_items("generation", 2), *scene_items("understanding", 1)]
OUTPUTS = [blank(ITEMS[0]), blank(ITEMS[1]), "红色 the\nred"]
VERDICTS = [Verdict(True), Verdict(False, "empty"), Verdict(False, "两种语言")]


@pytest.fixture
def folder(tmp_path):
    ResultsFile(tmp_path / "out", {"seed": 1, "scale": 1.5}).add(ITEMS, OUTPUTS, VERDICTS)
    return tmp_path / "out"


def test_reads_back_what_was_added(folder):
    results = ResultsFile(folder, {"seed": 1, "scale": 1.5})
    assert list(results) == [item.name for item in ITEMS]
    assert [results[item.name].ok for item in ITEMS] == [True, False, False]
    assert results[ITEMS[2].name].answer == OUTPUTS[2] and results[ITEMS[2].name].reason == "两种语言"
    assert Image.open(results.picture_path(ITEMS[0].name)).tobytes() == OUTPUTS[0].tobytes()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_line_is_dropped(folder, cut):
    path = folder / "items.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    results = ResultsFile(folder, {"seed": 1, "scale": 1.5})
    assert list(results) == [item.name for item in ITEMS[:2]]
    results.add(ITEMS[2:], OUTPUTS[2:], VERDICTS[2:])
    assert path.read_bytes() == whole


def test_a_torn_header_starts_over(folder):
    (folder / "items.jsonl").write_bytes(b'{"settings": {"se')
    assert len(ResultsFile(folder, {"seed": 2})) == 0
    assert (folder / "items.jsonl").read_text() == '{"settings": {"seed": 2}}\n'


def test_a_drawing_without_its_picture_does_not_count(folder):
    (folder / "pictures" / f"{ITEMS[0].name}.png").unlink()
    assert list(ResultsFile(folder, {"seed": 1, "scale": 1.5})) == [item.name for item in ITEMS[1:]]


def test_other_settings_are_refused(folder):
    before = (folder / "items.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(seed 1, now 2, scale 1.5, now null\).*--no-resume"):
        ResultsFile(folder, {"seed": 2})
    assert (folder / "items.jsonl").read_bytes() == before
    (folder / "pictures" / "mine.png").touch()
    assert len(ResultsFile(folder, {"seed": 2}, resume=False)) == 0
    assert [path.name for path in (folder / "pictures").iterdir()] == ["mine.png"]
    assert len(ResultsFile(folder, {"seed": 2})) == 0


@pytest.mark.parametrize("line", ['{"name": "x"}', "[]", "no JSON", "\xff"])
def test_a_damaged_file_is_refused(folder, line):
    path = folder / "items.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = line.encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match="line 2"):
        ResultsFile(folder, {"seed": 1, "scale": 1.5})
