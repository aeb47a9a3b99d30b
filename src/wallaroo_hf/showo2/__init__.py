"""Show-o2 (arXiv 2506.15564): autoregression and flow matching in one transformer.

Its classes are imported when they are asked for, so that importing this package needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion.showo2_converter import convert_showo2
    from .omni_backbone import ShowO2Model
    from .processing.showo2_image_processor import ShowO2ImageProcessor
    from .processing.showo2_processor import ShowO2Processor
    from .showo2_configuration import ShowO2Config, ShowO2FlowConfig
    from .showo2_model import ShowO2ForConditionalGeneration

_HOMES = {
    "ShowO2Config": "showo2_configuration",
    "ShowO2FlowConfig": "showo2_configuration",
    "ShowO2ForConditionalGeneration": "showo2_model",
    "ShowO2ImageProcessor": "processing.showo2_image_processor",
    "ShowO2Model": "omni_backbone",
    "ShowO2Processor": "processing.showo2_processor",
    "convert_showo2": "conversion.showo2_converter",
}

__all__ = [
    "ShowO2Config",
    "ShowO2FlowConfig",
    "ShowO2ForConditionalGeneration",
    "ShowO2ImageProcessor",
    "ShowO2Model",
    "ShowO2Processor",
    "convert_showo2",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
