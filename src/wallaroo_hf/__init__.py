"""Wallaroo, Show-o2 and HieraQuery for transformers: models that understand, draw and edit images, behind the same doors.

Importing this package registers its classes with transformers' Auto classes.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from ._requirements import warn_of_untested_transformers
from ._version import __version__

if TYPE_CHECKING:
    from .hieraquery import (
        HieraQueryConfig,
        HieraQueryForConditionalGeneration,
        HieraQueryImageProcessor,
        HieraQueryProcessor,
    )
    from .modeling.backbone import WallarooModel
    from .modeling.configuration import WallarooConfig, WallarooVQConfig
    from .modeling.model import WallarooForConditionalGeneration
    from .modeling.vq import WallarooVQModel
    from .pipelines import DrawingPipeline, WallarooAnyToAnyPipeline, WallarooPipeline
    from .processing.image_processor import WallarooImageProcessor
    from .processing.processor import WallarooProcessor
    from .showo2 import (
        ShowO2Config,
        ShowO2ForConditionalGeneration,
        ShowO2ImageProcessor,
        ShowO2Model,
        ShowO2Processor,
    )

_HOMES = {
    "DrawingPipeline": "pipelines",
    "HieraQueryConfig": "hieraquery",
    "HieraQueryForConditionalGeneration": "hieraquery",
    "HieraQueryImageProcessor": "hieraquery",
    "HieraQueryProcessor": "hieraquery",
    "ShowO2Config": "showo2",
    "ShowO2ForConditionalGeneration": "showo2",
    "ShowO2ImageProcessor": "showo2",
    "ShowO2Model": "showo2",
    "ShowO2Processor": "showo2",
    "WallarooAnyToAnyPipeline": "pipelines",
    "WallarooConfig": "modeling.configuration",
    "WallarooForConditionalGeneration": "modeling.model",
    "WallarooImageProcessor": "processing.image_processor",
    "WallarooModel": "modeling.backbone",
    "WallarooPipeline": "pipelines",
    "WallarooProcessor": "processing.processor",
    "WallarooVQConfig": "modeling.configuration",
    "WallarooVQModel": "modeling.vq",
    "default_checkpoint": "files.built_in",
}

__all__ = [
    "DrawingPipeline",
    "HieraQueryConfig",
    "HieraQueryForConditionalGeneration",
    "HieraQueryImageProcessor",
    "HieraQueryProcessor",
    "ShowO2Config",
    "ShowO2ForConditionalGeneration",
    "ShowO2ImageProcessor",
    "ShowO2Model",
    "ShowO2Processor",
    "WallarooAnyToAnyPipeline",
    "WallarooConfig",
    "WallarooForConditionalGeneration",
    "WallarooImageProcessor",
    "WallarooModel",
    "WallarooPipeline",
    "WallarooProcessor",
    "WallarooVQConfig",
    "WallarooVQModel",
    "__version__",
    "default_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


warn_of_untested_transformers()  # first, as what follows may fail with another version

# The command line's launcher asks to wait: `wallaroo --help` must not import torch. Its commands register themselves.
if os.environ.pop("_WALLAROO_HF_REGISTER_LATER", None) is None:
    importlib.import_module("._registration", __name__)
