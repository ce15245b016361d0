"""Pillow plug-in: opens and saves .fahj files like those of any other image format.

    import fa_hific_jax.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.fahj", quality=0.5)
    Image.open("photo.fahj").show()

The import registers the format; the model and JAX are loaded when the first image is decoded or
saved. The environment variable FA_HIFIC_MODEL names the model. Without it, images are saved with
the one that comes with the package, and files are decoded with the model on this machine that made
them (`fa-hific models`).
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from fa_hific_jax.codec import SUFFIX, bitstream, shipped
from fa_hific_jax.errors import UserError

FORMAT = "FAHJ"

_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class FahjImageFile(ImageFile.ImageFile):
    """A compressed image: its size and mode are known at once, its pixels when they are needed.

    `info` holds "quality", from 0 to 1, where the file was coded at one, and "model", the model's
    id as hexadecimal digits. Damaged files and missing models raise an OSError.
    """

    format = FORMAT
    format_description = "FA-HiFiC compressed image"

    def _open(self) -> None:
        assert self.fp is not None
        self._file = self.fp.read()
        with _pillow_errors():
            container = bitstream.unpack(self._file)
        self._size = container.width, container.height
        self._mode = "RGBA" if container.alpha_stream else "RGB"
        self.info["model"] = container.model_id.hex()
        if container.quality is not None:
            self.info["quality"] = container.quality / (bitstream.QUALITIES - 1)

    def load(self) -> Any:
        """Decodes the pixels, once."""
        if self._file:
            with _pillow_errors():
                models, chosen = _models(), shipped.chosen_model()
                model = models.load(chosen) if chosen else models
                rgb, alpha = model.decompress_picture(self._file)
            pixels = rgb if alpha is None else np.dstack([rgb, alpha])
            self._file = b""
            self.fp = io.BytesIO(pixels.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


def _save(image: Image.Image, file: Any, filename: object) -> None:
    """Writes the image; `save` takes quality (0 to 1), model (name or folder) and coder."""
    del filename
    given, alpha = image.encoderinfo, None
    options = {"coder": given["coder"]} if "coder" in given else {}
    if given.get("quality") is not None:
        options["quality"] = float(given["quality"])
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        rgb, alpha = rgba[..., :3], rgba[..., 3] if rgba[..., 3].min() < 255 else None
    elif image.mode in _PLAIN:
        rgb = np.asarray(image.convert("RGB"))
    else:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: convert the image to RGB")
    with _pillow_errors():
        model = _models().load(shipped.model_to_use(given.get("model")))
        file.write(model.compress(rgb, alpha=alpha, **options))


@contextlib.contextmanager
def _pillow_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise OSError(str(error)) from error


@functools.cache
def _models() -> Any:
    from fa_hific_jax.codec.several import Models

    return Models()


Image.register_open(FORMAT, FahjImageFile, lambda start: start.startswith(bitstream.MAGIC))
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, "image/x-fahj")
