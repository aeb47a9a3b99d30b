"""What the tabs of the web page share."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr

from ..families.settings import Setting
from .app_engine import Engine, Settings
from .app_texts import TEXTS, text

__all__ = ["EVENT", "Part", "Words", "answers", "noted", "sampling", "slider_values", "stopper", "tab", "warn"]

T = TypeVar("T")
# of everything that asks the model: the engine takes one at a time, a few may wait there
EVENT: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 4}
_FINE = 2  # sliders go at least this far, where they may, and up to it by hundredths


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


def sampling(engine: Engine, words: Words) -> list[gr.Slider]:
    """A slider for each of the engine's settings that have one, at the checkpoint's own value and in their order."""
    with gr.Row():
        return [_slider(setting, words) for setting in engine.sliders]


def slider_values(engine: Engine, values: Sequence[Any]) -> dict[str, Any]:
    """What the sliders say, by the settings' names."""
    # a whole number may come as 4.0
    return {setting.name: setting.type(value) for setting, value in zip(engine.sliders, values, strict=True)}


def _slider(setting: Setting, words: Words) -> gr.Slider:
    low, high = _range(setting)
    step = 1 if setting.type is int else 0.01 if high - low <= _FINE else 0.1
    low = low + step if setting.above_minimum and low == setting.minimum else low
    is_named = setting.name in TEXTS
    slider = gr.Slider(
        low,
        high,
        setting.default,
        step=step,
        label=text(setting.name, "en") if is_named else setting.name,
        info=None if is_named else setting.help,
        elem_classes=f"set-{setting.name}",
    )
    return words.label(slider, setting.name) if is_named else slider


def _range(setting: Setting) -> tuple[float, float]:
    """From where to where a slider goes: what does well, as far as it is known, else up to twice the default."""
    low = setting.minimum or 0
    high = max(2 * setting.default, _FINE)
    if setting.sensible is not None:
        low, high = setting.sensible
    elif setting.maximum is not None:
        high = min(high, setting.maximum)
    return min(low, setting.default), max(high, setting.default)


def warn(engine: Engine, settings: Settings) -> None:
    """Says on the page what somebody should know who asks for this."""
    for notice in engine.notices(settings):
        gr.Warning(notice, duration=12)


def answers(steps: Iterator[T]) -> Iterator[T]:
    """What an engine yields; what a user did wrong becomes a note on the page."""
    with noted():
        yield from steps


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """What a user did wrong within becomes a note on the page.

    Raises:
        gr.Error: which gradio shows.
    """
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), duration=12) from error


def stopper(engine: Engine, tab: str) -> Callable[..., None]:
    """What the stop button of a tab calls."""

    def stop(request: gr.Request) -> None:
        engine.stop(request.session_hash or "", tab)

    return stop
