"""The model card of a checkpoint: what it is, what it can do, how it was made, and pictures that it drew."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..families.abilities import EDITING, UNDERSTANDING, VIDEO, Abilities
from ..families.registry import Family
from ..files.checkpoint_files import read_json

__all__ = ["card_text", "find_recipe", "package_of"]


def card_text(
    family: Family,
    folder: Path,
    present: Path,
    base_model: str | None = None,
    license: str | None = None,
    recipe: Path | None = None,
    prompts: list[str] | None = None,
) -> str:
    """The card of the checkpoint in a folder.

    Args:
        family: the checkpoint's.
        folder: the checkpoint's files.
        present: a card that there is already; its text stays as it is, and so do the entries that it has.
        base_model, license: entries of the card.
        recipe: a file in the folder that says how the checkpoint was made.
        prompts: what `samples.png` in the folder shows; None = there is no such picture.

    Raises:
        ValueError: if the card that there is cannot be read.
    """
    abilities = _abilities(family, folder)
    drawing = [task for task in abilities.tasks if task not in (UNDERSTANDING, VIDEO)]
    data: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "any-to-any",
        "language": list(abilities.languages),
        "tags": [family.model_type, *drawing, *family.tags],
    }
    text = _text(family, abilities, folder, recipe)
    if present.is_file():
        try:
            card = ModelCard.load(present)
        except (ValueError, OSError) as error:
            raise ValueError(f"The card '{present}' cannot be read ({error}); correct or remove it.") from error
        data |= {key: value for key, value in card.data.to_dict().items() if value is not None}
        text = card.text.strip()
    data |= {key: value for key, value in {"base_model": base_model, "license": license}.items() if value is not None}
    if prompts is not None:
        listed = "\n".join(f"{number}. {prompt}" for number, prompt in enumerate(prompts, 1))
        text += f"\n\n## Samples\n\n![What this checkpoint drew](samples.png)\n\n{listed}"
    return f"---\n{ModelCardData(**data).to_yaml()}\n---\n\n{text}\n"


def package_of(family: Family) -> str:
    """What pip installs for models of a family."""
    return f"wallaroo-hf[{family.extra}]" if family.extra else "wallaroo-hf"


def _abilities(family: Family, folder: Path) -> Abilities:
    files = (folder / name for name in ("config.json", "generation_config.json", "processor_config.json"))
    config, generation, processor = (read_json(path) if path.is_file() else {} for path in files)
    return family.resolve("abilities")(config, generation, processor)


def _text(family: Family, abilities: Abilities, folder: Path, recipe: Path | None) -> str:
    config = read_json(folder / "config.json")
    sizes = ", ".join(f"{height}x{width}" for height, width in abilities.sizes)
    can = "It answers questions about images, draws from English and Chinese prompts" + (
        " and edits images." if EDITING in abilities.tasks else "; it was not trained to edit images."
    )
    stage = f" Its last training stage was {config['stage']}." if config.get("stage") else ""
    name = f"[{family.title}]({family.paper})" if family.paper else family.title
    sections = [
        f"# {config.get('_name_or_path') or family.title}",
        f"A {name} checkpoint: {family.summary}, for transformers with the package `wallaroo-hf`. {can}{stage}",
        f"Sizes that were trained (height x width): {sizes}.",
        _USE.format(package=f'"{package_of(family)}"' if family.extra else package_of(family)),
        "" if recipe is None else _recipe(recipe),
    ]
    return "\n\n".join(section for section in sections if section)


def find_recipe(checkpoint: Path) -> Path | None:
    """What the trainers of this package wrote about how a checkpoint was made, in its folder or in its run's."""
    for name in ("run.json", "trainer_state.json"):
        if (checkpoint / name).is_file():
            return checkpoint / name
    states = checkpoint.resolve().parent.glob("checkpoint-*/trainer_state.json")
    return max(states, key=lambda path: path.stat().st_mtime, default=None)


def _recipe(path: Path) -> str:
    """A section with what is short enough to be read; all of it is in the file."""
    lines = ["## How it was made", "", f"All numbers are in `{path.name}`."]
    content = read_json(path) if path.suffix == ".json" else {}
    plain: dict[str, Any] = {
        key: value for key, value in content.items() if isinstance(value, int | float | str) and value != ""
    }
    history = [entry for entry in content.get("log_history") or [] if "loss" in entry]
    if history:
        plain["last losses"] = {key: value for key, value in history[-1].items() if "loss" in key}
    if isinstance(content.get("parts"), dict):
        plain["steps"] = {name: part.get("steps") for name, part in content["parts"].items() if part.get("steps")}
    if plain:
        lines += ["", "```json", json.dumps(plain, indent=2, ensure_ascii=False), "```"]
    elif not content:
        lines += ["", "```", path.read_text(encoding="utf-8").strip(), "```"]
    return "\n".join(lines)


_USE = """## Use

```bash
pip install {package}
```

```python
import wallaroo_hf
from transformers import pipeline

pipe = pipeline("text-to-image", model="THIS REPOSITORY")
pipe("a red circle").images[0].save("circle.png")
```

Without `import wallaroo_hf`, transformers loads the checkpoint with `trust_remote_code=True`: the module in this repository
uses the installed package."""
