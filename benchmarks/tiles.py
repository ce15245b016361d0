"""Measures how much images decoded in tiles differ from whole ones, and the time of each mode.

  python benchmarks/tiles.py --model MODEL --images IMAGES

Decodes each image whole, in exact tiles and in blended tiles. The tiles have --side latents, by
default 24 (384 pixels), so that photographs of half a megapixel have several; the codec uses 128.
Prints the largest and the mean difference from the whole image in 8-bit levels, and the seconds of
processor time.
"""

import argparse
import time

import numpy as np

from fa_hific_jax import load_model
from fa_hific_jax.codec import tiling
from fa_hific_jax.data.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--side", type=int, default=24)
    args = parser.parse_args()
    model, source = load_model(args.model), open_source(args.images)
    tiling._TRUNK_SIDE = args.side
    tiling._ENLARGE_SIDE = min(args.side, tiling._ENLARGE_SIDE)
    print(f"{tiling.receptive_field(model.config)}")
    worst = dict.fromkeys(("exact", "blend"), 0)
    for i, name in enumerate(source.names):
        data = model.compress(source[i])
        images, line = {}, name
        for mode in ("whole", *worst):
            model.decompress(data, mode=mode)  # compiles, which is not timed
            start = time.process_time()
            images[mode] = model.decompress(data, mode=mode).astype(int)
            line += f"  {mode} {time.process_time() - start:.2f} s"
            if mode != "whole":
                apart = np.abs(images[mode] - images["whole"])
                worst[mode] = max(worst[mode], int(apart.max()))
                line += f", {apart.max()} steps, mean {apart.mean():.4f}"
        print(line, flush=True)
    print(f"largest differences: {worst}")


if __name__ == "__main__":
    main()
