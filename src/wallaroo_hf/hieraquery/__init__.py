"""HieraQuery: learned queries, coarse to fine, behind a frozen multimodal language model steer a diffusion transformer.

Its classes are imported when they are asked for, so that importing this package needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import build_hieraquery
    from .hieraquery_configuration import HieraQueryConfig
    from .hieraquery_model import HieraQueryForConditionalGeneration
    from .processing.hieraquery_image_processor import HieraQueryImageProcessor
    from .processing.hieraquery_processor import HieraQueryProcessor

_HOMES = {
    "HieraQueryConfig": "hieraquery_configuration",
    "HieraQueryForConditionalGeneration": "hieraquery_model",
    "HieraQueryImageProcessor": "processing.hieraquery_image_processor",
    "HieraQueryProcessor": "processing.hieraquery_processor",
    "build_hieraquery": "building",
}

__all__ = [
    "HieraQueryConfig",
    "HieraQueryForConditionalGeneration",
    "HieraQueryImageProcessor",
    "HieraQueryProcessor",
    "build_hieraquery",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
