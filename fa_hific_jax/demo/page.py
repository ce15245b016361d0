"""The web page: what a visitor can drop, and what is shown. The caller passes the Gradio module."""

import functools
import hashlib
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.pixels import write_image
from fa_hific_jax.data.images import Picture, image_size, on_white, read_image
from fa_hific_jax.demo import pictures
from fa_hific_jax.demo.equal_size import Image, bpp, opaque
from fa_hific_jax.errors import PER_FILE, UserError, about
from fa_hific_jax.evaluation import baselines, bits
from fa_hific_jax.metrics import psnr
from fa_hific_jax.models import padded_shape
from fa_hific_jax.writing import write

_INTRODUCTION = """# FA-HiFiC
A learned image codec. The image that you drop here is compressed and decoded again, and shown
beside a JPEG file of the same size. Nothing leaves the machine that serves this page."""
_HOUR = 3600


class Limits(NamedTuple):
    """Limits of a file: its megabytes, and its megapixels after padding to blocks of 64 x 64."""

    megabytes: float
    megapixels: float

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1e6)


class Coded(NamedTuple):
    """An image that was coded by the model and by JPEG."""

    name: str  # of the dropped file, without folder and suffix
    original: Image  # with transparency laid on white
    data: bytes  # the model's file
    jpeg: baselines.Coded  # the JPEG file whose size is nearest to that
    notes: tuple[str, ...]  # on what was not kept of the dropped file


def code(model: Model, path: Path, quality: float | None, max_pixels: int) -> Coded:
    """Codes the image in a file of any kind that Pillow reads with the model and with JPEG.

    `quality` is None for a model with a single rate. `max_pixels` limits the image after padding to
    blocks of 64 x 64.

    Raises:
      UserError: the file is not an image, it is damaged or too large, or JPEG cannot hold it.
    """
    height, width = image_size(path)
    if np.prod(padded_shape(height, width)) > max_pixels:
        raise UserError(
            f"{path}: {width} x {height} pixels are over the limit of {max_pixels / 1e6:g} "
            "megapixels, counted in blocks of 64 x 64: cut it into parts, or raise --max-megapixels"
        )
    original, notes = opaque(read_image(path))
    data = model.compress(original, quality=quality)
    jpeg = baselines.encode_nearest(original, "jpeg", len(data))
    return Coded(path.stem, original, data, jpeg, notes)


def table(coded: Coded, decoded: Image) -> str:
    """Returns size, rate and PSNR of both files as a Markdown table, followed by the notes."""
    lines = ["| | bytes | bits per pixel | PSNR, dB | |", "|:--|--:|--:|--:|:--|"]
    for label, setting, data, image in (
        ("this model", "", coded.data, decoded),
        ("JPEG", coded.jpeg.setting, coded.jpeg.data, coded.jpeg.image),
    ):
        size, rate, distance = len(data), bpp(data, image), psnr(coded.original, image)
        lines.append(f"| {label} | {size:,} | {rate:.3f} | {distance:.2f} | {setting} |")
    height, width, _ = coded.original.shape
    notes = "".join(f"; {note}" for note in coded.notes)
    return "\n".join(lines) + f"\n\n{width} x {height} pixels{notes}."


def build(gr: Any, model: Model, limits: Limits, folder: Path) -> Any:
    """Returns the page as `gradio.Blocks`, to be launched with `launch_options`.

    `gr` is the module `gradio`. The files that visitors download are written to `folder`.
    """
    title, deleted = "FA-HiFiC: your image in fewer bytes", (_HOUR, _HOUR)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=deleted) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Tab("Compress"):
            _compressing(gr, model, limits, folder)
        with gr.Tab("Decompress"):
            _decompressing(gr, model, limits, folder)
    return page


def launch_options(gr: Any, limits: Limits) -> dict[str, Any]:
    """Returns keywords of `Blocks.launch` for a page that contacts no other machine."""
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    # Gradio's own message counts in units of 2**20 bytes.
    size = int(limits.megabytes * 2**20)
    unused = dict.fromkeys(("share", "run_history", "ssr_mode", "mcp_server", "pwa"), False)
    theme = gr.themes.Default(**fonts)
    return {"theme": theme, "max_file_size": size, "footer_links": [], "quiet": True, **unused}


def _compressing(gr: Any, model: Model, limits: Limits, folder: Path) -> None:
    with gr.Row():
        dropped = gr.File(label=f"Image, {_up_to(limits)}", height=150, elem_id="image")
        with gr.Column():
            missing = "" if model.config.qualities else "This model has a single rate."
            quality = _slider(gr, "Quality", 0.5, "", missing, "quality")
            detail = _detail(gr, model, "detail")
    summary, download = _outcome(gr, "Download the compressed file", "summary", "file")
    with gr.Row():
        # PNG, because the default, lossy WebP, would alter the results of both codecs.
        options = {"format": "png", "interactive": False, "min_width": 320}
        ours = gr.ImageSlider(label="Original | this model", elem_id="ours", **options)
        jpeg = gr.ImageSlider(label="JPEG of that size | this model", **options)
    with gr.Row():
        labels = ("original", "this model", "JPEG")
        spectra = [_picture(gr, f"Log spectrum: {label}") for label in labels]
        heat = _picture(gr, "Where this model's bits go", "heat")
    legend = gr.Markdown()

    @functools.lru_cache(maxsize=2)
    def coded(path: str, quality: float | None) -> Coded:
        return code(model, Path(path), quality, limits.pixels)

    def show(path: str, quality: float, detail: float) -> list[Any]:
        found = coded(path, quality if model.config.qualities else None)
        decoded = model.decompress(found.data, detail=detail if model.config.fcm_width else None)
        spectrum, (low, high) = pictures.spectra([found.original, decoded, found.jpeg.image])
        costs, most = pictures.heat(bits.of_file(model.entropy, found.data), found.original)
        file = folder / hashlib.sha256(found.data).hexdigest() / f"{found.name}{SUFFIX}"
        write(file, found.data)
        return [
            table(found, decoded),
            gr.update(value=str(file), interactive=True),
            (found.original, decoded),
            (found.jpeg.image, decoded),
            *spectrum,
            costs,
            f"Spectra: from {low:.0f} dB (black) to {high:.0f} dB (yellow), frequency 0 in the "
            f"middle. Bits: from 0 (black) to {most:.3g} bits per pixel (yellow).",
        ]

    outputs = [summary, download, ours, jpeg, *spectra, heat, legend]
    _connect(gr, show, dropped, [quality, detail], outputs)


def _decompressing(gr: Any, model: Model, limits: Limits, folder: Path) -> None:
    with gr.Row():
        label = f"File of this model ({SUFFIX}), {_up_to(limits)}"
        dropped = gr.File(label=label, height=150, elem_id="bitstream")
        detail = _detail(gr, model, "redetail")
    summary, download = _outcome(gr, "Download as PNG", "decoded-summary", "png")
    with gr.Row():
        image = _picture(gr, "Decoded", "decoded")
        spectrum = _picture(gr, "Its log spectrum")
        heat = _picture(gr, "Where its bits go")

    def show(path: str, detail: float) -> list[Any]:
        data = Path(path).read_bytes()
        chosen = detail if model.config.fcm_width else None
        picture = model.decompress_picture(data, detail=chosen, max_pixels=limits.pixels)
        shown = on_white(Picture(*picture))
        (spectral,), _ = pictures.spectra([shown])
        costs, _ = pictures.heat(bits.of_file(model.entropy, data), shown)
        height, width, _ = shown.shape
        rate = bpp(data, shown)
        file = folder / hashlib.sha256(data).hexdigest() / f"{detail:g}" / f"{Path(path).stem}.png"
        write_image(file, *picture)
        return [
            f"{width} x {height} pixels from {len(data):,} bytes, {rate:.3f} bits per pixel.",
            gr.update(value=str(file), interactive=True),
            shown,
            spectral,
            costs,
        ]

    _connect(gr, show, dropped, [detail], [summary, download, image, spectrum, heat])


def _connect(
    gr: Any, show: Callable[..., list[Any]], dropped: Any, sliders: list[Any], outputs: list[Any]
) -> None:
    """Shows the dropped file, and updates the page when a slider moves.

    A new file first clears the page, so that nothing of the last file remains if it is refused.
    """
    empty = [None, gr.update(value=None, interactive=False), *[None] * len(outputs[2:])]

    def shown(path: str | None, *choices: float) -> list[Any]:
        if path is None:
            return empty
        try:
            return show(path, *choices)
        except PER_FILE as error:
            said = _sentence(Path(path), error)
            raise gr.Error(said, duration=None, print_exception=False) from error

    task = {
        "fn": shown,
        "inputs": [dropped, *sliders],
        "outputs": outputs,
        "show_progress_on": outputs[2],
        "concurrency_id": "model",  # One file at a time, over all visitors.
    }
    # `change` would show a file twice if another one was taken away before.
    emptied = {"fn": lambda: empty, "outputs": outputs, "queue": False, "show_progress": "hidden"}
    dropped.clear(**emptied)
    dropped.upload(**emptied).then(**task)
    gr.on([slider.change for slider in sliders], trigger_mode="always_last", **task)


def _sentence(path: Path, error: Exception) -> str:
    """Returns the HTML of an error, with the file's name in place of its temporary path."""
    return html.escape(about(path, error).replace(str(path), path.name))


def _slider(gr: Any, label: str, value: float, info: str, missing: str, name: str) -> Any:
    """Returns a slider from 0 to 1; if the model has no such choice, it is fixed and says why."""
    options = {"step": 0.05, "info": missing or info, "interactive": not missing, "elem_id": name}
    return gr.Slider(0, 1, value, label=label, **options)


def _detail(gr: Any, model: Model, name: str) -> Any:
    info = "0 is nearest to the original's pixels, 1 to its spectrum."
    missing = "" if model.config.fcm_width else "This model has no frequency complement modules."
    return _slider(gr, "Detail", 1.0, info, missing, name)


def _picture(gr: Any, label: str, name: str | None = None) -> Any:
    buttons = ["download", "fullscreen"]
    return gr.Image(label=label, format="png", interactive=False, buttons=buttons, elem_id=name)


def _outcome(gr: Any, button: str, text_name: str, button_name: str) -> tuple[Any, Any]:
    with gr.Row():
        with gr.Column(scale=3):
            text = gr.Markdown(elem_id=text_name)
        with gr.Column(scale=1):
            download = gr.DownloadButton(button, size="md", interactive=False, elem_id=button_name)
    return text, download


def _up_to(limits: Limits) -> str:
    return f"up to {limits.megabytes:g} MB and {limits.megapixels:g} megapixels"
