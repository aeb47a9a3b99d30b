"""`/v1/chat/completions`: answers about images, and images between words where the request allows them."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request
from PIL import Image

from ..families.abilities import GENERATION, UNDERSTANDING, VIDEO
from .batching import Job
from .bodies import TextRoute
from .errors import ApiError
from .event_stream import sse, stream
from .images import RequestImages, data_uri, encode
from .requests import Answer, Ending, Picture, Text, TextSettings
from .schemas import ChatBody, ImagePart, Message, TextPart, VideoPart
from .sent_videos import open_video
from .service import TEXT_FIELDS, Service, client_of, first_seed, make_jobs

DEFAULT_NEW_TOKENS = 512
_CHARS_PER_TOKEN = 8  # text with more characters than this per allowed token is not even tokenized

_Url: TypeAlias = tuple[str, str]  # an image or video that is not opened yet, and the field that it came in


def chat_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    routes = APIRouter(route_class=TextRoute)

    async def completions(request: Request, body: ChatBody) -> Any:
        """Answers a chat; `modalities` says whether it may, or must, draw."""
        service.check_model(body.model)
        turns, urls = _read_messages(service, body.messages)
        images = service.images.of(client_of(request))
        if "image" in body.modalities and _video_urls(body.messages):
            raise ApiError(
                400, "Nothing is drawn in a chat with videos; ask for text alone.", "modalities", "invalid_value"
            )
        if set(body.modalities) == {"image"}:
            jobs = await _drawings(service, body, turns, urls, images)
        else:
            jobs = await _answers(service, body, turns, urls, images)
        if body.stream:
            return await stream(_chunks(service, request, body, jobs))
        return await _whole(service, request, body, jobs)

    completions.__annotations__["body"] = service.chat_body  # with the fields of this checkpoint's settings
    routes.post("/v1/chat/completions")(completions)
    return routes


def _read_messages(service: Service, messages: list[Message]) -> tuple[list[dict[str, Any]], list[_Url]]:
    """Messages for the chat template, and their images in order.

    The last image that an assistant's turn showed becomes part of the user's next turn, where the model was trained to find
    what it shall edit (as `processor.continue_chat` does), unless that turn shows an image of the user's own.

    Raises:
        ApiError: 400 if they cannot be a chat, or hold too much.
    """
    limit = service.settings.max_prompt_tokens * _CHARS_PER_TOKEN
    _check_chars(service, messages, limit)
    turns: list[dict[str, Any]] = []
    urls: list[_Url] = []
    shown: _Url | None = None
    for number, message in enumerate(messages):
        content: list[dict[str, Any]] = []
        where = f"messages.{number}"
        if message.role == "user":
            if shown is not None and not any(isinstance(part, ImagePart) for part in message.content):
                content.append({"type": "image"})
                urls.append(shown)
            shown = None
        for part_number, part in enumerate(message.content):
            param = f"{where}.content.{part_number}"
            if not isinstance(part, TextPart) and message.role != "user":
                kind = "images" if isinstance(part, ImagePart) else "videos"
                raise ApiError(400, f"Only messages of role 'user' may hold {kind}.", param, "invalid_value")
            if isinstance(part, VideoPart):
                content.append({"type": "video"})
            elif isinstance(part, ImagePart):
                content.append({"type": "image"})
                urls.append((part.image_url.url, param))
            else:
                service.check_text("message", part.text, param, limit)
                content.append({"type": "text", "text": part.text})
        if message.images:
            if message.role != "assistant":
                raise ApiError(
                    400, "`images` are of role 'assistant'; a user's go into `content`.", where, "invalid_value"
                )
            shown = (message.images[-1].image_url.url, f"{where}.images")
        role = "system" if message.role == "developer" else message.role
        turns.append({"role": role, "content": content})
    _check_shown(service, len(urls), len(_video_urls(messages)))
    if not any(part["type"] != "text" or part["text"].strip() for part in turns[-1]["content"]):
        raise ApiError(400, "The last message is empty; ask something.", "messages", "invalid_value")
    return turns, urls


def _video_urls(messages: list[Message]) -> list[_Url]:
    """The videos of a chat, in order."""
    return [
        (part.video_url.url, f"messages.{number}.content.{part_number}")
        for number, message in enumerate(messages)
        for part_number, part in enumerate(message.content)
        if isinstance(part, VideoPart)
    ]


def _check_shown(service: Service, num_images: int, num_videos: int) -> None:
    """Refuses chats that show too much, or videos that the checkpoint does not understand.

    Raises:
        ApiError: 400.
    """
    settings = service.settings
    for kind, count, most in (
        ("images", num_images, settings.max_images),
        ("videos", num_videos, settings.max_videos),
    ):
        if count > most:
            raise ApiError(
                400,
                f"The chat holds {count} {kind}, but may hold {most}; leave some out.",
                "messages",
                "invalid_value",
            )
    if num_videos:
        service.check_task(VIDEO, "understands no videos; send frames as images", "messages")


def _check_chars(service: Service, messages: list[Message], limit: int) -> None:
    """Refuses chats with more characters in all of their messages together, and of more messages than tokens.

    Raises:
        ApiError: 400.
    """
    parts = [part for message in messages for part in message.content if isinstance(part, TextPart)]
    num_chars = sum(len(part.text) for part in parts)
    if num_chars > limit:
        raise ApiError(
            400,
            f"The chat has {num_chars} characters, but may have {limit}; shorten it.",
            "messages",
            "string_above_max_length",
        )
    _check_length(service, len(messages))


async def _drawings(
    service: Service, body: ChatBody, turns: list[dict[str, Any]], urls: list[_Url], images: RequestImages
) -> list[Job]:
    """Drawings from the last message alone; its images, if it has some, are edited. No other image is opened."""
    content = turns[-1]["content"]
    own = [part for part in content if part["type"] == "image"]
    if len(own) > 1 and not service.abilities.several_sources:
        raise ApiError(
            400, f"The last message holds {len(own)} images, but an edit takes one.", "messages", "invalid_value"
        )
    prompt = "\n".join(part["text"] for part in content if part["type"] == "text")
    mine = urls[len(urls) - len(own) :]
    return service.drawings(body, prompt, [await images.open_url(*url) for url in mine])


async def _answers(
    service: Service, body: ChatBody, turns: list[dict[str, Any]], urls: list[_Url], images: RequestImages
) -> list[Job]:
    """Jobs for the answers that a request asks for."""
    service.check_count(body.n)
    service.check_task(UNDERSTANDING, "answers no questions; ask for 'image' alone in `modalities`", "modalities")
    service.check_negative_prompt(body.negative_prompt)
    mode: Literal["text", "auto"] = "auto" if "image" in body.modalities else "text"
    given = {name: value for name, value in body.given().items() if name not in TEXT_FIELDS}
    drawing = service.check_settings(given)
    if mode == "auto":
        service.check_task(GENERATION, "does not draw; leave 'image' out of `modalities`", "modalities")
        try:
            service.abilities.check_drawing_in_chats()
        except ValueError as error:
            raise ApiError(400, str(error), "modalities", "invalid_value") from error
        service.size(body)  # refuses one that is too large, before any image is opened
    elif body.size != "auto" or body.aspect_ratio or body.negative_prompt or drawing:
        fields = ["size", "aspect_ratio", *(one.name for one in body.settings if one.name not in TEXT_FIELDS)]
        raise ApiError(
            400,
            f"{', '.join(f'`{name}`' for name in fields)} and `negative_prompt` are for drawing; add 'image' to "
            "`modalities`.",
            "modalities",
            "invalid_value",
        )
    inputs = await _inputs(service, body, turns, urls, images, mode)
    settings = TextSettings(body.temperature or 0.0, body.top_k or 0, 1.0 if body.top_p is None else body.top_p)
    if settings.temperature == 0:
        settings = TextSettings()  # nothing is sampled, so all such answers go together
    seed, budget = first_seed(body.seed), _budget(service, body, inputs["input_ids"].shape[1])
    tasks = (VIDEO,) if _video_urls(body.messages) else ()
    requests = [
        Answer(inputs, mode, seed + k, settings, budget, tuple(body.stop), drawing, tasks) for k in range(body.n)
    ]
    return make_jobs(requests, _num_bytes(inputs))


async def _inputs(
    service: Service,
    body: ChatBody,
    turns: list[dict[str, Any]],
    urls: list[_Url],
    images: RequestImages,
    mode: str,
) -> Any:
    """The processor's tensors for a chat.

    The images of few chats are open at once: those of chats that wait for their turn are still files.

    Raises:
        ApiError: if an image cannot be used, or the chat does not fit.
    """
    videos = _video_urls(body.messages)
    async with service.images.chats.place(images.client) if urls or videos else contextlib.nullcontext():
        opened = [await images.open_url(*url) for url in urls]
        options: dict[str, Any] = await _videos(service, videos, images)
        if mode == "auto":
            like = opened[-1] if opened and service.abilities.edits else None  # what a drawing would edit
            height, width = service.size(body, like)
            options = {"height": height, "width": width, "negative_prompt": body.negative_prompt or None}
        async with service.preparing:
            try:
                return await asyncio.to_thread(_prepare, service, turns, opened, mode, options)
            except ValueError as error:
                raise ApiError(400, str(error), "messages", "invalid_value") from error


async def _videos(service: Service, urls: list[_Url], images: RequestImages) -> dict[str, Any]:
    """The processor's arguments for the videos of a chat.

    Raises:
        ApiError: if one cannot be used.
    """
    if not urls:
        return {}
    seconds = service.settings.video_timeout
    most = min(service.settings.max_prompt_tokens, service.abilities.max_positions) // len(urls)
    seen = []
    for url, param in urls:
        video, used = await open_video(images, service.processor, url, param, seconds, most)
        seen.append(video)
        seconds -= used
    arguments: dict[str, Any] = {"videos": seen}
    if "max_video_tokens" in service.abilities.video_options:
        arguments["max_video_tokens"] = most
    return arguments


def _prepare(
    service: Service, turns: list[dict[str, Any]], images: list[Image.Image], mode: str, options: dict[str, Any]
) -> Any:
    processor = service.processor
    _check_length(service, processor.count_tokens(_shown(turns, images), may_draw=mode == "auto"))
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return processor(text=[text], images=images or None, generation_mode=mode, return_tensors="pt", **options)


def _shown(turns: list[dict[str, Any]], images: list[Image.Image]) -> list[dict[str, Any]]:
    """The chat with its images in their places."""
    queue = iter(images)
    return [
        {
            **turn,
            "content": [
                {**part, "image": next(queue)} if part["type"] == "image" else part for part in turn["content"]
            ],
        }
        for turn in turns
    ]


def _check_length(service: Service, num_tokens: int) -> None:
    """Refuses chats of so many tokens or more if they do not fit.

    Raises:
        ApiError: 400.
    """
    most = min(service.settings.max_prompt_tokens, service.abilities.max_positions - 1)
    if num_tokens > most:
        raise ApiError(
            400,
            f"The chat has at least {num_tokens} tokens, images included, but may have {most}; shorten it.",
            "messages",
            "context_length_exceeded",
        )


def _budget(service: Service, body: ChatBody, num_prompt_tokens: int) -> int:
    """How many tokens the answer may have.

    Raises:
        ApiError: 400 if the chat or what is asked for does not fit.
    """
    _check_length(service, num_prompt_tokens)
    room = service.abilities.max_positions - num_prompt_tokens
    asked = body.max_completion_tokens or body.max_tokens
    most = min(service.settings.max_new_tokens, room)
    if asked is not None and asked > most:
        raise ApiError(
            400,
            f"`max_tokens` is {asked}, but may be {most} here; ask for less.",
            "max_tokens",
            "context_length_exceeded",
        )
    return asked or min(DEFAULT_NEW_TOKENS, most)


def _num_bytes(inputs: Any) -> int:
    tensors = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
    return sum(tensor.nbytes for tensor in tensors)


async def _as_image_part(event: Picture, index: int) -> dict[str, Any]:
    return {"type": "image_url", "index": index, "image_url": {"url": data_uri(await encode(event.image))}}


def _usage(endings: list[Ending]) -> dict[str, Any]:
    prompt = endings[0].num_prompt_tokens if endings else 0
    written = sum(ending.num_new_tokens for ending in endings)
    reused = {"cached_tokens": endings[0].num_reused_tokens if endings else 0}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": reused,
    }


async def _whole(service: Service, request: Request, body: ChatBody, jobs: list[Job]) -> dict[str, Any]:
    """The answer in one piece."""
    words: list[list[str]] = [[] for _ in jobs]
    images: list[list[dict[str, Any]]] = [[] for _ in jobs]
    endings: dict[int, Ending] = {}
    async with service.working(request, jobs) as events:
        async for index, event in events:
            service.count(event)
            if isinstance(event, Text):
                words[index].append(event.text)
            elif isinstance(event, Picture):
                images[index].append(await _as_image_part(event, len(images[index])))
                endings.setdefault(index, Ending("stop", 0, event.num_tokens))
            elif isinstance(event, Ending):
                endings[index] = event
    choices = []
    for index in range(len(jobs)):
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words[index]), "refusal": None}
        if images[index]:
            message |= {"content": message["content"] or None, "images": images[index]}
        choices.append({"index": index, "message": message, "finish_reason": endings[index].reason, "logprobs": None})
    head = _head(service, "chat.completion")
    return {**head, "choices": choices, "usage": _usage(list(endings.values())), **service.notices(jobs)}


async def _chunks(service: Service, request: Request, body: ChatBody, jobs: list[Job]) -> AsyncIterator[str]:
    """The answer piece by piece."""
    head = _head(service, "chat.completion.chunk")
    begun: set[int] = set()
    num_images = [0] * len(jobs)
    endings: dict[int, Ending] = {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> str:
        notices = {} if begun else service.notices(jobs)  # with the first one
        if index not in begun:
            begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
        return sse({**head, "choices": [choice], **notices})

    async with service.working(request, jobs) as events:
        async for index, event in events:
            service.count(event)
            if isinstance(event, Text):
                yield chunk(index, {"content": event.text})
            elif isinstance(event, Picture):
                yield chunk(index, {"images": [await _as_image_part(event, num_images[index])]})
                num_images[index] += 1
                if not isinstance(jobs[index].request, Answer):  # a drawing ends with its picture
                    endings[index] = Ending("stop", 0, event.num_tokens)
                    yield chunk(index, {}, "stop")
            elif isinstance(event, Ending):
                endings[index] = event
                yield chunk(index, {}, event.reason)
    if body.stream_options.include_usage:
        yield sse({**head, "choices": [], "usage": _usage(list(endings.values()))})
    yield "data: [DONE]\n\n"


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": service.settings.name,
    }
