"""Finding what is wrong with a folder of benchmark pictures."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from scorers import dpg_reads, geneval_reads
from wallaroo_hf.evaluation.dpg import read_dpg
from wallaroo_hf.evaluation.drawing_files import find_faults, publish, sample_path
from wallaroo_hf.evaluation.drawing_manifest import Drawing, Manifest
from wallaroo_hf.evaluation.geneval import read_geneval


def drawn(plan, folder):
    """A folder with all samples of a plan, each of a colour of its own."""
    drawings = [Drawing(p.name, p.prompt, p.source, k, 0, 16, 16) for k, p in enumerate(plan.pictures)]
    manifest = Manifest(plan.benchmark, {"seed": 0}, {}, "none", drawings, plan.files)
    manifest.write(folder)
    (folder / "samples").mkdir()
    for number, drawing in enumerate(drawings):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(sample_path(folder, drawing.name))
    return manifest


@pytest.fixture
def geneval(tmp_path):
    lines = [json.dumps({"tag": "colors", "prompt": prompt}) for prompt in ("a cow", "a bench")]
    (tmp_path / "g.jsonl").write_text("\n".join(lines))
    manifest = drawn(read_geneval(tmp_path / "g.jsonl", 2), tmp_path / "out")
    assert publish(tmp_path / "out", manifest)
    return tmp_path / "out", manifest


@pytest.fixture
def dpg(tmp_path):
    (tmp_path / "p.csv").write_text("item_id,text\nwhoops1,a cow\nwhoops2,a bench")
    manifest = drawn(read_dpg(tmp_path / "p.csv"), tmp_path / "out")
    assert publish(tmp_path / "out", manifest)
    return tmp_path / "out", manifest


def test_a_whole_folder_has_no_faults(geneval):
    assert find_faults(*geneval) == []


@pytest.mark.parametrize("benchmark", ["geneval", "dpg"])
def test_samples_may_go_once_the_folder_is_whole(request, benchmark):
    folder, manifest = request.getfixturevalue(benchmark)
    shutil.rmtree(folder / "samples")
    assert find_faults(folder, manifest) == []


def _remove(path):
    path.unlink()


def _tear(path):
    path.write_bytes(path.read_bytes()[:40])


def _shrink(path):
    path.unlink()  # the sample beside it is the same file
    Image.new("RGB", (8, 8)).save(path)


def _replace(path):
    path.unlink()
    Image.new("RGB", (16, 16), (200, 200, 200)).save(path)


def _disguise(path):
    path.unlink()
    Image.new("RGB", (16, 16)).save(path, format="JPEG")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_remove, "is missing"),
        (_tear, "is damaged"),
        (_shrink, "is 8x8"),
        (_replace, "is another picture"),
        (_disguise, "no RGB picture in PNG"),
    ],
)
def test_a_picture_that_was_harmed_is_named(geneval, harm, words):
    folder, manifest = geneval
    harm(folder / "images" / "00001" / "samples" / "0001.png")
    found = find_faults(folder, manifest)
    assert len(found) == 1 and "images/00001/samples/0001.png" in found[0] and words in found[0]


def test_metadata_that_was_changed_is_named(geneval):
    folder, manifest = geneval
    (folder / "images" / "00000" / "metadata.jsonl").write_text("{}")
    assert find_faults(folder, manifest) == ["images/00000/metadata.jsonl is not what was written"]


@pytest.mark.parametrize("stray", ["00002/samples/0000.png", "00000/samples/0004.png", "00000/samples/0.png.bak"])
def test_what_geneval_would_score_by_mistake_is_named(geneval, stray):
    folder, manifest = geneval
    path = folder / "images" / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(path, format="PNG")
    (path.parents[1] / "metadata.jsonl").touch()
    if stray.startswith("00002"):
        (path.parents[1] / "metadata.jsonl").write_text('{"tag": "t", "prompt": "p"}')
    assert len(geneval_reads(folder / "images")) == 5  # it would
    assert find_faults(folder, manifest) == [f"images/{stray} does not belong there, but would be scored"]


def test_what_geneval_does_not_look_at_is_no_fault(geneval):
    folder, manifest = geneval
    for harmless in ("grid.png", "00000/grid.png", "results.jsonl", "00000/samples/first.png"):
        (folder / "images" / harmless).touch()
    assert len(geneval_reads(folder / "images")) == 4 and find_faults(folder, manifest) == []


def test_grids_are_in_reading_order(dpg):
    folder, manifest = dpg
    scored, failed = dpg_reads(folder / "images", {"whoops1", "whoops2"}, 16)
    assert failed == []
    assert {item: [cell.getpixel((0, 0))[0] for cell in cells] for item, cells in scored.items()} == {
        "whoops1": [0, 1, 2, 3],
        "whoops2": [4, 5, 6, 7],
    }
    assert all(cell.size == (16, 16) for cells in scored.values() for cell in cells) and len(manifest.files) == 2


def test_dpg_would_count_an_item_twice(dpg):
    folder, manifest = dpg
    (folder / "images" / "dpg-bench_20261126_results.txt").touch()  # the scorer's own, which it then fails to read
    assert find_faults(folder, manifest) == []
    shutil.copy(folder / "images" / "whoops1.png", folder / "images" / "whoops1.old.png")
    with pytest.raises(AssertionError, match="counted twice"):
        dpg_reads(folder / "images", {"whoops1", "whoops2"}, 16)
    assert find_faults(folder, manifest) == ["images/whoops1.old.png does not belong there, but would be scored"]


def test_nothing_is_published_before_all_is_drawn(tmp_path):
    (tmp_path / "p.csv").write_text("item_id,text\nwhoops1,a cow")
    manifest = drawn(read_dpg(tmp_path / "p.csv"), tmp_path / "out")
    sample_path(tmp_path / "out", "whoops1-2").unlink()
    assert not publish(tmp_path / "out", manifest) and not (tmp_path / "out" / "images").exists()
    assert find_faults(tmp_path / "out", manifest)[0] == "samples/whoops1-2.png is missing"


def test_another_process_may_publish_at_the_same_moment(tmp_path, monkeypatch):
    """Both see that all is drawn; the later one finds the folder there."""
    from wallaroo_hf.evaluation import drawing_files

    (tmp_path / "p.csv").write_text("item_id,text\nwhoops1,a cow")
    manifest = drawn(read_dpg(tmp_path / "p.csv"), tmp_path / "out")
    write, raced = drawing_files._write, []

    def while_another_publishes(*arguments):
        if not raced:
            raced.append(True)
            assert publish(tmp_path / "out", manifest)
        write(*arguments)

    monkeypatch.setattr(drawing_files, "_write", while_another_publishes)
    assert publish(tmp_path / "out", manifest) and raced
    assert find_faults(tmp_path / "out", manifest) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "manifest.json", "samples"]


def test_what_a_killed_process_left_goes(tmp_path):
    (tmp_path / "p.csv").write_text("item_id,text\nwhoops1,a cow")
    manifest = drawn(read_dpg(tmp_path / "p.csv"), tmp_path / "out")
    (tmp_path / "out" / ".images-partial-killed").mkdir()
    assert publish(tmp_path / "out", manifest)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "manifest.json", "samples"]


def test_disks_without_links_get_copies(tmp_path, monkeypatch):
    from wallaroo_hf.evaluation import drawing_files

    def no_links(*arguments):
        raise OSError("not supported")

    monkeypatch.setattr(drawing_files.os, "link", no_links)
    (tmp_path / "g.jsonl").write_text(json.dumps({"tag": "colors", "prompt": "a cow"}))
    manifest = drawn(read_geneval(tmp_path / "g.jsonl", 1), tmp_path / "out")
    assert publish(tmp_path / "out", manifest) and find_faults(tmp_path / "out", manifest) == []
