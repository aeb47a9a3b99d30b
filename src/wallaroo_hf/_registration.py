"""Registers the families with transformers' Auto classes and pipelines, by being imported: the only place that does."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .families.registry import FAMILIES, Family
from .files.built_in import FOLDER
from .pipelines.drawing_pipeline import DrawingPipeline
from .pipelines.pipeline_model import PipelineModel

__all__ = ["register_auto_classes"]


def register_auto_classes(family: Family) -> None:
    """Lets `AutoModelForMultimodalLM`, `AutoProcessor` and the like load checkpoints of a family."""
    config = family.resolve("config")
    AutoConfig.register(family.model_type, config, exist_ok=True)
    for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto.register(config, family.resolve("model"), exist_ok=True)
    if family.backbone is not None:
        AutoModel.register(config, family.resolve("backbone"), exist_ok=True)
    if family.image_processor is not None:
        pil = {"pil": family.resolve("image_processor")}
        AutoImageProcessor.register(config, image_processor_classes=pil, exist_ok=True)
    AutoProcessor.register(config, family.resolve("processor"), exist_ok=True)
    if family.codec is not None and family.codec_config is not None:
        codec_config = family.resolve("codec_config")
        AutoConfig.register(codec_config.model_type, codec_config, exist_ok=True)
        AutoModel.register(codec_config, family.resolve("codec"), exist_ok=True)


for _family in FAMILIES.values():
    register_auto_classes(_family)

for _task in (
    "text-to-image",
    "image-editing",
):  # transformers has neither; a task of that name of another package stays
    if _task not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            _task,
            pipeline_class=DrawingPipeline,
            pt_model=PipelineModel,
            default={"model": (str(FOLDER), "main")},
            type="multimodal",
        )
