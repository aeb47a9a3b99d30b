"""The web page's second tab: editing."""

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from ..families.abilities import COMPOSITION
from ..pictures.masks import SIDES, with_masks
from . import app_style as style
from .app_area import area, outpainted, painted
from .app_engine import Drawing, Engine, Settings
from .app_parts import EVENT, Part, Words, answers, noted, sampling, slider_values, stopper, tab, warn
from .app_texts import LANGUAGES, text

__all__ = ["edit_tab"]


def edit_tab(engine: Engine, language: gr.Radio, words: Words) -> Part:
    """The tab in which pictures are edited."""
    with tab("edit", words), gr.Row(equal_height=False):
        with gr.Column(scale=5, elem_classes="sheet"):
            controls, go, stop = _controls(engine, words)
        with gr.Column(scale=6, elem_classes="sheet"):
            slider = gr.ImageSlider(
                show_label=False,
                type="pil",
                elem_id="compare",
                max_height=560,
                format="png",
                interactive=False,
            )
            line = words.value(gr.HTML(text("compare", "en"), elem_id="edited"), "compare")
            again = words.value(gr.Button(text("again", "en")), "again")
            result = gr.State(None)

    source, instruction, seed = controls[:3]

    def edit(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        path, said, number, new, others, strokes, *rest, name = values
        sides, sliders = rest[: len(SIDES)], rest[len(SIDES) :]
        code = LANGUAGES[name]
        if path is None:
            raise gr.Error(text("no_picture", code))
        first = secrets.randbelow(2**31) if new else int(number or 0)
        with noted():
            picture = engine.open(path)
            mask, outpaint = painted(engine, strokes, picture.size), outpainted(sides)
            (whole, *_), _ = with_masks([picture], mask, outpaint)
        before = style.enlarged(whole)
        sampled = slider_values(engine, sliders)
        settings = Settings(said, first, 1, sampling=sampled, mask=mask, outpaint=outpaint)
        warn(engine, settings)
        for step in answers(engine.draw(request.session_hash or "", settings, picture, others or ())):
            update: dict[Any, Any] = {line: style.progress(step, code, engine.abilities.progress_unit), seed: first}
            image = step.images[0] if step.images else None
            if image is not None:
                is_whole = settings.mask is not None or settings.outpaint is not None
                after = _whole(image, before) if is_whole else _after(engine, image, before, step)
                update[slider] = (before, after)
            if step.files:
                update[result] = str(step.files[0])
            yield update

    gr.on([go.click, instruction.submit], edit, [*controls, language], [slider, line, seed, result], **EVENT)
    stop.click(stopper(engine, "edit"), show_progress="hidden")
    again.click(lambda path: gr.update() if path is None else path, result, source, show_progress="hidden")
    return Part({}, source)


def _controls(engine: Engine, words: Words) -> tuple[list[Any], gr.Button, gr.Button]:
    """Everything that an edit is asked for with, and the two buttons."""
    source = gr.Image(
        type="filepath",
        image_mode=None,  # the file as it is: the engine opens it
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
        sliders = sampling(engine, words)
    where = area(engine, words, source)
    others = _references(engine, words)
    with gr.Row():
        go = words.value(gr.Button(text("edit_now", "en"), variant="primary", elem_id="edit", scale=3), "edit_now")
        stop = words.value(gr.Button(text("stop", "en"), scale=1), "stop")
    return [source, instruction, seed, fresh, others, *where, *sliders], go, stop


def _references(engine: Engine, words: Words) -> gr.File:
    """Where further pictures are chosen that an edit takes from."""
    there = engine.offers(COMPOSITION)
    with words.label(
        gr.Accordion(text("references", "en"), open=False, visible=there, elem_id="others"), "references"
    ):
        files = gr.File(
            file_count="multiple", file_types=["image"], label=text("references_hint", "en"), elem_id="references"
        )
        return words.label(files, "references_hint")


def _whole(image: Image.Image, before: Image.Image) -> Image.Image:
    """A picture that shows all of its source, at the size of what it is compared with."""
    return image.resize(before.size, Image.Resampling.LANCZOS)


def _after(engine: Engine, image: Image.Image, before: Image.Image, step: Drawing) -> Image.Image:
    """The edit at the size of what it is compared with; rows that are missing show the source."""
    if step.finished and not step.stopped:
        return _whole(image, before)
    height = round(image.height * engine.missing_rows(step.shown[0], step.of))
    canvas, drawn = (Image.new("RGB", (image.width, height)) for _ in range(2))
    canvas.paste(image)
    drawn.paste("white", (0, 0, *image.size))
    after, mask = engine.processor.fit_back([canvas, drawn], [before, before], "pad")
    return Image.composite(after, before, mask.convert("L"))
