"""What a run looks like: its losses as a plot, and pictures side by side on a sheet."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..files.whole import new_file
from .data.training_rows import TASKS

__all__ = ["contact_sheet", "plot_losses"]

COLORS = ("#2a78b5", "#d9822b", "#3d9950", "#8e5ea2", "#b5534a", "#2f9e9e", "#8c6d31", "#6b7280")  # of tasks, in turn
SMOOTHED_FROM = 60  # points; below, the raw curve is readable
# ---------------------------------------------------------------------------------------------------------- losses


def plot_losses(
    log_history: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str | None = None,
    codebook_size: int | None = None,
) -> Path:
    """Plots every named loss of a run over its optimizer steps.

    Panels: the sum, the losses of the image codes, those of the text, and what else a family has. Evaluation losses are
    dashed. Long curves are thin, with their running mean in bold. Steps without a finite loss are marked in red.

    Args:
        log_history: `trainer.state.log_history`, or that of a `trainer_state.json`.
        path: the file to write, `.png`, `.pdf` or `.svg`; one that is there is replaced.
        codebook_size: draws the line of a guess among that many codes, `ln(codebook_size)`.

    Returns:
        The path.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the history holds no loss.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError('Plots need matplotlib; run `pip install "wallaroo-hf[train]"`.') from error
    all_panels = _panels(log_history)
    curves = {name: _curve(log_history, name) for names in all_panels.values() for name in names}
    curves = {name: curve for name, curve in curves.items() if any(math.isfinite(value) for _, value in curve)}
    if not curves:
        raise ValueError("The log has no losses to plot; train for at least `logging_steps` steps.")
    tasks = dict.fromkeys([*TASKS, *filter(None, map(_task_of, curves))])
    colors = dict(zip(tasks, itertools.cycle(COLORS)))
    panels = {panel: [name for name in names if name in curves] for panel, names in all_panels.items()}
    panels = {panel: names for panel, names in panels.items() if names}
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    lost = [entry["step"] for entry in log_history if "loss" in entry and not math.isfinite(entry["loss"])]
    for axes, (panel, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name in names:
            _draw_curve(axes, name, curves[name], colors.get(_task_of(name), "#333333"))
        if panel == _IMAGE_PANEL and codebook_size is not None:
            axes.axhline(math.log(codebook_size), color="0.5", linestyle=":", label=f"a guess among {codebook_size:,}")
        for step in lost:
            axes.axvline(step, color="#c0392b", linewidth=0.8, alpha=0.6)
        is_entropy = panel in (_IMAGE_PANEL, _TEXT_PANEL)
        axes.set(title=panel, xlabel="step", ylabel="cross-entropy" if is_entropy else "loss")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path = Path(path)
    with new_file(path) as partial:
        figure.savefig(partial, dpi=140)
    return path


_SUM_PANEL, _IMAGE_PANEL, _TEXT_PANEL, _OTHER_PANEL = "Sum over tasks", "Image codes", "Text", "Other parts"


def _panels(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The losses of each panel, those of the tasks of rows first, then whatever else was logged."""
    logged = (key.removeprefix("eval_") for entry in log_history for key in entry)
    tasks = [f"loss_{task}_{kind}" for task in TASKS for kind in ("text", "image")]
    parts = [name for name in dict.fromkeys([*tasks, *logged]) if name.startswith("loss_")]
    return {
        _SUM_PANEL: ["loss", "eval_loss"],
        **{
            panel: [f"{set_}{name}" for name in parts if _is_part(name, kind) for set_ in ("", "eval_")]
            for panel, kind in ((_IMAGE_PANEL, "image"), (_TEXT_PANEL, "text"), (_OTHER_PANEL, None))
        },
    }


def _is_part(name: str, kind: str | None) -> bool:
    """Whether a logged loss is of a kind; None = of neither text nor images."""
    found = name.rpartition("_")[2]
    return found == kind if kind is not None else found not in ("text", "image")


def _curve(log_history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Steps and values of a loss. A resumed run may log a step twice; the later one counts."""
    points = {entry["step"]: float(entry[name]) for entry in log_history if name in entry and "step" in entry}
    return sorted(points.items())


def _task_of(name: str) -> str:
    """The task of a logged loss; "" for the sum."""
    return name.removeprefix("eval_").removeprefix("loss_").rpartition("_")[0]


def _draw_curve(axes: Any, name: str, curve: Sequence[tuple[float, float]], color: str) -> None:
    evaluated = name.startswith("eval_")
    what = name.removeprefix("eval_").removeprefix("loss_")
    label = _task_of(name) or ("sum" if what == "loss" else what)
    label += " (evaluation)" if evaluated else ""
    steps, values = [step for step, _ in curve], [value for _, value in curve]
    style: dict[str, Any] = {"color": color, "linestyle": "--" if evaluated else "-"}
    if evaluated or len(curve) < 2:
        style["marker"] = "o"
    if len(curve) < SMOOTHED_FROM:
        axes.plot(steps, values, label=label, linewidth=1.6, markersize=4, **style)
        return
    axes.plot(steps, values, linewidth=0.7, alpha=0.35, color=color)
    axes.plot(steps, _running_mean(values, len(curve) // 40), label=label, linewidth=1.8, **style)


def _running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Means over `reach` neighbours on each side (fewer at the ends); values that are not finite are passed over."""
    windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
    finite = ([value for value in window if math.isfinite(value)] for window in windows)
    return [sum(window) / len(window) if window else math.nan for window in finite]


# ---------------------------------------------------------------------------------------------------------- pictures

MARGIN = 12  # pixels around cells
LINE_HEIGHT = 17
FONT_SIZE = 13
MAX_LINES = 3  # of a caption
MIN_CELL = 96  # so that captions of small pictures have room
# Tried where Pillow's own font lacks a glyph: what Linux, macOS and Windows call their fonts for more letters and Chinese.
OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
)


def contact_sheet(
    images: Sequence[Image.Image | None],
    captions: Sequence[str],
    path: str | Path,
    columns: int = 4,
    max_side: int = 320,
) -> Path:
    """Puts pictures with their captions on one sheet, row by row.

    A caption that no font at hand can draw (Chinese, where none is installed) is a number in the sheet, and then all
    captions are in a text file beside it (`sheet.png` and `sheet.txt`).

    Args:
        images: of any sizes; None leaves a cell empty.
        captions: one per image, may be empty; cut after three lines.
        path: the image file to write; one that is there is replaced.
        columns: cells in a row.
        max_side: larger pictures are scaled down to that many pixels.

    Returns:
        The path.

    Raises:
        ValueError: if there are no images, or not one caption for each.
    """
    if not images or len(images) != len(captions):
        raise ValueError(
            f"A sheet needs one caption per image, but got {len(images)} images, {len(captions)} captions."
        )
    if columns < 1:
        raise ValueError(f"`columns` is {columns}, but must be at least 1.")
    path = Path(path)
    pictures = [None if image is None else _shrunk(image, max_side) for image in images]
    fonts = [_font(caption) for caption in captions]
    left_out = any(font is None for font in fonts)
    shown = [caption if font else f"({index})" for index, (caption, font) in enumerate(zip(captions, fonts), start=1)]
    width = max(MIN_CELL, *(picture.width for picture in pictures if picture), 0)
    default = _default_font()
    lines = [_wrapped(caption, font or default, width) for caption, font in zip(shown, fonts)]
    starts = range(0, len(images), columns)
    heights = [max((p.height for p in pictures[start : start + columns] if p), default=0) for start in starts]
    texts = [max(map(len, lines[start : start + columns])) * LINE_HEIGHT for start in starts]
    sheet = Image.new(
        "RGB",
        (
            MARGIN + min(columns, len(images)) * (width + MARGIN),
            MARGIN + sum(heights) + sum(texts) + len(heights) * (MARGIN + MARGIN // 2),
        ),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for start, height, text in zip(starts, heights, texts):
        for index in range(start, min(start + columns, len(images))):
            left = MARGIN + (index - start) * (width + MARGIN)
            picture = pictures[index]
            if picture is not None:
                sheet.paste(picture, (left + (width - picture.width) // 2, top + height - picture.height))
            for number, line in enumerate(lines[index]):
                at = (left + width // 2, top + height + MARGIN // 2 + number * LINE_HEIGHT)
                draw.text(at, line, font=fonts[index] or default, fill="#222222", anchor="ma")
        top += height + text + MARGIN + MARGIN // 2
    with new_file(path) as partial:
        sheet.save(partial)
    if left_out:
        with new_file(path.with_suffix(".txt")) as partial:
            numbered = (f"({index}) {caption}\n" for index, caption in enumerate(captions, start=1))
            partial.write_text("".join(numbered), encoding="utf-8")
    return path


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    """A copy in RGB, transparency on white, with no side above `max_side`."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return image


def _default_font() -> Any:
    return ImageFont.load_default(FONT_SIZE)


def _font(text: str) -> Any:
    """The first font that has every letter of a text, or None."""
    font = _default_font()
    if _has_glyphs(font, text):
        return font
    for name in OTHER_FONTS:
        try:
            font = ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
        if _has_glyphs(font, text):
            return font
    return None


def _has_glyphs(font: Any, text: str) -> bool:
    """Whether no letter of a text looks like one that no font has."""
    missing = _look(font, "\U0010fffd")  # private use, unassigned
    return all(letter.isspace() or _look(font, letter) != missing for letter in set(text))


def _look(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _wrapped(caption: str, font: Any, width: int) -> list[str]:
    """A caption in lines of at most `width` pixels; Chinese breaks between any two letters."""
    lines: list[str] = []
    line = ""
    for word in _words(caption):
        if line and font.getlength((line + word).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += word
        while font.getlength(line.rstrip()) > width and len(line) > 1:  # a word longer than the line
            fits = max(n for n in range(1, len(line)) if n == 1 or font.getlength(line[:n]) <= width)
            lines.append(line[:fits])
            line = line[fits:]
    if line.rstrip():
        lines.append(line.rstrip())
    if len(lines) > MAX_LINES:
        lines = lines[:MAX_LINES]
        last = lines[-1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines[-1] = last + "..."
    return lines


def _words(text: str) -> Iterator[str]:
    """Pieces between which a line may break, with the space after them."""
    word = ""
    for letter in " ".join(text.split()):
        if ord(letter) >= 0x2E80:  # Chinese
            yield from (word, letter) if word else (letter,)
            word = ""
        else:
            word += letter
            if letter == " ":
                yield word
                word = ""
    yield word
