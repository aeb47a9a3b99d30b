"""What the tabs of the web page share."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr

from .app_engine import Engine
from .app_texts import text

__all__ = ["EVENT", "Part", "Words", "answers", "noted", "sampling", "stopper", "tab"]

T = TypeVar("T")
# of everything that asks the model: the engine takes one at a time, a few may wait there
EVENT: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 4}


@dataclass
class Words:
    """What changes with the language: components and how their words are made."""

    updates: list[tuple[Any, Callable[[str], Any]]] = field(default_factory=list)

    def label(self, component: Any, key: str, hint: str | None = None) -> Any:
        """A component whose label (and placeholder) are in the page's language."""
        keys = {"label": key} if hint is None else {"label": key, "placeholder": hint}
        if hint is not None:
            component.placeholder = text(hint, "en")
        self.updates.append((component, lambda code: gr.update(**_in_language(keys, code))))
        return component

    def value(self, component: Any, key: str) -> Any:
        """A component, such as a button, whose value is in the page's language."""
        self.updates.append((component, lambda code: gr.update(value=text(key, code))))
        return component


def _in_language(keys: dict[str, str], language: str) -> dict[str, Any]:
    return {name: text(key, language) for name, key in keys.items()}


def tab(key: str, words: Words) -> gr.Tab:
    """A tab whose name is in the page's language.

    All that belongs to it must be made within it, states too: gradio counts what stands between tabs as tabs.
    """
    made = gr.Tab(text(key, "en"), elem_id=f"tab-{key}")
    words.updates.append((made, lambda code: gr.update(label=text(key, code))))
    return made


@dataclass
class Part:
    """What other tabs need of one."""

    buttons: dict[str, Any]
    picture: Any
    chosen: Any = None


def sampling(engine: Engine, words: Words) -> tuple[gr.Slider, gr.Slider, gr.Slider]:
    """Sliders of guidance, the share that codes need to be guided to, and temperature, at the checkpoint's own settings."""
    config = engine.model.generation_config
    scale = getattr(config, "image_guidance_scale", None) or 3.0
    share = getattr(config, "image_guidance_min_p", None) or 0.0
    heat = getattr(config, "image_temperature", None) or 1.0
    with gr.Row():
        guidance = gr.Slider(1, 10, scale, step=0.1, label=text("guidance", "en"))
        min_p = gr.Slider(0, 1, share, step=0.01, label=text("min_p", "en"))
        temperature = gr.Slider(0.1, 2, heat, step=0.05, label=text("temperature", "en"))
    return (
        words.label(guidance, "guidance"),
        words.label(min_p, "min_p"),
        words.label(temperature, "temperature"),
    )


def answers(steps: Iterator[T]) -> Iterator[T]:
    """What an engine yields; what a user did wrong becomes a note on the page."""
    with noted():
        yield from steps


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """What a user did wrong within becomes a note on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), duration=12) from error


def stopper(engine: Engine, tab: str) -> Callable[..., None]:
    """What the stop button of a tab calls."""

    def stop(request: gr.Request) -> None:
        engine.stop(request.session_hash or "", tab)

    return stop
