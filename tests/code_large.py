"""Codes an image of 100 megapixels with a random lite model and prints the peak memory in GB.

python tests/code_large.py compress FILE
python tests/code_large.py decompress FILE
"""

import resource
import sys
from pathlib import Path

import jax
import numpy as np
from coding_model import init_parameters

from configs import lite
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.settings import from_mapping

SIZE = (8640, 11600)


def main(direction: str, path: Path) -> None:
    config = from_mapping(lite.get_config().to_dict()).model
    model = from_params(config, init_parameters(config, jax.random.key(0)))
    if direction == "compress":
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 200, (SIZE[0] // 80, SIZE[1] // 80, 3), dtype=np.uint8)
        image = blocks.repeat(80, axis=0).repeat(80, axis=1)
        image += rng.integers(0, 40, image.shape, dtype=np.uint8)
        path.write_bytes(model.compress(image))
    else:
        assert model.decompress(path.read_bytes()).shape == (*SIZE, 3)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
