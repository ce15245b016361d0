"""Open a page in the browser that codes the images dropped on it.

  fa-hific serve                                 then open http://127.0.0.1:7860
  fa-hific serve --model models/mine --port 8000
  fa-hific serve --host 0.0.0.0                  for whoever reaches this machine

The page shows each image beside its decoded form and JPEG of the same size, with spectra and a map
of where the bits go; the compressed file can be downloaded, and dropped to be decoded. It works
without a network and sends nothing to any other machine. Ctrl-C ends it and deletes what was
dropped. Needs the extra fa-hific-jax[demo].
"""

import argparse
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from fa_hific_jax.cli import runtime
from fa_hific_jax.codec.shipped import DEFAULT
from fa_hific_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="model that `fa-hific export` has written; without, that of the environment variable "
        f"{runtime.MODEL_VARIABLE}, else {DEFAULT}, which comes with the package",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=_port, default=7860, help="port to listen on (7860)")
    parser.add_argument(
        "--max-mb", type=_positive, default=32, metavar="N", help="megabytes of a dropped file (32)"
    )
    parser.add_argument(
        "--max-megapixels",
        type=_positive,
        default=16,
        metavar="N",
        help="megapixels of an image, counted in blocks of 64 x 64 pixels (16)",
    )


def run(args: argparse.Namespace) -> None:
    """Serves the page until interrupted."""
    name = runtime.model_to_use(args.model)
    with runtime.orderly(), tempfile.TemporaryDirectory(prefix="fa-hific-") as folder:
        # Where Gradio keeps what is dropped and shown: so that all of it goes at the end.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "gradio")
        gradio = _gradio()
        from fa_hific_jax.codec.model_folder import load_model
        from fa_hific_jax.demo import page

        runtime.use_compile_cache()
        limits = page.Limits(args.max_mb, args.max_megapixels)
        blocks = page.build(gradio, load_model(name), limits, Path(folder))
        _launch(blocks, args.host, args.port, page.launch_options(gradio, limits))
        try:
            print(f"http://{args.host}:{args.port}  (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)


def _gradio() -> Any:
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("the page needs Gradio: pip install 'fa-hific-jax[demo]'") from error
    return gradio


def _launch(blocks: Any, host: str, port: int, options: dict[str, Any]) -> None:
    try:
        blocks.launch(server_name=host, server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on, it may be taken: give another --port or --host"
        ) from error


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError
    return port


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value
