"""Damaged files, images of any kind and broken models: a right result or one clear sentence."""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import sys
import time
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of
from cpu_devices import python
from fuzz import damage, fuzz_codec
from fuzz.fuzz_codec import PLAN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fa_hific_jax.codec import arrays, bitstream, coding
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder, padded_shape

DESCRIPTION, WEIGHTS, TABLES = "model.json", "weights.safetensors", "tables.safetensors"


@contextlib.contextmanager
def allocating_less_than(limit: float):
    """The block's peak of memory, in bytes that Python knows of, stays below the limit."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# Files.


def test_200_damaged_files_give_an_image_or_one_sentence():
    assert [fuzz_codec.outcome(data) for data in fuzz_codec.files()] == ["image"] * 10
    found = fuzz_codec.survive(range(200))
    assert sum(outcomes.total() for outcomes in found.values()) == 200
    assert set(found) == {*(kind.__name__ for kind in damage.KINDS), "forged"}
    assert set(found["forged"]) == {"image"}
    for kind in ("bytes_changed", "truncated", "extended", "identity_changed"):
        assert set(found[kind]) == {"refused"}, kind


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--cases", "20000"], ["--giants"]])
def test_20000_damaged_files_and_giant_claims_give_an_image_or_one_sentence_in_2_gb(arguments):
    done = python("tests/fuzz/fuzz_codec.py", *arguments, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)["outcomes"]
    assert found == {"giants": {"refused": 4}} or set(found["forged"]) == {"image"}


CLAIMS = [(2**14, 2**15), (1, 2**23), (2**31, 1), (2**64, 2**64)]


@pytest.mark.parametrize("width, height", CLAIMS)
def test_a_giant_claim_of_a_small_file_is_refused_before_anything_is_allocated(width, height):
    model = coding_model()
    held = bitstream.unpack(fuzz_codec.files()[-1])._replace(width=width, height=height)
    swapped = held._replace(z_stream=held.y_stream, y_stream=held.z_stream)
    giant_streams = damage.assembled(held, lengths=[2**31 - 1] * 3)
    for forged in (damage.assembled(held), damage.assembled(swapped), giant_streams):
        start = time.process_time()
        with allocating_less_than(200_000), pytest.raises(BitstreamError):
            model.decompress(forged)
        assert time.process_time() - start < 1


def test_what_this_installation_or_the_model_cannot_decode_is_refused_as_damage_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_compression_ops", None)
    held = bitstream.unpack(fuzz_codec.files()[0])
    with pytest.raises(BitstreamError, match="^the coder tfc needs tensorflow_compression_ops: "):
        coding_model().decompress(bitstream.pack(held._replace(coder="tfc")))
    config = dataclasses.replace(coding_config(), fcm="legacy")
    legacy = dataclasses.replace(coding_model(), config=config)
    with pytest.raises(BitstreamError, match="1 x 1 pixels do not suit a model with model.fcm"):
        legacy.decompress(bitstream.pack(held._replace(model_id=legacy.model_id)))


# Images.


@jax.jit
def generated(params, y_hat):
    """The image of latents by the network alone, in 8 bits, sides multiples of 64."""
    image = autoencoder.bind(coding_config(), params).generate(y_hat[None])[0]
    return jnp.floor(jnp.clip(image, 0, 1) * 255 + 0.5).astype(jnp.uint8)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 128), st.integers(1, 64), st.booleans())
def test_images_of_any_size_come_back_as_the_network_makes_them(longer, shorter, upright):
    height, width = (longer, shorter) if upright else (shorter, longer)
    model, image = coding_model(), image_of(height, width)
    (quantized,) = model.quantize([image], reproducible=False, plan=PLAN)
    file = model.encode(quantized, height, width)
    decoded = model.decompress(file, plan=PLAN)
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    y_hat = coding.decode(model.entropy, bitstream.unpack(file))
    assert y_hat.shape[:2] == tuple(side // 16 for side in padded_shape(height, width))
    expected = np.asarray(generated(coding_params(), y_hat))[:height, :width]
    # On a canvas with others the sums run in another order: a value at .5 may go either way.
    np.testing.assert_allclose(decoded.astype(int), expected, atol=1)
    assert np.mean(decoded != expected) < 1e-3


@pytest.mark.parametrize(
    "view",
    [
        lambda image: np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1],
        lambda image: np.ascontiguousarray(np.moveaxis(image, 2, 0)).transpose(1, 2, 0),
        lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    ],
    ids=["reversed", "planes", "read-only"],
)
def test_how_an_image_lies_in_memory_changes_nothing(view):
    model, image = coding_model(), image_of(50, 60)
    data = model.compress(view(image), alpha=view(image)[..., 0])
    assert data == model.compress(image, alpha=np.ascontiguousarray(image[..., 0]))
    np.testing.assert_array_equal(model.decompress_picture(data)[1], image[..., 0])


@pytest.fixture
def unchecked():
    """Annotations are not enforced, as where users call."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


UINT8 = np.zeros((4, 5, 3), np.uint8)
NO_IMAGES = {
    "float32 of shape (4, 5, 3)": UINT8.astype(np.float32),
    "uint8 of shape (4, 5)": UINT8[..., 0],
    "uint8 of shape (3, 4, 5)": UINT8.transpose(2, 0, 1),
    "uint8 of shape (4, 0, 3)": UINT8[:, :0],
    "a list": UINT8.tolist(),
    "a Image": Image.new("RGB", (5, 4)),
}


def test_what_is_no_image_or_no_alpha_is_described_with_what_to_give(unchecked):
    model = coding_model()
    for described, wrong in NO_IMAGES.items():
        expected = f"^the image is {re.escape(described)}: give uint8 of shape .heig"
        with pytest.raises(UserError, match=expected):
            model.compress(wrong)
        with pytest.raises(UserError, match=expected):
            model.compress_batch([UINT8, wrong])
    with pytest.raises(UserError, match=r"^alpha is uint8 of shape \(4, 5, 3\): give uint8 of"):
        model.compress(UINT8, alpha=UINT8)


# Models.


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return save_model(coding_model(), tmp_path_factory.mktemp("models") / "sound")


@pytest.fixture
def folder(exported, tmp_path, unchecked) -> Path:
    """A copy of the model, to be broken."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def sentence_of(folder: Path) -> str:
    """The one line with which the model is refused."""
    with pytest.raises(UserError) as refused:
        load_model(folder)
    sentence = str(refused.value)
    assert sentence.startswith(str(folder)) and sentence.isprintable(), sentence[:500]
    assert len(sentence) < len(str(folder)) + 400
    return sentence.removeprefix(str(folder)).removeprefix("/")


def with_a_bit_changed(data: bytes, position: int, rng) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << rng.integers(8)]) + data[position + 1 :]


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS, TABLES])
def test_a_file_that_is_missing_or_cannot_be_read_is_named(folder, name):
    (folder / name).unlink()
    assert sentence_of(folder).startswith(f"{name}: no such file, so the model is incomplete: copy")
    (folder / name).mkdir()
    assert sentence_of(folder).startswith(f"{name}: cannot be read (Is a directory): fix that, or")


@pytest.mark.parametrize("name, other", [(WEIGHTS, TABLES), (TABLES, WEIGHTS)])
def test_damaged_and_foreign_arrays_are_named(folder, name, other, tmp_path):
    sound, rng = (folder / name).read_bytes(), np.random.default_rng(0)
    foreign = (save_model(coding_model(2), tmp_path / "other") / name).read_bytes()
    damaged = [b"", sound + b"\0", sound[: len(sound) // 2], (folder / other).read_bytes(), foreign]
    damaged += [with_a_bit_changed(sound, at, rng) for at in rng.integers(len(sound), size=4)]
    for data in damaged:
        (folder / name).write_bytes(data)
        expected = f"{name}: is damaged, its SHA-256 is not the one in model.json: copy or export"
        assert sentence_of(folder).startswith(expected)


def test_a_changed_description_is_refused_or_says_nothing_that_matters(folder):
    path, model, rng = folder / DESCRIPTION, coding_model(), np.random.default_rng(0)
    sound = path.read_bytes()
    damaged = [sound[:end] for end in rng.integers(0, len(sound) - 2, 20)]
    damaged += [b"", b"\xff" * 99, b"[" * 10**5, b"[]", b"null", b'{"format": 1}', sound[::-1]]
    places = rng.choice(len(sound), 60, replace=False)
    damaged += [with_a_bit_changed(sound, at, rng) for at in places]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            loaded = load_model(folder)
        except UserError as error:
            assert str(error).startswith(str(folder)) and str(error).isprintable()
            refused += 1
        else:
            assert loaded.model_id == model.model_id
            assert dataclasses.replace(loaded.config, fcm_dropout=0.0) == model.config
    assert refused > 0.7 * len(damaged)


def redescribed(folder: Path, **changes) -> None:
    """Changes model.json: of its "model" where the key is there, with checksums that match."""
    described = json.loads((folder / DESCRIPTION).read_text())
    for key, value in changes.items():
        (described["model"] if key in described["model"] else described)[key] = value
    for name in (WEIGHTS, TABLES):
        described["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_text(json.dumps(described))


# The model's id leaves the encoder out: its widths would show when the first image is compressed.
OTHER_ENCODER = "it states encoder widths (4, 4, 4, 4, 5), but the weights have (4, 4, 4, 4, 4): "
ABSURD = [
    ({"encoder_widths": [4, 4, 4, 4, 5]}, f"model.json: is damaged, {OTHER_ENCODER}copy or export"),
    ({"encoder_widths": [4.0, 4, 4.5, 4, 4]}, ""),
    ({"generator_widths": [10**9] * 5}, ""),
    ({"generator_widths": [4] * 10**5}, ""),
    ({"latent_channels": 10**12}, ""),
    ({"residual_blocks": "1"}, ""),
    ({"dtype": "float8"}, ""),
    ({"variant": []}, ""),
    ({"id": "00" * 8}, "the content is that of model"),
    ({"weights": "float8"}, "it states weights of 'float8'"),
    ({"format": 2}, "has model format 2"),
    ({"sha256": {}, "origin": []}, ""),
]


@pytest.mark.parametrize("changes, sentence", ABSURD, ids=lambda value: f"{value}"[:40])
def test_absurd_descriptions_are_refused_and_allocate_nothing(folder, changes, sentence):
    redescribed(folder, **changes)
    size = sum((folder / name).stat().st_size for name in (WEIGHTS, TABLES, DESCRIPTION))
    # The tables unfold from counts to rows of equal length: 64 of 1793 entries of 4 bytes.
    with allocating_less_than(20 * size):
        assert sentence in sentence_of(folder)


def test_arrays_that_are_none_are_named_even_under_their_own_checksum(folder):
    (folder / WEIGHTS).write_bytes(b"\x08" + bytes(30))
    redescribed(folder)
    assert sentence_of(folder).startswith(f"{WEIGHTS}: is damaged, it is not a safetensors file (")


# 64 rows as wide as the widest: 64 * 2**24 entries of 4 bytes from counts of 32 MiB.
WIDE = np.array([2**24, *[3] * 63], np.int32)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"y.length": lambda a: np.full_like(a, 2**31 - 1)}, "y.length does not fit"),
        ({"z.length": lambda a: a[:-1]}, "z.length is int32"),
        ({"z.length": lambda a: -a}, "z.length does not fit"),
        ({"y.counts": lambda a: a[::-1] * 0}, "y.counts does not sum to 65536"),
        ({"z.offset": lambda a: a.astype(np.int64)}, "z.offset is int64"),
        (
            {
                "y.length": lambda a: WIDE,
                "y.counts": lambda a: np.ones(int(np.sum(WIDE - 1)), np.uint16),
            },
            "y.length does not fit",
        ),
    ],
)
def test_tables_that_cannot_be_are_refused_before_they_unfold(changes, sentence):
    tables = arrays.entropy_arrays(coding_model().entropy)
    tables |= {name: change(tables[name]) for name, change in changes.items()}
    refused = pytest.raises(
        UserError, match=f"^the coding tables are unusable, {sentence}.*: export"
    )
    with allocating_less_than(2**20), refused:
        arrays.entropy_from_arrays(tables)
