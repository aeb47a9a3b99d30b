"""Checkpoints on the Hub: cards, uploads, caches, and people without the package. Nothing here needs a network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitInfo, HfApi, ModelCard, RepoUrl
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from damaged_weights import DAMAGES, damaged
from test_architecture import SOURCE
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.conversion import CardEntries, export_hub, push_to_hub
from wallaroo_hf.files.checkpoint_files import find_checkpoint


@pytest.fixture(scope="module")
def exported(compact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    Image.new("RGB", (8, 8)).save(folder / "sheet.png")
    (folder / "recipe.yaml").write_text("stage: 4\nlearning_rate: 1e-5\n", encoding="utf-8")
    entries = CardEntries(
        "org/base", "apache-2.0", folder / "recipe.yaml", folder / "sheet.png", ["a red fox", "蓝色的星星"]
    )
    return export_hub(compact.folder, folder / "out", entries=entries)


def test_the_card(exported):
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "any-to-any"
    assert card.data.language == ["en", "zh"] and card.data.license == "apache-2.0"
    assert card.data.base_model == "org/base"
    assert "![What this checkpoint drew](samples.png)\n\n1. a red fox\n2. 蓝色的星星" in card.text
    assert "learning_rate: 1e-5" in card.text and (exported / "recipe.yaml").exists()
    assert Image.open(exported / "samples.png").size == (8, 8)


def test_a_card_that_there_is_stays(tmp_path):
    """The built-in checkpoint has one; its missing entries are filled in, and its text is the same."""
    folder = export_hub(default_checkpoint(), tmp_path / "out", entries=CardEntries(base_model="org/base"))
    before, after = ModelCard.load(Path(default_checkpoint()) / "README.md"), ModelCard.load(folder / "README.md")
    assert after.text.strip() == before.text.strip()
    assert after.data.base_model == "org/base" and after.data.license == before.data.license


def test_the_trainers_record_is_the_recipe(compact, tmp_path):
    """Where a run left one beside the weights it made."""
    final = shutil.copytree(compact.folder, tmp_path / "run" / "final")
    state = {"global_step": 7, "log_history": [{"loss": 2.5, "loss_editing_image": 1.5}]}
    (tmp_path / "run" / "checkpoint-7").mkdir()
    (tmp_path / "run" / "checkpoint-7" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    folder = export_hub(final, tmp_path / "out")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert '"global_step": 7' in text and '"loss_editing_image": 1.5' in text
    assert (folder / "trainer_state.json").exists()


def test_missing_files_are_named(compact, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.yaml"):
        export_hub(compact.folder, tmp_path / "out", entries=CardEntries(recipe=tmp_path / "nowhere.yaml"))
    assert not list(tmp_path.iterdir())


def test_loads_as_before(compact, exported, tmp_path):
    """With the package imported nothing of the folder's code is run; saving leaves it behind."""
    model = WallarooForConditionalGeneration.from_pretrained(exported)
    model.save_pretrained(tmp_path)
    WallarooProcessor.from_pretrained(exported).save_pretrained(tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert "auto_map" not in (tmp_path / "processor_config.json").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.py"))


# ----------------------------------------------------------------------------------- people without the package

_SCRIPT = """
import sys
folder, saved, hidden = sys.argv[1:]

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "wallaroo_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if hidden == "hidden":
    sys.meta_path.insert(0, Hide())
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor
assert "wallaroo_hf" not in sys.modules
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
    model = auto.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__name__ == "WallarooForConditionalGeneration"
processor.save_pretrained(saved)
model.save_pretrained(saved)
"""


def _run(exported, tmp_path, hidden):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, "-c", _SCRIPT, str(exported), str(tmp_path / "saved"), hidden]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_trusting_the_code_uses_the_package(exported, tmp_path):
    done = _run(exported, tmp_path, "installed")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "saved").glob("*.py"))


def test_without_the_package_there_is_one_sentence(exported, tmp_path):
    done = _run(exported, tmp_path, "hidden")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last == (
        "ImportError: This checkpoint needs the package wallaroo-hf, which is not installed here; run `pip install "
        "wallaroo-hf` and load it again."
    )


# ------------------------------------------------------------------------------------------------- the Hub itself


@pytest.fixture
def hub(monkeypatch):
    """Takes what is uploaded, in place of the Hub."""
    uploads = {}

    def create_repo(self, repo_id, **kwargs):
        uploads["repo"] = {"repo_id": repo_id, **kwargs}
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, **kwargs):
        uploads["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        url = f"https://huggingface.co/{repo_id}/commit/1234"
        return CommitInfo(commit_url=url, commit_message="", commit_description="", oid="1234")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


def test_push(hub, compact):
    url = push_to_hub(compact.folder, "org/name", entries=CardEntries(license="mit"), private=True)
    assert url == "https://huggingface.co/org/name/commit/1234"
    assert hub["repo"] == {"repo_id": "org/name", "private": True, "exist_ok": True}
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "wallaroo_remote.py"} <= set(
        hub["files"]
    )
    assert hub["files"]["model.safetensors"] == (compact.folder / "model.safetensors").read_bytes()
    assert b"license: mit" in hub["files"]["README.md"]


def test_a_refused_upload_is_one_sentence(compact, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError("401 Client Error\nRepository Not Found")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match=r"could not be uploaded to 'org/name' \(401 .*hf auth login"):
        push_to_hub(compact.folder, "org/name")
    assert issubclass(HfHubHTTPError, OSError)


@pytest.fixture
def cache(compact, tmp_path, monkeypatch):
    """A Hub cache with two commits of org/tiny, which differ in their guidance scale."""
    for commit, scale in (("a" * 40, 2.0), ("b" * 40, 4.0)):
        snapshot = shutil.copytree(compact.folder, tmp_path / "models--org--tiny" / "snapshots" / commit)
        path = snapshot / "generation_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) | {"image_guidance_scale": scale}
        path.write_text(json.dumps(settings), encoding="utf-8")
    refs = tmp_path / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40, encoding="utf-8")
    (refs / "v2").write_text("b" * 40, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("revision", "scale"), [(None, 2.0), ("v2", 4.0), ("b" * 40, 4.0)])
def test_loads_from_the_cache(cache, revision, scale):
    """Offline, by branch, tag and commit."""
    options = {"cache_dir": cache} | ({} if revision is None else {"revision": revision})
    model = WallarooForConditionalGeneration.from_pretrained("org/tiny", **options)
    processor = WallarooProcessor.from_pretrained("org/tiny", **options)
    assert model.generation_config.image_guidance_scale == scale
    inputs = processor(text="a cat", generation_mode="image", height=32, width=32, return_tensors="pt")
    assert model.generate(**inputs, generation_mode="image").shape[0] == 1
    folder = find_checkpoint("org/tiny", revision)
    assert json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["image_guidance_scale"] == scale


def test_what_is_not_in_the_cache(cache):
    for name, revision in (("org/other", None), ("org/tiny", "v3")):
        with pytest.raises(ValueError, match=r"neither a folder nor to be had from the Hub"):
            find_checkpoint(name, revision)
    with pytest.raises(OSError, match=r"v3|offline"):
        WallarooForConditionalGeneration.from_pretrained("org/tiny", cache_dir=cache, revision="v3")


def test_damaged_weights_are_not_given_away(compact, tmp_path):
    for damage, (_, words) in DAMAGES.items():
        source = damaged(compact.folder, tmp_path / damage, damage)
        with pytest.raises(ValueError, match=re.escape(words)):
            export_hub(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    export_hub(tmp_path / "nan", tmp_path / "out", check_weights=False)
