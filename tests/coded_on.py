"""Codes a few images in an environment of its own and prints what came out, as JSON.

  PYTHONPATH=.:tests python tests/coded_on.py MODEL

The files of the images, and the SHA-256 of the latents that they decode to.
"""

import hashlib
import json
import sys

import numpy as np
from coding_model import image_of

from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.model_folder import load_model

SIZES = ((40, 70), (64, 130))


def coded(model: Model) -> dict[str, list[str]]:
    """Hexadecimal bytes of each file, and the hash of its latents."""
    files = [model.compress(image_of(*size)) for size in SIZES]
    return {"files": [data.hex() for data in files], "latents": [latents(model, f) for f in files]}


def latents(model: Model, data: bytes) -> str:
    """SHA-256 of the latents that a file decodes to, as little-endian float32."""
    y_hat = coding.decode(model.entropy, bitstream.unpack(data))
    return hashlib.sha256(np.ascontiguousarray(y_hat, "<f4").tobytes()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(coded(load_model(sys.argv[1]))))
