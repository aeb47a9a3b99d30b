"""Prompt templates and the order of tokens in a turn.

The templates are the instructions that the released model was trained with; their index is the released one. They
are data of the published checkpoint (as its tokens are), so they must stay as they are, character for character.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..common.chat_form import SYSTEM_PROMPT, TURN
from ..common.chat_form import answer_spans as answer_spans
from ..common.chat_form import said as said
from ..common.chat_form import split_chat as split_chat
from .special_tokens import (
    GENERATE_END,
    GENERATE_START,
    IM_END,
    IM_START,
    IMAGE_PAD,
    PIXEL_END,
    PIXEL_START,
    VISION_END,
    VISION_START,
)

LAYOUTS = ("trained", "published_eval")

GENERATION_TEMPLATES_EN = (
    'Generate an image with resolution {target_w}x{target_h} based on the prompt: "{prompt}"',
    'Create a {target_w}x{target_h} sized image using the following text: "{prompt}"',
    'Produce a graphic measuring {target_w}x{target_h} pixels from the description: "{prompt}"',
    'Design an image using the prompt "{prompt}" with a resolution of {target_w}x{target_h}',
    'Craft a picture of resolution {target_w}x{target_h} using the provided prompt: "{prompt}"',
    'Formulate a visual piece of {target_w}x{target_h} dimensions, inspired by: "{prompt}"',
    'Based on the prompt: "{prompt}", create an image with {target_w}x{target_h} pixels',
    'Construct a {target_w}x{target_h} picture to represent the idea of: "{prompt}"',
    'Utilize the text "{prompt}" to design an image with a resolution of {target_w}x{target_h}',
    'Let\'s create a {target_w}x{target_h} image using the following input: "{prompt}"',
)
GENERATION_TEMPLATES_ZH = (
    "生成一幅图像，分辨率为{target_w}x{target_h}，基于文本提示：“{prompt}”",
    "依据文本提示：“{prompt}”，创造出一个{target_w}x{target_h}大小的图像",
    "从提示信息：“{prompt}”，制作一幅尺寸为{target_w}x{target_h}的画面",
    "设计一个图像，使用提示『{prompt}』，目标分辨率为{target_w}x{target_h}",
    "利用描述：“{prompt}”，生成分辨率为{target_w}x{target_h}的图片",
    "产生一个图像，尺寸为{target_w}x{target_h}，以文本：“{prompt}”为基础",
    '根据提示："{prompt}"，构建一个{target_w}x{target_h}像素的视觉图片',
    "创建一幅{target_w}x{target_h}的画，用于表达提示：“{prompt}”",
    "以文本提示：“{prompt}”，制作一个分辨率{target_w}x{target_h}的图片",
    "让我们通过输入：“{prompt}”，设计一幅{target_w}x{target_h}大小的图像",
)
EDITING_TEMPLATES_EN = (
    'Edit the input image based on the text prompt: "{prompt}", and generate a new image with a resolution of '
    "{target_w}x{target_h}.",
    'Using the provided image as a base, create a new {target_w}x{target_h} image according to the prompt: "{prompt}".',
    'Modify the original image following the description: "{prompt}", and produce a new image sized '
    "{target_w}x{target_h}.",
    'Take the input image and refer to the prompt: "{prompt}" to edit the image, targeting a resolution of '
    "{target_w}x{target_h}.",
    'Combine the image and the text: "{prompt}" to generate an edited picture with a resolution of '
    "{target_w}x{target_h}.",
    'Adjust the given image according to the prompt: "{prompt}", and output an image of size {target_w}x{target_h}.',
    'Use the input image as a blueprint, together with the prompt: "{prompt}", to create a new '
    "{target_w}x{target_h} visual.",
    'Based on the existing image and the text: "{prompt}", create a visual work with a resolution of '
    "{target_w}x{target_h}.",
    "Please generate an image of size {target_w}x{target_h} according to the content of the image and the prompt: "
    '"{prompt}".',
    'Let’s design a {target_w}x{target_h} image using the input image and the text prompt: "{prompt}".',
)
EDITING_TEMPLATES_ZH = (
    "根据输入图片，并结合文本提示：“{prompt}”，对图片进行编辑，生成一幅{target_w}x{target_h}的图像",
    "请以给定图片为基础，依据提示：“{prompt}”，创作一个{target_w}x{target_h}的新版图像",
    "在原图的基础上，按照描述：“{prompt}”，生成尺寸为{target_w}x{target_h}的新图",
    "使用输入图片，并参考提示『{prompt}』，对图像进行修改，目标分辨率为{target_w}x{target_h}",
    "结合图片和文本：“{prompt}”，产生一张分辨率为{target_w}x{target_h}的编辑后图片",
    "对给定图片进行调整，依据提示信息：“{prompt}”，输出{target_w}x{target_h}的图像",
    '以输入图片为蓝本，结合提示："{prompt}"，制作一幅{target_w}x{target_h}像素的新画面',
    "基于现有图片和文本：“{prompt}”，创作分辨率为{target_w}x{target_h}的视觉作品",
    "请根据图片内容和提示：“{prompt}”，生成尺寸为{target_w}x{target_h}的图片",
    "让我们以输入图片和文本：“{prompt}”为依据，设计一幅{target_w}x{target_h}的图像",
)

# task -> language -> templates
PROMPT_TEMPLATES: dict[str, dict[str, list[str]]] = {
    "generation": {"en": list(GENERATION_TEMPLATES_EN), "zh": list(GENERATION_TEMPLATES_ZH)},
    "editing": {"en": list(EDITING_TEMPLATES_EN), "zh": list(EDITING_TEMPLATES_ZH)},
}

# image task -> the token that opens its images
START_TOKENS = {"generation": GENERATE_START, "editing": GENERATE_START}

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_TEMPLATE_FIELDS = {"prompt", "target_w", "target_h"}


def prompt_language(prompt: str) -> str:
    """`"zh"` for a prompt with Chinese characters, else `"en"`."""
    return "zh" if _CHINESE.search(prompt) else "en"


def fill_template(
    template: int | str, templates: Mapping[str, Sequence[str]], language: str, prompt: str, height: int, width: int
) -> str:
    """Writes the instruction for one prompt and size.

    Args:
        template: index into the templates of `language`, or a format string with the fields `{prompt}`, `{target_w}`
            and `{target_h}` (only `{prompt}` is required).

    Raises:
        ValueError: for an index out of range or a format string with other fields.
    """
    if isinstance(template, int):
        listed = templates[language]
        if not 0 <= template < len(listed):
            raise ValueError(
                f"`prompt_template` is {template}, but this checkpoint lists {len(listed)} templates for language "
                f"{language!r}; pass 0 to {len(listed) - 1}, or a format string with {{prompt}}."
            )
        template = listed[template]
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError:
        fields = set()
    if "prompt" not in fields or not fields <= _TEMPLATE_FIELDS:
        raise ValueError(
            f"`prompt_template` is {template!r}, but a format string must contain {{prompt}} and may contain "
            "{target_w} and {target_h}, nothing else in braces."
        )
    return template.format(prompt=prompt, target_w=width, target_h=height)


@dataclass(frozen=True)
class DrawingTurn:
    """One drawing request, already written out: who speaks, what is shown, what is asked.

    Attributes:
        instruction: the filled template.
        indicators: the size announcement, height first, or "" where the checkpoint has none.
        source: the rows of a source image block, or "" for text-to-image.
        history: everything before the user's turn, written out; the system turn at least.
        start: the token that opens the image.
        num_sources: how many sources an edit has, all of one size.
    """

    instruction: str
    indicators: str = ""
    source: str = ""
    history: str = f"{IM_START}system\n{SYSTEM_PROMPT}{IM_END}\n"
    start: str = GENERATE_START
    num_sources: int = 1

    def render(self, layout: str) -> str:
        """The prompt up to and including the token that opens the image.

        `"trained"` is the order of the released training code, `"published_eval"` that of the released evaluation
        scripts: there the text-to-image indicators stand after the turn, and editing lacks the assistant header.
        """
        suffix = f" {self.indicators}" if self.indicators else ""
        end = f"{IM_END}\n"
        header = f"{IM_START}assistant\n"
        if layout == "published_eval" and self.source:
            header = ""
        elif layout == "published_eval":
            suffix, end = "", end + suffix
        blocks = ""
        if self.source:  # low level before high level: the paper's section 5 found the other order much worse
            block = f"{PIXEL_START}{self.source}{PIXEL_END}{VISION_START}{IMAGE_PAD}{VISION_END}"
            blocks = block * self.num_sources
        return f"{self.history}{IM_START}user\n{blocks}{self.instruction}{suffix}{end}{header}{self.start}"


def render_answer(rows: str) -> str:
    """What follows the opening token in training: the image, its end, and the end of the turn."""
    return f"{rows}{GENERATE_END}{IM_END}\n"


def announce_size(text: str, indicators: str) -> str:
    """A rendered chat with a size announcement at the end of its last user turn, where drawing prompts have it.

    Raises:
        ValueError: if there is something to announce, but no user turn.
    """
    if not indicators:
        return text
    start = text.rfind(f"{IM_START}user")
    end = text.find(IM_END, start)
    if start < 0 or end < 0:
        raise ValueError("The chat has no user turn to announce the image's size in; render it with a chat template.")
    return f"{text[:end]} {indicators}{text[end:]}"


def learned_spans(text: str) -> list[tuple[int, int]]:
    """The [`answer_spans`] of a chat that auto mode would say, for training.

    A picture that was drawn stands in the user's next turn when the chat goes on, and what is left of the answer claims a
    picture without drawing it. So an answer without a picture before a turn that shows one is not learned.
    """
    turns = list(TURN.finditer(text))
    spans = []
    for one, after in zip(turns, [*turns[1:], None]):
        if one["role"] != "assistant":
            continue
        was_moved = after is not None and VISION_START in after["content"] and GENERATE_START not in one["content"]
        if not was_moved:
            spans.append((one.start("content"), one.end()))
    return spans
