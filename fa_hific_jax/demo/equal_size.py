"""One image in files of the same size: by this codec and by classical ones."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.codec import bitstream
from fa_hific_jax.data.images import Picture, on_white
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.metrics.pairs import lpips_distances, psnr
from fa_hific_jax.metrics.weights import Weights

Image = UInt8[np.ndarray, "_ _ 3"]

CODECS = ("jpeg", "webp", "avif", "jpegxl")
"""Ids of the classical codecs that an image is compared with."""

_SAME = 0.02  # relative difference of two sizes up to which they count as equal


class Version(NamedTuple):
    """An image as a codec decodes it from its file."""

    label: str  # name of the codec
    setting: str  # the quality, then the other options
    data: bytes
    image: Image
    excess: float  # size of the file relative to this codec's, minus 1
    psnr: float  # in dB, inf if the image is the original
    lpips: float | None  # with AlexNet; None where it was not measured

    @property
    def title(self) -> str:
        """Name of the codec and its quality."""
        return ", ".join(filter(None, (self.label, self.setting.partition(",")[0])))

    @property
    def size(self) -> str:
        """Size of the file; if it differs from this codec's, says by how much."""
        other = abs(self.excess) > _SAME
        more = f" (nearest possible: {100 * self.excess:+.0f} %)" if other else ""
        return f"{len(self.data):,} bytes{more}"

    @property
    def numbers(self) -> str:
        """Rate, PSNR and LPIPS."""
        error = f"{self.psnr:.2f} dB" if math.isfinite(self.psnr) else "no error"
        distance = "" if self.lpips is None else f", LPIPS {self.lpips:.3f}"
        return f"{bpp(self.data, self.image):.3f} bpp, {error}{distance}"


def opaque(picture: Picture) -> tuple[Image, tuple[str, ...]]:
    """Returns the picture on white, and its notes with one on the transparency that this drops."""
    if picture.alpha is None:
        return picture.rgb, picture.notes
    return on_white(picture), (*picture.notes, "its transparency was laid on white")


def bpp(data: bytes, image: Image) -> float:
    """Returns the bits per pixel of the whole file, including the header."""
    return 8 * len(data) / (image.shape[0] * image.shape[1])


def versions(
    original: Image,
    data: bytes,
    decoded: Image,
    model: str,
    codecs: Sequence[str],
    weights: Weights,
) -> tuple[list[Version], list[str]]:
    """Returns this codec's version first, then that of each classical codec at the nearest size.

    `data` is this codec's file, made by the model of that name, and `decoded` its image. The second
    result has a sentence for each codec and metric that is left out, with the reason.
    """
    quality = bitstream.unpack(data).quality
    chosen = "" if quality is None else f"quality {quality / (bitstream.QUALITIES - 1):.2g}, "
    files, notes = [("FA-HiFiC", f"{chosen}model {model}", data, decoded)], []
    for name in codecs:
        label = baselines.codec(name).label
        try:
            found = baselines.encode_nearest(original, name, len(data))
        except UserError as error:
            reason = str(error).removesuffix(": leave this baseline out")
            notes.append(f"{label} is left out: {reason}")
        else:
            files.append((label, found.setting, found.data, found.image))
    made = []
    for label, setting, file, image in files:
        lpips = lpips_distances(weights, "alex", original[None], image[None])
        if isinstance(lpips, str) and not made:
            notes.append(f"LPIPS is left out: {lpips}")
        excess, distance = len(file) / len(data) - 1, None if isinstance(lpips, str) else lpips[0]
        made.append(Version(label, setting, file, image, excess, psnr(original, image), distance))
    return made, notes
