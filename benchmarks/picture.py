"""Draws the README's picture: originals, and the same images coded by a model, JPEG and WebP.

  python -m benchmarks.picture --quality 0.3 -o docs/lite.jpg

Each image has a row: the original, the model's decoded file, and JPEG and WebP at the closest
number of bytes. After coding, each is cropped to a central square. The rate and PSNR above each are
measured on the whole image.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fa_hific_jax import load_model
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.results import replace_file
from fa_hific_jax.metrics import psnr

HEAD, GAP = 22, 6
BASELINES = ("jpeg", "webp")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lite", help="folder of a model (lite)")
    parser.add_argument(
        "--images",
        default="photographs:validation",
        help="source of images (photographs:validation)",
    )
    parser.add_argument("--limit", type=int, default=3, help="number of images (3)")
    parser.add_argument("--quality", type=float, help="quality of the model, from 0 to 1")
    parser.add_argument("--side", type=int, default=256, help="side of the squares in pixels (256)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JPEG file to write")
    args = parser.parse_args()
    model, source = load_model(args.model), open_source(args.images)
    count = min(args.limit, len(source))
    rows = [row(model, source[i], args.quality, args.side) for i in range(count)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "JPEG", quality=92, subsampling=0)
    replace_file(args.output, buffer.getvalue())


def row(model, image: np.ndarray, quality: float | None, side: int) -> np.ndarray:
    """Returns an image and its codings side by side, each under its name, rate and PSNR."""
    data = model.compress(image, quality=quality)
    coded = [("this model", data, model.decompress(data))]
    for name in BASELINES:
        other = baselines.encode_nearest(image, name, len(data))
        coded.append((baselines.codec(name).label, other.data, other.image))
    pixels = image.shape[0] * image.shape[1]
    cells = [cell("original", image, side)]
    for name, file, decoded in coded:
        told = f"{name}, {8 * len(file) / pixels:.3f} bpp, {psnr(image, decoded):.1f} dB"
        cells.append(cell(told, decoded, side))
    return np.concatenate(cells, axis=1)


def cell(told: str, image: np.ndarray, side: int) -> np.ndarray:
    """Returns the central square of an image under a line of text, on white."""
    top, left = ((length - side) // 2 for length in image.shape[:2])
    sheet = Image.new("RGB", (side + GAP, side + HEAD + GAP), "white")
    sheet.paste(Image.fromarray(image[top : top + side, left : left + side]), (0, HEAD))
    ImageDraw.Draw(sheet).text((2, 4), told, fill="black", font=ImageFont.load_default(size=13))
    return np.asarray(sheet)


if __name__ == "__main__":
    main()
