"""Converts levels to 8 bits, and images to sRGB by profile or stated color space (ITU-T H.273)."""

import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image, ImageChops, ImageCms

Levels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]

UNKNOWN = "its color space {} is unknown and was ignored"
_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
# Chromaticities x, y of white, red, green and blue. Keys are the code points of H.273, table 2.
SRGB = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_VIDEO = (1, 6, 14, 15)  # They describe cameras. Viewers show such pictures as sRGB.
_SRGB, _LINEAR, _PQ, _HLG = 13, 8, 16, 18
_GAMMAS = {4: 2.2, 5: 2.8, _LINEAR: 1.0}
_WHITE = 203.0  # luminance of diffuse white in HDR, cd/m2 (ITU-R BT.2408); it maps to sRGB white
_PEAK = 1000.0  # peak luminance of the display that HLG is rendered for, cd/m2
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_STRIP = 2**18  # pixels converted at once
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


class Space(NamedTuple):
    """A color space."""

    primaries: tuple[float, ...] = SRGB  # x and y of white, red, green and blue
    transfer: int | float = _SRGB  # code point of H.273 (int), or exponent to linear light (float)


def coded(primaries: int, transfer: int) -> Space | None:
    """Returns the space of two code points of H.273, None if one is unspecified (2) or unknown."""
    transfer = _SRGB if transfer in _VIDEO else transfer
    if primaries not in _PRIMARIES or transfer not in (*_GAMMAS, _SRGB, _PQ, _HLG):
        return None
    return Space(_PRIMARIES[primaries], transfer)


def levels_to_srgb(levels: Levels, space: Space, notes: list[str]) -> UInt8[np.ndarray, "h w *c"]:
    """Converts gray or RGB levels, which span the range of their type, to 8-bit sRGB.

    Colors outside the gamut of sRGB are clipped, and so is HDR light above diffuse white, with a
    note. 8-bit levels stay unchanged if the space differs from sRGB by rounding only. Gray stays
    gray. Raises ValueError if the chromaticities are impossible.
    """
    to_xyz, to_srgb_primaries = (matrix.astype(np.float32) for matrix in matrices(space.primaries))
    top = np.iinfo(levels.dtype).max
    light = _light(np.arange(top + 1) / top, space.transfer).astype(np.float32)
    colored = levels.ndim == 3

    def convert(part: np.ndarray) -> np.ndarray:
        linear = light[part]
        if space.transfer == _HLG:  # HLG's system gamma of 1.2 applies to luminance.
            gray = linear @ to_xyz[1] if colored else linear
            gain = _PEAK / _WHITE * np.maximum(gray, 1e-9) ** np.float32(0.2)
            linear = linear * (gain[..., None] if colored else gain)
        linear = np.clip(linear @ to_srgb_primaries.T if colored else linear, 0, 1)
        curve = 1.055 * linear ** (1 / 2.4) - 0.055
        curve = np.where(linear <= 0.0031308, 12.92 * linear, curve)
        return np.rint(255 * curve).astype(np.uint8)

    if space.transfer in (_PQ, _HLG):
        notes.append("its HDR light above 203 cd/m2 was clipped to white")
    if levels.dtype == np.uint8:
        probe = _color_cube() if colored else np.arange(256, dtype=np.uint8)[:, None]
        if np.max(np.abs(convert(probe).astype(int) - probe)) <= 1:
            return levels
    return by_rows(convert, levels)


def image_to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Converts an image to sRGB, in mode RGB, by the profile in `image.info`.

    A profile that is damaged or does not fit the mode is ignored, with a note. Without a profile,
    CMYK is converted by Pillow's simple formula, and other modes are taken as sRGB.
    """
    profile = image.info.get("icc_profile")
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow assumes Adobe's CMYK, which is inverted.
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(eight_bits(np.asarray(image), notes))
    if not profile and image.mode != "LAB":
        return image.convert("RGB")
    try:
        mode, transform = _transform(profile)
        fits = {"RGB": image.mode not in ("CMYK", "LAB"), "L": image.mode in ("1", "L")}
        if not fits.get(mode, image.mode == mode):
            raise ImageCms.PyCMSError(f"a profile for {mode} in an image of mode {image.mode}")
        image = image.convert(mode)
        return transform.apply(image) if transform else image.convert("RGB")
    except (ImageCms.PyCMSError, LookupError, OSError, ImportError):
        notes.append("its color profile is damaged or does not fit the image and was ignored")
        return image.convert("RGB")


@functools.lru_cache(maxsize=8)  # Photographs of one camera share their profile.
def _transform(profile: bytes | None) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Returns the mode that a profile applies to and its transform to sRGB.

    The profile None stands for Lab. The transform is None if it would change nothing.
    """
    opened = io.BytesIO(profile) if profile else ImageCms.createProfile("LAB")
    source = ImageCms.ImageCmsProfile(opened)
    space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
    mode = _PROFILE_MODES[space.strip()]
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode in ("RGB", "L"):
        # Many profiles differ from sRGB by rounding only: they must not change the pixels.
        probe = Image.fromarray(_color_cube()).convert(mode)
        change = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
        if np.max(np.asarray(change)) <= 1:
            return mode, None
    return mode, transform


def _color_cube() -> UInt8[np.ndarray, "n 1 3"]:
    """Returns an image of colors in steps of 15, to test whether a conversion changes anything."""
    steps = np.arange(0, 256, 15).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)


def matrices(primaries: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrices from linear RGB to XYZ and to linear sRGB, adapted by Bradford's method.

    Raises ValueError if the chromaticities are impossible.
    """
    source, target = _to_xyz(primaries), _to_xyz(SRGB)
    cones = [_BRADFORD @ matrix.sum(axis=1) for matrix in (source, target)]
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(cones[1] / cones[0]) @ _BRADFORD
    change = np.linalg.inv(target) @ adapt @ source
    if not np.isfinite(change).all():
        raise ValueError("impossible chromaticities")
    return source, change


def _to_xyz(primaries: tuple[float, ...]) -> Float[np.ndarray, "3 3"]:
    points = np.array(primaries, np.float64).reshape(4, 2)
    if np.any(points[:, 1] <= 0) or np.any(points > 1):
        raise ValueError("impossible chromaticities")
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])  # LinAlgError is a ValueError.


def _light(v: np.ndarray, transfer: int | float) -> np.ndarray:
    """Returns the linear light of levels from 0 to 1: 1 is diffuse white, or HLG's peak."""
    if isinstance(transfer, float):
        return v**transfer
    if transfer in _GAMMAS:
        return v ** _GAMMAS[transfer]
    if transfer == _PQ:
        power = v ** (1 / 78.84375)
        ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return 10000 / _WHITE * ratio ** (1 / 0.1593017578125)
    if transfer == _HLG:
        high = (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(v <= 0.5, v**2 / 3, high)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def eight_bits(
    values: Shaped[np.ndarray, "h w *c"], notes: list[str], bits: int = 0, negative: bool = False
) -> UInt8[np.ndarray, "h w *c"]:
    """Scales a range of values to 0 ... 255 and rounds to nearest; an unusual range is noted.

    The range of unsigned integers of up to 16 bits is 0 to 2^bits - 1, that of signed ones 0 to
    their largest possible value, that of wider integers 0 to 65535. Floating point has the first
    of 0 to 1, 255 or 65535 that contains all values. If values are outside, the range is from the
    lowest to the highest value instead.

    By default, the number of bits is that of the type. With `negative`, the low end is white.
    """
    bits, kind = bits or 8 * values.dtype.itemsize, values.dtype.kind
    low, high = 0.0, 2.0**bits - 1
    if kind != "u" or bits > 16:
        tops = (1.0, 255.0, 65535.0)
        if kind != "f":
            tops = (2.0 ** (bits - 1) - 1 if bits <= 16 else 65535.0,)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if low >= 0.0 and high <= tops[-1]:
            low, high = 0.0, next(top for top in tops if high <= top)
        if kind == "f" or (low, high) != (0.0, 65535.0):
            black, white = (high, low) if negative else (low, high)
            which = "gray level" if values.ndim == 2 else "level"
            notes.append(f"its {which} {black:g} became black and {white:g} white")

    def scaled(part: np.ndarray) -> np.ndarray:
        part = np.clip(part, low, high, dtype=np.float64) - low
        part *= 255.0 / max(high - low, 1e-30)
        return np.rint(np.nan_to_num(part)).astype(np.uint8)

    result = by_rows(scaled, values)
    return 255 - result if negative else result


def by_rows(convert: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Applies a function to some rows at a time, which bounds the memory."""
    rows = max(1, _STRIP // max(1, values.shape[1]))
    return np.concatenate([convert(values[i : i + rows]) for i in range(0, len(values), rows)])
