"""The image tasks, written once: what opens an image of each, and which adapter and head its codes go through.

No torch in here. Where a checkpoint's own table counts (a subclass of the configuration may have more tasks), ask
`config.image_tasks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

UNDERSTANDING = "understanding"  # the task of rows without an image span


@dataclass(frozen=True)
class ImageTask:
    """One kind of image that is drawn. Names of parts are those in checkpoints.

    Attributes:
        name: as in `loss_<name>_image`, `loss_weights` and task ratios.
        start_token: entry of the configuration that holds the id of the token that opens such an image; None where a
            checkpoint has no such token.
        adapter: part of `WallarooModel` that its codes enter by.
        head: part of `WallarooForConditionalGeneration` that scores its codes.
        after_source: it is this task only where a source stands between the image before it (or the row's start) and it.
        switch: entry of the configuration that says whether a checkpoint has these parts; None = all have them. Where it
            is off, the task's codes go through the parts of the first task.
        other_adapters: further adapters of `WallarooModel` that exist with it.
        lacking: what to say and advise where the parts are needed and not there.
    """

    name: str
    start_token: str
    adapter: str
    head: str
    after_source: bool = False
    switch: str | None = None
    other_adapters: tuple[str, ...] = ()
    lacking: str = ""

    @property
    def adapters(self) -> tuple[str, ...]:
        """All of its adapters, in the order in which they are made."""
        return (*self.other_adapters, self.adapter)

    @property
    def parts(self) -> tuple[str, ...]:
        """All of its parts: adapters, then the head."""
        return (*self.adapters, self.head)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How the names of its parameters begin, where `model.` is left out."""
        return tuple(f"{part}." for part in self.parts)


# Of the tasks that fit a span, the last one counts. The first is that of every checkpoint. Their positions in the table are
# their indices in tensors.
IMAGE_TASKS = (
    ImageTask("generation", "generate_start_token_id", "generation_adapter", "generation_head"),
    ImageTask(
        "editing",
        "generate_start_token_id",
        "edit_adapter",
        "edit_head",
        after_source=True,
        switch="has_editing",
        other_adapters=("source_adapter",),
        lacking="This checkpoint has no editing parts (it was trained up to stage 3); convert or load a stage 4 checkpoint "
        "to edit images.",
    ),
)
GENERATION, EDITING = IMAGE_TASKS[:2]
SOURCE_ADAPTER = "source_adapter"


def task_names(tasks: Sequence[ImageTask] = IMAGE_TASKS) -> tuple[str, ...]:
    """What rows of training are about: understanding, then the image tasks. This is their order in losses."""
    return (UNDERSTANDING, *(task.name for task in tasks))


def loss_names(tasks: Sequence[ImageTask] = IMAGE_TASKS) -> tuple[str, ...]:
    """The parts of the loss: the text of every task, and the codes of those that draw."""
    return (f"{UNDERSTANDING}_text", *(f"{task.name}_{kind}" for task in tasks for kind in ("text", "image")))


def part_names(tasks: Sequence[ImageTask] = IMAGE_TASKS) -> tuple[str, ...]:
    """All image adapters and heads, each once."""
    return tuple(dict.fromkeys(part for task in tasks for part in task.parts))


# The parts of a checkpoint by the beginnings of their tensors' names, as `wallaroo info` lists them.
TENSORS_OF_PARTS = {
    "language model": ("model.language_model.", "lm_head."),
    "vision tower": ("model.visual.",),
    "image tokenizer": ("model.vq_model.",),
    **{
        "drawing" if task is GENERATION else task.name: (
            *(f"model.{name}." for name in task.adapters),
            f"{task.head}.",
        )
        for task in IMAGE_TASKS
    },
}
