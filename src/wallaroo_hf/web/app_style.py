"""How the web page looks: fonts, a style sheet, and the pieces of HTML that gradio has no component for."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from .app_engine import Drawing, on_canvas
from .app_texts import text

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "sans-serif")
PLAIN_TITLES = {
    "background_fill": "transparent",
    "background_fill_dark": "transparent",
    "padding": "0",
    "text_color": "*body_text_color",
    "text_weight": "600",
}
_PREVIEW_SIDE = 640  # pixels; previews are sent no larger than they are shown

LOGO = """<svg viewBox="0 0 48 48" width="46" height="46" aria-hidden="true"><rect width="48" height="48" rx="13"
fill="url(#w)"/><defs><linearGradient id="w" x1="0" y1="0" x2="1" y2="1"><stop stop-color="#3f9a72"/><stop offset="1"
stop-color="#1f5d4c"/></linearGradient></defs><path d="M11 12c-1 6 1 10 5 12-2 8 1 13 8 13s10-5 8-13c4-2 6-6 5-12-4 0-7
2-8 6-3-1-7-1-10 0-1-4-4-6-8-6z" fill="#f4efe4"/><circle cx="20" cy="26" r="1.9" fill="#1f3d33"/><circle cx="28" cy="26"
r="1.9" fill="#1f3d33"/><path d="M22 31h4l-2 2.4z" fill="#1f3d33"/></svg>"""

CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important;
  padding: 0 20px 28px !important; }
footer { display: none !important; }
body, gradio-app { background: radial-gradient(1100px 480px at 12% -8%, #d9ebdf 0, transparent 62%),
  radial-gradient(900px 420px at 96% -4%, #f3e6cf 0, transparent 60%), #f7f6f1 !important; }
.dark body, body.dark, .dark gradio-app { background: #12181a !important; }
#top { align-items: center; padding: 20px 4px 8px; }
#brand { display: flex; align-items: center; gap: 14px; }
#brand h1 { font-size: 26px; line-height: 1.1; font-weight: 720; letter-spacing: -.02em; margin: 0; }
#brand p { margin: 3px 0 0; opacity: .68; font-size: 14.5px; }
#brand .model { font-size: 12px; opacity: .55; margin-left: 8px; font-weight: 500; letter-spacing: 0; }
#language { border: 0; background: transparent; box-shadow: none; padding: 0; min-width: 240px !important; }
#language, #language div, #top .form, #language > span { background: transparent !important; overflow: visible !important; }
#language .wrap { flex-wrap: nowrap; justify-content: flex-end; gap: 6px; background: transparent; }
#language label { border-radius: 999px; padding: 5px 15px; border: 1px solid rgba(47, 125, 91, .2); }
#language label input { display: none; }
#language label span { margin: 0; }
.sheet { background: #fff !important; border: 1px solid rgba(40, 60, 50, .09) !important; gap: 14px !important;
  border-radius: 20px !important; padding: 20px !important; box-shadow: 0 10px 34px rgba(40, 60, 50, .07) !important; }
.dark .sheet { background: #1b2326 !important; border-color: #2c383b !important; }
.sheet .form { background: transparent; border: 0; box-shadow: none; gap: 14px; }
.sheet .block { padding: 0 !important; }
.sheet textarea, .sheet input[type=number], .sheet input[type=text] { border: 1px solid rgba(40, 60, 50, .15) !important;
  border-radius: 12px !important; background: #fbfaf7 !important; box-shadow: none !important; }
.dark .sheet textarea, .dark .sheet input { background: #141b1d !important; }
.sheet textarea:focus { border-color: #3f9a72 !important; box-shadow: 0 0 0 3px rgba(63, 154, 114, .18) !important; }
#edited { font-size: 13px; opacity: .75; }
#source, #asked, #gallery { border-radius: 14px; background: #f6f8f5 !important; }
.dark #source, .dark #asked, .dark #gallery { background: #141b1d !important; }
button.primary { border-radius: 12px !important; font-weight: 650 !important;
  box-shadow: 0 4px 14px rgba(31, 93, 76, .25); }
#prompt textarea, #instruction textarea, #question textarea { font-size: 17px; line-height: 1.45; padding: 11px 14px; }
.chips { gap: 6px !important; flex-wrap: wrap; }
.chips button { flex: 0 1 auto !important; min-width: 0 !important; border-radius: 999px !important;
  font-weight: 480 !important; font-size: 12.5px !important; padding: 4px 12px !important; box-shadow: none !important;
  background: rgba(63, 154, 114, .1) !important; }
.shape .wrap { gap: 8px; align-items: stretch; }
.shape label { flex-direction: column; justify-content: flex-end; align-items: center; gap: 6px; padding: 10px 10px 7px;
  border-radius: 12px; min-width: 66px; border: 1px solid rgba(40, 60, 50, .12); box-shadow: none; }
.shape label input { display: none; }
.shape label span { display: flex; flex-direction: column; align-items: center; gap: 7px; font-size: 12px; margin: 0;
  font-variant-numeric: tabular-nums; }
.shape label span::before { content: ""; display: block; border: 2px solid currentColor; border-radius: 4px; opacity: .62; }
.shape label.selected span::before { background: rgba(255, 255, 255, .3); opacity: 1; }
.stage { display: grid; gap: 14px; min-height: 380px; place-items: center; }
.stage.many { grid-template-columns: 1fr 1fr; }
.stage figure { margin: 0; position: relative; width: 100%; border-radius: 14px; overflow: hidden;
  background: rgba(47, 125, 91, .07); box-shadow: inset 0 0 0 1px rgba(47, 125, 91, .16); }
.stage figure img { display: block; width: 100%; height: auto; max-height: 62vh; object-fit: contain; margin: 0; }
.stage figure.live::after { content: ""; position: absolute; inset: 0; pointer-events: none;
  background: linear-gradient(105deg, transparent 38%, rgba(255, 255, 255, .38) 50%, transparent 62%);
  background-size: 240% 100%; animation: shimmer 1.6s linear infinite; }
@keyframes shimmer { from { background-position: 130% 0 } to { background-position: -130% 0 } }
.stage figcaption { position: absolute; left: 10px; bottom: 10px; right: 10px; display: flex;
  justify-content: space-between; font-size: 12.5px; pointer-events: none; }
.stage figcaption > * { background: rgba(20, 35, 30, .66); color: #fff; border-radius: 999px; padding: 3px 11px;
  backdrop-filter: blur(6px); text-decoration: none; pointer-events: auto; }
.stage .nothing { text-align: center; opacity: .55; padding: 70px 30px; font-size: 15px; }
.stage .nothing i { display: block; width: 132px; height: 132px; margin: 0 auto 22px; border-radius: 20px;
  background: repeating-linear-gradient(180deg, #2f7d5b33 0 14px, transparent 14px 20px);
  -webkit-mask-image: linear-gradient(#000 35%, transparent); mask-image: linear-gradient(#000 35%, transparent); }
.progress-line { margin-top: 12px; font-size: 13px; display: flex; gap: 12px; align-items: center; min-height: 20px;
  font-variant-numeric: tabular-nums; }
.progress-line > div { flex: 1; height: 7px; border-radius: 99px; background: rgba(47, 125, 91, .15); overflow: hidden; }
.progress-line > div > b { display: block; height: 100%; border-radius: 99px; transition: width .25s;
  background: linear-gradient(90deg, #3f9a72, #d9a441); }
.answer { font-size: 21px; line-height: 1.5; min-height: 160px; padding: 22px 24px; border-radius: 14px;
  background: linear-gradient(160deg, rgba(63, 154, 114, .12), rgba(217, 164, 65, .10)); }
.answer.waiting { opacity: .5; font-size: 15px; display: grid; place-items: center; }
#chatbot { border-radius: 14px; }
#chatbot img { border-radius: 12px; width: 280px !important; height: auto !important; max-width: 100%;
  object-fit: contain !important; }
#chatbot button[aria-label*=hare], #chatbot .top-panel { display: none; }
#say textarea { border: 0 !important; padding: 8px 12px !important; background: transparent !important; }
#say { border: 1px solid rgba(40, 60, 50, .15); border-radius: 14px; padding: 6px !important; }
"""


def header(language: str, model: str) -> str:
    """The page's head."""
    name = html.escape(model)
    return (
        f'<div id="brand">{LOGO}<div><h1>Wallaroo<span class="model">{name}</span></h1>'
        f"<p>{html.escape(text('tagline', language))}</p></div></div>"
    )


def shape_css(sizes: Sequence[tuple[int, int]]) -> str:
    """Draws each size's rectangle in its button."""
    longest = max(max(size) for size in sizes)
    rules = []
    for height, width in sizes:
        edges = f"width:{max(10, round(40 * width / longest))}px;height:{max(10, round(40 * height / longest))}px"
        rules.append(f'.shape label:has(input[value="{width}x{height}"]) span::before{{{edges}}}')
    return "\n".join(rules)


def stage(drawing: Drawing | None, language: str, unit: str, seeds: Sequence[int] = (), ratio: float = 1.0) -> str:
    """The pictures that are being drawn, or were.

    Args:
        drawing: how far it is; None = nothing yet.
        language: "en" or "zh".
        unit: what progress is counted in: "row" or "step".
        seeds: of the pictures.
        ratio: height to width of a whole picture, for the room that is left for what is missing.
    """
    if drawing is None:
        return f'<div class="stage"><div class="nothing"><i></i>{html.escape(text(f"empty_{unit}", language))}</div></div>'
    figures = []
    for index, image in enumerate(drawing.images):
        if image is None:
            image = Image.new("RGB", (64, round(64 * ratio)), (226, 232, 226))
        elif not drawing.finished:
            image = on_canvas(image, image.width * ratio / image.height)
        caption = f"<span>{text('seed', language)} {seeds[index]}</span>" if index < len(seeds) else ""
        if index in drawing.files:
            name = html.escape(drawing.files[index].name, quote=True)
            caption += f'<a download="{name}" href="{_uri(image, "PNG")}">{text("save", language)}</a>'
        shown = _uri(_shown(image), "PNG" if max(image.size) <= 256 else "JPEG")
        figures.append(
            f'<figure class="{"" if drawing.finished else "live"}"><img alt="" src="{shown}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    many = " many" if len(figures) > 1 else ""
    return f'<div class="stage{many}">{"".join(figures)}</div>' + progress(drawing, language, unit)


def progress(drawing: Drawing, language: str, unit: str) -> str:
    """How far a drawing is, as a line with a bar; see [`stage`]."""
    share = 100 * drawing.rows / max(drawing.of, 1)
    if drawing.finished:
        key = "stopped" if drawing.stopped else "done"
        said = text(key, language, seconds=f"{drawing.seconds:.1f}")
    else:
        said = f"{text('drawing', language)} · {text(unit, language, done=drawing.rows, all=drawing.of)}"
    return f'<div class="progress-line"><div><b style="width:{share:.0f}%"></b></div><span>{html.escape(said)}</span></div>'


def answer(said: str | None, language: str) -> str:
    """What the model says about a picture."""
    if said is None:
        return f'<div class="answer waiting">{html.escape(text("answer", language))}</div>'
    return f'<div class="answer">{html.escape(said)}</div>'


def enlarged(image: Image.Image, side: int = 512) -> Image.Image:
    """A small picture enlarged so that it can be seen; others as they are."""
    factor = side / max(image.size)
    if factor <= 1:
        return image
    size = round(image.width * factor), round(image.height * factor)
    return image.resize(size, Image.Resampling.LANCZOS)


def _shown(image: Image.Image) -> Image.Image:
    """As it is shown: small pictures smoothly enlarged, large ones no larger than that."""
    image = enlarged(image, _PREVIEW_SIDE)
    if max(image.size) > _PREVIEW_SIDE:
        image = image.copy()
        image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    return image


def _uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 90} if kind == "JPEG" else {}
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
