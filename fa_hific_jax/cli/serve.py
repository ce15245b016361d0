"""`fa-hific serve`: a web page that compresses."""

import argparse
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from fa_hific_jax.cli import arguments, runtime
from fa_hific_jax.codec import shipped
from fa_hific_jax.errors import UserError


def serve(parser: argparse.ArgumentParser) -> arguments.Run:
    """Serve a web page that compresses the images dropped on it.

      fa-hific serve                                 then open http://127.0.0.1:7860 in a browser
      fa-hific serve --model models/mine --port 8000
      fa-hific serve --host 0.0.0.0                  for everyone who can reach this machine

    The page shows each image beside its decoded version and a JPEG of the same file size, with
    their spectra and a map of where the bits go. The compressed file can be downloaded, and dropped
    on the page to be decoded. Nothing is sent to any other machine. Ctrl-C ends the page and
    deletes all images. It needs the extra fa-hific-jax[demo].
    """
    arguments.add_model(parser)
    add, limit = parser.add_argument, {"type": arguments.positive, "metavar": "N"}
    what = "address to listen on (default: 127.0.0.1, which only this machine can reach)"
    add("--host", default="127.0.0.1", help=what)
    add("--port", type=arguments.port, default=7860, help="port to listen on (default: 7860)")
    what = "largest size of a dropped file in megabytes (default: 32)"
    add("--max-mb", default=32, help=what, **limit)
    what = "largest size of an image in megapixels, in blocks of 64 x 64 pixels (default: 16)"
    add("--max-megapixels", default=16, help=what, **limit)
    return _run


def _run(args: argparse.Namespace) -> None:
    name = shipped.model_to_use(args.model)
    with tempfile.TemporaryDirectory(prefix="fa-hific-") as folder:
        # Gradio keeps all images here, so that they are deleted with the folder.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "gradio")
        # Gradio would request its own page through the proxies of the environment or the system.
        os.environ |= {name: "" for name in os.environ if name.lower().endswith("_proxy")}
        os.environ["NO_PROXY"] = "*"
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
        told = f"the page needs Gradio, which cannot be imported ({error})"
        raise UserError(f"{told}: pip install 'fa-hific-jax[demo]'") from error
    return gradio


def _launch(blocks: Any, host: str, port: int, options: dict[str, Any]) -> None:
    try:
        blocks.launch(server_name=host, server_port=port, prevent_thread_lock=True, **options)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}, it may be in use: give another --port or --host"
        ) from error
