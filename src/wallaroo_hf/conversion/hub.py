"""Checkpoints for the Hub: with a card, and with a module for people who do not have this package."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..families.registry import Family, find_family
from ..files.checkpoint_files import INDEX, SETTINGS, find_checkpoint, read_json, weight_files
from ..files.whole import new_folder
from .card import card_text, find_recipe, package_of
from .checking import check_stored

__all__ = ["REMOTE_MODULE", "CardEntries", "export_hub", "push_to_hub"]

REMOTE_MODULE = "wallaroo_remote"
# Auto classes, and what of a family each stands for
_AUTO_CLASSES = {
    "AutoConfig": "config",
    "AutoModel": "backbone",
    "AutoModelForImageTextToText": "model",
    "AutoModelForMultimodalLM": "model",
    "AutoProcessor": "processor",
}
_REMOTE_CODE = '''"""The classes of this checkpoint, which the package wallaroo-hf provides.

transformers reads this file when the checkpoint is loaded with `trust_remote_code=True` and without the package imported.
"""

try:
    from wallaroo_hf import {names}
except ImportError as error:
    raise ImportError(
        "This checkpoint needs the package wallaroo-hf, which is not installed here; run `pip install {package}` and "
        "load it again."
    ) from error

__all__ = [{quoted}]
'''


@dataclass(frozen=True)
class CardEntries:
    """What only the publisher knows and the card should say.

    Attributes:
        base_model: Hub id of the model that this one was trained from.
        license: of the weights, as the Hub spells it (`apache-2.0`).
        recipe: a file that says how the checkpoint was made; it goes along. Default: what the trainers of this package
            left in the checkpoint's folder or its run's.
        samples: a picture with what the checkpoint drew.
        prompts: what was drawn on it, in order.
    """

    base_model: str | None = None
    license: str | None = None
    recipe: Path | None = None
    samples: Path | None = None
    prompts: Sequence[str] = ()


def export_hub(
    checkpoint: str | Path,
    output: str | Path,
    revision: str | None = None,
    entries: CardEntries | None = None,
    check_weights: bool = True,
) -> Path:
    """Copies a checkpoint into a folder that is ready for the Hub.

    Added are a card (`README.md`; one that the checkpoint has is kept, and its missing entries are filled in) and a small
    module that transformers loads with `trust_remote_code=True`: it uses the installed package, or says how to
    install it.

    Args:
        checkpoint: folder or Hub id.
        output: the folder to write; must not exist, or be empty. It appears when it is whole.
        revision: of a checkpoint on the Hub.
        entries: for the card.
        check_weights: whether to look for weights that are not finite.

    Returns:
        The output folder.

    Raises:
        ValueError: if the checkpoint is damaged or lacks files; nothing is left at `output` then.
    """
    source = find_checkpoint(checkpoint, revision)
    with new_folder(Path(output)) as folder:
        _fill(folder, source, entries or CardEntries(), check_weights, link=False)
    return Path(output)


def push_to_hub(
    checkpoint: str | Path,
    repo_id: str,
    revision: str | None = None,
    entries: CardEntries | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    check_weights: bool = True,
) -> str:
    """Uploads a checkpoint as [`export_hub`] makes it.

    Args:
        checkpoint, revision, entries: see [`export_hub`].
        repo_id: where to, such as `org/name`; the repository is made where it is not there.
        private: whether a new repository is private.
        commit_message: of the upload. Default: that a checkpoint of its family is uploaded.
        token: of the Hub; default: the one that is logged in.
        check_weights: see [`export_hub`].

    Returns:
        The address of the commit.

    Raises:
        ValueError: if the checkpoint is damaged, or the Hub refuses.
    """
    source = find_checkpoint(checkpoint, revision)
    with tempfile.TemporaryDirectory(prefix="wallaroo-push-") as folder:
        _fill(Path(folder), source, entries or CardEntries(), check_weights, link=True)
        try:
            api = HfApi(token=token)
            repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            message = commit_message or f"Upload {find_family(source).title} checkpoint"
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"The checkpoint could not be uploaded to '{repo_id}' ({reason}); check its name and `hf auth login`."
            ) from error


def _fill(folder: Path, source: Path, entries: CardEntries, check_weights: bool, link: bool) -> None:
    for given in (entries.recipe, entries.samples):
        if given is not None and not given.is_file():
            raise ValueError(f"The file '{given}' does not exist; check its path.")
    check_stored(source, check_weights)
    weights = weight_files(source)
    settings = [path for pattern in SETTINGS for path in sorted(source.glob(pattern)) if path.name != INDEX]
    for path in (*settings, *([source / INDEX] if (source / INDEX).is_file() else [])):
        shutil.copyfile(path, folder / path.name)
    for path in weights:
        _link_or_copy(path, folder / path.name, link)
    family = find_family(source)
    classes = {name: _class_name(family, what) for name, what in _AUTO_CLASSES.items() if getattr(family, what)}
    auto_map = {name: f"{REMOTE_MODULE}.{target}" for name, target in classes.items()}
    _add(folder / "config.json", {"auto_map": auto_map})
    _add(folder / "processor_config.json", {"auto_map": {"AutoProcessor": auto_map["AutoProcessor"]}})
    (folder / f"{REMOTE_MODULE}.py").write_text(_remote_code(family, classes.values()), encoding="utf-8")
    recipe = entries.recipe or find_recipe(source)
    if recipe is not None and recipe.parent != source:
        recipe = Path(shutil.copyfile(recipe, folder / recipe.name))
    if entries.samples is not None:
        shutil.copyfile(entries.samples, folder / "samples.png")
    prompts = list(entries.prompts) if entries.samples is not None else None
    card = card_text(family, folder, source / "README.md", entries.base_model, entries.license, recipe, prompts)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _class_name(family: Family, what: str) -> str:
    """The name, in this package, of a class of a family."""
    return str(getattr(family, what)).rpartition(":")[2]


def _remote_code(family: Family, classes: Iterable[str]) -> str:
    names = sorted(set(classes))
    quoted = ", ".join(f'"{name}"' for name in names)
    return _REMOTE_CODE.format(names=", ".join(names), quoted=quoted, package=package_of(family))


def _link_or_copy(source: Path, target: Path, link: bool) -> None:
    """A copy, or a second name of the same file where the file system can."""
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # another file system
    shutil.copyfile(source, target)


def _add(path: Path, entries: dict[str, dict[str, str]]) -> None:
    text = json.dumps(read_json(path) | entries, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
