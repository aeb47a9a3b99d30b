"""`wallaroo app`: a page in the browser. torch and gradio are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from ..files.whole import require_folder
from .options import BUILT_IN, CheckWeights, Device, Model, quiet


def serve_page(
    model: Model = BUILT_IN,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default lets only this machine in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port. Default: the first free one from 7860.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path(
        "wallaroo-pictures"
    ),
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="Precision of the weights: auto, bfloat16, float16 or float32.")] = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Draw, edit, ask and chat on a page in your browser. Nothing leaves this machine."""
    require_folder(output)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError(f"The page needs gradio ({error}); run pip install 'wallaroo-hf[app]'.") from error
    from ..web.app import launch
    from ..web.app_engine import Engine
    from ..web.ports import require_free
    from .running import load_checkpoint

    quiet()
    if port is not None:
        require_free(host, port)  # before the model is loaded, which may take long
    checkpoint = load_checkpoint(model, device, dtype, check_weights)
    name = "built-in checkpoint" if model == BUILT_IN else Path(model).name
    engine = Engine(checkpoint.model, checkpoint.processor, name, output.resolve())
    page, url = launch(engine, host, port, open_browser)
    typer.echo(f"Wallaroo is at {url} (Ctrl-C stops it); pictures are saved in {output}")
    page.block_thread()
