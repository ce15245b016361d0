"""Files written in one environment decode in the other, to the symbol.

By itself this tests the environment at hand. `make test-tfc` runs it in both, with FA_HIFIC_INTEROP
naming a folder that they share: each writes its files there and reads those of the other.
"""

import hashlib
import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from coding_model import coding_model, image_of

from fa_hific_jax.codec import bitstream, coders
from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.codec.bitstream import Container
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.entropy import tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError

SHARED = os.environ.get("FA_HIFIC_INTEROP")
HERE = f"jax-{jax.__version__}"
HAS_TFC = importlib.util.find_spec("tensorflow_compression_ops") is not None
CODERS = [name for name in bitstream.CODERS if name != "tfc" or HAS_TFC]
WIDTH, HEIGHT, CHANNELS, HIDDEN = 100, 70, 6, 8
Z_SHAPE = (2, 2, CHANNELS)


def gaussian_weights(rng, side: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    spread = 2 / np.sqrt(side**2 * inputs)
    kernel = rng.normal(0, spread, (side, side, inputs, outputs)).astype(np.float32)
    return {"kernel": kernel, "bias": rng.normal(0, 1, outputs).astype(np.float32)}


def make_model() -> dict[str, np.ndarray]:
    """What a decoder has of a model, as arrays: integer hyper-synthesis and tables."""
    rng = np.random.default_rng(0)
    hyperprior = {
        name: {
            "up0": gaussian_weights(rng, 5, CHANNELS, HIDDEN),
            "up1": gaussian_weights(rng, 5, HIDDEN, HIDDEN),
            "conv2": {"Conv_0": gaussian_weights(rng, 3, HIDDEN, CHANNELS)},
        }
        for name in ("synthesis_mean", "synthesis_scale")
    }
    z_tables = tables.gaussian_tables(np.linspace(0.5, 3, CHANNELS))
    y_tables = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
    synthesis = integers.quantize_synthesis(hyperprior, integers.calibration_latents(z_tables))
    arrays = {f"exact.{key}": value for key, value in integers.to_arrays(synthesis).items()}
    for name, of in {"z": z_tables, "y": y_tables}.items():
        arrays |= {f"{name}.{key}": value for key, value in of._asdict().items()}
    return arrays


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {
        key.removeprefix(f"{name}."): array
        for key, array in arrays.items()
        if key.startswith(f"{name}.")
    }


def z_indexes() -> np.ndarray:
    return np.tile(np.arange(CHANNELS, dtype=np.uint8), Z_SHAPE[0] * Z_SHAPE[1])


def encode(model: dict[str, np.ndarray], z: np.ndarray, y: np.ndarray, coder: str) -> bytes:
    _, rows = integers.parameters(integers.from_arrays(part(model, "exact")), z)
    z_tables, y_tables = (tables.Tables(**part(model, name)) for name in "zy")
    container = Container(
        model_id=hashlib.sha256(model["y.cdf"].tobytes()).digest()[:8],
        coder=coder,
        width=WIDTH,
        height=HEIGHT,
        z_stream=coders.encode(z.ravel(), z_indexes(), z_tables, coder),
        y_stream=coders.encode(y.ravel(), rows.ravel(), y_tables, coder),
        alpha_stream=b"",
        symbols_crc=bitstream.symbols_crc(z, y),
    )
    return bitstream.pack(container)


def decode(model: dict[str, np.ndarray], data: bytes) -> tuple[np.ndarray, np.ndarray]:
    container = bitstream.unpack(data)
    z_tables, y_tables = (tables.Tables(**part(model, name)) for name in "zy")
    z = coders.decode(container.z_stream, z_indexes(), z_tables, container.coder)
    z = z.reshape(Z_SHAPE)
    _, rows = integers.parameters(integers.from_arrays(part(model, "exact")), z)
    y = coders.decode(container.y_stream, rows.ravel(), y_tables, container.coder)
    y = y.reshape(rows.shape)
    bitstream.check_symbols(container, z, y)
    return z, y


def symbols(seed: int, model: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Those of an image: z and y as their tables expect them, and a few far outliers."""
    rng = np.random.default_rng(seed)
    z = np.rint(rng.normal(0, 2, Z_SHAPE)).astype(np.int32)
    _, rows = integers.parameters(integers.from_arrays(part(model, "exact")), z)
    y = np.rint(SCALE_TABLE[rows] * rng.standard_normal(rows.shape)).astype(np.int32)
    outliers = rng.random(y.shape) < 0.02
    y[outliers] = rng.integers(-(2**31), 2**31, np.count_nonzero(outliers))
    return z, y


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = Path(SHARED) if SHARED else tmp_path_factory.mktemp("interop")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def model(folder) -> dict[str, np.ndarray]:
    """The model of the folder, made by whoever comes first: models travel as files."""
    path = folder / "model.npz"
    if not path.exists():
        np.savez(path, **make_model())
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_file_is_written_and_decodes_where_it_was_written(folder, model, coder, seed):
    z, y = symbols(seed, model)
    data = encode(model, z, y, coder)
    (folder / f"{HERE}_{coder}_{seed}.fahj").write_bytes(data)
    np.savez(folder / f"{HERE}_{coder}_{seed}.npz", z=z, y=y)
    for decoded, coded in zip(decode(model, data), (z, y), strict=True):
        np.testing.assert_array_equal(decoded, coded)


def test_every_file_of_the_folder_decodes_here_or_names_what_is_missing(folder, model):
    files = sorted(folder.glob("*.fahj"))
    if SHARED:
        writers = {file.name.split("_")[0] for file in files}
        assert len(writers) > 1, "run this in the other environment before"
    for file in files:
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as coded:
            z, y = coded["z"], coded["y"]
        data, coder = file.read_bytes(), file.name.split("_")[1]
        if coder not in CODERS:
            with pytest.raises(UserError, match="requirements-tfc.txt"):
                decode(model, data)
            continue
        for decoded, was in zip(decode(model, data), (z, y), strict=True):
            np.testing.assert_array_equal(decoded, was)
        # And coding is as deterministic as decoding, whatever the environment.
        assert encode(model, z, y, coder) == data


@pytest.fixture(scope="module")
def coding(folder) -> Model:
    """A whole model in the same folder, networks and all."""
    path = folder / "model"
    if not path.exists():
        save_model(coding_model(), path)
    return load_model(path)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("height, width", [(70, 100), (129, 1)])
def test_a_picture_is_written_and_decodes_where_it_was_written(
    folder, coding, coder, height, width
):
    data = coding.compress(image_of(height, width), coder=coder)
    decoded = coding.decompress(data)
    assert decoded.shape == (height, width, 3)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    name = f"{HERE}_{coder}_{height}x{width}"
    (pictures / f"{name}.fahj").write_bytes(data)
    np.save(pictures / f"{name}.npy", decoded)


def test_every_picture_of_the_folder_decodes_here_and_is_coded_alike(folder, coding):
    files = sorted((folder / "pictures").glob("*.fahj"))
    if SHARED:
        assert len({file.name.split("_")[0] for file in files}) > 1, "run the other one before"
    for file in files:
        _, coder, size = file.stem.split("_")
        height, width = map(int, size.split("x"))
        if coder not in CODERS:
            with pytest.raises(UserError, match="requirements-tfc.txt"):
                coding.decompress(file.read_bytes())
            continue
        there = np.load(file.with_suffix(".npy")).astype(int)
        here = coding.decompress(file.read_bytes()).astype(int)
        # The symbols are the same, which the file's checksum proves; the generator is float32.
        assert np.max(np.abs(here - there)) <= 1
        assert coding.compress(image_of(height, width), coder=coder) == file.read_bytes()


def test_a_device_that_computes_other_rows_says_so(model):
    z, y = symbols(0, model)
    data = encode(model, z, y, "constriction")
    other = model | {"exact.thresholds": model["exact.thresholds"] * 7 // 8}
    with pytest.raises(bitstream.BitstreamError, match="belong to another|computes the model"):
        decode(other, data)
