"""Any image file to upright sRGB in 8 bits, with its transparency and notes on what was changed."""

import contextlib
import functools
import io
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageCms

from fa_hific_jax.errors import UserError

MAX_PIXELS = 512 * 2**20  # also the most that a compressed file may announce

_ORIENTATION = 0x0112  # EXIF tag
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_SIDEWAYS = {5, 6, 7, 8}
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_PROFILE_IGNORED = "its colour profile is damaged or of another kind and was ignored"


class Picture(NamedTuple):
    """An upright image in sRGB: values 0 to 255, alpha 0 (clear) to 255, None where all is opaque.

    The colours are not multiplied by alpha. `notes` are sentences on what the file had that the
    picture has not.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    notes: tuple[str, ...] = ()


def read_image(source: Path | str | bytes | io.IOBase, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file (path, bytes or open file) of any kind that Pillow reads.

    Grey is repeated, palettes are looked up, CMYK and embedded profiles become sRGB, the EXIF
    orientation is applied, 16 bits become 8 (round(v / 257), except for RGB, which Pillow cuts to
    its upper byte), and of an animation the first frame counts. Pixels in floating point, or
    integers beyond 16 bits, are taken as 0 to 1, 255 or 65535, the first that holds all of them,
    else as lowest to highest.

    Raises:
      UserError: no image, a damaged one, or more than `max_pixels` pixels.
    """
    with _opened(source, max_pixels) as image:
        image.load()
        notes = []
        # The further pictures of MPO are previews and other views of the same photograph.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            notes.append("of its several frames or pages only the first is kept")
        turn = _UPRIGHT.get(_orientation(image, notes), lambda pixels: pixels)
        colours, alpha = _without_alpha(image)
        rgb = np.array(turn(np.asarray(_to_srgb(colours, notes))), order="C")
        if alpha is not None:
            alpha = None if alpha.min() == 255 else np.array(turn(alpha), order="C")
        return Picture(rgb, alpha, tuple(notes))


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """The image in the bytes of a file, as `read_image` makes it, transparency laid on white.

    Raises UserError, beginning with `name`, where they are no image or a damaged one.
    """
    file = _Named(data)
    file.name = name
    return on_white(read_image(file))


class _Named(io.BytesIO):
    name: str


def image_size(source: Path | str | bytes | io.IOBase) -> tuple[int, int]:
    """Height and width of the picture that `read_image` makes of a file, from its header alone.

    Raises:
      UserError: no image.
    """
    with _opened(source, None) as image:
        width, height = image.size
        if image.format == "TIFF":  # some releases of Pillow give the size of it once turned
            tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
            width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
        sideways = _orientation(image, []) in _SIDEWAYS
        return (width, height) if sideways else (height, width)


def on_white(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """The picture without transparency, laid on white."""
    if picture.alpha is None:
        return picture.rgb
    alpha = picture.alpha[..., None].astype(np.uint16)
    return ((picture.rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@contextlib.contextmanager
def _opened(source, max_pixels: int | None) -> Iterator[Image.Image]:
    """The file as Pillow's image; what goes wrong meanwhile becomes a UserError with its name."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", "the image")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with _without_bomb_guard(), Image.open(file) as image:
            if image.format in ("EPS", "WMF"):  # Pillow would start other programs on them
                raise ValueError("vector graphics; draw it as PNG first")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise UserError(
                    f"{name}: {image.width} x {image.height} pixels are over the limit of "
                    f"{max_pixels} pixels: cut it into parts"
                )
            yield image
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise _unreadable(name, "not of a kind that Pillow knows") from error
    except Exception as error:  # Pillow raises errors of many types on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(name, reason) from error


def _unreadable(name: object, reason: str) -> UserError:
    return UserError(
        f"{name}: cannot be read as an image ({reason}): give a whole PNG, JPEG, WebP, TIFF or such"
    )


_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, once for each image that is being read


@contextlib.contextmanager
def _without_bomb_guard() -> Iterator[None]:
    # Pillow's guard is one global for the process, and warns at 89 megapixels: `max_pixels` takes
    # its place while images are read, in whatever threads, and the last reader restores it.
    with _guard_lock:
        _guard.append(_guard[0] if _guard else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _guard_lock:
            limit = _guard.pop()
            if not _guard:
                Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        # The PNG class has a method of its own that decodes the whole image.
        return Image.Image.getexif(image).get(_ORIENTATION, 1)
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error):
        notes.append("its EXIF data are damaged and were ignored")
        return 1


def _without_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Colours and transparency apart; colours keep profile and, where they were grey, one band."""
    if not image.has_transparency_data:
        return image, None
    if image.mode.startswith("I"):  # one of the grey levels stands for clear
        clear = np.asarray(image) == image.info["transparency"]
        return image, np.where(clear, 0, 255).astype(np.uint8)
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    colours = rgba.convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    colours.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return colours, np.asarray(rgba.getchannel("A"))


def _to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's, which are inverted
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, notes)
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
        raise ImageCms.PyCMSError("a colour space of another kind")
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


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        values = values.astype(np.uint16, copy=False)
        # v // 257 rounded to nearest without an intermediate of more than 16 bits.
        return Image.fromarray((values // 257 + (values % 257 > 128)).astype(np.uint8))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    tops = [65535.0] if values.dtype.kind == "i" else [1.0, 255.0, 65535.0]
    if low >= 0.0 and high <= tops[-1]:
        low, high = 0.0, next(top for top in tops if high <= top)
    if values.dtype.kind == "f" or (low, high) != (0.0, 65535.0):
        notes.append(f"of its grey levels {low:g} became black and {high:g} white")
    scaled = (np.clip(values, low, high, dtype=np.float64) - low) * (255.0 / max(high - low, 1e-30))
    return Image.fromarray(np.rint(np.nan_to_num(scaled)).astype(np.uint8))
