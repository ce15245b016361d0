"""JPEG, WebP, AVIF, JPEG 2000 and JPEG XL through Pillow, without metadata.

All options that change the size of a file are given, for the defaults are neither the best nor
the same in all versions: Pillow's JPEG 2000 has no color transform unless asked (twice the bits
for the same PSNR), and its AVIF is tuned in other ways by other versions of libavif.
"""

import importlib.metadata
import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from fa_hific_jax.evaluation.baselines.codec import Codec, Pixels

JPEG = {"subsampling": "4:2:0", "optimize": True}
WEBP = {"method": 6}
AVIF = {
    "codec": "aom",
    "speed": 4,
    "subsampling": "4:4:4",
    "range": "full",
    "advanced": {"tune": "ssim"},
    "autotiling": False,
    "max_threads": 1,
}
# OpenJPEG always writes a comment: this one is 32 bytes shorter than its own.
JPEG2000 = {
    "quality_mode": "rates",
    "irreversible": True,
    "mct": 1,
    "no_jp2": True,
    "comment": " ",
}
JPEGXL = {"effort": 7, "num_threads": 1}


def _jpeg(image: Pixels, quality: int) -> tuple[bytes, str]:
    baseline, progressive = (
        _saved(image, "JPEG", quality=quality, progressive=progressive, **JPEG)
        for progressive in (False, True)
    )
    if len(progressive) < len(baseline):
        return progressive, f"quality {quality}, 4:2:0, progressive"
    return baseline, f"quality {quality}, 4:2:0"


def _jpeg2000(image: Pixels, quality: int) -> tuple[bytes, str]:
    bpp = quality / 1000
    data = _saved(image, "JPEG2000", quality_layers=[24 / bpp], **JPEG2000)
    return data, f"{bpp:g} bpp asked, 9/7 wavelet"


def _with_quality(format: str, said: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the `encode` of a format that Pillow gives a quality and fixed options."""

    def encode(image: Pixels, quality: int) -> tuple[bytes, str]:
        return _saved(image, format, quality=quality, **options), f"quality {quality}, {said}"

    return encode


def _saved(image: Pixels, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def _decode(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _missing(feature: str, label: str, since: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Older versions warn of names that they do not know.
            if features.check(feature):
                return None
        return f"this Pillow ({PIL.__version__}) was built without {label}: install {since}"

    return reason


def _missing_plugin() -> str | None:
    try:
        import pillow_jxl  # noqa: F401  # Tells Pillow of the format.
    except ImportError:
        return (
            "Pillow's plug-in for JPEG XL is missing: install the extra `jpegxl` "
            "(pillow-jxl-plugin)"
        )
    return None


def _version(library: str, *names: str) -> Callable[[], str]:
    def version() -> str:
        found = next((v for name in names if (v := features.version(name))), "unknown")
        return f"Pillow {PIL.__version__}, {library} {found}"

    return version


def _jpeg_version() -> str:
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__}, {library}"


def _plugin_version() -> str:
    plugin = importlib.metadata.version("pillow-jxl-plugin")
    return f"Pillow {PIL.__version__}, pillow-jxl-plugin {plugin}"


CODECS = {
    "jpeg": Codec(
        label="JPEG",
        qualities=range(1, 101),
        sweep=(2, 5, 8, 12, 20, 30, 45, 60, 77),
        longest_side=65500,
        settings=JPEG | {"progressive": "the smaller of both"},
        missing=_missing("jpg", "JPEG", "Pillow from PyPI"),
        version=_jpeg_version,
        encode=_jpeg,
        decode=_decode,
    ),
    "webp": Codec(
        label="WebP",
        qualities=range(101),
        sweep=(0, 1, 3, 8, 15, 25, 40, 60, 75, 82),
        longest_side=16383,
        settings=WEBP,
        missing=_missing("webp", "WebP", "Pillow from PyPI"),
        version=_version("libwebp", "webp"),
        encode=_with_quality("WEBP", "method 6", WEBP),
        decode=_decode,
    ),
    "avif": Codec(
        label="AVIF",
        qualities=range(101),
        sweep=(2, 8, 15, 24, 34, 45, 56, 67),
        longest_side=16384,
        settings={**AVIF, "advanced": "tune=ssim"},
        missing=_missing("avif", "AVIF", "Pillow 11.3 or newer from PyPI"),
        version=_version("libavif", "avif"),
        encode=_with_quality("AVIF", "speed 4, 4:4:4, tune ssim", AVIF),
        decode=_decode,
    ),
    "jpeg2000": Codec(
        label="JPEG 2000",
        qualities=range(1, 24001),
        sweep=(50, 75, 100, 150, 200, 300, 450, 700, 1000, 1500),
        longest_side=65535,
        settings=JPEG2000,
        missing=_missing("jpg_2000", "JPEG 2000", "Pillow from PyPI"),
        version=_version("OpenJPEG", "jpg_2000"),
        encode=_jpeg2000,
        decode=_decode,
    ),
    "jpegxl": Codec(
        label="JPEG XL",
        qualities=range(1, 101),
        sweep=(1, 5, 10, 20, 30, 45, 60, 70, 78, 84),
        longest_side=65535,
        settings=JPEGXL,
        missing=_missing_plugin,
        version=_plugin_version,
        encode=_with_quality("JXL", "effort 7", JPEGXL),
        decode=_decode,
    ),
}
