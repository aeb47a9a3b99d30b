"""`WallarooAnyToAnyPipeline`: transformers' any-to-any pipeline where torchvision is missing."""

from typing import Any

from transformers import Pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.pipelines.any_to_any import AnyToAnyPipeline

from .saving import WholeCheckpointMixin

__all__ = ["WallarooAnyToAnyPipeline"]


class WallarooAnyToAnyPipeline(WholeCheckpointMixin, AnyToAnyPipeline):
    r"""transformers' any-to-any pipeline, with three differences: it needs no torchvision (our processors never do),
    `generation_mode="image"` reaches the processor, so that drawing needs no `processor_kwargs`, and models draw
    whose images are no tokens.

    ```python
    pipe = pipeline("any-to-any", model=folder, pipeline_class=WallarooAnyToAnyPipeline)
    pipe(text="a red circle", generation_mode="image")[0]["generated_image"]
    ```

    The stock pipeline, where torchvision works, wants `processor_kwargs={"generation_mode": "image"}` beside it, and draws
    with Wallaroo only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # not AnyToAnyPipeline's: all it adds is the requirement of torchvision for models that take images
        Pipeline.__init__(self, *args, **kwargs)
        self.check_model_type(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)

    def _sanitize_parameters(
        self,
        *,
        generation_mode: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if generation_mode == "image":
            processor_kwargs = {"generation_mode": "image", **(processor_kwargs or {})}
        return super()._sanitize_parameters(
            generation_mode=generation_mode,
            processor_kwargs=processor_kwargs,
            generate_kwargs=None if generate_kwargs is None else dict(generate_kwargs),  # the parent writes into it
            **kwargs,
        )

    def preprocess(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Text, pictures and chats to tensors; see transformers."""
        if kwargs.get("processor_kwargs") is not None:
            kwargs["processor_kwargs"] = dict(kwargs["processor_kwargs"])  # `apply_chat_template` writes into it
        return super().preprocess(inputs, **kwargs)

    def _forward(self, model_inputs: Any, generate_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
        given = {name: value for name, value in (generate_kwargs or {}).items() if value is not None}
        if given.get("generation_mode") != "image" or hasattr(self.model, "decode_image_tokens"):
            return super()._forward(model_inputs, generate_kwargs)
        del given["generation_mode"]
        copies, generators = given.pop("num_return_sequences", 1), given.pop("generator", None)
        batch = dict(model_inputs)
        prompts = batch.pop("text")
        drawn = self.model.draw(batch, copies=copies, generators=generators, **given)
        if copies > 1:
            prompts = [one for one in (prompts if isinstance(prompts, list) else [prompts]) for _ in range(copies)]
        return {"generated_sequence": drawn.pixels, "prompt_text": prompts, "input_ids": batch["input_ids"]}
