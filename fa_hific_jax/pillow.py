"""Pillow plug-in: opens and saves .fahj files like those of any other image format.

    import fa_hific_jax.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.fahj", quality=0.5)
    Image.open("photo.fahj").show()

The import registers the format; the model and JAX are loaded when the first image is decoded or
saved. Images are saved with the model that the environment variable FA_HIFIC_MODEL names, else with
the one that comes with the package. Files are decoded with the model of that variable, else with
the model on this machine that made them (`fa-hific models`).
"""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from fa_hific_jax.codec import SUFFIX, bitstream, shipped
from fa_hific_jax.errors import UserError

FORMAT = "FAHJ"

_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


class FahjImageFile(ImageFile.ImageFile):
    """A compressed image: its size and mode are known at once, its pixels when they are needed.

    `info` holds "quality", from 0 to 1, where the file was coded at one, and "model", the model's
    id as hexadecimal digits.
    """

    format = FORMAT
    format_description = "FA-HiFiC compressed image"

    def _open(self) -> None:
        assert self.fp is not None
        self._file = self.fp.read()
        try:
            container = bitstream.unpack(self._file)
        except UserError as error:
            raise OSError(str(error)) from error
        self._size = container.width, container.height
        self._mode = "RGBA" if container.alpha_stream else "RGB"
        self.info["model"] = container.model_id.hex()
        if container.quality is not None:
            self.info["quality"] = container.quality / (bitstream.QUALITIES - 1)

    def load(self) -> Any:
        """Decodes the pixels, once.

        Raises:
          OSError: the file is damaged, or its model is not on this machine or not the one chosen.
        """
        if self._file:
            try:
                models, chosen = _models(), shipped.chosen_model()
                model = models.load(chosen) if chosen else models
                rgb, alpha = model.decompress_picture(self._file)
            except UserError as error:
                raise OSError(str(error)) from error
            pixels = rgb if alpha is None else np.dstack([rgb, alpha])
            self._file = b""
            self.fp = io.BytesIO(pixels.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


def _accept(start: bytes) -> bool:
    return start.startswith(bitstream.MAGIC)


def _save(image: Image.Image, file: Any, filename: object) -> None:
    """Writes the image; `save` takes quality (0 to 1), model (name or folder) and coder.

    Raises:
      OSError: the mode has no colors of 8 bits, or the model cannot code the image.
    """
    del filename
    given = image.encoderinfo
    options = {"coder": given["coder"]} if "coder" in given else {}
    if given.get("quality") is not None:
        options["quality"] = float(given["quality"])
    rgb, alpha = _pixels(image)
    try:
        model = _models().load(shipped.model_to_use(given.get("model")))
        file.write(model.compress(rgb, alpha=alpha, **options))
    except UserError as error:
        raise OSError(str(error)) from error


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the colors, uint8 (height, width, 3), and the transparency, None where opaque."""
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3], None if rgba[..., 3].min() == 255 else rgba[..., 3]
    if image.mode not in _PLAIN:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: convert the image to RGB")
    return np.asarray(image.convert("RGB")), None


@functools.cache
def _models() -> Any:
    from fa_hific_jax.codec.several import Models

    return Models()


Image.register_open(FORMAT, FahjImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, "image/x-fahj")
