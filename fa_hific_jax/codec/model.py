"""Compresses images to bytes and back with a trained model."""

import bisect
import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from fa_hific_jax.codec import arrays, bitstream, choices, coding, float_model, programs, tiling
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.coding import EntropyModel, Extras, Quantized
from fa_hific_jax.codec.gray import is_gray, luma
from fa_hific_jax.codec.hidden import fill_hidden
from fa_hific_jax.codec.pixels import pack_alpha, unpack_alpha
from fa_hific_jax.codec.programs import Network, Shape
from fa_hific_jax.codec.weights import rounded
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import ModelConfig

Image = UInt8[np.ndarray, "_ _ 3"]
Alpha = UInt8[np.ndarray, "_ _"]


_CALIBRATED = (1.0, 0.0, 0.5)  # qualities of the images of a calibration, in turn
_ROUNDING = 16  # bytes by which files of almost equal latents may differ


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model that compresses and decompresses.

    Create it with `from_params`, or with `load_model` from a folder.

    Attributes:
      config: shape of the networks.
      params: parameters of the `Autoencoder` as float32 on the device: encoder, hyper-analysis,
        generator and gains. `entropy` replaces the others.
      entropy: coding tables and the integer hyper-synthesis.
      weights: data type to which the parameters were rounded, one of `weights.KINDS`.
      origin: information for people on where the model comes from, as JSON.
      model_id: 8 bytes stored in each file, a hash of everything that decoding depends on.
    """

    config: ModelConfig
    params: Any
    entropy: EntropyModel
    weights: str = "float32"
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_id: bytes = dataclasses.field(init=False)

    def __post_init__(self):
        found = arrays.model_id(self.config, self.entropy, self.params)
        object.__setattr__(self, "model_id", found)

    def compress(
        self,
        image: Image,
        *,
        quality: float | None = None,
        alpha: Alpha | None = None,
        coder: str = "constriction",
        reproducible: bool = True,
        mode: str = "auto",
        plan: Sequence[Shape] = (),
    ) -> bytes:
        """Compresses an RGB image of any size to the bytes of a file (docs/bitstream.md).

        A gray image, whose red, green and blue are equal everywhere, is decoded to a gray image.

        Args:
          image: values from 0 to 255. Colors of pixels with alpha 0 are invisible and not kept.
          quality: quality from 0 (smallest file) to 1, in 256 steps, for a model with gains; None
            stands for 0.5.
          alpha: transparency from 0 to 255 (opaque), kept without loss; None if all is opaque.
          coder: entropy coder, "constriction" or "tfc" (needs the extra of that name).
          reproducible: True computes in float64, so that every device gives the same bytes. False
            computes in the network's own precision, which is faster. Every device can still decode
            the file, but another device may write slightly different bytes.
          mode: "whole" image, "exact" tiles, or "auto" to choose by size. The bytes do not depend
            on it. "blend" is like "exact" here and only affects the decoder.
          plan: canvases from `plan`, with which images of different sizes share compiled programs.

        Raises:
          UserError: the image has another type or shape, or this model cannot code it.
        """
        _check_image(image)
        _check_alpha(alpha, *image.shape[:2])
        image = fill_hidden(image, alpha)
        (quantized,) = self.quantize(
            [image], quality=quality, reproducible=reproducible, mode=mode, plan=plan
        )
        level, gray = choices.quality_level(self.config, quality), is_gray(image)
        extras = Extras(b"" if alpha is None else pack_alpha(alpha), level, gray)
        return self._encode(quantized, image.shape[:2], coder, extras)

    def decompress(
        self,
        data: bytes,
        *,
        detail: float | None = None,
        mode: str = "auto",
        plan: Sequence[Shape] = (),
        max_pixels: int = bitstream.MAX_PIXELS,
    ) -> Image:
        """Decompresses the bytes of a file to an RGB image, values 0 to 255.

        Args:
          data: the bytes that `compress` returned.
          detail: share of the output of the FCMs that is added, from 0 to 1; None stands for 1. If
            the model was trained for it (`loss.detail_zero`), 0 is closest to the pixels of the
            original and 1 to its spectrum.
          mode: "whole" image, "exact" tiles (the same pixels to within one level), "blend" for
            blended tiles (faster, slightly different pixels), or "auto" to choose between whole and
            exact by size.
          plan: canvases from `plan`, with which images of different sizes share compiled programs.
          max_pixels: limit on the image size in pixels, counted in blocks of 64 x 64.

        Raises:
          BitstreamError: the file is damaged or too large, or needs another model or a coder that
            is not installed.
        """
        return self.decompress_picture(
            data, detail=detail, mode=mode, plan=plan, max_pixels=max_pixels
        )[0]

    def decompress_picture(
        self,
        data: bytes,
        *,
        detail: float | None = None,
        mode: str = "auto",
        plan: Sequence[Shape] = (),
        max_pixels: int = bitstream.MAX_PIXELS,
    ) -> tuple[Image, Alpha | None]:
        """Like `decompress`, but returns the image and its transparency, None if all is opaque."""
        container = self._unpack(data, max_pixels)
        alpha = None
        if container.alpha_stream:
            alpha = unpack_alpha(container.alpha_stream, container.height, container.width)
        y_hat = self._latents(container)
        (image,) = tiling.generate(self._decoder(detail), [y_hat], mode, plan)
        return _finished(image, container), alpha

    def compress_batch(
        self,
        images: Sequence[Image],
        *,
        quality: float | None = None,
        coder: str = "constriction",
        reproducible: bool = True,
        mode: str = "auto",
    ) -> list[bytes]:
        """Compresses many images, several at a time on the device, to the bytes of `compress`."""
        for image in images:
            _check_image(image)
        plan = self.plan([image.shape[:2] for image in images])
        symbols = self.quantize(
            images, quality=quality, reproducible=reproducible, mode=mode, plan=plan
        )
        level = choices.quality_level(self.config, quality)
        return [
            self._encode(
                quantized, image.shape[:2], coder, Extras(quality=level, gray=is_gray(image))
            )
            for quantized, image in zip(symbols, images, strict=True)
        ]

    def decompress_batch(
        self, files: Sequence[bytes], *, detail: float | None = None, mode: str = "auto"
    ) -> list[Image]:
        """Decompresses many files to RGB images, several at a time on the device."""
        containers = [self._unpack(data, bitstream.MAX_PIXELS) for data in files]
        plan = self.plan([(container.height, container.width) for container in containers])
        latents = [self._latents(container) for container in containers]
        images = tiling.generate(self._decoder(detail), latents, mode, plan)
        pairs = zip(images, containers, strict=True)
        return [_finished(image, container) for image, container in pairs]

    def plan(self, sizes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Returns at most two canvases for images of these (height, width): see `programs.plan`."""
        return programs.plan(sizes)

    def quantize(
        self,
        images: Sequence[Image],
        *,
        quality: float | None = None,
        reproducible: bool = True,
        mode: str = "auto",
        plan: Sequence[Shape] = (),
    ) -> list[Quantized]:
        """Returns the symbols that `compress` codes for each image."""
        for image in images:
            _check_image(image)
            tiling.check_size(self.config, *image.shape[:2])
        network = self._encoder(quality, reproducible)
        latents = tiling.analyze(network, images, mode, plan)
        return [coding.quantize(self.entropy, y, z) for y, z in latents]

    def encode(
        self,
        quantized: Quantized,
        height: int,
        width: int,
        *,
        quality: float | None = None,
        alpha: Alpha | None = None,
        coder: str = "constriction",
    ) -> bytes:
        """Returns the file with the symbols of an image of `height` x `width` pixels.

        `quality` is the one at which the symbols were computed.
        """
        _check_alpha(alpha, height, width)
        stream = b"" if alpha is None else pack_alpha(alpha)
        level = choices.quality_level(self.config, quality)
        return self._encode(quantized, (height, width), coder, Extras(stream, level))

    def quality_for(
        self,
        image: Image,
        bpp: float,
        *,
        alpha: Alpha | None = None,
        coder: str = "constriction",
        reproducible: bool = True,
        mode: str = "auto",
        reserved: int = 0,
    ) -> float:
        """Returns the highest quality whose file has at most `bpp` bits per pixel, or 0.

        The whole file counts, with transparency and with `reserved` bytes that will be added to it.
        If even the file of quality 0 is larger, the result is 0, since no file is smaller.

        The encoder runs once, and the symbols of about eight qualities are coded. The search relies
        on larger files at higher qualities.

        Raises:
          UserError: the model has a single rate, or the image has another type or shape.
        """
        _check_image(image)
        tiling.check_size(self.config, *image.shape[:2])
        if not self.config.qualities:
            raise UserError(
                f"{bpp:g} bits per pixel were requested, but this model has a single rate: use "
                "one that was trained with model.qualities"
            )
        _check_alpha(alpha, *image.shape[:2])
        image = fill_hidden(image, alpha)
        gray, stream = is_gray(image), b"" if alpha is None else pack_alpha(alpha)
        config, params = choices.at_quality(self.config, self.params, bitstream.QUALITIES - 1)
        network = Network(config, params, "float64" if reproducible else None)
        ((y, _),) = tiling.analyze(network, [image], mode)
        finest = choices.gains(self.params, bitstream.QUALITIES - 1)

        def size(level: int) -> int:
            scaled = y * (choices.gains(self.params, level) / finest)[None, None].astype(y.dtype)
            (z,) = programs.run_whole(network, programs.hyper_analyze, [scaled], ())
            quantized = coding.quantize(self.entropy, scaled, z)
            extras = Extras(stream, level, gray)
            return len(self._encode(quantized, image.shape[:2], coder, extras))

        most = bpp * image.shape[0] * image.shape[1] / 8 - reserved
        level = max(bisect.bisect_right(range(bitstream.QUALITIES), most, key=size) - 1, 0)
        # `compress` multiplies the gains into the weights, whose rounding may change a few symbols.
        while level > 0 and size(level) > most - _ROUNDING:
            quality = level / (bitstream.QUALITIES - 1)
            options: dict[str, Any] = {"coder": coder, "reproducible": reproducible, "mode": mode}
            if len(self.compress(image, quality=quality, alpha=alpha, **options)) <= most:
                break
            level -= 1
        return level / (bitstream.QUALITIES - 1)

    def _encode(self, quantized: Quantized, size: Shape, coder: str, extras: Extras) -> bytes:
        return coding.encode(self.entropy, quantized, self.model_id, *size, coder, extras)

    def _encoder(self, quality: float | None, reproducible: bool) -> Network:
        level = choices.quality_level(self.config, quality)
        config, params = choices.at_quality(self.config, self.params, level)
        return Network(config, params, "float64" if reproducible else None)

    def _decoder(self, detail: float | None) -> Network:
        single_rate = choices.without_gains(self.config, self.params)
        return Network(*choices.at_detail(*single_rate, detail))

    def _unpack(self, data: bytes, max_pixels: int) -> bitstream.Container:
        container = bitstream.unpack(data, max_pixels)
        bitstream.check_model(container, self.model_id)
        if (container.quality is None) == bool(self.config.qualities):
            raise BitstreamError(
                "the file and the model disagree on whether there is a quality, so the file is "
                "damaged: fetch it again"
            )
        coding.check_claims(container, max_pixels)
        with _one_class_of_errors():
            tiling.check_size(self.config, container.height, container.width)
        return container

    def _latents(self, container: bitstream.Container) -> Float32[np.ndarray, "hy wy cy"]:
        with _one_class_of_errors():
            y_hat = coding.decode(self.entropy, container)
        if container.quality is None:
            return y_hat
        return y_hat * choices.inverse_gains(self.params, container.quality)[None, None]


def from_params(
    config: ModelConfig,
    params: Any,
    *,
    calibration: Iterable[Int32[np.ndarray, "_ _ _"]] | None = None,
    weights: str = "float32",
    origin: Mapping[str, Any] | None = None,
) -> Model:
    """Returns a model with the parameters of an `Autoencoder`.

    Args:
      config: shape of the networks.
      params: all parameters of the `Autoencoder`.
      calibration: hyper-latents of images, as from `hyper_latents`, which determine the resolution
        of the integer hyper-synthesis; by default they are drawn from the prior.
      weights: data type to which encoder, hyper-analysis and generator are rounded, one of
        `weights.KINDS`.
      origin: information for people on where the model comes from.

    Raises:
      UserError: a parameter is not finite, or too large for float16 or int8.
    """
    params = jax.device_get(params)
    return Model(
        config=config,
        params=jax.tree.map(
            lambda leaf: jax.device_put(rounded(leaf, weights)), _for_coding(params)
        ),
        entropy=float_model.entropy_model(config, params["hyperprior"], calibration),
        weights=weights,
        origin=origin or {},
    )


def hyper_latents(
    config: ModelConfig, params: Any, images: Iterable[Image]
) -> list[Int32[np.ndarray, "_ _ _"]]:
    """Returns the rounded hyper-latents of images, a calibration for `from_params`.

    A model with gains codes the images at different qualities.
    """
    latents = []
    for image, quality in zip(images, itertools.cycle(_CALIBRATED)):
        level = choices.quality_level(config, quality if config.qualities else None)
        network = Network(*choices.at_quality(config, _for_coding(params), level))
        latents.append(tiling.analyze(network, [image])[0][1])
    return [coding.to_symbols(z) for z in latents]


def _for_coding(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that a `Model` has: all but those that its tables replace."""
    hyperprior = params["hyperprior"]
    analysis = {name: hyperprior[name] for name in ("analysis", MEDIAN) if name in hyperprior}
    return dict(params) | {"hyperprior": analysis}


def _finished(image: Image, container: bitstream.Container) -> Image:
    image = image[: container.height, : container.width]
    return luma(image) if container.gray else image


@contextlib.contextmanager
def _one_class_of_errors() -> Iterator[None]:
    """Turns every UserError about a file into a BitstreamError, the only one callers handle."""
    try:
        yield
    except BitstreamError:
        raise
    except UserError as error:
        raise BitstreamError(str(error)) from error


def _check_image(image: Any) -> None:
    shape = getattr(image, "shape", ())
    if getattr(image, "dtype", None) != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise UserError(
            f"the image is {_described(image)}: give uint8 of shape (height, width, 3), RGB from 0 "
            "to 255"
        )


def _check_alpha(alpha: Any, height: int, width: int) -> None:
    if alpha is None:
        return
    shape = getattr(alpha, "shape", None)
    if getattr(alpha, "dtype", None) != np.uint8 or shape != (height, width):
        raise UserError(
            f"alpha is {_described(alpha)}: give uint8 of shape {(height, width)}, that of the "
            "image"
        )


def _described(array: Any) -> str:
    if not (hasattr(array, "dtype") and hasattr(array, "shape")):
        return f"a {type(array).__name__}"
    return f"{array.dtype} of shape {array.shape}"
