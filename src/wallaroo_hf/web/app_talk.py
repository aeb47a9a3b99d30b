"""The web page's third and fourth tab: asking about pictures and videos, and chatting."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from PIL import Image

from ..conversation import Conversation
from ..families.abilities import VIDEO
from ..files.whole_text import refuse_halves
from ..pictures.video_files import VIDEO_SUFFIXES
from . import app_style as style
from .app_engine import Engine
from .app_parts import EVENT, Part, Words, answers, noted, stopper, tab
from .app_texts import LANGUAGES, text

__all__ = ["ask_tab", "chat_tab"]


def ask_tab(engine: Engine, language: gr.Radio, words: Words) -> Part:
    """The tab in which questions about pictures are answered."""
    with tab("ask", words), gr.Row(equal_height=False):
        with gr.Column(scale=5, elem_classes="sheet"):
            picture = gr.Image(
                type="filepath",
                image_mode=None,  # the file as it is: the engine opens it
                label=text("picture", "en"),
                height=340,
                elem_id="asked",
                sources=["upload", "clipboard"],
            )
            words.label(picture, "picture")
            video = _video(engine, words)
        with gr.Column(scale=6, elem_classes="sheet"):
            question = gr.Textbox(label=text("question", "en"), lines=2, elem_id="question")
            words.label(question, "question", "question_hint")
            with gr.Row():
                go = gr.Button(text("ask_now", "en"), variant="primary", elem_id="ask", scale=3)
                words.value(go, "ask_now")
                stop = words.value(gr.Button(text("stop", "en"), scale=1), "stop")
            answer = gr.HTML(style.answer(None, "en"), elem_id="answer")

    def ask(path: str | None, clip: str | None, said: str, name: str, request: gr.Request) -> Iterator[str]:
        if path is None and clip is None:
            raise gr.Error(text("no_picture", LANGUAGES[name]))
        for so_far in answers(engine.ask(request.session_hash or "", path, said, clip)):
            yield style.answer(so_far, LANGUAGES[name])

    gr.on([go.click, question.submit], ask, [picture, video, question, language], answer, **EVENT)
    stop.click(stopper(engine, "ask"), show_progress="hidden")
    return Part({}, picture)


def _video(engine: Engine, words: Words) -> gr.Video:
    """Where a video is uploaded, if the checkpoint understands any."""
    there = engine.offers(VIDEO)
    with words.label(gr.Accordion(text("video", "en"), open=False, visible=there, elem_id="video"), "video"):
        return gr.Video(show_label=False, sources=["upload"], height=280, elem_id="clip")


@dataclass
class _Talk:
    """A chat, and what the page shows of it."""

    conversation: Conversation
    shown: list[dict[str, Any]] = field(default_factory=list)


def chat_tab(engine: Engine, words: Words) -> None:
    """The tab in which the model answers and draws as it sees fit."""
    with tab("chat", words), gr.Column(elem_classes="sheet"):
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
            file_types=["image", "video"] if engine.offers(VIDEO) else ["image"],
            file_count="multiple",
            placeholder=text("chat_hint", "en"),
            elem_id="say",
        )
        words.updates.append((box, lambda code: gr.update(placeholder=text("chat_hint", code))))
        with gr.Row():
            new = words.value(gr.Button(text("new_chat", "en"), size="sm"), "new_chat")
            stop = words.value(gr.Button(text("stop", "en"), size="sm"), "stop")
        talk = gr.State(None)

    def say(message: dict[str, Any], going: _Talk | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        said, files = message.get("text") or "", message.get("files") or []
        with noted():
            refuse_halves(message=said)  # before it is shown, which the page could not
        going = going or _Talk(engine.conversation(secrets.randbelow(2**31)))
        asked = [{"role": "user", "content": {"path": path}} for path in files]
        asked.append({"role": "user", "content": said})
        seed, before = going.conversation.seed, [*going.shown, *asked]
        yield before, gr.update(value=None, interactive=False), going
        pieces: list[str | Image.Image] = []
        try:
            images, videos = _by_kind(files)
            for pieces in answers(engine.say(request.session_hash or "", going.conversation, said, images, videos)):
                yield [*before, *map(_preview, pieces)], gr.update(interactive=False), going
        except gr.Error:  # what was said can be corrected
            yield going.shown, gr.update(value=message, interactive=True), going
            raise
        going.shown = before
        for piece in pieces:
            partial = going.conversation.partial and piece is pieces[-1]
            content = piece if isinstance(piece, str) else {"path": str(engine.save(piece, said, seed, partial))}
            going.shown.append({"role": "assistant", "content": content})
        yield going.shown, gr.update(interactive=True), going

    box.submit(say, [box, talk], [chatbot, box, talk], **EVENT)
    stop.click(stopper(engine, "chat"), show_progress="hidden")
    new.click(
        lambda: ([], gr.update(value=None, interactive=True), None),
        None,
        [chatbot, box, talk],
        show_progress="hidden",
    )


def _by_kind(files: list[str]) -> tuple[list[str], list[str]]:
    """Pictures and videos among files, told apart by their names."""
    videos = [path for path in files if path.lower().endswith(tuple(f".{suffix}" for suffix in VIDEO_SUFFIXES))]
    return [path for path in files if path not in videos], videos


def _preview(piece: str | Image.Image) -> dict[str, Any]:
    """A piece of an answer that is not over; its picture has no file yet."""
    if isinstance(piece, str):
        return {"role": "assistant", "content": piece}
    image = gr.Image(style.enlarged(piece, 320), show_label=False, format="png", buttons=[])
    return {"role": "assistant", "content": image}
