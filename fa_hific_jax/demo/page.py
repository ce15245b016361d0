"""The web page: what a visitor can drop, and what is shown. The caller passes the Gradio module."""

import functools
import hashlib
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image as PilImage

from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.pixels import write_image
from fa_hific_jax.data.images import Picture, image_size, on_white, read_image
from fa_hific_jax.demo.comparison import Image, opaque
from fa_hific_jax.errors import PER_FILE, UserError, about
from fa_hific_jax.evaluation import baselines, bits
from fa_hific_jax.metrics import psnr
from fa_hific_jax.models import STRIDE, padded_shape
from fa_hific_jax.spectra import LUMA, log_spectrum
from fa_hific_jax.writing import write

_INTRODUCTION = """# FA-HiFiC
A learned image codec. The image that you drop here is compressed and decoded again, and shown
beside a JPEG file of the same size. Nothing leaves the machine that serves this page."""
_HOUR = 3600
# Luma increases from dark to bright, so that the colors can be read in gray as well.
_RAMP = np.array(
    [(0, 0, 6), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    np.float64,
)
_SIDE = 512  # largest side of a drawn spectrum, in pixels
_CLIPPED = 0.5  # percentage of the frequencies at either end that get the color of the end


class Limits(NamedTuple):
    """Limits of a file: its megabytes, and its megapixels after padding to blocks of 64 x 64."""

    megabytes: float
    megapixels: float


class Coded(NamedTuple):
    """An image that was coded by the model and by JPEG."""

    original: Image  # with transparency laid on white
    data: bytes  # the model's file
    jpeg: baselines.Coded  # the JPEG file whose size is nearest to that
    notes: tuple[str, ...]  # on what was not kept of the dropped file


def code(model: Model, path: Path, quality: float | None, megapixels: float) -> Coded:
    """Codes the image in a file of any kind that Pillow reads with the model and with JPEG.

    `quality` is None for a model with a single rate. `megapixels` is that of `Limits`.

    Raises:
      UserError: the file is not an image, it is damaged or too large, or JPEG cannot hold it.
    """
    height, width = image_size(path)
    if np.prod(padded_shape(height, width)) > 1e6 * megapixels:
        raise UserError(
            f"{path}: {width} x {height} pixels are over the limit of {megapixels:g} megapixels, "
            "counted in blocks of 64 x 64: cut it into parts, or raise --max-megapixels"
        )
    original, notes = opaque(read_image(path))
    data = model.compress(original, quality=quality)
    return Coded(original, data, baselines.encode_nearest(original, "jpeg", len(data)), notes)


def table(coded: Coded, decoded: Image) -> str:
    """Returns size, rate and PSNR of both files as a Markdown table, followed by the notes."""
    height, width, _ = decoded.shape
    lines = ["| | bytes | bits per pixel | PSNR, dB | |", "|:--|--:|--:|--:|:--|"]
    for label, setting, data, image in (
        ("this model", "", coded.data, decoded),
        ("JPEG", coded.jpeg.setting, coded.jpeg.data, coded.jpeg.image),
    ):
        rate, distance = 8 * len(data) / (width * height), psnr(coded.original, image)
        lines.append(f"| {label} | {len(data):,} | {rate:.3f} | {distance:.2f} | {setting} |")
    return "\n".join(lines) + f"\n\n{'; '.join((f'{width} x {height} pixels', *coded.notes))}."


def colored(values: Float[np.ndarray, "h w"], low: float, high: float) -> Image:
    """Returns values as colors, from black at `low` over violet and orange to yellow at `high`."""
    ends = np.linspace(low, max(high, low + 1e-9), len(_RAMP))
    channels = [np.interp(values, ends, ramp) for ramp in _RAMP.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def spectra(images: list[Image]) -> tuple[list[Image], tuple[float, float]]:
    """Returns log spectra of images of one size, and the values in dB of black and of yellow.

    All span the range of the first. They are squares of at most 512 x 512 pixels with frequency 0
    in the middle, because both axes go from -0.5 to 0.5 cycles per pixel.
    """
    side = min(_SIDE, max(images[0].shape[:2]))
    drawn = (PilImage.fromarray(log_spectrum(image).astype(np.float32)) for image in images)
    found = [np.asarray(d.resize((side, side), PilImage.Resampling.BOX), float) for d in drawn]
    low, high = np.percentile(found[0], (_CLIPPED, 100 - _CLIPPED))
    return [colored(values, low, high) for values in found], (float(low), float(high))


def heat(found: bits.BitsMap, image: Image) -> tuple[Image, float]:
    """Returns a map of the bits over the gray image, and the bits per pixel that are yellow.

    The map shows the bits of y, plus the bits of z spread evenly over the positions of y that each
    position of z covers. The padding beside the image is cut off.
    """
    repeat = found.y.shape[0] // found.z.shape[0]
    side = STRIDE // repeat
    spread = np.kron(found.z, np.ones((repeat, repeat), np.float32)) / repeat**2
    density = (found.y + spread) / side**2
    height, width, _ = image.shape
    cells = colored(density, 0.0, float(density.max()))
    large = cells.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    gray = (image @ LUMA)[..., None]
    return np.rint(0.7 * large + 0.3 * gray).astype(np.uint8), float(density.max())


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
        dropped = _drop_zone(gr, "Image", limits, "image")
        with gr.Column():
            info = "", "This model has a single rate."
            quality = _slider(gr, "Quality", 0.5, info, model.config.qualities)
            detail = _detail(gr, model)
    summary, download = _outcome(gr, "Download the compressed file", "summary", "file")
    with gr.Row():
        # PNG, because the default, lossy WebP, would alter the results of both codecs.
        options = {"format": "png", "interactive": False, "min_width": 320}
        ours = gr.ImageSlider(label="Original | this model", elem_id="ours", **options)
        jpeg = gr.ImageSlider(label="JPEG of that size | this model", **options)
    with gr.Row():
        labels = ("original", "this model", "JPEG")
        drawn = [_picture(gr, f"Log spectrum: {label}") for label in labels]
        drawn.append(_picture(gr, "Where this model's bits go", "heat"))
    legend = gr.Markdown()

    @functools.lru_cache(maxsize=2)
    def coded(path: Path, quality: float | None) -> Coded:
        return code(model, path, quality, limits.megapixels)

    def show(path: Path, quality: float, detail: float) -> list[Any]:
        found = coded(path, quality if model.config.qualities else None)
        decoded = model.decompress(found.data, detail=detail if model.config.fcm_width else None)
        spectrum, (low, high) = spectra([found.original, decoded, found.jpeg.image])
        costs, most = heat(bits.of_file(model.entropy, found.data), found.original)
        file = folder / hashlib.sha256(found.data).hexdigest() / f"{path.stem}{SUFFIX}"
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

    outputs = [summary, download, ours, jpeg, *drawn, legend]
    _connect(gr, show, dropped, [quality, detail], outputs)


def _decompressing(gr: Any, model: Model, limits: Limits, folder: Path) -> None:
    with gr.Row():
        dropped = _drop_zone(gr, f"File of this model ({SUFFIX})", limits, "bitstream")
        detail = _detail(gr, model)
    summary, download = _outcome(gr, "Download as PNG", "decoded-summary", "png")
    with gr.Row():
        labels = {"Decoded": "decoded", "Its log spectrum": None, "Where its bits go": None}
        shown = [_picture(gr, label, name) for label, name in labels.items()]

    def show(path: Path, detail: float) -> list[Any]:
        data, most = path.read_bytes(), int(1e6 * limits.megapixels)
        chosen = detail if model.config.fcm_width else None
        picture = model.decompress_picture(data, detail=chosen, max_pixels=most)
        image = on_white(Picture(*picture))
        height, width, _ = image.shape
        file = folder / hashlib.sha256(data).hexdigest() / f"{detail:g}" / f"{path.stem}.png"
        write_image(file, *picture)
        return [
            f"{width} x {height} pixels from {len(data):,} bytes, "
            f"{8 * len(data) / (width * height):.3f} bits per pixel.",
            gr.update(value=str(file), interactive=True),
            image,
            spectra([image])[0][0],
            heat(bits.of_file(model.entropy, data), image)[0],
        ]

    _connect(gr, show, dropped, [detail], [summary, download, *shown])


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
            return show(Path(path), *choices)
        except PER_FILE as error:
            said = sentence(Path(path), error)
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


def sentence(path: Path, error: Exception) -> str:
    """Returns the HTML of an error, with the file's name in place of its temporary path."""
    return html.escape(about(path, error).replace(str(path), path.name))


def _drop_zone(gr: Any, what: str, limits: Limits, name: str) -> Any:
    most = f"up to {limits.megabytes:g} MB and {limits.megapixels:g} megapixels"
    return gr.File(label=f"{what}, {most}", height=150, elem_id=name)


def _slider(gr: Any, label: str, value: float, info: tuple[str, str], offered: Any) -> Any:
    """Returns a slider from 0 to 1; `info` is for a model that offers this choice or does not."""
    options = {"step": 0.05, "info": info[not offered], "interactive": bool(offered)}
    return gr.Slider(0, 1, value, label=label, elem_classes=label.lower(), **options)


def _detail(gr: Any, model: Model) -> Any:
    told = "0 is nearest to the original's pixels, 1 to its spectrum."
    missing = "This model has no frequency complement modules."
    return _slider(gr, "Detail", 1.0, (told, missing), model.config.fcm_width)


def _picture(gr: Any, label: str, name: str | None = None) -> Any:
    buttons = ["download", "fullscreen"]
    return gr.Image(label=label, format="png", interactive=False, buttons=buttons, elem_id=name)


def _outcome(gr: Any, button: str, text_name: str, button_name: str) -> tuple[Any, Any]:
    with gr.Row():
        text = gr.Markdown(elem_id=text_name)
        download = gr.DownloadButton(button, size="md", interactive=False, elem_id=button_name)
    return text, download
