"""`build_app`: one page to draw, edit, ask and chat, as far as the checkpoint can. All is served from this machine."""

import os
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr

from ..families.abilities import UNDERSTANDING
from . import app_style as style
from .app_draw import draw_tab
from .app_edit import edit_tab
from .app_engine import Engine
from .app_parts import Words
from .app_talk import ask_tab, chat_tab
from .app_texts import LANGUAGES
from .ports import cannot_listen, require_free

__all__ = ["build_app", "launch"]

_READS_LANGUAGE = "() => navigator.language.toLowerCase().startsWith('zh') ? '中文' : 'English'"
_OPENS_TAB = "(picture) => { if (picture) document.getElementById('tab-%s-button').click() }"


def build_app(engine: Engine) -> gr.Blocks:
    """Puts the page together.

    Args:
        engine: the model behind it.
    """
    words = Words()
    with gr.Blocks(title="Wallaroo", analytics_enabled=False) as page:
        with gr.Row(elem_id="top"):
            head = gr.HTML(style.header("en", engine.name))
            language = gr.Radio(
                list(LANGUAGES),
                value="English",
                show_label=False,
                elem_id="language",
                scale=0,
                min_width=240,
                container=False,
            )
        words.updates.append((head, lambda code: gr.update(value=style.header(code, engine.name))))
        with gr.Tabs(elem_id="tabs"):
            _tabs(engine, language, words)
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

    Raises:
        ValueError: if the address cannot be listened on.
    """
    page = build_app(engine)
    try:
        _, url, _ = _launch(page, engine, host, port, open_browser)
    except OSError as error:  # what gradio raises where no port is free
        if port is None:
            raise cannot_listen(host, "7860 to 7959", error) from error
        require_free(host, port)
        raise
    return page, str(url)


def _launch(page: gr.Blocks, engine: Engine, host: str, port: int | None, open_browser: bool) -> tuple[Any, Any, Any]:
    launched: tuple[Any, Any, Any] = page.launch(
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
        css=style.CSS + style.shape_css(engine.abilities.sizes),
        allowed_paths=[str(engine.output)],
        prevent_thread_lock=True,
    )
    return launched


def _theme() -> gr.themes.Base:
    hue = gr.themes.Color(
        *("#f0f8f4", "#dcefe4", "#bbdfcc", "#8fc9ab", "#62b08a", "#3f9a72"),
        *("#2f7d5b", "#266649", "#1f5d4c", "#183f35", "#0f2a23"),
    )
    fonts = [gr.themes.utils.fonts.Font(name) for name in style.FONTS]
    theme = gr.themes.Soft(primary_hue=hue, secondary_hue=hue, neutral_hue="stone", radius_size="lg", font=fonts)
    plain = {f"block_title_{name}": value for name, value in style.PLAIN_TITLES.items()}
    return theme.set(**plain, block_shadow="none", block_border_width="0px", block_background_fill="transparent")


def _tabs(engine: Engine, language: gr.Radio, words: Words) -> None:
    """A tab for each thing that the checkpoint can do, and buttons that carry a drawn picture to another one."""
    abilities = engine.abilities
    understands = UNDERSTANDING in abilities.tasks
    takers = {"edit": (edit_tab, abilities.edits), "ask": (ask_tab, understands)}
    others = [name for name, (_, is_there) in takers.items() if is_there]
    drawing = draw_tab(engine, language, words, others) if abilities.draws else None
    parts = {name: takers[name][0](engine, language, words) for name in others}
    if understands:
        chat_tab(engine, words)
    if drawing is None:
        return
    for name, button in drawing.buttons.items():
        picture = parts[name].picture
        carried = button.click(
            lambda path: gr.update() if path is None else path, drawing.chosen, picture, show_progress="hidden"
        )
        carried.then(None, picture, None, js=_OPENS_TAB % name)
