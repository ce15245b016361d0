"""A trained model over real images: compress, decompress, measure, write it all down."""

import io
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image as PilImage

from fa_hific_jax import __version__, metrics
from fa_hific_jax.checkpoints import load_autoencoder
from fa_hific_jax.codec import compress
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.evaluation import baselines, results
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.losses.lpips import LpipsParams, load_lpips, lpips
from fa_hific_jax.models.autoencoder import STRIDE, init_parameters
from fa_hific_jax.settings import Settings

Image = UInt8[np.ndarray, "h w 3"]


class Measured(NamedTuple):
    """One image through one codec: the file, what it decodes to, and at what cost."""

    data: bytes
    image: Image
    bpp_estimated: float | None
    setting: str
    seconds_encode: float
    seconds_decode: float


def evaluate(settings: Settings, workdir: epath.Path, out: Path) -> tuple[Path, str]:
    """(path of report.html, table of means as text) of the newest checkpoint in `workdir`.

    Writes to `out`: results.json, originals/, reconstructions/ and report.html. Every bpp is that
    of the bytes of a file that was decoded again; the model's estimate stands beside it.

    Raises:
      UserError: no checkpoint, one of another model, no images, an unreadable one, or an unknown
        baseline.
    """
    for codec in settings.evaluation.baselines:  # Refused now, not after the first image.
        baselines.encode_nearest(np.zeros((8, 8, 3), np.uint8), codec, 0)
    params, step = load_autoencoder(workdir, settings)
    lpips_params = load_lpips(file) if (file := settings.evaluation.lpips_file) else None
    parameters = {results.OURS: params}
    if settings.evaluation.untrained_control:
        initial = init_parameters(settings.model, jax.random.key(settings.train.seed))
        parameters["untrained"] = initial
    codecs = {name: from_params(settings.model, each) for name, each in parameters.items()}

    rows = []
    source = open_source(settings.data.evaluation, settings.data.tfds_dir)
    seen: set[tuple[int, int]] = set()
    start = time.monotonic()
    for index, name in enumerate(source.names):
        image = source[index]
        padded = (-(-image.shape[0] // STRIDE), -(-image.shape[1] // STRIDE))
        if padded not in seen:  # Compilation is not coding time.
            seen.add(padded)
            _run_model(codecs[results.OURS], params, image)
        measured = {
            codec: _run_model(model, parameters[codec], image) for codec, model in codecs.items()
        }
        size = len(measured[results.OURS].data)
        for codec in settings.evaluation.baselines:
            measured[codec] = _run_baseline(image, codec, size)
        _save_png(out / "originals" / f"{name}.png", image)
        for codec, result in measured.items():
            rows.append(_row(name, image, codec, result, lpips_params, out))
        ours = next(row for row in reversed(rows) if row.codec == results.OURS)
        count = index + 1
        left = (time.monotonic() - start) / count * (len(source) - count)
        print(
            f"image {count}/{len(source)}  {name}  {ours.bpp:.3f} bpp  {ours.psnr:.2f} dB  "
            f"{left:.0f} s left",
            flush=True,
        )
    meta = {
        "model": _describe(settings, params),
        "model_id": codecs[results.OURS].model_id.hex(),
        "step": step,
        "target_bpp": settings.loss.target_bpp,
        "images": settings.data.evaluation,
        "lpips": f"{lpips_params.title} v0.1" if lpips_params else "not measured: no weight file",
        "versions": {
            "fa_hific_jax": __version__,
            "jax": jax.__version__,
            "pillow": baselines.pillow_version(),
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
    }
    results.write_results(out / "results.json", meta, rows)
    report = write_report(results.read_results(out / "results.json"), out)
    return report, results.format_table(results.summarize(rows), settings.loss.target_bpp)


def _run_model(model: Model, params: Any, image: Image) -> Measured:
    height, width, _ = image.shape
    start = time.perf_counter()
    (quantised,) = model.quantise([image])
    data = model.encode(quantised, height, width)
    encoded = time.perf_counter()
    decoded = model.decompress(data)
    end = time.perf_counter()
    estimated = compress.estimated_bits(model.config, params, quantised) / (height * width)
    return Measured(data, decoded, estimated, "", encoded - start, end - encoded)


def _run_baseline(image: Image, codec: str, target_bytes: int) -> Measured:
    start = time.perf_counter()
    coded = baselines.encode_nearest(image, codec, target_bytes)
    searched = time.perf_counter()
    return Measured(coded.data, coded.image, None, coded.setting, searched - start, 0.0)


def _row(
    name: str,
    image: Image,
    codec: str,
    measured: Measured,
    lpips_params: LpipsParams | None,
    out: Path,
) -> results.Row:
    height, width, _ = image.shape
    file = f"reconstructions/{name}.{codec}.png"
    _save_png(out / file, measured.image)
    return results.Row(
        image=name,
        codec=codec,
        width=width,
        height=height,
        bytes=len(measured.data),
        bpp=8 * len(measured.data) / (width * height),
        bpp_estimated=measured.bpp_estimated,
        psnr=metrics.psnr(image, measured.image),
        ms_ssim=metrics.ms_ssim(image, measured.image),
        lpips=_lpips(lpips_params, image, measured.image),
        lfd=metrics.log_frequency_distance(image, measured.image),
        setting=measured.setting,
        seconds_encode=measured.seconds_encode,
        seconds_decode=measured.seconds_decode,
        file=file,
    )


def _lpips(params: LpipsParams | None, x: Image, x_hat: Image) -> float | None:
    if params is None:
        return None
    pair = [jnp.asarray(image[None], jnp.float32) / 255.0 for image in (x, x_hat)]
    return float(jax.jit(lpips)(params, *pair)[0])


def _save_png(path: Path, image: Image) -> None:
    buffer = io.BytesIO()
    PilImage.fromarray(image).save(buffer, "PNG")
    results.replace_file(path, buffer.getvalue())


def _describe(settings: Settings, params: Any) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return f"{count / 1e6:.1f} M parameters" + ("" if settings.model.fcm_width else ", without FCM")
