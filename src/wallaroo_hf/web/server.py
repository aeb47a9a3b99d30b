"""The app behind `wallaroo serve`, and running it."""

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from .._version import __version__
from ..families.abilities import UNDERSTANDING
from ..families.contract import DrawingModel, DrawingProcessor
from .chat_routes import chat_routes
from .connections import ACCEPTED_AT_ONCE, Connections, QuietLoop, guarded, most_connections
from .errors import ApiError, install_handlers
from .guard import Guard
from .image_routes import image_routes
from .images import ImageReader
from .ports import BACKLOG, listen
from .server_settings import ServerSettings
from .service import Service


def create_app(
    model: DrawingModel,
    processor: DrawingProcessor,
    settings: ServerSettings | None = None,
    reader: ImageReader | None = None,
) -> FastAPI:
    """An app that serves a loaded checkpoint; `app.state.service` is its [`Service`].

    Args:
        model, processor: the checkpoint, on its device. Nobody else may use them while the app runs.
        settings: limits and options.
        reader: opens images; made from the settings where none is given.

    Raises:
        ValueError: for settings that the checkpoint cannot have.
    """
    settings = settings or ServerSettings()
    service = Service(model, processor, settings, reader)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        service.images.start()
        yield
        await service.batcher.drain()
        service.images.close()

    app = FastAPI(title="wallaroo-hf", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    install_handlers(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)  # added last, so it comes first
    app.include_router(image_routes(service))
    app.include_router(chat_routes(service))
    _add_small_routes(app, service)
    return app


def _add_small_routes(app: FastAPI, service: Service) -> None:
    abilities = service.abilities
    entry = {
        "id": service.settings.name,
        "object": "model",
        "created": service.created,
        "owned_by": "wallaroo-hf",
        "input_modalities": ["text", "image", *(("video",) if abilities.videos else ())],
        "output_modalities": [
            *(("text",) if UNDERSTANDING in abilities.tasks else ()),
            *(("image",) if abilities.draws else ()),
        ],
        "tasks": list(abilities.tasks),
        "can_edit": abilities.edits,
        "sizes": [f"{width}x{height}" for height, width in abilities.sizes],
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [entry]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The model, by its name."""
        service.check_model(name)
        return entry

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether new requests are worked on."""
        batcher = service.batcher
        body = {
            "status": "ok" if batcher.alive else "shutting down",
            "model": service.settings.name,
            "waiting": batcher.num_waiting,
            "running": len(batcher.running),
        }
        return JSONResponse(body, 200 if batcher.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/v1/images/variations", methods=["POST"], include_in_schema=False)
    async def variations(_: Request) -> None:
        raise ApiError(
            404,
            "Variations are not supported; send the image to /v1/images/edits with a prompt.",
            code="not_supported",
        )


class Server(uvicorn.Server):
    """Uvicorn that, told to stop, refuses what waits and finishes what runs."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and takes few connections at once, so that each is counted before the next ones."""
        asyncio.get_running_loop().set_exception_handler(QuietLoop())
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio shortened it to what it takes at once

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the queue first, so that requests in it are answered at once."""
        self.config.app.state.service.batcher.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make_server(app: FastAPI) -> Server:
    """A server for an app that [`create_app`] made; `run(sockets=[...])` it.

    SIGTERM and Ctrl-C end it gracefully, a second Ctrl-C at once.
    """
    settings: ServerSettings = app.state.service.settings
    least = (
        logging.ERROR
    )  # warnings of whoever reads requests are about what clients send, who could fill a disk with them
    logging.getLogger("python_multipart").setLevel(least)
    connections = Connections(
        most_connections(settings.max_connections), settings.header_timeout, settings.body_timeout
    )
    return Server(
        uvicorn.Config(
            app,
            log_level=least,
            server_header=False,
            http=guarded(connections),
            loop="asyncio",
            ws="none",
            backlog=ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
        )
    )


__all__ = ["Server", "create_app", "listen", "make_server"]
