"""Makes the golden files: a tiny model, files that it wrote, and what they hold.

  PYTHONPATH=.:tests python tests/golden/make.py FOLDER

Every later version must read them (tests/test_golden.py). They are made anew only where the format
of files or models changes on purpose, under a new name beside the old ones: FOLDER is v2 for files
of bitstream version 2.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from coding_model import coding_config, coding_params, image_of

from fa_hific_jax.codec import bitstream, coding, integer_synthesis
from fa_hific_jax.codec.model import Model, from_params
from fa_hific_jax.codec.model_folder import load_model, save_model

SIZES = {"pixel": (1, 1), "odd": (63, 65), "tall": (200, 70), "escapes": (64, 64)}


def facts(model: Model, data: bytes) -> dict[str, object]:
    """What a file holds: sizes, SHA-256 of all symbols, mean brightness of the decoded image."""
    container = bitstream.unpack(data)
    symbols, _ = coding.decode_symbols(model.entropy, container)
    digest = hashlib.sha256()
    for array in (symbols.z, symbols.y):
        digest.update(np.ascontiguousarray(array, "<i4").tobytes())
    image, alpha = model.decompress_picture(data)
    return {
        "width": container.width,
        "height": container.height,
        "coder": container.coder,
        "symbols_sha256": digest.hexdigest(),
        "alpha_sha256": None if alpha is None else hashlib.sha256(alpha.tobytes()).hexdigest(),
        "mean": [round(float(mean), 2) for mean in image.mean(axis=(0, 1))],
    }


def main(folder: Path) -> None:
    made = from_params(coding_config(), coding_params(), weights="float16")
    model = load_model(save_model(made, folder / "model"))
    told = {}
    for name, (height, width) in SIZES.items():
        image = image_of(height, width)
        alpha = np.tri(height, width, dtype=np.uint8) * 200 if name == "odd" else None
        (quantized,) = model.quantize([image])
        if name == "escapes":  # far above and below what the scales predict
            quantized.y.flat[::7], quantized.z.flat[0] = 100_000, -5000
            _, rows = integer_synthesis.parameters(model.entropy.synthesis, quantized.z)
            quantized = quantized._replace(rows=rows)
        data = model.encode(quantized, height, width, alpha=alpha)
        (folder / f"{name}.fahj").write_bytes(data)
        told[f"{name}.fahj"] = facts(model, data)
    (folder / "facts.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
