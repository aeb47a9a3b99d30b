"""Layouts: the paper's, those that a checkpoint's files and objects tell, and a size that a checkpoint did not have."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from helpers import generators
from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.layout import Layout
from wallaroo_hf.layout.checkpoint_layout import PAPER_LAYOUTS, paper_layout


def test_layouts_of_the_paper():
    layouts = [paper_layout(name) for name in ("0", "1", "2", "3a", "3b", "4")]
    assert layouts == list(PAPER_LAYOUTS.values())
    assert [layout.line_breaks for layout in layouts] == [False, False, False, False, True, True]
    assert [layout.has_editing for layout in layouts] == [False, False, False, False, False, True]
    assert [len(layout.buckets) for layout in layouts] == [1, 1, 1, 1, 19, 19]
    assert [len(layout.indicators) for layout in layouts] == [0, 0, 0, 0, 12, 12]
    assert paper_layout(4) == paper_layout("4") and paper_layout("3B") == paper_layout("3b")
    with pytest.raises(ValueError, match="3a"):
        paper_layout("5")


def _files(folder):
    names = ("config.json", "processor_config.json", "generation_config.json")
    return [json.loads((folder / name).read_text(encoding="utf-8")) for name in names]


@pytest.mark.parametrize("which", ["compact", "built-in"])
def test_a_checkpoint_tells_its_layout_and_is_written_from_it(which, compact, tmp_path):
    folder = Path(compact.folder if which == "compact" else default_checkpoint())
    config, processor, generation = _files(folder)
    layout = Layout.read(config, processor)
    assert layout == Layout.read(WallarooConfig.from_pretrained(folder), WallarooProcessor.from_pretrained(folder))
    assert layout.first_code == config["text_config"]["vocab_size"] and layout.line_breaks and layout.has_editing
    written = layout.processor_settings()
    assert written == {name: processor[name] for name in written}
    assert set(written) == {
        *("line_breaks", "size_indicators", "has_editing", "buckets"),
        *("indicator_sizes",),
        "first_image_token_id",
    }
    assert generation["line_breaks"] == layout.generation_settings()["line_breaks"]


def test_what_files_leave_out_is_as_released(processor):
    assert Layout.read({}, {}) == PAPER_LAYOUTS["4"]
    processor.size_indicators = False  # its edges stay in the file, and nobody announces them
    saved = json.loads(json.dumps(processor.to_dict()))
    assert saved["indicator_sizes"] and Layout.read({}, saved).indicators == ()
    assert Layout.read({}, saved).processor_settings()["size_indicators"] is False


@pytest.mark.parametrize(
    "wrong",
    [{"buckets": ()}, {"buckets": (64, 96)}, {"buckets": ((0, 64),)}, {"indicators": (0,)}, {"indicators": "wide"}],
)
def test_sizes_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="needs at least one bucket"):
        dataclasses.replace(PAPER_LAYOUTS["4"], **wrong)
    listed = dataclasses.replace(PAPER_LAYOUTS["4"], buckets=[[64, 96]], indicators=[64, 96])
    assert (listed.buckets, listed.indicators) == (((64, 96),), (64, 96)), "as JSON has them"


def test_a_new_size_is_a_setting(compact, tmp_path):
    """Written into a checkpoint's processor_config.json, it is picked, announced, drawn, and kept: no code knows of it."""
    folder = shutil.copytree(compact.folder, tmp_path / "resized")
    settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    assert [48, 144] not in settings["buckets"]
    settings["buckets"] = [[48, 144], [96, 96]]
    (folder / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    model = WallarooForConditionalGeneration.from_pretrained(folder)
    processor = WallarooProcessor.from_pretrained(folder)
    assert Layout.read(model.config, processor).buckets == ((48, 144), (96, 96))
    inputs = processor(text="a kite", generation_mode="image", aspect_ratio="3:1", return_tensors="pt")
    assert inputs["target_grid_hw"].tolist() == [[3, 9]]
    tokens = model.generate(**inputs, generation_mode="image", generator=generators(0))
    [image] = processor.post_process_multimodal_output(model.decode_image_tokens(tokens), generation_mode="image")
    assert image.size == (144, 48)
    processor.save_pretrained(folder)
    assert WallarooProcessor.from_pretrained(folder).buckets == [(48, 144), (96, 96)]
