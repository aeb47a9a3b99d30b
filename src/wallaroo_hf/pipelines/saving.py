"""Saving a pipeline: what every pipeline of ours needs and transformers' does not do."""

import os
from typing import Any

from transformers import Pipeline

__all__ = ["WholeCheckpointMixin"]


class WholeCheckpointMixin(Pipeline):
    """Saves model and processor, so that the folder loads again by itself.

    transformers' own `save_pretrained` leaves the processor out, and for a registered task it writes the pipeline's
    source and a `custom_pipelines` entry into the folder; the task then asks for `trust_remote_code` wherever it is
    loaded, although the installed package has it registered.
    """

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves model and processor into a folder.

        Args:
            save_directory: the folder; it is made where it is not there.
            kwargs: passed to the `save_pretrained` of both, such as `push_to_hub`.

        Raises:
            ValueError: if `save_directory` is a file.
        """
        if os.path.isfile(save_directory):
            raise ValueError(f"'{save_directory}' is a file; give a folder to save the pipeline to.")
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
