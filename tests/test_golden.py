"""Files of the past: every version reads them, and gets the symbols that were coded."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from coding_model import image_of

from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec.model_folder import load_model

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("v*/*.fahj"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_old_files_hold_what_they_held(path):
    model = load_model(path.parent / "model")
    told = json.loads((path.parent / "facts.json").read_text())[path.name]
    data = path.read_bytes()
    container = bitstream.unpack(data)
    assert (container.width, container.height) == (told["width"], told["height"])
    assert container.coder == told["coder"]
    symbols, _ = coding.decode_symbols(model.entropy, container)
    coded = b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in (symbols.z, symbols.y))
    assert hashlib.sha256(coded).hexdigest() == told["symbols_sha256"]
    image, alpha = model.decompress_picture(data)
    assert image.shape == (told["height"], told["width"], 3)
    # Devices may round a pixel to the next step, which moves the mean by less.
    np.testing.assert_allclose(image.mean(axis=(0, 1)), told["mean"], atol=0.1)
    if told["alpha_sha256"] is not None:
        assert hashlib.sha256(alpha.tobytes()).hexdigest() == told["alpha_sha256"]


def test_this_version_writes_the_bytes_of_its_golden_file():
    version = GOLDEN / f"v{bitstream.VERSION}"
    model = load_model(version / "model")
    assert model.compress(image_of(200, 70)) == (version / "tall.fahj").read_bytes()
