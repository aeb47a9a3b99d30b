"""Arguments of transformers' `generate` that must not reach a strict `forward`."""

from typing import Any

__all__ = ["drop_generate_arguments"]

# Decoding methods take them where they need them and hand them on where not; stock models' `forward` swallows what it does
# not know, ours does not.
_OF_GENERATE = ("tokenizer", "assistant_tokenizer", "assistant_model")


def drop_generate_arguments(model_inputs: dict[str, Any]) -> None:
    """Takes out of what `prepare_inputs_for_generation` made what is `generate`'s alone.

    Args:
        model_inputs: arguments of `forward`, changed in place.
    """
    for name in _OF_GENERATE:
        model_inputs.pop(name, None)
