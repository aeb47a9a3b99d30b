"""Chats, as `apply_chat_template` gets them."""

from __future__ import annotations

import random
from typing import Any

from .kind import Kind, attempt
from .made_up import quieted, some_chat


class Chats(Kind):
    """Chats of odd roles, parts and words."""

    def round(self, rng: random.Random) -> None:
        """Chats, rendered and prepared: an accepted one has the special tokens of the same chat that says nothing."""
        chats = [some_chat(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        given = chats[0] if len(chats) == 1 and rng.random() < 0.8 else chats
        options: dict[str, Any] = {"add_generation_prompt": rng.random() < 0.5}
        if rng.random() < 0.1 and not options["add_generation_prompt"]:
            options["continue_final_message"] = True
        if rng.random() < 0.3:
            written = attempt(self.processor.apply_chat_template, given, **options)
            plain = self.processor.apply_chat_template(quieted(given), **{**options, "continue_final_message": False})
            for ours, theirs in zip(*([t] if isinstance(t, str) else t for t in (written, plain)), strict=True):
                for token in () if options.get("continue_final_message") else self.tokens:
                    assert ours.count(token) == theirs.count(token), token
            return
        options.pop("continue_final_message", None)
        mode = rng.choice(("text", "auto", "image"))
        options |= {"tokenize": True, "return_dict": True, "processor_kwargs": {"generation_mode": mode}}
        batch = attempt(self.processor.apply_chat_template, given, **options)
        plain = self.processor.apply_chat_template(quieted(given), **options)
        for ours, theirs in zip(batch["input_ids"], plain["input_ids"], strict=True):
            padding = self.tokens.index("<|endoftext|>")
            ours, theirs = self.counts(ours), self.counts(theirs)
            assert [*ours[:padding], *ours[padding + 1 :]] == [*theirs[:padding], *theirs[padding + 1 :]], given
