"""Damaged and forged files through the whole decoder, with a tiny model.

  python tests/fuzz/fuzz_codec.py --cases 20000 --first 0

Each must end in an image of the size that the file claims or in a BitstreamError of one line,
within 10 s of processor time, and all of them within 2 GB. A case is a function of its number
alone. Prints a summary as JSON, or ends with a traceback that names the first case that goes wrong.
The test suite runs 200 cases, and 20,000 with `-m slow`. With --giants the files claim 512
megapixels, and have bytes enough for the claim to be tried. This script runs on Linux.
"""

import argparse
import collections
import functools
import json
import lzma
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    import conftest  # noqa: F401  The suite's settings of JAX.

import numpy as np
from coding_model import coding_model, image_of
from fuzz import damage

from fa_hific_jax.codec import bitstream, coding, integer_synthesis, pixels
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model import Model
from fa_hific_jax.models import padded_shape

PLAN = ((192, 256),)
"""One compiled program for all files."""

SIZES = ((1, 1), (1, 130), (200, 1), (7, 5), (64, 64), (63, 65), (130, 200), (90, 128))
SECONDS, SECONDS_OF_GIANT = 10.0, 100.0
BYTES = 2 * 2**30
FORGED_SHARE = 0.02
# Symbols that a coder may meet, and some that only forgers write.
EXTREMES = (0, 1, -1, 50, -3000, 2**15, 2**24, 2**31 - 1, -(2**31))


@functools.cache
def files() -> list[bytes]:
    """Sound files: each size opaque, and two of them transparent."""
    model = coding_model()
    symbols = model.quantize([image_of(*s) for s in SIZES], reproducible=False, plan=PLAN)
    pairs = list(zip(symbols, SIZES, strict=True))
    sound = [model.encode(quantized, *size) for quantized, size in pairs]
    for quantized, size in pairs[-3:-1]:
        alpha = image_of(*size)[..., 0] // 64 * 85
        sound.append(model.encode(quantized, *size, alpha=alpha))
    return sound


def forged(rng: np.random.Generator, model: Model) -> bytes:
    """A file that is sound in all but its symbols, which no image has."""
    height, width = rng.integers(1, 190, 2).tolist()
    hz, wz = (side // 64 for side in padded_shape(height, width))
    channels = len(model.entropy.z_tables.length)
    z = rng.choice(EXTREMES, (hz, wz, channels)).astype(np.int32)
    mean, rows = integer_synthesis.parameters(model.entropy.synthesis, z)
    y = rng.choice(EXTREMES[: rng.integers(1, len(EXTREMES) + 1)], mean.shape).astype(np.int32)
    return model.encode(coding.Quantized(z, y, rows), height, width)


def case(number: int) -> tuple[str, bytes]:
    """Name of the damage, and the file."""
    rng = np.random.default_rng(number)
    if rng.random() < FORGED_SHARE:
        return "forged", forged(rng, coding_model())
    kind = damage.KINDS[number % len(damage.KINDS)]
    return kind.__name__, kind(rng, files())


def outcome(data: bytes, seconds: float = SECONDS) -> str:
    """What became of a file: "image" or "refused". Raises whatever must not happen."""
    start = time.process_time()
    try:
        image, alpha = coding_model().decompress_picture(data, plan=PLAN)
    except BitstreamError as error:
        sentence = str(error)
        assert sentence and sentence.isprintable(), f"not one line: {sentence!r}"
        result = "refused"
    else:
        held = bitstream.unpack(data)
        assert image.dtype == np.uint8 and image.shape == (held.height, held.width, 3)
        assert (alpha is not None) == bool(held.alpha_stream)
        assert alpha is None or (alpha.dtype == np.uint8 and alpha.shape == image.shape[:2])
        result = "image"
    assert time.process_time() - start < seconds
    return result


def survive(numbers: Sequence[int]) -> dict[str, collections.Counter]:
    """Outcomes of these cases by kind of damage. Raises an AssertionError that names a bad one."""
    found = collections.defaultdict(collections.Counter)
    for number in numbers:
        kind, data = case(number)
        try:
            found[kind][outcome(data)] += 1
        except BaseException as error:  # a panic of the coder is no Exception
            raise AssertionError(f"case {number}, {kind}: {error!r}") from error
    return dict(found)


def giants() -> list[bytes]:
    """Files that claim as many pixels as any may, and are damaged in their streams alone."""
    model = coding_model()
    height, width = 2**14, 2**15
    z = np.zeros((height // 64, width // 64, len(model.entropy.z_tables.length)), np.int32)
    y = np.zeros((height // 16, width // 16, model.config.latent_channels), np.uint8)
    # Its rows are not those that its z leads to.
    foreign = model.encode(coding.Quantized(z, y.astype(np.int32), y), height, width)
    held = bitstream.unpack(foreign)
    noise = np.random.default_rng(0).bytes(len(held.y_stream))
    alpha = transparent(height * width)
    return [
        foreign,
        damage.assembled(held._replace(z_stream=noise)),
        damage.assembled(held._replace(y_stream=noise, alpha_stream=alpha)),
        damage.assembled(held._replace(alpha_stream=alpha[:-9])),
    ]


def transparent(count: int) -> bytes:
    """The alpha stream of so many transparent pixels, made without them."""
    compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=pixels._LZMA)
    parts = [compressor.compress(bytes(2**20)) for _ in range(count // 2**20)]
    return b"".join([b"\0", *parts, compressor.flush()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--giants", action="store_true", help="claims of 512 megapixels instead")
    args = parser.parse_args()
    assert [outcome(data) for data in files()] == ["image"] * len(files())
    large = giants() if args.giants else []
    # This process may allocate BYTES more than it has, so that a larger claim raises.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = time.perf_counter()
    if args.giants:
        found = {"giants": collections.Counter(outcome(data, SECONDS_OF_GIANT) for data in large)}
    else:
        found = survive(range(args.first, args.first + args.cases))
    print(json.dumps({"seconds": time.perf_counter() - start, "outcomes": found}, indent=2))


if __name__ == "__main__":
    main()
