"""Converts images of any Pillow mode, with or without a color profile, to sRGB."""

import functools
import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

from fa_hific_jax.data.color import color_cube
from fa_hific_jax.data.levels import eight_bits

_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_PROFILE_IGNORED = "its color profile is damaged or does not fit the image and was ignored"


def to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
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
    except (ImageCms.PyCMSError, OSError, ImportError):
        notes.append(_PROFILE_IGNORED)
        return image.convert("RGB")


@functools.lru_cache(maxsize=8)  # Photographs of one camera share their profile.
def _transform(profile: bytes | None) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Returns the mode that a profile applies to and its transform to sRGB.

    The profile None stands for Lab. The transform is None if it would change nothing.
    """
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
    mode = _PROFILE_MODES.get(space.strip())
    if mode is None:
        raise ImageCms.PyCMSError(f"no mode for the color space {space}")
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode in ("RGB", "L"):
        # Many profiles differ from sRGB by rounding only: they must not change the pixels.
        probe = Image.fromarray(color_cube()).convert(mode)
        change = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
        if np.max(np.asarray(change)) <= 1:
            return mode, None
    return mode, transform
