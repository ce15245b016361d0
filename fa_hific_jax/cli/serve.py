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

from fa_hific_jax.cli import runtime, values
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
    parser.add_argument("--port", type=values.port, default=7860, help="port to listen on (7860)")
    parser.add_argument(
        "--max-mb",
        type=values.positive,
        default=32,
        metavar="N",
        help="megabytes of a dropped file (32)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=values.positive,
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
        _use_no_proxy()
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
        if error.name in ("gradio", None):
            raise UserError("the page needs Gradio: pip install 'fa-hific-jax[demo]'") from error
        raise UserError(f"Gradio is installed and cannot be imported: {error}") from error
    return gradio


def _launch(blocks: Any, host: str, port: int, options: dict[str, Any]) -> None:
    try:
        blocks.launch(server_name=host, server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on, it may be taken: give another --port or --host"
        ) from error


def _use_no_proxy() -> None:
    """Takes proxies out of the environment: Gradio asks its own page through them otherwise."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ["NO_PROXY"] = "*"  # also those of the system's settings
