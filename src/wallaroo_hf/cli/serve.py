"""`wallaroo serve`: a model behind OpenAI's API. torch and FastAPI are imported when the command runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from .options import BUILT_IN, CheckWeights, Device, Model, quiet

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Model = BUILT_IN,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's name in requests. Default: its folder's name.", show_default=False)
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="WALLAROO_API_KEY",
            show_envvar=True,
            help="Key that requests must bring; may be repeated. The environment variable keeps it out of process lists.",
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Images or answers computed at once.")] = 8,
    window: Annotated[
        str | None,
        typer.Option(
            help="Codes of an image that a forward may decide: a number, or auto; the same images. Default: 1."
        ),
    ] = None,
    prefix_cache: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MIB",
            help="Memory for what was read of chats, so that a turn reads only what is new; 0: none.",
        ),
    ] = 512,
    max_wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for others to share a batch with.")] = 0.01,
    max_queue: Annotated[int, typer.Option(min=1, help="Images and answers that may wait; more get 429.")] = 128,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a request may take, waiting included.")] = 600,
    shutdown_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that running work may take once the server is told to stop.")
    ] = 300,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections of clients at once, as far as the limit of open files allows.")
    ] = 1024,
    image_timeout: Annotated[
        float, typer.Option(min=0.01, help="Seconds of computing that a request's images may take to be decoded.")
    ] = 5,
    max_image_pixels: Annotated[int, typer.Option(min=1, help="Largest image to read, width x height.")] = 2**24,
    max_output_pixels: Annotated[int, typer.Option(min=256, help="Largest image to draw, width x height.")] = 2**20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 4096,
    url_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host that images may be fetched from by URL; may be repeated. Default: none.", metavar="HOST"
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which clients call this server; may be repeated. Default: localhost where it listens there, "
            "else any.",
            metavar="NAME",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may use the server; may be repeated. Default: none."),
    ] = None,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="Precision of the weights: auto, bfloat16, float16 or float32.")] = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Serve a model over OpenAI's API: images, edits and chats."""
    if api_key is None and "WALLAROO_API_KEY" in os.environ:
        raise ValueError("WALLAROO_API_KEY is set but empty, which would let everyone in; give it a key or unset it.")
    try:
        from ..web.server import create_app, listen, make_server
        from ..web.server_settings import ServerSettings
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The server needs the package '{error.name}'; install it with: pip install 'wallaroo-hf[serve]'."
        ) from error
    from . import running

    quiet()
    hosts = tuple(allowed_host or (LOOPBACK if host in LOOPBACK else ()))
    settings = ServerSettings(
        name=name or _name(model),
        api_keys=tuple(api_key or ()),
        max_batch=max_batch,
        window=int(window) if window is not None and window.isdigit() else window,
        prefix_cache=prefix_cache,
        max_wait=max_wait,
        max_queue=max_queue,
        timeout=timeout,
        shutdown_timeout=shutdown_timeout,
        max_connections=max_connections,
        image_timeout=image_timeout,
        max_image_pixels=max_image_pixels,
        max_output_pixels=max_output_pixels,
        max_new_tokens=max_new_tokens,
        url_hosts=tuple(url_host or ()),
        allowed_hosts=hosts,
        cors_origins=tuple(cors_origin or ()),
    )
    listener, address = listen(host, port)  # before the model is loaded, which may take long
    checkpoint = running.load_checkpoint(model, device, dtype, check_weights)
    server = make_server(create_app(checkpoint.model, checkpoint.processor, settings))
    if host not in LOOPBACK and not settings.api_keys:
        typer.echo(
            "Everyone who reaches this address may use the model; set WALLAROO_API_KEY to ask for a key.", err=True
        )
    typer.echo(f"Serving '{settings.name}' at {address}/v1 (Ctrl-C stops)")
    server.run(sockets=[listener])


def _name(model: str) -> str:
    return "wallaroo-built-in" if model == BUILT_IN else Path(model).name or "wallaroo"
