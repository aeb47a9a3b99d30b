"""Which panel of a help text shows which option, for commands with many; what is named nowhere stands in the first one."""

from collections.abc import Callable, Mapping
from typing import get_type_hints

from .options import MODEL, OUTPUT, SAMPLING, SIZE

__all__ = ["PANELS", "in_panels"]

LIMITS, ACCESS, HARDWARE, DATA = "Limits", "Access", "Hardware", "Data"
_ITEMS = {"Items": ("items", "tasks", "split", "prompts", "seed", "sources", "num_images", "resolution")}
_RUN = {OUTPUT: ("update_card", "json_output", "resume", "save", "batch_size")}
PANELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "Run": ("stage", "steps", "resume", "dry_run", "force", "skip_bad_rows", "seed"),
        "Replay": ("replay", "replay_share"),
        "LoRA": ("lora", "lora_rank", "quantize"),
        "Progress": ("previews", "preview_every", "save_every", "log_every", "report_to"),
        HARDWARE: ("device", "batch_size", "workers", "gradient_checkpointing", "padding_free"),
        "Settings": ("settings", "config"),
    },
    "serve": {
        "Batches": ("max_batch", "window", "max_wait", "max_queue"),
        ACCESS: ("api_key", "url_host", "allowed_host", "cors_origin"),
        LIMITS: (
            *("timeout", "shutdown_timeout", "max_connections", "image_timeout"),
            *("max_image_pixels", "max_output_pixels", "max_new_tokens"),
        ),
        MODEL: ("dtype",),
    },
    "chat": {SIZE: ("height", "width", "aspect_ratio"), MODEL: ("dtype",), SAMPLING: ("max_new_tokens", "seed")},
    "ask": {"Videos": ("num_frames", "fps")},
    "app": {MODEL: ("dtype",)},
    "encode": {
        DATA: ("format", "column", "image_folder", "split", "config", "streaming"),
        "Run": ("skip_broken", "batch_size", "rows_per_shard", "workers", "part"),
    },
    "scenes": {**_ITEMS, **_RUN},
    "sweep": {**_ITEMS, **_RUN},
    "paradigms": {
        "What they grow from": ("base", "dit", "vision", "codec"),
        "What is learned and judged": ("data", "prompts", "size", "judged", "looks"),
        "Running": ("batch_size", "together", "verify", "json_output", "device", "check_weights"),
    },
    "geneval": {**_ITEMS, **_RUN, SAMPLING: ("template",)},
    "dpg": {**_ITEMS, **_RUN, SAMPLING: ("template",)},
    "imgedit": {**_ITEMS, **_RUN, SAMPLING: ("template", "source_fit")},
    "vq": {"Settings": ("resume", "minutes", "device", "config", "batch_size", "image_size", "learning_rate", "seed")},
    "build": {
        "Parts": ("codec", "connector", "variant"),
        "Configuration": ("scales", "size", "settings"),
        "Weights": ("seed", "dtype", "max_shard_size"),
    },
    "export": {"Hub": ("push", "private", "revision"), "Card": ("base_model", "license", "recipe", "sample")},
}


def in_panels(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Puts a command's options into the panels of [`PANELS`].

    Args:
        name: of the command there.
        command: with typer's options as annotations.
    """
    hints = get_type_hints(command, include_extras=True)
    command.__annotations__ = hints  # where they were texts, typer would make other options of them
    for panel, options in PANELS.get(name, {}).items():
        for option in options:
            for told in getattr(hints.get(option), "__metadata__", ()):
                told.rich_help_panel = panel
    return command
