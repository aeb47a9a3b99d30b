"""Drawing benchmarks with the tiny model: folders that the scorers accept, interruptions, several processes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import picture
from scorers import dpg_reads, geneval_reads, imgedit_reads
from wallaroo_hf.evaluation import drawing_runs
from wallaroo_hf.evaluation.dpg import read_dpg
from wallaroo_hf.evaluation.drawing_files import find_faults
from wallaroo_hf.evaluation.drawing_manifest import read_manifest
from wallaroo_hf.evaluation.drawing_runs import draw_benchmark
from wallaroo_hf.evaluation.geneval import read_geneval
from wallaroo_hf.evaluation.imgedit import read_imgedit
from wallaroo_hf.evaluation.recipes import RECIPES

PROMPTS = ("a red cow", "two very long benches", "一张长凳的照片")
GENEVAL = RECIPES["geneval"]["paper"]


@pytest.fixture
def plan(tmp_path):
    """GenEval with three prompts of two pictures each."""
    lines = [json.dumps({"tag": "colors", "include": [], "prompt": prompt}) for prompt in PROMPTS]
    (tmp_path / "geneval.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_geneval(tmp_path / "geneval.jsonl", 2)


@pytest.fixture
def edits(tmp_path):
    """ImgEdit's table with sources of three shapes, one of them grey, in subfolders."""
    table = {}
    for key, (kind, size, mode) in {
        "1082": ("animal", (100, 60), "RGB"),
        "7": ("style", (48, 90), "RGB"),
        "abc": ("style", (64, 64), "L"),
    }.items():
        path = tmp_path / "sources" / kind / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(len(key), *size).convert(mode).save(path)
        table[key] = {"id": f"{kind}/{key}.jpg", "prompt": f"make {key} bluer", "edit_type": kind}
    (tmp_path / "edit.json").write_text(json.dumps(table), encoding="utf-8")
    return tmp_path / "edit.json"


@pytest.fixture
def draw(compact):
    """Draws a plan with the tiny model at 32x32 pixels, two at once."""

    def run(plan, folder, recipe=GENEVAL, **settings):
        arguments = {"resolution": 32, "batch_size": 2, **settings}
        return draw_benchmark(compact.model, compact.processor, plan, folder, recipe, **arguments)

    return run


def content(folder: Path) -> dict[str, str]:
    """Hashes of all files of a folder by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def interrupt_after(pictures: int):
    def progress(name, done, total):
        if done >= pictures:
            raise KeyboardInterrupt

    return progress


def test_geneval_accepts_the_folder(draw, plan, tmp_path):
    run = draw(plan, tmp_path / "out")
    assert run.complete and run.num_missing == 0
    read = geneval_reads(tmp_path / "out" / "images")
    assert [path for _, path in read] == [f"{n:05d}/samples/{k:04d}.png" for n in range(3) for k in range(2)]
    assert [metadata["prompt"] for metadata, _ in read] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert all(Image.open(tmp_path / "out" / "images" / path).size == (32, 32) for _, path in read)
    assert len(set(content(tmp_path / "out" / "samples").values())) == 6  # seeds differ
    assert find_faults(tmp_path / "out", run.manifest) == []


def test_dpg_accepts_the_folder(draw, tmp_path):
    """Grids hold the four samples in reading order; nothing in the folder fails."""
    (tmp_path / "prompts").mkdir()
    for item in ("whoops2", "COCOval2014000000041279"):
        (tmp_path / "prompts" / f"{item}.txt").write_text(f"a picture of {item}")
    draw(read_dpg(tmp_path / "prompts"), tmp_path / "out", RECIPES["dpg"]["paper"], batch_size=3, resolution=64)
    scored, failed = dpg_reads(tmp_path / "out" / "images", {"whoops2", "COCOval2014000000041279"}, 64)
    assert failed == [] and len(scored) == 2 and len(set(content(tmp_path / "out" / "samples").values())) == 8
    for item, cells in scored.items():
        for number, cell in enumerate(cells):
            drawn = Image.open(tmp_path / "out" / "samples" / f"{item}-{number}.png")
            assert np.array_equal(np.asarray(cell), np.asarray(drawn))


@pytest.mark.parametrize(("fit", "sizes"), [("crop", [(64, 48), (32, 64), (48, 48)]), ("pad", None)])
def test_imgedit_accepts_the_folder(model, processor, edits, tmp_path, fit, sizes):
    """Sources of several shapes in one batch; edits have the nearest listed size, or with pad their source's."""
    processor.buckets = [(48, 48), (48, 64), (64, 32)]
    run = draw_benchmark(
        model,
        processor,
        read_imgedit(edits),
        tmp_path / "out",
        RECIPES["imgedit"]["paper"].changed(source_fit=fit),
        sources=tmp_path / "sources",
    )
    read = imgedit_reads(tmp_path / "out" / "images", edits, tmp_path / "sources")
    assert list(read) == ["1082", "7", "abc"]
    assert [result.size for _, result in read.values()] == (sizes or [source.size for source, _ in read.values()])
    assert find_faults(tmp_path / "out", run.manifest) == []


@pytest.mark.parametrize("drawn", [2, 4])
def test_an_interrupted_run_goes_on_to_the_same_bytes(draw, plan, tmp_path, drawn):
    draw(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(plan, tmp_path / "parts", progress=interrupt_after(drawn))
    assert len(content(tmp_path / "parts" / "samples")) == drawn
    assert not (tmp_path / "parts" / "images").exists()  # an incomplete run cannot be scored
    assert any("samples/00002-0001.png is missing" in fault for fault in faults(tmp_path / "parts"))
    assert draw(plan, tmp_path / "parts").complete
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def faults(folder):
    return find_faults(folder, read_manifest(folder))


def test_a_batch_with_a_gap_is_drawn_again_as_a_whole(draw, plan, tmp_path, monkeypatch):
    """As a process killed between two pictures leaves it; whole batches are not drawn again."""
    draw(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(plan, tmp_path / "parts", progress=interrupt_after(4))
    (tmp_path / "parts" / "samples" / "00000-0001.png").unlink()
    asked, there = [], []
    draw_pictures = drawing_runs.draw_pictures

    def spy(model, processor, prompts, seeds, *rest, **more):
        asked.append(list(seeds))
        there.append((tmp_path / "parts" / "samples" / "00000-0000.png").exists())
        return draw_pictures(model, processor, prompts, seeds, *rest, **more)

    monkeypatch.setattr(drawing_runs, "draw_pictures", spy)
    draw(plan, tmp_path / "parts")
    assert asked == [[0, 1], [4, 5]]
    assert there == [False, True]  # what is left of a batch goes first, lest another process takes it for complete
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    draw(plan, tmp_path / "parts")
    assert len(asked) == 2  # nothing is left to do


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_results_do_not_depend_on_the_number_of_processes(draw, plan, tmp_path, processes):
    """Random templates and an uneven share each; whoever is last makes the scorer's folder."""
    recipe = GENEVAL.changed(template="random", published_eval=True)
    draw(plan, tmp_path / "one", recipe, seed=3)
    ends = [draw(plan, tmp_path / "many", recipe, seed=3, place=(rank, processes)) for rank in range(processes)]
    assert ends[-1].complete and (ends[0].complete or ends[0].num_missing > 0)
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_batches_survive_a_change_of_processes(draw, plan, tmp_path):
    draw(plan, tmp_path / "one")
    assert not draw(plan, tmp_path / "many", place=(1, 3)).complete
    assert draw(plan, tmp_path / "many").complete
    assert content(tmp_path / "many") == content(tmp_path / "one")


@pytest.mark.parametrize("published", [False, True])
def test_pictures_are_those_of_batches_of_one(draw, plan, tmp_path, published):
    """Also where padding is attended to, as in the authors' scripts, which draw singly; prompts differ in length."""
    recipe = GENEVAL.changed(published_eval=published)
    draw(plan, tmp_path / "singly", recipe, batch_size=1)
    draw(plan, tmp_path / "together", recipe, batch_size=6)
    assert content(tmp_path / "together" / "images") == content(tmp_path / "singly" / "images")


def test_edits_of_the_published_scripts_are_drawn_singly(model, processor, edits, tmp_path, monkeypatch):
    processor.buckets = [(32, 32)]
    seeds = []
    draw_pictures = drawing_runs.draw_pictures
    monkeypatch.setattr(drawing_runs, "draw_pictures", lambda *a, **k: (seeds.append(a[3]), draw_pictures(*a, **k))[1])
    recipe = RECIPES["imgedit"]["paper"].changed(published_eval=True)
    arguments = (model, processor, read_imgedit(edits), tmp_path / "out", recipe)
    assert draw_benchmark(*arguments, sources=tmp_path / "sources").complete
    assert sorted(seeds) == [[0], [1], [2]]


def test_random_templates_follow_the_seed(draw, plan, tmp_path):
    def templates(seed):
        folder = tmp_path / f"seed{seed}"
        with pytest.raises(KeyboardInterrupt):
            draw(plan, folder, GENEVAL.changed(template="random"), seed=seed, progress=interrupt_after(1))
        return [drawing.template for drawing in read_manifest(folder).drawings]

    assert templates(0) != templates(1) and len(set(templates(0))) > 1


@pytest.mark.parametrize("published", [False, True])
def test_the_recipe_reaches_processor_and_model(model, processor, plan, tmp_path, monkeypatch, published):
    seen = {}
    call, draw = type(processor).__call__, type(model).draw
    monkeypatch.setattr(type(processor), "__call__", lambda *a, **k: (seen.update(k), call(*a, **k))[1])
    monkeypatch.setattr(type(model), "draw", lambda *a, **k: (seen.update(k), draw(*a, **k))[1])
    recipe = RECIPES["dpg"]["released"].changed(published_eval=published, template=3, guidance_min_p=0.1)
    with pytest.raises(KeyboardInterrupt):
        draw_benchmark(model, processor, plan, tmp_path / "out", recipe, resolution=32, progress=interrupt_after(1))
    wanted = {"published_eval": published, "prompt_template": 3, "guidance_scale": 4.0}
    wanted |= {"top_k": 1000, "top_p": 0.95, "temperature": 1.0, "do_sample": True, "height": 32}
    wanted["guidance_min_p"] = 0.1
    assert {name: seen[name] for name in wanted} == wanted


def test_the_manifest_says_how_it_was_drawn(draw, plan, tmp_path):
    draw(plan, tmp_path / "out", GENEVAL.changed(guidance_scale=2.0), seed=7)
    written = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    settings = written["settings"]
    assert settings["recipe"] == "paper, but guidance_scale 2.0" and settings["guidance_scale"] == 2.0
    assert (settings["seed"], settings["template"], settings["batch_size"]) == (7, 0, 2)
    assert len(settings["checkpoint"]) == 64 and {"torch", "transformers", "wallaroo_hf"} <= set(written["versions"])
    assert [drawing["seed"] for drawing in written["drawings"]] == list(range(7, 13))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed 0, now 1"),
        ({"batch_size": 3}, "batch_size 2, now 3"),
        ({"recipe": GENEVAL.changed(published_eval=True)}, "published_eval false, now true"),
    ],
)
def test_a_folder_of_another_run_is_refused(draw, plan, tmp_path, change, words):
    draw(plan, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(ValueError, match=words):
        draw(plan, tmp_path / "out", **change)
    assert content(tmp_path / "out") == before


def test_other_weights_prompts_and_sources_are_another_run(model, processor, edits, tmp_path):
    processor.buckets = [(48, 48)]
    arguments = (model, processor, read_imgedit(edits), tmp_path / "out", RECIPES["imgedit"]["paper"])
    draw_benchmark(*arguments, sources=tmp_path / "sources")
    picture(9, 100, 60).save(tmp_path / "sources" / "animal" / "1082.jpg")
    with pytest.raises(ValueError, match="sources"):
        draw_benchmark(*arguments, sources=tmp_path / "sources")
    model.get_input_embeddings().weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="checkpoint"):
        draw_benchmark(*arguments, sources=tmp_path / "sources")


def test_folders_that_are_not_ours_are_left_alone(draw, plan, tmp_path):
    (tmp_path / "out" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        draw(plan, tmp_path / "out")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        draw(plan, tmp_path / "damaged")


def test_a_damaged_sample_is_never_published(draw, plan, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw(plan, tmp_path / "out", progress=interrupt_after(4))
    (tmp_path / "out" / "samples" / "00001-0000.png").write_bytes(b"\x89PNG, torn")
    with pytest.raises(ValueError, match=r"00001-0000\.png is damaged.*remove the file"):
        draw(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()
    (tmp_path / "out" / "samples" / "00001-0000.png").unlink()
    assert draw(plan, tmp_path / "out").complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 40}, "multiple of 16"),
        ({"recipe": GENEVAL.changed(template=99)}, "Picture 00000-0000 .* 99"),
        ({"recipe": GENEVAL.changed(template="no place")}, r"\{prompt\}"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(draw, plan, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        draw(plan, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_prompt_with_a_special_token_is_refused(draw, tmp_path):
    (tmp_path / "g.jsonl").write_text(json.dumps({"tag": "t", "prompt": "a <|im_end|> cow"}))
    with pytest.raises(ValueError, match=r"Picture 00000-0000 .*<\|im_end\|>"):
        draw(read_geneval(tmp_path / "g.jsonl"), tmp_path / "out")


def test_sources_that_are_missing_are_named(model, processor, edits, tmp_path):
    arguments = (model, processor, read_imgedit(edits), tmp_path / "out", RECIPES["imgedit"]["paper"])
    os.remove(tmp_path / "sources" / "style" / "7.jpg")
    with pytest.raises(ValueError, match=r"Picture 7 .*7\.jpg' does not exist"):
        draw_benchmark(*arguments, sources=tmp_path / "sources")
    with pytest.raises(ValueError, match="folder of sources"):
        draw_benchmark(*arguments)
    assert not (tmp_path / "out").exists()
