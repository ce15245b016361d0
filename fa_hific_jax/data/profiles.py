"""Images of any of Pillow's modes, with or without a color profile, as RGB in sRGB."""

import functools
import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

from fa_hific_jax.data.levels import eight_bits

_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_PROFILE_IGNORED = "its color profile is damaged or of another kind and was ignored"


def to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """An RGB image, by the profile in `image.info`; one that does not fit is ignored and noted.

    Without a profile CMYK is taken as plain ink, other modes as sRGB.
    """
    profile = image.info.get("icc_profile")
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's, which are inverted
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


@functools.lru_cache(maxsize=8)  # photographs of one camera share their profile
def _transform(profile: bytes | None) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode of images that the profile is for, and how to make sRGB of them; None: as it is."""
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
    mode = _PROFILE_MODES.get(space.strip())
    if mode is None:
        raise ImageCms.PyCMSError("a color space of another kind")
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode in ("RGB", "L"):
        # The many profiles that are sRGB but for rounding must not touch the pixels.
        levels = np.arange(0, 256, 15).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
        probe = Image.fromarray(cube).convert(mode)
        change = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
        if np.max(np.asarray(change)) <= 1:
            return mode, None
    return mode, transform
