"""Small talk of a chat, which asks for no picture: what users say, and what is answered."""

from __future__ import annotations

# kind -> language -> what users say; the one answer
TALK: dict[str, dict[str, tuple[tuple[str, ...], str]]] = {
    "greeting": {
        "en": (("hello", "hello!", "hi", "hi there", "good morning", "hey"), "Hello! What shall I draw?"),
        "zh": (("你好", "你好！", "您好", "早上好", "嗨"), "你好！想画什么？"),
    },
    "thanks": {
        "en": (("thanks", "thank you", "thank you!", "thanks a lot", "great, thanks"), "You are welcome!"),
        "zh": (("谢谢", "谢谢！", "谢谢你", "多谢", "太好了，谢谢"), "不客气！"),
    },
    "praise": {
        "en": (("nice", "well done", "that looks good", "beautiful!", "I like it"), "I am glad that you like it!"),
        "zh": (("真好看", "画得真好", "不错", "太好了", "我很喜欢"), "很高兴你喜欢！"),
    },
    "self": {
        "en": (("who are you?", "what are you?", "what is your name?"), "I am a small model that draws shapes."),
        "zh": (("你是谁？", "你是什么？", "你叫什么名字？"), "我是一个画图形的小模型。"),
    },
    "help": {
        "en": (
            ("what can you do?", "what can you draw?", "help", "how can you help me?"),
            "I draw, change and describe pictures of shapes.",
        ),
        "zh": (("你会做什么？", "你能画什么？", "帮助", "你能帮我什么？"), "我会画图形，改图形，也会说出图中有什么。"),
    },
    "farewell": {
        "en": (("goodbye", "bye", "bye!", "see you", "that is all"), "Goodbye!"),
        "zh": (("再见", "再见！", "拜拜", "下次见", "就这些"), "再见！"),
    },
}


def is_reply(text: str, kind: str, language: str) -> bool:
    """Whether an answer is the one to a kind of talk, whatever its case and closing mark."""
    return _bare(text) == _bare(TALK[kind][language][1])


def _bare(text: str) -> str:
    return text.strip().rstrip(".!?。！？").casefold()
