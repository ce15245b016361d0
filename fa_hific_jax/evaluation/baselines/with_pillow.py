"""JPEG, WebP, AVIF, JPEG 2000 and JPEG XL through Pillow, without metadata.

All options that change the size of a file are given, since the defaults are neither the best nor
the same in all versions. Pillow's JPEG 2000 has no color transform unless asked for (twice the bits
for the same PSNR), and versions of libavif tune AVIF differently.
"""

import importlib.metadata
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, features

Pixels = UInt8[np.ndarray, "h w 3"]


class Codec(NamedTuple):
    """A classical codec: its range of qualities, encoder, decoder and version."""

    label: str  # the name shown to users
    qualities: range  # all qualities in its own unit, from the smallest file to the largest
    sweep: tuple[int, ...]  # qualities that span some 0.05 to 1.5 bpp on Kodak, in the same order
    longest_side: int  # longest side in pixels that the format or its program takes
    settings: Mapping[str, Any]  # options that never change, for the record
    missing: Callable[[], str | None]  # returns the reason why it cannot be used here
    version: Callable[[], str]  # returns the versions of all that determines the size of a file
    encode: Callable[[Pixels, int], tuple[bytes, str]]  # returns the file and the setting in words
    decode: Callable[[bytes], Pixels]


JPEG = {"subsampling": "4:2:0", "optimize": True}
WEBP = {"method": 6}
AVIF = {
    "codec": "aom", "speed": 4, "subsampling": "4:4:4", "range": "full",
    "advanced": {"tune": "ssim"}, "autotiling": False, "max_threads": 1,
}  # fmt: skip
# OpenJPEG always writes a comment: a blank is 32 bytes shorter than its own.
JPEG2000 = {
    "quality_mode": "rates", "irreversible": True, "mct": 1, "no_jp2": True, "comment": " ",
}  # fmt: skip
JPEGXL = {"effort": 7, "num_threads": 1}


def _jpeg(image: Pixels, quality: int) -> tuple[bytes, str]:
    said, options = f"quality {quality}, 4:2:0", {"quality": quality, **JPEG}
    baseline = saved(image, "JPEG", **options)
    progressive = saved(image, "JPEG", progressive=True, **options)
    smaller = len(progressive) < len(baseline)
    return (progressive, f"{said}, progressive") if smaller else (baseline, said)


def _jpeg2000(image: Pixels, quality: int) -> tuple[bytes, str]:
    bpp = quality / 1000
    data = saved(image, "JPEG2000", quality_layers=[24 / bpp], **JPEG2000)
    return data, f"{bpp:g} bpp asked, 9/7 wavelet"


def _with_quality(format: str, said: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the `encode` of a format to which Pillow passes a quality and fixed options."""
    return lambda image, quality: (
        saved(image, format, quality=quality, **options),
        f"quality {quality}, {said}",
    )


def saved(image: Pixels, format: str, **options: Any) -> bytes:
    """Returns the file that Pillow writes of an RGB image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    """Returns the RGB image in a file that Pillow reads."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _codec(label: str, feature: str, library: str, **fields: Any) -> Codec:
    """Returns a codec that Pillow may have been built with, as `feature`, through `library`."""

    def missing() -> str | None:
        # Older versions warn of names that they do not know.
        if feature in features.modules | features.codecs and features.check(feature):
            return None
        since = "Pillow 11.3 or newer" if feature == "avif" else "Pillow"
        lacks = f"this Pillow ({PIL.__version__}) was built without {label}"
        return f"{lacks}: install {since} from PyPI"

    def version() -> str:
        named = library, features.version(feature) or "unknown"
        if feature == "jpg" and (turbo := features.version("libjpeg_turbo")):
            named = "libjpeg-turbo", turbo
        return f"Pillow {PIL.__version__}, {' '.join(named)}"

    return Codec(label=label, missing=missing, version=version, decode=decoded, **fields)


def _missing_plugin() -> str | None:
    try:
        import pillow_jxl  # noqa: F401  # Tells Pillow of the format.
    except ImportError:
        return "Pillow's plug-in for JPEG XL is missing: install the extra `jpegxl`"
    return None


def _plugin_version() -> str:
    name = "pillow-jxl-plugin"
    return f"Pillow {PIL.__version__}, {name} {importlib.metadata.version(name)}"


CODECS = {
    "jpeg": _codec(
        "JPEG", "jpg", "libjpeg", longest_side=65500, encode=_jpeg,
        qualities=range(1, 101), sweep=(2, 5, 8, 12, 20, 30, 45, 60, 77),
        settings=JPEG | {"progressive": "the smaller of both"},
    ),
    "webp": _codec(
        "WebP", "webp", "libwebp", longest_side=16383, settings=WEBP,
        qualities=range(101), sweep=(0, 1, 3, 8, 15, 25, 40, 60, 75, 82),
        encode=_with_quality("WEBP", "method 6", WEBP),
    ),
    "avif": _codec(
        "AVIF", "avif", "libavif", longest_side=16384, settings={**AVIF, "advanced": "tune=ssim"},
        qualities=range(101), sweep=(2, 8, 15, 24, 34, 45, 56, 67),
        encode=_with_quality("AVIF", "speed 4, 4:4:4, tune ssim", AVIF),
    ),
    "jpeg2000": _codec(
        "JPEG 2000", "jpg_2000", "OpenJPEG", longest_side=65535, settings=JPEG2000,
        qualities=range(1, 24001), sweep=(50, 75, 100, 150, 200, 300, 450, 700, 1000, 1500),
        encode=_jpeg2000,
    ),
    "jpegxl": Codec(
        label="JPEG XL", longest_side=65535, settings=JPEGXL,
        # The plug-in has 100 only as a lossless mode of its own.
        qualities=range(1, 100), sweep=(1, 5, 10, 20, 30, 45, 60, 70, 78, 84),
        encode=_with_quality("JXL", "effort 7", JPEGXL), decode=decoded,
        missing=_missing_plugin, version=_plugin_version,
    ),
}  # fmt: skip
