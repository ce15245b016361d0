"""Files written in one environment decode in the other, to the symbol.

By itself this tests the environment at hand. `make test-tfc` runs it in both, with FA_HIFIC_INTEROP
naming a folder that they share: each writes its files there and reads those of the other.
"""

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from coding_model import coding_model, image_of

from fa_hific_jax.codec import bitstream, coding
from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.codec.coding import Quantized
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError

SHARED = os.environ.get("FA_HIFIC_INTEROP")
HERE = f"jax-{jax.__version__}"
HAS_TFC = importlib.util.find_spec("tensorflow_compression_ops") is not None
CODERS = [name for name in bitstream.CODERS if name != "tfc" or HAS_TFC]
SIZE = (70, 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = Path(SHARED) if SHARED else tmp_path_factory.mktemp("interop")
    for kind in ("symbols", "pictures"):
        (path / kind).mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def model(folder) -> Model:
    """The model of the folder, made by whoever comes first: models travel as files."""
    path = folder / "model"
    if not path.exists():
        save_model(coding_model(), path)
    return load_model(path)


def symbols(seed: int, model: Model) -> Quantized:
    """z and y as their tables expect them, and a few far outliers."""
    rng = np.random.default_rng(seed)
    z = np.rint(rng.normal(0, 2, (2, 2, 4))).astype(np.int32)
    _, rows = integers.parameters(model.entropy.synthesis, z)
    y = np.rint(SCALE_TABLE[rows] * rng.standard_normal(rows.shape)).astype(np.int32)
    outliers = rng.random(y.shape) < 0.02
    y[outliers] = rng.integers(-(2**31), 2**31, np.count_nonzero(outliers))
    return Quantized(z, y, rows)


def assert_decodes(model: Model, data: bytes, z, y) -> None:
    decoded, _ = coding.decode_symbols(model.entropy, bitstream.unpack(data))
    np.testing.assert_array_equal(decoded.z, z)
    np.testing.assert_array_equal(decoded.y, y)


def files_of(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.fahj"))
    if SHARED:
        writers = {file.name.split("_")[0] for file in files}
        assert len(writers) > 1, "run this in the other environment before"
    return files


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("seed", range(3))
def test_symbols_are_written_and_decode_where_they_were_written(folder, model, coder, seed):
    coded = symbols(seed, model)
    data = model.encode(coded, *SIZE, coder=coder)
    path = folder / "symbols" / f"{HERE}_{coder}_{seed}.fahj"
    path.write_bytes(data)
    np.savez(path.with_suffix(".npz"), **coded._asdict())
    assert_decodes(model, data, coded.z, coded.y)


def test_all_symbols_of_the_folder_decode_here_or_name_what_is_missing(folder, model):
    for file in files_of(folder / "symbols"):
        data, coder = file.read_bytes(), file.name.split("_")[1]
        if coder not in CODERS:
            with pytest.raises(UserError, match="requirements-tfc.txt"):
                coding.decode_symbols(model.entropy, bitstream.unpack(data))
            continue
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            coded = Quantized(**arrays)
        assert_decodes(model, data, coded.z, coded.y)
        # And coding is as deterministic as decoding, whatever the environment.
        assert model.encode(coded, *SIZE, coder=coder) == data


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("height, width", [(130, 70), (1, 7)])
def test_a_picture_is_written_and_decodes_where_it_was_written(folder, model, coder, height, width):
    data = model.compress(image_of(height, width), coder=coder)
    decoded = model.decompress(data)
    assert decoded.shape == (height, width, 3)
    path = folder / "pictures" / f"{HERE}_{coder}_{height}x{width}.fahj"
    path.write_bytes(data)
    np.save(path.with_suffix(".npy"), decoded)


def test_every_picture_of_the_folder_decodes_here_and_is_coded_alike(folder, model):
    for file in files_of(folder / "pictures"):
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


def test_a_device_that_computes_other_rows_says_so(model):
    data = model.encode(symbols(0, model), *SIZE)
    synthesis = model.entropy.synthesis
    other = synthesis._replace(thresholds=synthesis.thresholds * 7 // 8)
    with pytest.raises(bitstream.BitstreamError, match="belong to another|computes the model"):
        coding.decode(model.entropy._replace(synthesis=other), bitstream.unpack(data))
