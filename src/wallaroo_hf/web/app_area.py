"""Which part of a picture an edit of the web page is about: painted by hand, or what lies beyond the edges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from ..pictures.masks import SIDES
from . import app_style as style
from .app_engine import Engine
from .app_parts import Words, noted
from .app_texts import text

__all__ = ["area", "outpainted", "painted"]

_BRUSH = "#c2185b"  # darker than the middle: a layer painted all over has no transparency that says where
_LARGEST = 1024  # edge in pixels of what is painted on
_MAX_LAYERS = 4


def _strokes(**options: Any) -> Any:
    """A picture to paint on, which gives what was painted as files, for the engine to decode.

    The object is changed, for gradio writes a stub beside the module of every subclass.
    """
    editor: Any = gr.ImageEditor(**options)

    def layers(payload: Any) -> list[bytes] | None:
        if payload is not None and payload.id is not None:
            payload = editor.blob_storage.get(payload.id)
        found = [] if payload is None else [layer for layer in payload.layers or () if layer is not None]
        return [layer if isinstance(layer, bytes) else Path(layer.path).read_bytes() for layer in found] or None

    editor.preprocess = layers
    return editor


def area(engine: Engine, words: Words, source: gr.Image) -> list[Any]:
    """The controls: what is painted on, and a number of pixels for each side.

    Args:
        engine: opens pictures.
        words: what changes with the language.
        source: whatever picture is chosen there is painted on.
    """
    there = engine.abilities.inpaints
    with words.label(gr.Accordion(text("area", "en"), open=False, visible=there, elem_id="area"), "area"):
        words.value(gr.HTML(text("strokes", "en")), "strokes")
        strokes = _strokes(
            show_label=False,
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(colors=[_BRUSH], color_mode="fixed"),
            buttons=[],
            height=320,
            elem_id="strokes",
        )
        with gr.Row():
            sides = [
                words.label(
                    gr.Number(0, precision=0, minimum=0, label=text(side, "en"), min_width=70, elem_id=f"grow-{side}"),
                    side,
                )
                for side in SIDES
            ]
    if there:
        source.change(lambda path: _to_paint_on(engine, path), source, strokes, show_progress="hidden")
    return [strokes, *sides]


def _to_paint_on(engine: Engine, path: str | None) -> Any:
    """A picture in the size in which it is painted on, without strokes."""
    if path is None:
        return None
    with noted():
        shown = style.enlarged(engine.open(path))
    if max(shown.size) > _LARGEST:
        shown.thumbnail((_LARGEST, _LARGEST))
    return {"background": shown, "layers": [], "composite": None}


def painted(engine: Engine, layers: Sequence[bytes] | None, size: tuple[int, int]) -> Image.Image | None:
    """What was painted as a mask, white where there are strokes; None where there are none.

    Args:
        engine: decodes them.
        layers: files that were painted.
        size: of the picture, `(width, height)`.

    Raises:
        ValueError: for a layer that is no picture.
    """
    mask = Image.new("L", size)
    for layer in (layers or ())[:_MAX_LAYERS]:
        strokes = ImageChops.invert(engine.open_mask(layer)).point(lambda value: 255 if value > 127 else value)
        mask = ImageChops.lighter(mask, strokes.resize(size, Image.Resampling.BOX))
    return mask if mask.getbbox() is not None else None


def outpainted(numbers: Sequence[Any]) -> dict[str, int] | None:
    """By how much the picture grows at each side; None where it does not."""
    sides = {side: int(number or 0) for side, number in zip(SIDES, numbers, strict=True)}
    return sides if any(sides.values()) else None
