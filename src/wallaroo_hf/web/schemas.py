"""Bodies of requests: OpenAI's fields, ours (`seed`, `negative_prompt`, `aspect_ratio`), and one for each setting of the
checkpoint that is served, see [`setting_fields`].

Fields of OpenAI's that we cannot honour are accepted where they ask for what happens anyway, and refused otherwise; unknown
ones are refused, so that a misspelt field never passes in silence.
"""

import difflib
import functools
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from ..families.abilities import Abilities
from ..families.settings import Setting, unknown_setting

MAX_SEED = 2**62
_LONGEST_NAME = 36  # characters of an unknown field's name that an answer repeats
_MISSPELT = 0.7  # names that are as close as this are meant to be the same

# Fields that change nothing here: labels, and hints for other services.
_LABELS = frozenset(
    {
        *("metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
        *("reasoning_effort", "safety_identifier", "service_tier", "store", "user", "verbosity"),
    }
)


def unknown_field(name: str, fields: Iterable[str]) -> str:
    """The sentence about a field that is not known, with the one that was probably meant."""
    name = name[:60]
    close = difflib.get_close_matches(name, list(fields), 1)
    hint = f"did you mean `{close[0]}`?" if close else "leave it out."
    return f"`{name}` is not a field that this server knows; {hint}"


class _Body(BaseModel):
    """A JSON object whose fields are all known.

    `neutral` names fields of OpenAI's that we do not have, with the values that ask for nothing; `labels` those that never
    change anything here. Unknown fields are found before pydantic looks, one at a time, so that a body of a million of them
    costs no more than its parsing.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    labels: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        for name, value in data.items():
            if name in cls.neutral:
                if value is not None and value not in cls.neutral[name]:
                    wanted = " or ".join(repr(item) for item in cls.neutral[name]) or "nothing"
                    raise ValueError(
                        f"`{name}` is {reprlib.repr(value)}, but this server only does {wanted}; leave it out."
                    )
            elif name in cls.model_fields:
                if value is not None:
                    kept[name] = value
            elif name not in cls.labels:
                raise ValueError(cls.unknown(name))
        return kept

    @classmethod
    def unknown(cls, name: str) -> str:
        """The sentence about a field that is not known."""
        return unknown_field(name, cls.model_fields)


def _ratio_as_text(ratio: Any) -> Any:
    return str(ratio) if isinstance(ratio, (int, float)) else ratio


AspectRatio = Annotated[str | None, BeforeValidator(_ratio_as_text)]


class DrawingBody(_Body):
    """A request that may draw: its fields are also the settings of the checkpoint that is served.

    Attributes:
        settings: those that are fields; none where no checkpoint is known yet, see [`with_settings`].
        withheld: names of those that the checkpoint has as well, but no request may give.
        who: what has them, for messages.
    """

    settings: ClassVar[tuple[Setting, ...]] = ()
    withheld: ClassVar[frozenset[str]] = frozenset()
    who: ClassVar[str] = ""

    @classmethod
    def unknown(cls, name: str) -> str:
        """As for every body, unless the field is likelier to be a setting: then it says which there are."""
        if name in cls.withheld:
            return f"`{name}` cannot be chosen by a request to this server; leave it out."
        name = name[:_LONGEST_NAME]
        close = difflib.get_close_matches(name, list(cls.model_fields), 1, _MISSPELT)
        names = {setting.name for setting in cls.settings}
        if not names or (close and close[0] not in names):
            return super().unknown(name)
        sentence = unknown_setting(name, cls.settings, cls.who)
        return sentence if sentence.endswith("?") else f"{sentence.rstrip('.')}; this is not a field, so leave it out."

    def given(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        values = {setting.name: getattr(self, setting.name, None) for setting in self.settings}
        return {name: value for name, value in values.items() if value is not None}


Body = TypeVar("Body", bound=DrawingBody)


def with_settings(body: type[Body], abilities: Abilities, own: Iterable[str]) -> type[Body]:
    """A body with a field for each setting of a checkpoint that its model takes while it draws.

    Args:
        body: the other fields; where they have a setting's name, they stay as they are.
        abilities: of the checkpoint.
        own: settings that whoever runs the server decides for all.
    """
    settings = [one for one in abilities.settings if one.is_offered and one.stage == "draw" and one.name not in own]
    fields: dict[str, Any] = {
        setting.name: (_annotation(setting), Field(None, description=setting.help))
        for setting in settings
        if setting.name not in body.model_fields
    }
    made = create_model(body.__name__, __base__=body, __doc__=body.__doc__, __module__=body.__module__, **fields)
    made.settings, made.who = tuple(settings), f"This {abilities.family} checkpoint"
    made.withheld = frozenset(one.name for one in abilities.settings) - {one.name for one in settings}
    return made


def _annotation(setting: Setting) -> Any:
    """The type of a setting's field, with its bounds."""
    if setting.type is bool:
        return bool | None
    if setting.is_number and setting.choices is None:
        least, above = (None, setting.minimum) if setting.above_minimum else (setting.minimum, None)
        bounds = Field(ge=least, gt=above, le=setting.maximum)
        return Annotated[setting.type, bounds, BeforeValidator(_as_number)] | None
    return Annotated[setting.type | str, BeforeValidator(functools.partial(_checked, setting))] | None


def _checked(setting: Setting, value: Any) -> Any:
    return setting.parse(value) if isinstance(value, str) else setting.check(value)  # forms hold nothing but text


def _as_number(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value  # true is not 1


class ImageOptions(DrawingBody):
    """What drawing and editing have in common."""

    neutral = {
        "quality": ("auto", "standard"),
        "background": ("auto", "opaque"),
        "style": ("vivid", "natural"),
        "input_fidelity": ("high", "low"),
    }
    labels = _LABELS

    prompt: str
    model: str | None = None
    n: int = Field(1, ge=1)
    size: str = Field("auto", description='"auto", or width x height in pixels: "384x640".')
    aspect_ratio: AspectRatio = Field(None, description='Width to height, "16:9"; picks a listed size.')
    response_format: str = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(90, ge=0, le=100, description="Quality of jpeg and webp.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Image k gets seed + k. Default: a random one.")
    negative_prompt: str = ""
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3, description="Previews of each image, when streaming.")

    @model_validator(mode="after")
    def _check(self) -> "ImageOptions":
        if self.response_format != "b64_json":
            raise ValueError(
                f"`response_format` is {self.response_format[:40]!r}, but images are not kept here, so there are no links "
                "to them; use 'b64_json'."
            )
        if self.aspect_ratio is not None and self.size != "auto":
            raise ValueError("Give either `size` or `aspect_ratio`, not both.")
        if self.partial_images and not self.stream:
            raise ValueError("`partial_images` are previews in a stream; add `stream`: true.")
        return self


class GenerationBody(ImageOptions):
    """`POST /v1/images/generations`."""


class EditBody(ImageOptions):
    """`POST /v1/images/edits` as JSON; as a form, `image` is a file."""

    image: Any = Field(
        None, description="The image to edit: a data: URI, or a list of some, of which the last one is changed."
    )
    mask: Any = Field(
        None,
        description="What is painted anew, a picture of the image's size (as a form, a file; else a data: URI): what is "
        "transparent in it or, if nothing is, white. All else stays as it is.",
    )
    outpaint: Any = Field(
        None,
        description='Pixels by which the image grows: a number for all sides, "left=64,right=32", or {"left": 64}. What is '
        "new is painted, and the image itself stays as it is.",
    )
    images: Any = Field(None, description='As in OpenAI\'s JSON requests: [{"image_url": "data:..."}]; see `image`.')


class ImageUrl(_Body):
    """Where an image is."""

    url: str
    detail: str = "auto"


class TextPart(_Body):
    """Words in a message."""

    type: Literal["text"]
    text: str


class ImagePart(_Body):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl

    labels = frozenset({"index"})  # as answers have it

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("image_url"), str):
            return {**data, "image_url": {"url": data["image_url"]}}
        return data


class VideoUrl(_Body):
    """Where a video is."""

    url: str


class VideoPart(_Body):
    """A video in a message."""

    type: Literal["video_url"]
    video_url: VideoUrl

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("video_url"), str):
            return {**data, "video_url": {"url": data["video_url"]}}
        return data


def _as_parts(content: Any) -> Any:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(_Body):
    """One turn of a chat. `images` are those that an assistant's turn showed."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], Field(fail_fast=True), BeforeValidator(_as_parts)] = []
    images: Annotated[list[ImagePart], Field(fail_fast=True)] = []

    neutral = {
        **dict.fromkeys(("refusal", "audio", "function_call"), ()),
        **dict.fromkeys(("annotations", "tool_calls"), ([],)),
    }
    labels = frozenset({"name", "id"})


class StreamOptions(_Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatBody(DrawingBody):
    """`POST /v1/chat/completions`. `modalities` says what may come out: text, images, or both as the model sees fit.

    `temperature`, `top_k` and `top_p` are the text's; where only images may come out, they are the images'.
    """

    messages: list[Message] = Field(min_length=1, fail_fast=True)
    model: str | None = None
    modalities: Annotated[list[Literal["text", "image"]], Field(fail_fast=True)] = ["text"]
    n: int = Field(1, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10, description="0, the default, takes the likeliest words.")
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    stop: Annotated[list[str], Field(fail_fast=True), BeforeValidator(_as_list)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    size: str = "auto"
    aspect_ratio: AspectRatio = None
    negative_prompt: str = ""

    neutral = {
        **dict.fromkeys(("frequency_penalty", "presence_penalty", "top_logprobs"), (0,)),
        **dict.fromkeys(("tools", "functions"), ([],)),
        **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
        **dict.fromkeys(("audio", "prediction", "web_search_options"), ()),
        "logprobs": (False,),
        "logit_bias": ({},),
        "response_format": ({"type": "text"},),
    }
    labels = _LABELS

    @model_validator(mode="after")
    def _check(self) -> "ChatBody":
        if self.messages[-1].role != "user":
            raise ValueError("The last message must be of role 'user', so that there is something to answer.")
        if len(self.stop) > 4 or any(not stop for stop in self.stop):
            raise ValueError("`stop` may hold up to 4 strings, none of them empty.")
        if not self.modalities:
            raise ValueError("`modalities` is empty; name 'text', 'image' or both.")
        if self.aspect_ratio is not None and self.size != "auto":
            raise ValueError("Give either `size` or `aspect_ratio`, not both.")
        return self


def parse_size(size: str) -> tuple[int, int] | None:
    """`"384x640"` (width x height, as OpenAI writes it) to `(height, width)`; None for `"auto"`.

    Raises:
        ValueError: for anything else.
    """
    if size == "auto":
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if match is None:
        raise ValueError(
            f"`size` is {size[:40]!r}, but must be 'auto', or width x height in pixels such as '384x640'."
        )
    return int(match[2]), int(match[1])
