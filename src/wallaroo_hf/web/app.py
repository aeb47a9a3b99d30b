"""`build_app`: one page to draw, edit, ask and chat. Everything is served from this machine."""

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from PIL import Image

from . import app_style as style
from .app_engine import Engine, Settings
from .app_texts import LANGUAGES, PROMPTS, text

__all__ = ["build_app", "launch"]

_READS_LANGUAGE = "() => navigator.language.toLowerCase().startsWith('zh') ? '中文' : 'English'"
_ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 4}  # the engine queues them; a few may wait there


@dataclass
class _Words:
    """What changes with the language: components and how their words are made."""

    updates: list[tuple[Any, Callable[[str], Any]]] = field(default_factory=list)

    def label(self, component: Any, key: str, hint: str | None = None) -> Any:
        """A component whose label (and placeholder) are in the page's language."""
        more = {} if hint is None else {"placeholder": hint}
        self.updates.append(
            (component, lambda code: gr.update(label=text(key, code), **{k: text(v, code) for k, v in more.items()}))
        )
        return component

    def value(self, component: Any, key: str) -> Any:
        """A component, such as a button, whose value is in the page's language."""
        self.updates.append((component, lambda code: gr.update(value=text(key, code))))
        return component


def build_app(engine: Engine) -> gr.Blocks:
    """Puts the page together.

    Args:
        engine: the model behind it.
    """
    words = _Words()
    with gr.Blocks(title="Wallaroo", analytics_enabled=False) as page:
        with gr.Row(elem_id="top"):
            head = gr.HTML(style.header("en", engine.name))
            language = gr.Radio(list(LANGUAGES), value="English", show_label=False, elem_id="language", scale=0)
        words.updates.append((head, lambda code: gr.update(value=style.header(code, engine.name))))
        with gr.Tabs() as tabs:
            drawing = _draw_tab(engine, language, words)
            editing = _edit_tab(engine, language, words)
            asking = _ask_tab(engine, language, words)
            _chat_tab(engine, language, words)
        _connect_tabs(tabs, drawing, editing, asking)
        changed = [component for component, _ in words.updates]
        language.change(
            lambda name: [update(LANGUAGES[name]) for _, update in words.updates],
            [language],
            changed,
            show_progress="hidden",
        )
        page.load(None, None, language, js=_READS_LANGUAGE)
    return page


def launch(engine: Engine, host: str, port: int | None, open_browser: bool) -> tuple[gr.Blocks, str]:
    """Serves the page, in threads of its own.

    Args:
        engine: the model behind it.
        host: address to listen at.
        port: port to listen at; None = the first free one from 7860.
        open_browser: whether to open it in a browser.

    Returns:
        The page, whose `close()` ends it, and its address.
    """
    page = build_app(engine)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="64mb",
        theme=_theme(),
        css=style.CSS + style.shape_css(engine.processor.buckets),
        allowed_paths=[str(engine.output)],
        prevent_thread_lock=True,
    )
    return page, str(url)


def _theme() -> gr.themes.Base:
    hue = gr.themes.Color(
        *("#f0f8f4", "#dcefe4", "#bbdfcc", "#8fc9ab", "#62b08a", "#3f9a72"),
        *("#2f7d5b", "#266649", "#1f5d4c", "#183f35", "#0f2a23"),
    )
    fonts = [gr.themes.utils.fonts.Font(name) for name in style.FONTS]
    return gr.themes.Soft(primary_hue=hue, secondary_hue=hue, neutral_hue="stone", radius_size="lg", font=fonts)


def _tab(key: str, words: _Words) -> gr.Tab:
    tab = gr.Tab(text(key, "en"), id=key, elem_id=f"tab-{key}")
    words.updates.append((tab, lambda code: gr.update(label=text(key, code))))
    return tab


@dataclass
class _Part:
    """What other tabs need of one."""

    buttons: dict[str, Any]
    picture: Any
    chosen: Any = None


# ------------------------------------------------------------------------------------------------------------- draw


def _draw_tab(engine: Engine, language: gr.Radio, words: _Words) -> _Part:
    sizes = [(f"{width}×{height}", f"{width}x{height}") for height, width in engine.processor.buckets]
    square = min(engine.processor.buckets, key=lambda size: abs(size[0] / size[1] - 1))
    with _tab("draw", words), gr.Row(equal_height=False):
        with gr.Column(scale=5, elem_classes="panel"):
            prompt = gr.Textbox(label=text("prompt", "en"), lines=2, elem_id="prompt", autofocus=True)
            words.label(prompt, "prompt", "prompt_hint")
            with gr.Row(elem_classes="chips"):
                chips = [gr.Button(words_, size="sm", variant="secondary") for words_ in PROMPTS["en"]]
            shape = gr.Radio(sizes, value=f"{square[1]}x{square[0]}", label=text("shape", "en"), elem_classes="shape")
            words.label(shape, "shape")
            with gr.Row():
                count = words.label(gr.Slider(1, 4, 1, step=1, label=text("count", "en")), "count")
                seed = words.label(gr.Number(1, precision=0, minimum=0, label=text("seed", "en")), "seed")
            fresh = words.label(gr.Checkbox(True, label=text("random", "en")), "random")
            more = words.label(gr.Accordion(text("more", "en"), open=False), "more")
            with more:
                negative = words.label(gr.Textbox(label=text("negative", "en")), "negative")
                guidance, temperature = _sampling(engine, words)
            with gr.Row():
                go = words.value(
                    gr.Button(text("draw_now", "en"), variant="primary", elem_id="draw", scale=3), "draw_now"
                )
                stop = words.value(gr.Button(text("stop", "en"), scale=1), "stop")
        with gr.Column(scale=6, elem_classes="panel"):
            shown = gr.HTML(style.stage(None, "en"), elem_id="drawn")
            with gr.Row():
                to_edit = words.value(gr.Button(text("to_edit", "en"), elem_id="to-edit"), "to_edit")
                to_ask = words.value(gr.Button(text("to_ask", "en"), elem_id="to-ask"), "to_ask")
    with gr.Column(visible=False, elem_classes="panel") as shelf:
        gallery = gr.Gallery(
            label=text("gallery", "en"),
            columns=6,
            height=230,
            object_fit="contain",
            allow_preview=False,
            elem_id="gallery",
        )
    words.label(gallery, "gallery")
    history, chosen = gr.State([]), gr.State(None)
    for number, chip in enumerate(chips):
        words.updates.append((chip, lambda code, number=number: gr.update(value=PROMPTS[code][number])))
        chip.click(lambda said: said, chip, prompt, show_progress="hidden")
    controls = [prompt, negative, shape, count, seed, fresh, guidance, temperature]

    def draw(*values: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
        said, against, size, pictures, number, new, scale, heat, past, name = values
        code = LANGUAGES[name]
        first = secrets.randbelow(2**31) if new else int(number or 0)
        width, height = (int(edge) for edge in size.split("x"))
        settings = Settings(said, first, int(pictures), against, height, width, scale, heat)
        seeds = [first + index for index in range(settings.count)]
        for step in _answers(engine.draw(request.session_hash or "", settings)):
            update = {shown: style.stage(step, code, seeds, height / width), seed: first}
            if step.finished and step.files:
                entries = [
                    {"path": str(path), "settings": settings, "seed": one} for path, one in zip(step.files, seeds)
                ]
                past = [*reversed(entries), *past][:60]
                update |= {history: past, chosen: entries[0]["path"], shelf: gr.update(visible=True)}
                update[gallery] = [(entry["path"], entry["settings"].prompt) for entry in past]
            yield update

    event = {"show_progress": "hidden", **_ONE_AT_A_TIME}
    targets = [shown, seed, history, chosen, shelf, gallery]
    gr.on([go.click, prompt.submit], draw, [*controls, history, language], targets, **event)
    stop.click(_stopper(engine), show_progress="hidden")

    def take_up(past: list[dict[str, Any]], event: gr.SelectData) -> list[Any]:
        entry = past[event.index]
        kept: Settings = entry["settings"]
        size = f"{kept.width}x{kept.height}"
        values = [
            kept.prompt,
            kept.negative_prompt,
            size,
            1,
            entry["seed"],
            False,
            kept.guidance_scale,
            kept.temperature,
        ]
        return [*values, entry["path"]]

    gallery.select(take_up, history, [*controls, chosen], show_progress="hidden")
    return _Part({"edit": to_edit, "ask": to_ask}, None, chosen)


def _sampling(engine: Engine, words: _Words) -> tuple[gr.Slider, gr.Slider]:
    config = engine.model.generation_config
    scale = getattr(config, "image_guidance_scale", None) or 3.0
    heat = getattr(config, "image_temperature", None) or 1.0
    with gr.Row():
        guidance = gr.Slider(1, 10, scale, step=0.1, label=text("guidance", "en"))
        temperature = gr.Slider(0.1, 2, heat, step=0.05, label=text("temperature", "en"))
    return words.label(guidance, "guidance"), words.label(temperature, "temperature")


# ------------------------------------------------------------------------------------------------------------- edit


def _edit_tab(engine: Engine, language: gr.Radio, words: _Words) -> _Part:
    with _tab("edit", words), gr.Row(equal_height=False):
        with gr.Column(scale=5, elem_classes="panel"):
            source = gr.Image(
                type="filepath",
                label=text("source", "en"),
                height=300,
                elem_id="source",
                sources=["upload", "clipboard"],
            )
            words.label(source, "source")
            instruction = gr.Textbox(label=text("instruction", "en"), lines=2, elem_id="instruction")
            words.label(instruction, "instruction", "instruction_hint")
            with gr.Row():
                seed = words.label(gr.Number(1, precision=0, minimum=0, label=text("seed", "en")), "seed")
                fresh = words.label(gr.Checkbox(True, label=text("random", "en")), "random")
            more = words.label(gr.Accordion(text("more", "en"), open=False), "more")
            with more:
                guidance, temperature = _sampling(engine, words)
            with gr.Row():
                go = words.value(
                    gr.Button(text("edit_now", "en"), variant="primary", elem_id="edit", scale=3), "edit_now"
                )
                stop = words.value(gr.Button(text("stop", "en"), scale=1), "stop")
        with gr.Column(scale=6, elem_classes="panel"):
            slider = gr.ImageSlider(
                label=text("compare", "en"),
                type="pil",
                elem_id="compare",
                max_height=560,
                format="png",
                interactive=False,
            )
            words.label(slider, "compare")
            line = gr.HTML("", elem_id="edited")
            again = words.value(gr.Button(text("again", "en")), "again")
    result = gr.State(None)

    def edit(
        path: str | None,
        said: str,
        number: float,
        new: bool,
        scale: float,
        heat: float,
        name: str,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        code = LANGUAGES[name]
        if path is None:
            raise gr.Error(text("no_picture", code))
        first = secrets.randbelow(2**31) if new else int(number or 0)
        before = None
        for step in _answers(
            engine.draw(
                request.session_hash or "", Settings(said, first, 1, guidance_scale=scale, temperature=heat), path
            )
        ):
            if before is None:
                before = style.enlarged(_opened(path))
            update: dict[Any, Any] = {line: style.progress(step, code), seed: first}
            image = step.images[0] if step.images else None
            if image is not None:
                update[slider] = (
                    before,
                    _after(image, before, step.finished and not step.stopped, step.rows / step.of),
                )
            if step.finished and step.files:
                update[result] = str(step.files[0])
            yield update

    inputs = [source, instruction, seed, fresh, guidance, temperature, language]
    event = {"show_progress": "hidden", **_ONE_AT_A_TIME}
    gr.on([go.click, instruction.submit], edit, inputs, [slider, line, seed, result], **event)
    stop.click(_stopper(engine), show_progress="hidden")
    again.click(lambda path: gr.update() if path is None else path, result, source, show_progress="hidden")
    return _Part({}, source)


def _opened(path: str) -> Image.Image:
    from ..processing.image_processor import open_image

    return open_image(path)


def _after(image: Image.Image, before: Image.Image, whole: bool, share: float) -> Image.Image:
    """The edit at the size of what it is compared with; rows that are missing show the source."""
    if whole:
        return image.resize(before.size, Image.Resampling.LANCZOS)
    height = max(1, round(before.height * share))
    after = before.copy()
    after.paste(image.resize((before.width, height), Image.Resampling.LANCZOS), (0, 0))
    return after


# --------------------------------------------------------------------------------------------------------- ask, chat


def _ask_tab(engine: Engine, language: gr.Radio, words: _Words) -> _Part:
    with _tab("ask", words), gr.Row(equal_height=False):
        with gr.Column(scale=5, elem_classes="panel"):
            picture = gr.Image(
                type="filepath",
                label=text("picture", "en"),
                height=340,
                elem_id="asked",
                sources=["upload", "clipboard"],
            )
            words.label(picture, "picture")
        with gr.Column(scale=6, elem_classes="panel"):
            question = gr.Textbox(label=text("question", "en"), lines=2, elem_id="question")
            words.label(question, "question", "question_hint")
            go = words.value(gr.Button(text("ask_now", "en"), variant="primary", elem_id="ask"), "ask_now")
            answer = gr.HTML(style.answer(None, "en"), elem_id="answer")

    def ask(path: str | None, said: str, name: str, request: gr.Request) -> Iterator[str]:
        if path is None:
            raise gr.Error(text("no_picture", LANGUAGES[name]))
        for so_far in _answers(engine.ask(request.session_hash or "", path, said)):
            yield style.answer(so_far, LANGUAGES[name])

    event = {"show_progress": "hidden", **_ONE_AT_A_TIME}
    gr.on([go.click, question.submit], ask, [picture, question, language], answer, **event)
    return _Part({}, picture)


def _chat_tab(engine: Engine, language: gr.Radio, words: _Words) -> None:
    with _tab("chat", words), gr.Column(elem_classes="panel"):
        chatbot = gr.Chatbot(
            height=520,
            show_label=False,
            elem_id="chatbot",
            buttons=[],
            placeholder=text("chat_empty", "en"),
            layout="bubble",
        )
        words.updates.append((chatbot, lambda code: gr.update(placeholder=text("chat_empty", code))))
        box = gr.MultimodalTextbox(
            show_label=False,
            file_types=["image"],
            file_count="multiple",
            placeholder=text("chat_hint", "en"),
            elem_id="say",
        )
        words.updates.append((box, lambda code: gr.update(placeholder=text("chat_hint", code))))
        with gr.Row():
            new = words.value(gr.Button(text("new_chat", "en"), size="sm"), "new_chat")
            stop = words.value(gr.Button(text("stop", "en"), size="sm"), "stop")
    conversation = gr.State(None)

    def say(message: dict[str, Any], shown: list[Any], going: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        said, files = message.get("text") or "", message.get("files") or []
        going = going or engine.conversation(secrets.randbelow(2**31))
        seed = going.seed
        shown = [*shown, *({"role": "user", "content": {"path": path}} for path in files)]
        shown.append({"role": "user", "content": said})
        yield shown, gr.update(value=None, interactive=False), going
        pieces: list[Any] = []
        for pieces in _answers(
            engine.say(request.session_hash or "", going, said, files), gr.update(interactive=True)
        ):
            yield [*shown, *map(_message, pieces)], gr.update(interactive=False), going
        for piece in pieces:
            if isinstance(piece, Image.Image):
                engine.save(piece, said, seed)
        yield [*shown, *map(_message, pieces)], gr.update(interactive=True), going

    box.submit(
        say, [box, chatbot, conversation], [chatbot, box, conversation], show_progress="hidden", **_ONE_AT_A_TIME
    )
    stop.click(_stopper(engine), show_progress="hidden")
    new.click(
        lambda: ([], gr.update(value=None, interactive=True), None),
        None,
        [chatbot, box, conversation],
        show_progress="hidden",
    )


def _message(piece: str | Image.Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"role": "assistant", "content": piece}
    image = gr.Image(style.enlarged(piece, 320), show_label=False, format="png", buttons=["download", "fullscreen"])
    return {"role": "assistant", "content": image}


# ------------------------------------------------------------------------------------------------------------ shared


def _answers(steps: Iterator[Any], _: Any = None) -> Iterator[Any]:
    """What an engine yields; what a user did wrong becomes a note on the page."""
    try:
        yield from steps
    except ValueError as error:
        raise gr.Error(str(error), duration=12) from error


def _stopper(engine: Engine) -> Callable[..., None]:
    def stop(request: gr.Request) -> None:
        engine.stop(request.session_hash or "")

    return stop


def _connect_tabs(tabs: gr.Tabs, drawing: _Part, editing: _Part, asking: _Part) -> None:
    """Buttons that carry a drawn picture to another tab."""
    for name, part in (("edit", editing), ("ask", asking)):
        drawing.buttons[name].click(
            lambda path, name=name: (gr.update(), gr.update()) if path is None else (path, gr.Tabs(selected=name)),
            drawing.chosen,
            [part.picture, tabs],
            show_progress="hidden",
        )
