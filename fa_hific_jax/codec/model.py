"""Compresses images to bytes and back with a trained model."""

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from fa_hific_jax.codec import arrays, bitstream, choices, coding, float_model, programs, tiling
from fa_hific_jax.codec.bitstream import BitstreamError, Container
from fa_hific_jax.codec.coding import EntropyModel, Quantized
from fa_hific_jax.codec.colors import fill_hidden, is_gray, luma
from fa_hific_jax.codec.pixels import pack_alpha, unpack_alpha
from fa_hific_jax.codec.programs import Network, Shape
from fa_hific_jax.codec.weights import rounded
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import ModelConfig

Image = UInt8[np.ndarray, "_ _ 3"]
Alpha = UInt8[np.ndarray, "_ _"]
HyperLatents = Int32[np.ndarray, "_ _ cz"]

_CALIBRATED = (1.0, 0.0, 0.5)  # qualities of the images of a calibration, in turn
_ROUNDING = 16  # bytes by which files of almost equal latents may differ


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model that compresses and decompresses.

    Create it with `from_params`, or with `load_model` from a folder. `params` are parameters of the
    `Autoencoder` as float32 on the device: encoder, hyper-analysis, generator and gains; `entropy`
    replaces the others. `model_id` is stored in each file.
    """

    config: ModelConfig
    params: Any
    entropy: EntropyModel
    weights: str = "float32"  # data type to which the parameters were rounded: `weights.KINDS`
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for people, as JSON
    model_id: bytes = dataclasses.field(init=False)  # 8 bytes, a hash of all that decoding needs

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
        **options: Any,
    ) -> bytes:
        """Compresses an RGB image of any size to the bytes of a file (docs/bitstream.md).

        Args:
          image: values from 0 to 255. Colors of pixels with alpha 0 are not kept. An image whose
            red, green and blue are equal everywhere is decoded to a gray image.
          quality: from 0 (smallest file) to 1, in 256 steps, for a model with gains; None is 0.5.
          alpha: transparency from 0 to 255 (opaque), kept without loss; None if all is opaque.
          coder: entropy coder, "constriction" or "tfc" (needs the extra of that name).
          **options: `reproducible`, `mode` and `plan` of `quantize`.

        Raises:
          UserError: the image has another type or shape, or this model cannot code it.
        """
        image = _prepared(image, alpha)
        (quantized,) = self.quantize([image], quality=quality, **options)
        fields = {"alpha": alpha, "gray": is_gray(image)}
        return self.encode(quantized, *image.shape[:2], quality=quality, coder=coder, **fields)

    def compress_batch(
        self,
        images: Sequence[Image],
        *,
        quality: float | None = None,
        coder: str = "constriction",
        **options: Any,
    ) -> list[bytes]:
        """Compresses many images, several at a time on the device, to the bytes of `compress`."""
        images = [_prepared(image) for image in images]
        plan = self.plan([image.shape[:2] for image in images])
        quantized = self.quantize(images, quality=quality, plan=plan, **options)
        fields = {"quality": quality, "coder": coder}
        return [
            self.encode(symbols, *image.shape[:2], gray=is_gray(image), **fields)
            for symbols, image in zip(quantized, images, strict=True)
        ]

    def decompress(self, data: bytes, **options: Any) -> Image:
        """Returns the image of `decompress_picture`, which has the same arguments."""
        return self.decompress_picture(data, **options)[0]

    def decompress_picture(
        self,
        data: bytes,
        *,
        detail: float | None = None,
        mode: str = "auto",
        plan: Sequence[Shape] = (),
        max_pixels: int = bitstream.MAX_PIXELS,
    ) -> tuple[Image, Alpha | None]:
        """Returns the RGB image, values 0 to 255, and its transparency, None if all is opaque.

        Args:
          data: the bytes that `compress` returned.
          detail: share of the output of the FCMs that is added, from 0 to 1; None is 1. If the
            model was trained for it (`loss.detail_zero`), 0 is closest to the pixels of the
            original and 1 to its spectrum.
          mode: "whole" image, "exact" tiles (the same pixels to within one level), "blend" for
            blended tiles (faster, slightly different pixels), or "auto" for whole or exact by size.
          plan: canvases from `plan`, with which images of different sizes share compiled programs.
          max_pixels: limit on the image size in pixels, counted in blocks of 64 x 64.

        Raises:
          BitstreamError: the file is damaged or too large, or needs another model or a coder that
            is not installed.
        """
        opened = self._open(data, max_pixels)
        stream, size = opened[0].alpha_stream, (opened[0].height, opened[0].width)
        alpha = unpack_alpha(stream, *size) if stream else None
        return self._images([opened], detail, mode, plan)[0], alpha

    def decompress_batch(
        self, files: Sequence[bytes], *, detail: float | None = None, mode: str = "auto"
    ) -> list[Image]:
        """Decompresses many files to RGB images, several at a time on the device."""
        opened = [self._open(data, bitstream.MAX_PIXELS) for data in files]
        plan = self.plan([(held.height, held.width) for held, _ in opened])
        return self._images(opened, detail, mode, plan)

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
        """Returns the symbols that `compress` codes for each image.

        `mode` and `plan` are those of `decompress_picture`; the symbols do not depend on them, and
        "blend" is like "exact". Computation is in float64, so that every device gives the same
        symbols, unless `reproducible` is False: then it is faster, in the network's own precision.
        """
        for image in images:
            _check_uint8(image, "the image", (None, None, 3))
            tiling.check_size(self.config, *image.shape[:2])
        network = self._encoder(choices.quality_level(self.config, quality), reproducible)
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
        **fields: Any,
    ) -> bytes:
        """Returns the file with the symbols of an image of `height` x `width` pixels.

        `quality` is the one at which they were computed, `fields` are others of the `Container`.
        """
        if alpha is not None:
            fields["alpha_stream"] = pack_alpha(alpha)
        level = choices.quality_level(self.config, quality)
        empty = Container(self.model_id, coder, width, height, quality=level, **fields)
        return coding.encode(self.entropy, quantized, empty)

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
        The encoder runs once, and about eight qualities are tried, which relies on larger files at
        higher qualities. Raises a UserError like `compress`, or if the model has a single rate.
        """
        image = _prepared(image, alpha)
        tiling.check_size(self.config, *image.shape[:2])
        if not self.config.qualities:
            why = f"{bpp:g} bits per pixel were requested, but this model has a single rate"
            raise UserError(f"{why}: use one that was trained with model.qualities")
        last, log_gain = bitstream.QUALITIES - 1, self.params["gains"]["log_gain"]
        network, finest = self._encoder(last, reproducible), choices.gains(log_gain, last)
        stream = b"" if alpha is None else pack_alpha(alpha)
        fields = {"coder": coder, "alpha_stream": stream, "gray": is_gray(image)}
        ((y, _),) = tiling.analyze(network, [image], mode)

        def size(level: int) -> int:
            scaled = y * (choices.gains(log_gain, level) / finest).astype(y.dtype)
            (z,) = programs.run_whole(network, programs.hyper_analyze, [scaled])
            quantized = coding.quantize(self.entropy, scaled, z)
            return len(self.encode(quantized, *image.shape[:2], quality=level / last, **fields))

        most = bpp * image.shape[0] * image.shape[1] / 8 - reserved
        level = max(bisect.bisect_right(range(last + 1), most, key=size) - 1, 0)
        # `compress` multiplies the gains into the weights, whose rounding may change a few symbols.
        while level > 0 and size(level) > most - _ROUNDING:
            options: dict[str, Any] = {"coder": coder, "reproducible": reproducible, "mode": mode}
            if len(self.compress(image, quality=level / last, alpha=alpha, **options)) <= most:
                break
            level -= 1
        return level / last

    def _encoder(self, level: int | None, reproducible: bool) -> Network:
        single_rate = choices.at_quality(self.config, self.params, level)
        return Network(*single_rate, "float64" if reproducible else None)

    def _open(
        self, data: bytes, max_pixels: int
    ) -> tuple[Container, Float32[np.ndarray, "_ _ cy"]]:
        """Returns the content of a file, and the input of the decoder.

        Raises only BitstreamErrors about a file, because callers handle no others.
        """
        held = bitstream.unpack(data, max_pixels)
        bitstream.check_model(held, self.model_id)
        if (held.quality is None) == bool(self.config.qualities):
            raise BitstreamError("the file is damaged in whether there is a quality: fetch it")
        coding.check_claims(held)
        try:
            tiling.check_size(self.config, held.height, held.width)
            y_hat = coding.decode(self.entropy, held)
        except UserError as error:
            raise BitstreamError(str(error)) from error
        if held.quality is not None:
            y_hat *= choices.gains(self.params["gains"]["log_inverse"], held.quality)
        return held, y_hat

    def _images(
        self, opened: Sequence[tuple[Container, Any]], detail: float | None, mode: str, plan: Any
    ) -> list[Image]:
        single_rate = choices.without_gains(self.config, self.params)
        network = Network(*choices.at_detail(*single_rate, detail))
        padded = tiling.generate(network, [y_hat for _, y_hat in opened], mode, plan)
        pairs = [
            (image[: h.height, : h.width], h) for image, (h, _) in zip(padded, opened, strict=True)
        ]
        return [luma(image) if held.gray else image for image, held in pairs]


def from_params(
    config: ModelConfig,
    params: Any,
    *,
    calibration: Iterable[HyperLatents] | None = None,
    weights: str = "float32",
    origin: Mapping[str, Any] | None = None,
) -> Model:
    """Returns a model with the parameters of an `Autoencoder`.

    Args:
      config: shape of the networks.
      params: all parameters of the `Autoencoder`.
      calibration: hyper-latents of images, as from `hyper_latents`, for the resolution of the
        integer hyper-synthesis; by default they are drawn from the prior.
      weights: data type of encoder, hyper-analysis and generator, one of `weights.KINDS`.
      origin: information for people on where the model comes from.

    Raises:
      UserError: a parameter is not finite, or too large for float16 or int8.
    """
    params = jax.device_get(params)
    entropy = float_model.entropy_model(config, params["hyperprior"], calibration)
    kept = jax.tree.map(lambda leaf: jax.device_put(rounded(leaf, weights)), _for_coding(params))
    return Model(config, kept, entropy, weights, origin or {})


def hyper_latents(config: ModelConfig, params: Any, images: Iterable[Image]) -> list[HyperLatents]:
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


def _prepared(image: Any, alpha: Any = None) -> Image:
    """Returns the image with smooth colors where it is invisible."""
    _check_uint8(image, "the image", (None, None, 3))
    if alpha is None:
        return image
    _check_uint8(alpha, "alpha", image.shape[:2])
    return fill_hidden(image, alpha)


def _check_uint8(array: Any, name: str, shape: tuple[int | None, ...]) -> None:
    """Raises a UserError for an array of another type or shape; None stands for any side."""
    dtype, found = getattr(array, "dtype", None), getattr(array, "shape", ())
    sides = " ".join("_" if side is None else str(side) for side in shape)
    kind: Any = UInt8[Any, sides]
    if not isinstance(array, kind) or 0 in found:
        described = f"a {type(array).__name__}" if dtype is None else f"{dtype} of shape {found}"
        wanted = "(height, width, 3), RGB from 0 to 255"
        if None not in shape:
            wanted = f"{shape}, that of the image"
        raise UserError(f"{name} is {described}: give uint8 of shape {wanted}")
