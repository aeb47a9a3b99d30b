"""Registers Wallaroo with transformers' Auto classes and pipelines, by being imported: the only place that does."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .files.built_in import FOLDER
from .modeling.backbone import WallarooModel
from .modeling.configuration import WallarooConfig, WallarooVQConfig
from .modeling.model import WallarooForConditionalGeneration
from .modeling.vq import WallarooVQModel
from .pipelines.drawing_pipeline import WallarooPipeline
from .pipelines.pipeline_model import PipelineModel
from .processing.image_processor import WallarooImageProcessor
from .processing.processor import WallarooProcessor

AutoConfig.register("wallaroo", WallarooConfig, exist_ok=True)
AutoConfig.register("wallaroo_vq", WallarooVQConfig, exist_ok=True)
AutoModel.register(WallarooConfig, WallarooModel, exist_ok=True)
AutoModel.register(WallarooVQConfig, WallarooVQModel, exist_ok=True)
AutoModelForImageTextToText.register(WallarooConfig, WallarooForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(WallarooConfig, WallarooForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(WallarooConfig, image_processor_classes={"pil": WallarooImageProcessor}, exist_ok=True)
AutoProcessor.register(WallarooConfig, WallarooProcessor, exist_ok=True)

for _task in (
    "text-to-image",
    "image-editing",
):  # transformers has neither; a task of that name of another package stays
    if _task not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            _task,
            pipeline_class=WallarooPipeline,
            pt_model=PipelineModel,
            default={"model": (str(FOLDER), "main")},
            type="multimodal",
        )
