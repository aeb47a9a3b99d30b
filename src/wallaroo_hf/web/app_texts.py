"""Every word of the web page, in English and Chinese."""

LANGUAGES = {"English": "en", "中文": "zh"}

TEXTS: dict[str, dict[str, str]] = {
    "tagline": {
        "en": "One model that draws, edits and understands pictures.",
        "zh": "一个模型，会画画、会修图、也看得懂图。",
    },
    "draw": {"en": "Draw", "zh": "画图"},
    "edit": {"en": "Edit", "zh": "修图"},
    "ask": {"en": "Ask", "zh": "问图"},
    "chat": {"en": "Chat", "zh": "聊天"},
    "prompt": {"en": "What shall I draw?", "zh": "想画什么？"},
    "prompt_hint": {"en": "a red heart to the left of a blue star", "zh": "红色的心形在蓝色的星星左边"},
    "try": {"en": "Try one of these", "zh": "试试这些"},
    "shape": {"en": "Shape", "zh": "画幅"},
    "more": {"en": "More settings", "zh": "更多设置"},
    "negative": {"en": "Steer away from", "zh": "不要出现"},
    "count": {"en": "Pictures", "zh": "张数"},
    "seed": {"en": "Seed", "zh": "种子"},
    "random": {"en": "New seed each time", "zh": "每次换新种子"},
    "guidance_scale": {"en": "Guidance", "zh": "引导强度"},
    "guidance_min_p": {
        "en": "Guide only to codes this likely (0: all)",
        "zh": "只引导到可信度达此值的编码（0 为全部）",
    },
    "num_inference_steps": {"en": "Steps", "zh": "步数"},
    "temperature": {"en": "Temperature", "zh": "温度"},
    "draw_now": {"en": "Draw", "zh": "开始画"},
    "stop": {"en": "Stop", "zh": "停止"},
    "gallery": {
        "en": "Your pictures – choose one to take up its settings",
        "zh": "你的作品——点选一张即可沿用它的设置",
    },
    "to_edit": {"en": "Edit this picture", "zh": "修改这张图"},
    "to_ask": {"en": "Ask about this picture", "zh": "就这张图提问"},
    "source": {"en": "The picture to edit", "zh": "要修改的图"},
    "area": {"en": "Only a part, or beyond the edges", "zh": "只改一部分，或向外扩展"},
    "strokes": {"en": "Paint over what shall change; all else stays", "zh": "涂抹要改的地方，其余保持不变"},
    "left": {"en": "Grow left", "zh": "向左扩展"},
    "top": {"en": "Grow up", "zh": "向上扩展"},
    "right": {"en": "Grow right", "zh": "向右扩展"},
    "bottom": {"en": "Grow down", "zh": "向下扩展"},
    "references": {"en": "Take from other pictures", "zh": "参考其他图片"},
    "references_hint": {
        "en": "Shown before the picture to edit, which is the last one",
        "zh": "排在要修改的图之前；要修改的图是最后一张",
    },
    "instruction": {"en": "What shall I change?", "zh": "想怎么改？"},
    "instruction_hint": {"en": "turn the blue star pink", "zh": "把蓝色的星星变成粉色"},
    "edit_now": {"en": "Edit", "zh": "开始改"},
    "compare": {"en": "Before and after – drag the line", "zh": "前后对比——拖动分隔线"},
    "again": {"en": "Go on from the result", "zh": "在结果上继续改"},
    "picture": {"en": "The picture", "zh": "图片"},
    "video": {"en": "Or a video", "zh": "或一段视频"},
    "question": {"en": "What do you want to know?", "zh": "想知道什么？"},
    "question_hint": {"en": "how many hearts are there?", "zh": "有几个心形？"},
    "ask_now": {"en": "Ask", "zh": "提问"},
    "answer": {"en": "Answer", "zh": "回答"},
    "chat_hint": {
        "en": "Say anything; the model draws when it thinks it should",
        "zh": "随便说；模型觉得该画时就会画",
    },
    "chat_empty": {
        "en": "Ask for a picture, then ask to change it.",
        "zh": "先让它画一张，再让它改一改。",
    },
    "new_chat": {"en": "New chat", "zh": "新对话"},
    "empty_row": {"en": "Your picture will appear here, row by row.", "zh": "图会在这里一行一行地出现。"},
    "empty_step": {"en": "Your picture will appear here, step by step.", "zh": "图会在这里一步一步地出现。"},
    "drawing": {"en": "Drawing", "zh": "正在画"},
    "row": {"en": "row {done} of {all}", "zh": "第 {done} 行，共 {all} 行"},
    "step": {"en": "step {done} of {all}", "zh": "第 {done} 步，共 {all} 步"},
    "done": {"en": "Done in {seconds} s", "zh": "完成，用时 {seconds} 秒"},
    "stopped": {"en": "Stopped; this is what was there", "zh": "已停止；这是已画好的部分"},
    "save": {"en": "Save", "zh": "保存"},
    "no_picture": {
        "en": "There is no picture yet; draw or upload one first.",
        "zh": "还没有图，请先画一张或上传一张。",
    },
}

PROMPTS = {
    "en": (
        "a red heart to the left of a blue star",
        "three yellow circles on a black background",
        "a green square above an orange triangle",
    ),
    "zh": ("红色的心形在蓝色的星星左边", "黑色背景上的三个黄色圆形", "一个紫色的圆环"),
}


def text(key: str, language: str, **values: object) -> str:
    """A word or sentence in a language (`"en"` or `"zh"`)."""
    return TEXTS[key][language].format(**values)
