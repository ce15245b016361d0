"""A model that codes: images to bytes and back."""

import bisect
import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from fa_hific_jax.codec import arrays, bitstream, choices, coding, programs, tiling
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.coding import EntropyModel, Extras, Quantized
from fa_hific_jax.codec.gray import is_gray, luma
from fa_hific_jax.codec.hidden import fill_hidden
from fa_hific_jax.codec.pixels import pack_alpha, unpack_alpha
from fa_hific_jax.codec.programs import Network, Shape
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import ModelConfig

Image = UInt8[np.ndarray, "_ _ 3"]
Alpha = UInt8[np.ndarray, "_ _"]

WEIGHTS = ("float32", "float16")

_CALIBRATED = (1.0, 0.0, 0.5)
_ROUNDING = 16  # bytes by which files of nearly the same latents may differ


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """All that coding needs of a trained model: `from_params`, or `load_model` of a folder.

    Attributes:
      config: shape of the networks.
      params: of `Autoencoder`, without what `entropy` stands for: encoder, hyper-analysis,
        generator and gains, float32 on the device.
      entropy: coding tables and the integer hyper-synthesis.
      weights: "float16" where params have been rounded to it.
      origin: where the model came from, for people; JSON.
      model_id: 8 bytes that files carry, a hash of all that decoding depends on.
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
        """The file of an RGB image of any size, values 0 to 255 (docs/bitstream.md).

        An image whose red, green and blue are equal everywhere comes back so.

        Args:
          image: the picture. Its colors where alpha is 0 are nobody's to see and not kept.
          quality: from 0 (smallest) to 1, in 256 steps, of a model with gains; 0.5 without.
          alpha: its transparency, kept without loss; none where all is opaque.
          coder: entropy coder, "constriction" or "tfc" (needs the extra of that name).
          reproducible: compute in float64, so that every device gives the same bytes. Without, in
            the network's own precision: faster, other bytes here and there, decodable all the same.
          mode: "whole", in "exact" tiles, or "auto" by size. The bytes are the same; "blend"
            matters to the decoder alone.
          plan: canvases on which smaller images share compiled programs, see `plan`.

        Raises:
          UserError: not such an image, or one that this model cannot code.
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
        """The RGB image in a file of `compress`, values 0 to 255.

        Args:
          data: the file.
          detail: how much of what the FCMs add is added, from 0 to 1; all without. Trained for it
            (`loss.detail_zero`), 0 is nearest to the original's values, 1 to its spectrum.
          mode: "whole", in "exact" tiles (the same image, to one step), in "blend"ed tiles (faster,
            not quite the same), or "auto": whole or exact, by size.
          plan: as for `compress`.
          max_pixels: refuse larger images, counted in blocks of 64 x 64 pixels.

        Raises:
          BitstreamError: the file is damaged, too large, of another model, or of a coder that is
            not installed.
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
        """As `decompress`, with the transparency, None where all is opaque."""
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
        """The files of many images, several at a time on the device; the same bytes as singly."""
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
        """The RGB images in many files, several at a time on the device."""
        containers = [self._unpack(data, bitstream.MAX_PIXELS) for data in files]
        plan = self.plan([(container.height, container.width) for container in containers])
        latents = [self._latents(container) for container in containers]
        images = tiling.generate(self._decoder(detail), latents, mode, plan)
        pairs = zip(images, containers, strict=True)
        return [_finished(image, container) for image, container in pairs]

    def plan(self, sizes: Sequence[Shape]) -> tuple[Shape, ...]:
        """At most two canvases for images of these (height, width): see `programs.plan`."""
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
        """The symbols that `compress` codes of each image."""
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
        """The file of the symbols of an image of this size in pixels, at this quality."""
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
        """The highest quality at which the image's file has at most `bpp` bits per pixel, or 0.

        All of the file counts, transparency included, and so do `reserved` bytes that are to be
        added to it. At quality 0 the file may be larger than asked for: none is smaller.

        The encoder runs once; some eight qualities are coded, larger ones being taken for those of
        larger files.

        Raises:
          UserError: the model has one rate alone, or the image is none.
        """
        _check_image(image)
        tiling.check_size(self.config, *image.shape[:2])
        if not self.config.qualities:
            raise UserError(
                f"{bpp:g} bits per pixel were asked for, but this model has a single rate: take "
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
        # Gains that are rounded into the weights, as for coding, turn a symbol here and there.
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
        config = dataclasses.replace(self.config, qualities=0)
        return Network(*choices.at_detail(config, _without_gains(self.params), detail))

    def _unpack(self, data: bytes, max_pixels: int) -> bitstream.Container:
        container = bitstream.unpack(data, max_pixels)
        bitstream.check_model(container, self.model_id)
        if (container.quality is None) == bool(self.config.qualities):
            raise BitstreamError(
                "the file and the model disagree on whether there is a quality, the file is "
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
    """A model of the parameters of an `Autoencoder`.

    `calibration` as for `coding.entropy_model`; `weights` "float16" rounds encoder,
    hyper-analysis and generator to half precision, for half the size.

    Raises:
      UserError: a parameter is not finite, or too large for float16.
    """
    params = jax.device_get(params)
    hyperprior = params["hyperprior"]
    used = params | {"hyperprior": {"analysis": hyperprior["analysis"]}}
    return Model(
        config=config,
        params=jax.device_put(jax.tree.map(lambda leaf: _rounded(leaf, weights), used)),
        entropy=coding.entropy_model(config, hyperprior, calibration),
        weights=weights,
        origin=origin or {},
    )


def hyper_latents(
    config: ModelConfig, params: Any, images: Iterable[Image]
) -> list[Int32[np.ndarray, "_ _ _"]]:
    """z of images, rounded: a calibration for `from_params`.

    Of a model with gains, at qualities by turns.
    """
    latents = []
    for image, quality in zip(images, itertools.cycle(_CALIBRATED)):
        level = choices.quality_level(config, quality if config.qualities else None)
        network = Network(*choices.at_quality(config, params, level))
        latents.append(tiling.analyze(network, [image])[0][1])
    return [np.floor(z + 0.5).astype(np.int32) for z in latents]


def _finished(image: Image, container: bitstream.Container) -> Image:
    image = image[: container.height, : container.width]
    return luma(image) if container.gray else image


def _without_gains(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in params.items() if name != "gains"}


def _rounded(leaf: np.ndarray, weights: str) -> Float32[np.ndarray, "..."]:
    if weights not in WEIGHTS:
        raise UserError(f"there are no weights of {weights!r}: choose one of {', '.join(WEIGHTS)}")
    with np.errstate(over="ignore"):
        rounded = np.asarray(leaf, weights).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise UserError(
            f"a weight is not finite, or too large for {weights}: take float32, or a checkpoint "
            "from before the training diverged"
        )
    return rounded


@contextlib.contextmanager
def _one_class_of_errors() -> Iterator[None]:
    """Whatever is wrong with a file is a BitstreamError: who decodes many has one to expect."""
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
