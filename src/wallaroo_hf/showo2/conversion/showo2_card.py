"""The model card of a converted Show-o2, which its owner may complete."""

from pathlib import Path

from huggingface_hub import ModelCardData

from ..showo2_configuration import ShowO2Config

__all__ = ["card_of"]

_TEXT = """# Show-o2

A [Show-o2](https://arxiv.org/abs/2506.15564) checkpoint, converted from what its authors released: one transformer that
understands images and videos token by token and draws by flow matching, for transformers with the package `wallaroo-hf`.

Sizes that are offered (height x width): {sizes}; others whose edges are multiples of an image token's can be drawn too.

## Use

```bash
pip install wallaroo-hf[showo2]
```

```python
import wallaroo_hf
from transformers import pipeline

pipe = pipeline("text-to-image", model="THIS REPOSITORY")
pipe("a red circle").images[0].save("circle.png")
```
"""


def card_of(config: ShowO2Config, base: str | Path) -> str:
    """A card with what is known.

    Args:
        config: the checkpoint's.
        base: what its language model was trained from; named where it is a Hub id.
    """
    entries = {
        "library_name": "transformers",
        "pipeline_tag": "any-to-any",
        "language": ["en", "zh"],
        "tags": ["showo2", "text-to-image", "flow-matching"],
        "base_model": None if Path(base).exists() else str(base).partition("@")[0],
    }
    data = ModelCardData(**{name: value for name, value in entries.items() if value is not None})
    sizes = ", ".join(f"{height}x{width}" for height, width in config.drawing_sizes)
    return f"---\n{data.to_yaml()}\n---\n\n{_TEXT.format(sizes=sizes)}"
