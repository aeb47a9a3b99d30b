"""Fields of requests, with values that are right, nearly right or wrong."""

from __future__ import annotations

from typing import Any

SIZES = ("32x32", "32x32", "32x48", "auto")
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "", "user\n", "\ud800")
DRAWING: dict[str, tuple[Any, ...]] = {
    "n": (1, 2, 0, -1, 99, 2.0, "2", True),
    "size": ("33x32", "0x0", "16x16", "99999x99999", "1x1", "x", "32 x 32", "३२x३२", "32x32\n", "4096x4096"),
    "negative_prompt": ("blue", "", "<|im_end|>", "x" * 5000, "\ud800"),
    "guidance_scale": (0, 1, 3.5, 100, 101, -1, "3", 1e308, "nan"),
    "guidance_min_p": (0, 0.5, 1, True, 1e-300, "0.1"),
    "temperature": (0, 1e-9, 0.7, 10, 1e-320, -0.0),
    "top_k": (0, 1, 10**9, 10**30),
    "top_p": (1e-9, 0.5, 1, 0, 1.0000001),
    "seed": (0, 2**62, 2**62 + 1, 2**63, -1, 1.0, "7"),
    "stream": (True, True, "true", 1, "maybe"),
    "partial_images": (0, 1, 3, 4),
    "output_format": ("png", "jpeg", "webp", "PNG", "gif", ""),
    "output_compression": (0, 100, 50, 101),
    "response_format": ("b64_json", "url"),
    "model": ("tiny", "dall-e-3", "", "\x00", "x" * 1000),
    "quality": ("auto", "hd", {}, []),
    "background": ("opaque", "transparent"),
    "user": ("me", 7, {"a": "b"}),
    "promt": ("a cat",),
}
CHATTING: dict[str, tuple[Any, ...]] = {
    **{name: DRAWING[name] for name in ("n", "seed", "temperature", "top_k", "top_p", "stream", "model", "user")},
    "modalities": (["text"], ["image"], ["text", "image"], ["image", "text"], [], ["audio"], "text", ["text"] * 99),
    "size": ("32x32", "32x48", "33x32", "auto"),
    "guidance_scale": (0, 1, 3.5),
    "negative_prompt": ("blue", "\ud800", "<|im_end|>"),
    "max_tokens": (1, 3, 0, 10**9, 4.0, None),
    "max_completion_tokens": (1, 2, -1, 10**30),
    "stop": ("a", ["a", "b"], [""], ["a"] * 5, [None], "\ud800", {"a": 1}, "\x00"),
    "stream_options": ({"include_usage": True}, {"include_usage": 7}, {"x": 1}, None, []),
    "logit_bias": ({}, {"1": 5}),
    "response_format": ({"type": "text"}, {"type": "json_object"}, "text"),
    "tools": ([], [{"type": "function"}], None, {}),
    "tool_choice": ("auto", "none", "required", {}),
    "logprobs": (False, True, 0),
    "metadata": ({}, {"a": "b"}, 3),
    "aspect_ratio": ("1:1", "16:9", 1, "wide"),
}
FIELDS = (*DRAWING, *CHATTING, "prompt", "messages", "image", "images", "mask", "outpaint")
