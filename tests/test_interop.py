"""Files written in one environment decode in the other, to the symbol.

By itself this tests the environment at hand. `make test-tfc` runs it in both, with FA_HIFIC_INTEROP
naming a folder that they share: each writes its files there and reads those of the other.
"""

import importlib.util
import itertools
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from coding_model import coding_model, image_of

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.errors import UserError

SHARED = os.environ.get("FA_HIFIC_INTEROP")
HAS_TFC = importlib.util.find_spec("tensorflow_compression_ops") is not None
CODERS = [name for name in bitstream.CODERS if name != "tfc" or HAS_TFC]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds a model, made by whoever comes first: models travel as files."""
    path = Path(SHARED or tmp_path_factory.mktemp("interop"))
    if not (path / "model").exists():
        save_model(coding_model(), path / "model")
    return path


def test_pictures_are_written_and_decode_where_they_were_written(folder):
    model = load_model(folder / "model")
    for coder, (height, width) in itertools.product(CODERS, [(130, 70), (1, 7)]):
        data = model.compress(image_of(height, width), coder=coder)
        path = folder / f"jax-{jax.__version__}_{coder}_{height}x{width}.fahj"
        path.write_bytes(data)
        np.save(path.with_suffix(".npy"), model.decompress(data))


def test_every_picture_of_the_folder_decodes_here_and_is_coded_alike(folder):
    model, files = load_model(folder / "model"), sorted(folder.glob("*.fahj"))
    writers = {file.name.split("_")[0] for file in files}
    assert len(writers) > 1 or not SHARED, "run this in the other environment before"
    for file in files:
        _, coder, size = file.stem.split("_")
        height, width = map(int, size.split("x"))
        if coder not in CODERS:
            with pytest.raises(UserError, match="requirements-tfc.txt"):
                model.decompress(file.read_bytes())
            continue
        there = np.load(file.with_suffix(".npy")).astype(int)
        here = model.decompress(file.read_bytes()).astype(int)
        # The symbols are the same, which the file's checksum proves; the generator is float32.
        assert np.max(np.abs(here - there)) <= 1
        assert model.compress(image_of(height, width), coder=coder) == file.read_bytes()
