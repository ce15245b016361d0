"""Compares the files and symbols that two devices write, and how each decodes the other's.

  python benchmarks/cross_device.py write DIR --model MODEL --images IMAGES
  python benchmarks/cross_device.py check DIR --model MODEL --images IMAGES

`write` compresses each image and 200 crops of random position and size into DIR, and decompresses
them. Take DIR to another device, or set other XLA_FLAGS, and run `check` there. That compresses the
same pictures again and decompresses the files of the first device. It prints how many symbols and
files differ (none should) and the largest difference of decoded pixels. Exits with 1 if symbols
differ.

  --crops N    number of crops (200)
  --fast       encodes without float64, to count the symbols that then differ
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from fa_hific_jax import load_model
from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.data.sources import open_source

# Few values, because each shape is compiled.
SIDES = (64, 100, 192, 320)


def pictures(source, crops: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, pixels) of each image, then of each crop; the crops are the same every time."""
    for i, name in enumerate(source.names):
        yield name, source[i]
    rng = np.random.default_rng(0)
    for number in range(crops):
        image = source[int(rng.integers(len(source)))]
        height, width = (min(int(rng.choice(SIDES)), side) for side in image.shape[:2])
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        yield f"crop{number:03}", image[top : top + height, left : left + width]


def write(args: argparse.Namespace, model, source) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, image in pictures(source, args.crops):
        data = model.compress(image, reproducible=not args.fast)
        (args.folder / f"{name}.fahj").write_bytes(data)
        Image.fromarray(model.decompress(data)).save(args.folder / f"{name}.png")
        count += 1
    print(f"{count} files in {args.folder}, written on {jax.devices()[0].device_kind}")


def check(args: argparse.Namespace, model, source) -> None:
    files = symbols = wrong_symbols = wrong_files = unreadable = pixels_apart = 0
    for name, image in pictures(source, args.crops):
        theirs = (args.folder / f"{name}.fahj").read_bytes()
        (ours,) = model.quantize([image], reproducible=not args.fast)
        files += 1
        symbols += ours.y.size + ours.z.size
        wrong_files += theirs != model.encode(ours, *image.shape[:2])
        try:
            coded, _ = coding.decode_symbols(model.entropy, bitstream.unpack(theirs))
            decoded = model.decompress(theirs).astype(int)
        except BitstreamError as error:
            print(f"{name}: {error}")
            unreadable += 1
            continue
        wrong_symbols += sum(
            int(np.count_nonzero(a != b)) for a, b in zip(ours, coded, strict=True)
        )
        with Image.open(args.folder / f"{name}.png") as picture:
            apart = np.max(np.abs(decoded - np.asarray(picture).astype(int)))
        pixels_apart = max(pixels_apart, int(apart))
    print(f"checked on {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{wrong_symbols} of {symbols} symbols differ, {wrong_files} of {files} files")
    print(f"{unreadable} files cannot be read here; pixels are at most {pixels_apart} steps apart")
    sys.exit(1 if wrong_symbols or unreadable else 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    actions = {"write": write, "check": check}
    actions[args.action](args, load_model(args.model), open_source(args.images))


if __name__ == "__main__":
    main()
