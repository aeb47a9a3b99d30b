"""The web page's first tab: drawing, with a shelf of what was drawn."""

import functools
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from . import app_style as style
from .app_engine import Drawing, Engine, Settings
from .app_parts import EVENT, Part, Words, answers, sampling, slider_values, stopper, tab, warn
from .app_texts import LANGUAGES, PROMPTS, text

__all__ = ["draw_tab"]

_KEPT = 60  # pictures on the shelf


def draw_tab(engine: Engine, language: gr.Radio, words: Words, others: Sequence[str]) -> Part:
    """The tab in which pictures are drawn.

    Args:
        engine: draws.
        language: the page's.
        words: what changes with it.
        others: tabs that a picture can be carried to: "edit", "ask".
    """
    unit = engine.abilities.progress_unit
    with tab("draw", words):
        history, chosen = gr.State([]), gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, elem_classes="sheet"):
                controls, go, stop = _controls(engine, words)
            with gr.Column(scale=6, elem_classes="sheet"):
                shown = gr.HTML(style.stage(None, "en", unit), elem_id="drawn")
                with gr.Row():
                    buttons = {
                        name: words.value(gr.Button(text(f"to_{name}", "en"), elem_id=f"to-{name}"), f"to_{name}")
                        for name in others
                    }
        with gr.Column(visible=False, elem_classes="sheet") as shelf:
            gallery = gr.Gallery(
                label=text("gallery", "en"),
                columns=6,
                height=230,
                object_fit="contain",
                allow_preview=False,
                elem_id="gallery",
            )
    words.label(gallery, "gallery")
    seed = controls[4]

    def draw(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        *wishes, past, name = values
        settings = _settings(engine, wishes)
        warn(engine, settings)
        seeds = [settings.seed + index for index in range(settings.count)]
        ratio = (settings.height or 1) / (settings.width or 1)
        for step in answers(engine.draw(request.session_hash or "", settings)):
            update = {shown: style.stage(step, LANGUAGES[name], unit, seeds, ratio), seed: settings.seed}
            if step.files:
                past = [*_entries(step, settings), *past][:_KEPT]
                update |= {history: past, chosen: past[0]["path"], shelf: gr.update(visible=True)}
                update[gallery] = [(entry["path"], entry["settings"].prompt) for entry in past]
            yield update

    def take_up(past: list[dict[str, Any]], event: gr.SelectData) -> list[Any]:
        return _take_up(engine, past[event.index])

    targets = [shown, seed, history, chosen, shelf, gallery]
    gr.on([go.click, controls[0].submit], draw, [*controls, history, language], targets, **EVENT)
    stop.click(stopper(engine, "draw"), show_progress="hidden")
    language.change(functools.partial(_empty_stage, unit), [language, chosen], shown, show_progress="hidden")
    gallery.select(take_up, history, [*controls, chosen], show_progress="hidden")
    return Part(buttons, None, chosen)


def _controls(engine: Engine, words: Words) -> tuple[list[Any], gr.Button, gr.Button]:
    """Everything that a drawing is asked for with, in the order of [`_settings`], and the two buttons."""
    sizes = [(f"{width}×{height}", f"{width}x{height}") for height, width in engine.abilities.sizes]
    square = engine.abilities.pick_size()
    prompt = gr.Textbox(label=text("prompt", "en"), lines=2, elem_id="prompt", autofocus=True)
    words.label(prompt, "prompt", "prompt_hint")
    with gr.Row(elem_classes="chips"):
        chips = [gr.Button(example, size="sm", variant="secondary") for example in PROMPTS["en"]]
    for number, chip in enumerate(chips):
        words.updates.append((chip, functools.partial(_example, number)))
        chip.click(lambda said: said, chip, prompt, show_progress="hidden")
    shape = gr.Radio(sizes, value=f"{square[1]}x{square[0]}", label=text("shape", "en"), elem_classes="shape")
    words.label(shape, "shape")
    with gr.Row():
        go = words.value(gr.Button(text("draw_now", "en"), variant="primary", elem_id="draw", scale=3), "draw_now")
        stop = words.value(gr.Button(text("stop", "en"), scale=1, elem_id="stop"), "stop")
    with gr.Row():
        count = words.label(gr.Slider(1, 4, 1, step=1, label=text("count", "en"), elem_id="count"), "count")
        seed = gr.Number(1, precision=0, minimum=0, label=text("seed", "en"), elem_id="seed")
        words.label(seed, "seed")
    fresh = words.label(gr.Checkbox(True, label=text("random", "en"), elem_id="fresh"), "random")
    more = words.label(gr.Accordion(text("more", "en"), open=False), "more")
    with more:
        negative = gr.Textbox(label=text("negative", "en"), visible=engine.abilities.negative_prompt)
        words.label(negative, "negative")
        sliders = sampling(engine, words)
    return [prompt, negative, shape, count, seed, fresh, *sliders], go, stop


def _example(number: int, language: str) -> Any:
    return gr.update(value=PROMPTS[language][number])


def _empty_stage(unit: str, name: str, path: str | None) -> Any:
    """The words where nothing was drawn yet; a drawing stays as it is."""
    return style.stage(None, LANGUAGES[name], unit) if path is None else gr.update()


def _settings(engine: Engine, wishes: list[Any]) -> Settings:
    """What the controls say."""
    prompt, negative, size, count, seed, fresh, *sliders = wishes
    first = secrets.randbelow(2**31) if fresh else int(seed or 0)
    width, height = (int(edge) for edge in size.split("x"))
    return Settings(prompt, first, int(count), negative, height, width, slider_values(engine, sliders))


def _entries(drawing: Drawing, settings: Settings) -> list[dict[str, Any]]:
    """What the shelf remembers of a finished drawing."""
    return [
        {"path": str(path), "settings": settings, "seed": settings.seed + index}
        for index, path in drawing.files.items()
    ]


def _take_up(engine: Engine, entry: dict[str, Any]) -> list[Any]:
    """The controls as they were for a picture on the shelf, and its file."""
    kept: Settings = entry["settings"]
    size = f"{kept.width}x{kept.height}"
    sampled = [kept.sampling[slider.name] for slider in engine.sliders]
    return [kept.prompt, kept.negative_prompt, size, 1, entry["seed"], False, *sampled, entry["path"]]
