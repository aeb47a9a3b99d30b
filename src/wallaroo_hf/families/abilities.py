"""What a checkpoint can do, told by its configurations alone."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .settings import Setting, check_settings, sensible_notices
from .sizes import Sized, SizeError, pick_size, whole_edges
from .vocabulary import KnownWords, unknown_notice, unknown_words

__all__ = [
    "COMPOSITION",
    "EDITING",
    "GENERATION",
    "INPAINTING",
    "NAVIT_VIDEO_OPTIONS",
    "UNDERSTANDING",
    "VIDEO",
    "Abilities",
    "check_words",
]

UNDERSTANDING, GENERATION, EDITING = "understanding", "text-to-image", "image-editing"
INPAINTING = "inpainting"  # edits within a mask
COMPOSITION = "composition"  # edits of several pictures: references, and the one that is changed
VIDEO = "video"  # questions about videos
_UNTRAINED = {COMPOSITION: "edits of several pictures", VIDEO: "videos"}  # in the words of notices
# What processors of Qwen2.5-VL's kind take of videos, see [`wallaroo_hf.common.navit_videos.VideoSettings`].
NAVIT_VIDEO_OPTIONS = ("fps", "num_frames", "min_frames", "max_frames", "max_video_tokens", "video_metadata")
# Far beyond what any training row had; longer prompts would only fill memory.
MAX_PROMPT_CHARACTERS = 20_000


@dataclass(frozen=True)
class Abilities:
    """What a checkpoint can do. A family may inherit, to say more about its sizes and prompts.

    Attributes:
        family: its name for people, such as "Wallaroo".
        tasks: of "understanding", "text-to-image", "image-editing", "inpainting", "composition", "interleaved", "video".
        untrained: those of its tasks that it can compute but never learned; doors say so, see [`~Abilities.notices`].
        sizes: the listed `(height, width)` in pixels.
        size_multiple: every edge is a multiple of that many pixels.
        any_size: whether other sizes than the listed ones can be drawn.
        max_positions: of prompt and picture together.
        languages: of prompts, such as ("en", "zh").
        settings: its knobs.
        negative_prompt: whether it takes one.
        video_options: what its processor takes beside `videos`, such as `num_frames` of each.
        progress_unit: what a drawing's progress is counted in: "row" or "step".
        interleaves: whether it draws in a chat where it sees fit; else it draws only what it is asked to draw.
        special_tokens: tokens that users' words must not spell, known where a tokenizer is at hand.
        known_words: the only words that it learned, see [`wallaroo_hf.families.vocabulary`]; empty = any.
        recorded: the settings that an evaluation writes down in any case, in the order of its records, as the checkpoint
            has them (None = it says nothing); empty = all of drawing.
        keeps_prefixes: whether its model's `converse` goes on from what was read of a chat before.
    """

    family: str
    tasks: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    size_multiple: int
    any_size: bool
    max_positions: int
    languages: tuple[str, ...]
    settings: tuple[Setting, ...]
    negative_prompt: bool = True
    video_options: tuple[str, ...] = ()
    progress_unit: str = "step"
    untrained: tuple[str, ...] = ()
    interleaves: bool = True
    special_tokens: tuple[str, ...] = ()
    known_words: KnownWords = dataclasses.field(default_factory=dict)
    recorded: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keeps_prefixes: bool = False

    @property
    def edits(self) -> bool:
        """Whether it edits pictures."""
        return EDITING in self.tasks

    @property
    def inpaints(self) -> bool:
        """Whether an edit can be kept within a mask; its processor takes `mask_images`."""
        return INPAINTING in self.tasks

    @property
    def several_sources(self) -> bool:
        """Whether an edit may be of several pictures: reference pictures, and the one that is changed."""
        return COMPOSITION in self.tasks

    @property
    def videos(self) -> bool:
        """Whether it understands videos; its processor takes `videos`, see `video_options`."""
        return VIDEO in self.tasks

    @property
    def draws(self) -> bool:
        """Whether it draws."""
        return GENERATION in self.tasks

    @property
    def draws_in_chats(self) -> bool:
        """Whether it draws in a chat where it sees fit."""
        return self.draws and self.interleaves

    def setting(self, name: str) -> Setting | None:
        """The knob of a name, or None."""
        return next((setting for setting in self.settings if setting.name == name), None)

    def check_drawing_in_chats(self) -> None:
        """Refuses chats in which it may draw, where it was not trained to decide when.

        Raises:
            ValueError: in one sentence.
        """
        if not self.draws_in_chats:
            raise ValueError(
                f"This {self.family} checkpoint does not decide by itself when to draw in a chat; ask it for text "
                "alone, or for a picture alone."
            )

    # ---------------------------------------------------------------------------------------------------------- sizes

    def pick_size(
        self,
        height: int | None = None,
        width: int | None = None,
        aspect_ratio: str | float | None = None,
        like: Sized | None = None,
    ) -> tuple[int, int]:
        """The `(height, width)` to draw: as given, else by aspect ratio, else like a picture, else the most square one.

        Args:
            height, width: as given.
            aspect_ratio: `"16:9"` or a number, width by height.
            like: a picture whose shape is followed.

        Raises:
            ValueError: see [`wallaroo_hf.families.sizes.pick_size`].
        """
        return pick_size(self.sizes, height, width, aspect_ratio, like)

    def image_tokens(self, height: int, width: int) -> int:
        """How many tokens a picture of a size in pixels has."""
        return (height // self.size_multiple) * (width // self.size_multiple)

    def image_positions(self, height: int, width: int) -> int:
        """How many of its positions such a picture takes, marks in and around it included."""
        return self.image_tokens(height, width) + 2

    def check_size(self, height: int, width: int) -> None:
        """Refuses sizes in pixels that cannot be drawn.

        Raises:
            SizeError: in one sentence.
        """
        whole_edges(height, width, self.size_multiple)
        if not self.any_size and (height, width) not in self.sizes:
            listed = ", ".join(f"{one[0]}x{one[1]}" for one in self.sizes)
            raise SizeError(
                f"A size of {height}x{width} (height x width) was asked for, but this checkpoint draws {listed} only.",
                "this checkpoint draws no others than its listed sizes",
            )
        needed = self.image_positions(height, width)
        if needed > self.max_positions:
            raise SizeError(
                f"A size of {height}x{width} (height x width) needs {needed:,} positions, but the model has "
                f"{self.max_positions:,}; ask for a smaller image.",
                f"it needs {needed:,} positions of the {self.max_positions:,} that the model has",
            )

    # ---------------------------------------------------------------------------------------------- prompts, settings

    def check_prompt(self, prompt: str, what: str = "prompt") -> None:
        """Refuses words that cannot be drawn from.

        Args:
            prompt: the words.
            what: what they are called in the message.

        Raises:
            ValueError: if they are empty, too long, no whole characters, or spell a token of the chat.
        """
        if what == "prompt" and not prompt.strip():
            raise ValueError("The prompt is empty; say what to draw.")
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise ValueError(
                f"The {what} has {len(prompt):,} characters, but at most {MAX_PROMPT_CHARACTERS:,} can be drawn from; "
                "shorten it."
            )
        self.check_words(prompt, what)

    def check_words(self, words: str, what: str = "prompt") -> None:
        """Refuses words that are no whole characters, or that spell a token of the chat.

        Args:
            words: a user's.
            what: what they are called in the message.

        Raises:
            ValueError: in one sentence.
        """
        check_words(words, what, self.special_tokens)

    def without_special_tokens(self, words: str) -> str:
        """Words in which a space stands for each special token; for those of a model that go back into a chat."""
        return re.sub("|".join(map(re.escape, self.special_tokens)), " ", words) if self.special_tokens else words

    def check_task(self, task: str) -> None:
        """Refuses a task that this checkpoint does not do.

        Raises:
            ValueError: naming those that it does.
        """
        if task not in self.tasks:
            raise ValueError(
                f"This {self.family} checkpoint does not do {task}; it does {', '.join(self.tasks)}. Use another one."
            )

    def check_sources(self, count: int, size: tuple[int, int] | None = None) -> None:
        """Refuses an edit of more pictures than this checkpoint takes.

        Args:
            count: how many it is of; 0 = it is drawn from words alone.
            size: `(height, width)` in pixels of what is drawn, where that is known: all pictures are brought to it.

        Raises:
            ValueError: in one sentence.
        """
        if count:
            self.check_task(EDITING)
        if count > 1 and not self.several_sources:
            raise ValueError(
                f"This {self.family} checkpoint edits one picture at a time, but {count} were given for one instruction; "
                "leave the others out."
            )
        if count > 1 and size is not None and (count + 1) * self.image_positions(*size) > self.max_positions:
            raise ValueError(
                f"An edit of {count} pictures at {size[0]}x{size[1]} (height x width) needs more than the "
                f"{self.max_positions:,} positions that the model has; leave some out, or ask for a smaller image."
            )

    def check_inpainting(self, given: Mapping[str, Any]) -> None:
        """Refuses edits within a mask where they cannot be.

        Args:
            given: settings by name.

        Raises:
            ValueError: if this checkpoint has none, or a setting would cut the source.
        """
        self.check_task(EDITING)
        self.check_task(INPAINTING)
        if given.get("source_fit") == "crop" or given.get("published_eval"):
            name = "published_eval" if given.get("published_eval") else "source_fit='crop'"
            raise ValueError(f"Outside of a mask all of the source stays, but `{name}` would cut it; leave that out.")

    def check_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, without what is None.

        Args:
            given: settings by name; None = the checkpoint's default.

        Raises:
            UnknownSettingError: for one that this checkpoint does not have, naming those that it has.
            ValueError: for a value that cannot be.
        """
        return check_settings(given, self.settings, f"This {self.family} checkpoint")

    def for_stage(self, given: Mapping[str, Any], stage: str) -> dict[str, Any]:
        """Those of some checked settings that the processor (`"prepare"`) or the model (`"draw"`) takes."""
        stages = {setting.name: setting.stage for setting in self.settings}
        return {name: value for name, value in given.items() if stages[name] in (stage, "both")}

    def for_answers(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some checked settings that processor and model take of questions as well."""
        return {name: value for name, value in given.items() if (one := self.setting(name)) and one.of_answers}

    def check_answers(self, given: Mapping[str, Any], videos: bool = False) -> dict[str, Any]:
        """Settings of an answer, without what is None.

        Args:
            given: by name; None and False = not given.
            videos: whether videos are asked about.

        Raises:
            ValueError: for a setting that there is not, or that says nothing of answers; for videos where none are
                understood.
        """
        checked = {name: value for name, value in self.check_settings(given).items() if value is not False}
        of_drawings = sorted(checked.keys() - self.for_answers(checked))
        if of_drawings:
            raise ValueError(f"`{of_drawings[0]}` is a setting of what is drawn, not of answers; leave it out.")
        if videos and not self.videos:
            raise ValueError(
                f"This {self.family} checkpoint does not understand videos; show pictures, such as its frames."
            )
        return checked

    def own_settings(self) -> dict[str, Any]:
        """The settings that an evaluation writes down in any case, as the checkpoint has them."""
        return dict(self.recorded) or {
            setting.name: setting.default
            for setting in self.settings
            if setting.is_offered and setting.stage != "prepare"
        }

    def prompt_templates(self, prompt: str, edits: bool) -> Sequence[str]:
        """The listed templates that a prompt may be put into, in its language; none for a family without."""
        return ()

    def write_prompt(self, prompt: str, template: int | str, height: int, width: int, edits: bool) -> str:
        """A prompt as the model gets it.

        Args:
            prompt: the user's words.
            template: index into the listed ones, or text with {prompt} in it.
            height, width: of the picture, in pixels.
            edits: whether a picture is edited.

        Raises:
            ValueError: for a template that cannot be.
        """
        if template != 0:
            raise ValueError(
                f"`prompt_template` is {template!r}, but this {self.family} checkpoint has no templates; leave it out."
            )
        return prompt

    def notices(
        self, given: Mapping[str, Any] | None = None, prompt: str = "", tasks: Sequence[str] = ()
    ) -> list[str]:
        """What somebody should know who asks for this: a sentence each; nothing of it is an error.

        Args:
            given: settings by name.
            prompt: the words to draw or edit from.
            tasks: what is asked for, of `tasks`, where that is not drawing, editing or answering alone.
        """
        notices = sensible_notices(given or {}, self.settings)
        notices += [
            f"This {self.family} checkpoint was not trained on {_UNTRAINED[task]}, so expect little."
            for task in tasks
            if task in self.untrained
        ]
        unknown = self.unknown_words(prompt)
        if unknown:
            notices.append(unknown_notice(unknown, self.known_words))
        return notices

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that a checkpoint of few words never learned, in order; [] for one that knows any."""
        return unknown_words(prompt, self.known_words) if self.known_words else []


def check_words(words: str, what: str, special_tokens: Iterable[str]) -> None:
    """Refuses words that are no whole characters, or that spell a token of the chat.

    Args:
        words: a user's.
        what: what they are called in the message.
        special_tokens: of the chat.

    Raises:
        ValueError: in one sentence.
    """
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The {what} holds half of a character ({error.reason}); give whole text.") from error
    for token in special_tokens:
        if token in words:
            raise ValueError(f"The {what} contains the special token {token}, which would break the turn; remove it.")
