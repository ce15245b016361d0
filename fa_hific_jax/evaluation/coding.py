"""One image through one point of a model: a real file, decoded again, and its picture kept."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from fa_hific_jax.codec import bitstream, compress
from fa_hific_jax.evaluation import bits
from fa_hific_jax.evaluation.candidates import Candidate, Point
from fa_hific_jax.evaluation.classical import Image, keep
from fa_hific_jax.evaluation.results import replace_file

Canvases = Sequence[tuple[int, int]]


def with_model(
    candidate: Candidate, point: Point, image: Image, plan: Canvases, file: Path, bits_file: Path
) -> dict[str, Any]:
    """What a row says of the coding; writes the reconstruction and the bits of each position.

    The estimated rate is that of the model's own densities, as in training, and for an exported
    model, which has lost them, the code length under its integer tables.

    Raises:
      UserError: the model cannot code this image.
    """
    height, width, _ = image.shape
    quality, detail = _given(quality=point.quality), _given(detail=point.detail)
    start = time.perf_counter()
    data = candidate.model.compress(image, plan=plan, **quality)
    encoded = time.perf_counter()
    decoded = candidate.model.decompress(data, plan=plan, **detail)
    end = time.perf_counter()
    entropy = candidate.model.entropy
    symbols, _ = compress.decode_symbols(entropy, bitstream.unpack(data))
    map_of_bits = bits.of_symbols(entropy, symbols)
    estimated = map_of_bits.total
    if candidate.params is not None:
        estimated = compress.estimated_bits(candidate.model.config, candidate.params, symbols)
    replace_file(bits_file, bits.npz(map_of_bits))
    keep(decoded, image, file)
    return {
        "bytes": len(data),
        "bpp": 8 * len(data) / (height * width),
        "bpp_estimated": estimated / (height * width),
        "setting": "",
        "seconds_encode": encoded - start,
        "seconds_decode": end - encoded,
    }


def warm_up(candidate: Candidate, point: Point, image: Image, plan: Canvases) -> None:
    """Codes once for nothing: compilation is not coding time."""
    data = candidate.model.compress(image, plan=plan, **_given(quality=point.quality))
    candidate.model.decompress(data, plan=plan, **_given(detail=point.detail))


def _given(**options: float | None) -> dict[str, Any]:
    """Models without such a knob are not asked to turn it."""
    return {name: value for name, value in options.items() if value is not None}


def out_of_memory(error: Exception) -> bool:
    """Whether an error is of a device or a host whose memory is too small."""
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )
