"""`/v1/images/generations` and `/v1/images/edits`."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response

from .batching import Job
from .bodies import TextRoute, check_charset
from .errors import ApiError, from_validation
from .event_stream import sse, stream
from .images import encode
from .requests import Picture, Preview
from .schemas import EditBody, GenerationBody, ImageOptions
from .service import Service, client_of

_MAX_FIELDS = 40


_Edit: TypeAlias = tuple[EditBody, list[Image.Image], Image.Image | None]  # with its images and its mask


def image_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    routes = APIRouter(route_class=TextRoute)

    async def generations(request: Request, body: GenerationBody) -> Any:
        """Draws images from a prompt."""
        service.check_model(body.model)
        return await _draw(service, request, body, ())

    generations.__annotations__["body"] = service.generation_body  # with the fields of this checkpoint's settings
    routes.post("/v1/images/generations")(generations)

    form = {"multipart/form-data": {"schema": {"type": "object"}}, "application/json": {"schema": {"type": "object"}}}

    @routes.post("/v1/images/edits", openapi_extra={"requestBody": {"content": form}})
    async def edits(request: Request) -> Any:
        """Edits an image, within a mask if there is one, or by what others show; multipart with files, or JSON with data:
        URIs."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            body, sources, mask = await _read_form(service, request)
        elif kind == "application/json":
            body, sources, mask = await _read_json(service, request)
        else:
            raise ApiError(
                415,
                f"The content type is '{kind[:60]}', but must be multipart/form-data or application/json.",
                code="unsupported_content_type",
            )
        return await _draw(service, request, body, sources, mask)

    return routes


async def _read_form(service: Service, request: Request) -> _Edit:
    """The fields of a form, and the pictures in its files."""
    check_charset(request.headers["content-type"])
    most = service.settings.max_images + 2  # images, a mask, and one more to say that there is one too many
    async with request.form(max_files=most, max_fields=_MAX_FIELDS, max_part_size=2**20) as form:
        fields: dict[str, Any] = {}
        uploads: list[Any] = []
        masks: list[Any] = []
        for name, value in form.multi_items():
            if name in ("image", "image[]"):
                uploads.append(value)
            elif name == "mask":
                masks.append(value)
            elif name in fields or isinstance(value, UploadFile):
                raise ApiError(
                    400, f"`{name}` must be one value, but is a file or given twice.", name, "invalid_value"
                )
            else:
                fields[name] = value
        body = _validate(service, fields)
        service.check_model(body.model)
        _check_count(service, len(uploads), all(isinstance(upload, UploadFile) for upload in uploads))
        if len(masks) > 1 or not all(isinstance(mask, UploadFile) for mask in masks):
            raise _one_mask()
        # one byte beyond the limit is enough to know; the reader then says so
        length = service.settings.max_image_bytes + 1
        files = [await upload.read(length) for upload in uploads]
        mask_data = await masks[0].read(length) if masks else None
    images = service.images.of(client_of(request))
    sources = [await images.open_bytes(data, "image") for data in files]
    return body, sources, None if mask_data is None else await images.open_bytes(mask_data, "mask", is_mask=True)


async def _read_json(service: Service, request: Request) -> _Edit:
    """The fields of a JSON object, and the pictures behind its data: URIs."""
    fields = await request.json()
    body = _validate(service, fields)
    service.check_model(body.model)
    given = [*_as_list(body.image), *_as_list(body.images)]
    urls: list[Any] = [item.get("image_url") if isinstance(item, dict) else item for item in given]
    _check_count(service, len(urls), all(isinstance(url, str) for url in urls))
    mask = body.mask.get("image_url") if isinstance(body.mask, dict) else body.mask
    if mask is not None and not isinstance(mask, str):
        raise _one_mask()
    images = service.images.of(client_of(request))
    sources = [await images.open_url(url, "image") for url in urls]
    return body, sources, None if mask is None else await images.open_url(mask, "mask", is_mask=True)


def _validate(service: Service, fields: Any) -> EditBody:
    try:
        return service.edit_body.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error.errors()) from error


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _check_count(service: Service, count: int, are_images: bool) -> None:
    """Refuses an edit without images, of too many, or of what is none.

    Raises:
        ApiError: 400.
    """
    most = service.settings.max_images if service.abilities.several_sources else 1
    if not are_images or not 1 <= count <= most:
        wanted = "exactly one" if most == 1 else f"one to {most}, of which the last one is changed"
        raise ApiError(
            400,
            f"{count} images were given, but an edit takes {wanted}: files, or data: URIs in JSON.",
            "image",
            "invalid_value",
        )


def _one_mask() -> ApiError:
    return ApiError(
        400,
        "`mask` must be one picture: a file, or a data: URI in JSON; leave it out to edit all.",
        "mask",
        "invalid_value",
    )


async def _draw(
    service: Service,
    request: Request,
    body: ImageOptions,
    sources: Sequence[Image.Image],
    mask: Image.Image | None = None,
) -> Any:
    """Draws and answers, streaming or not."""
    previews = body.partial_images if body.stream else 0
    outpaint = body.outpaint if isinstance(body, EditBody) else None
    jobs = service.drawings(body, body.prompt, sources, previews, mask, outpaint)
    if body.stream:
        kind = "image_edit" if sources else "image_generation"
        return await stream(_chunks(service, request, body, jobs, kind))
    pictures: list[Any] = [None] * len(jobs)
    async with service.working(request, jobs) as events:
        async for index, event in events:
            service.count(event)
            if isinstance(event, Picture):
                pictures[index] = event.image
    data = [
        {"b64_json": await encode(picture, body.output_format, body.output_compression), "seed": job.request.seed}
        for picture, job in zip(pictures, jobs, strict=True)
    ]
    answer = {"created": int(time.time()), "data": data, **_looks(body, pictures[0]), **service.notices(jobs)}
    return Response(json.dumps(answer), media_type="application/json")  # much text: no second look at it


async def _chunks(
    service: Service, request: Request, body: ImageOptions, jobs: list[Job], kind: str
) -> AsyncIterator[str]:
    """Previews and images as OpenAI's events; with several images, `index` and `seed` say which one it is."""
    async with service.working(request, jobs) as events:
        async for index, event in events:
            service.count(event)
            if not isinstance(event, (Preview, Picture)):
                continue
            data: dict[str, Any] = {
                "b64_json": await encode(event.image, body.output_format, body.output_compression),
                "created_at": int(time.time()),
                "index": index,
                "seed": jobs[index].request.seed,
                **_looks(body, event.image),
            }
            name = f"{kind}.{'completed' if isinstance(event, Picture) else 'partial_image'}"
            if isinstance(event, Preview):
                data["partial_image_index"] = event.index
            else:
                data |= service.notices(jobs)
            yield sse({"type": name, **data}, name)


def _looks(body: ImageOptions, image: Image.Image) -> dict[str, str]:
    return {
        "size": f"{image.width}x{image.height}",
        "output_format": body.output_format,
        "background": "opaque",
        "quality": "auto",
    }
