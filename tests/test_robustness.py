"""Damaged files, images of any kind and broken models: a right result or one clear sentence."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
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
from fuzz import damage, fuzz_codec
from fuzz.fuzz_codec import PLAN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fa_hific_jax.cli.main import main
from fa_hific_jax.codec import arrays, bitstream, coding
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model import Model
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder, padded_shape

FOLDER = Path(__file__).parent
DESCRIPTION, WEIGHTS, TABLES = "model.json", "weights.safetensors", "tables.safetensors"


# Files.


def test_500_damaged_files_give_an_image_or_one_sentence():
    assert [fuzz_codec.outcome(data) for data in fuzz_codec.files()] == ["image"] * 10
    found = fuzz_codec.survive(range(500))
    assert sum(outcomes.total() for outcomes in found.values()) == 500
    assert set(found) == {*(kind.__name__ for kind in damage.KINDS), "forged"}
    assert set(found["forged"]) == {"image"}
    for kind in ("bytes_changed", "truncated", "extended", "identity_changed"):
        assert set(found[kind]) == {"refused"}, kind


def fuzzed_in_a_process(*arguments) -> dict:
    """The outcomes of the fuzzer, which limits its memory to 2 GB more than it starts with."""
    command = [sys.executable, str(FOLDER / "fuzz" / "fuzz_codec.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)["outcomes"]


@pytest.mark.slow
def test_20000_damaged_files_give_an_image_or_one_sentence_within_10_s_and_2_gb():
    found = fuzzed_in_a_process("--cases", "20000")
    assert sum(count for outcomes in found.values() for count in outcomes.values()) == 20_000
    assert set(found["forged"]) == {"image"}


@pytest.mark.slow
def test_512_megapixels_that_are_not_there_are_refused_within_2_gb():
    assert fuzzed_in_a_process("--giants") == {"giants": {"refused": 4}}


CLAIMS = [(2**14, 2**15), (2**20, 64), (1, 2**23), (2**31, 1), (2**35, 2**35), (2**64, 2**64)]


@pytest.mark.parametrize("width, height", CLAIMS)
@pytest.mark.parametrize("streams", ["as they were", "claimed too", "swapped"])
def test_a_giant_claim_of_a_small_file_is_refused_before_anything_is_allocated(
    width, height, streams
):
    model, data = coding_model(), fuzz_codec.files()[-1]
    held = bitstream.unpack(data)._replace(width=width, height=height)
    if streams == "swapped":
        held = held._replace(z_stream=held.y_stream, y_stream=held.z_stream)
    lengths = [2**31 - 1] * 3 if streams == "claimed too" else ()
    forged = damage.assembled(held, lengths=lengths)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(BitstreamError):
            model.decompress(forged)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 1
    assert peak < 200_000


def test_alpha_that_unpacks_to_more_than_the_image_is_refused_before_it_does():
    held = bitstream.unpack(fuzz_codec.files()[-1])
    bomb = damage.assembled(held._replace(alpha_stream=fuzz_codec.transparent(2**24)))
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="^the transparency in the file is damaged"):
            coding_model().decompress(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_coder_that_is_not_installed_is_refused_as_other_files_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_compression_ops", None)
    held = bitstream.unpack(fuzz_codec.files()[0])
    with pytest.raises(BitstreamError, match="^the coder tfc needs tensorflow_compression_ops: "):
        coding_model().decompress(bitstream.pack(held._replace(coder="tfc")))


def test_a_size_that_the_model_cannot_decode_is_refused_as_other_files_are():
    legacy = dataclasses.replace(
        coding_model(), config=dataclasses.replace(coding_config(), fcm="legacy")
    )
    held = bitstream.unpack(fuzz_codec.files()[0])._replace(model_id=legacy.model_id)
    with pytest.raises(BitstreamError, match="1 x 1 pixels does not suit a model with model.fcm"):
        legacy.decompress(bitstream.pack(held))


# Images.


@jax.jit
def generated(params, y_hat):
    """The image of latents by the network alone, in 8 bits, sides multiples of 64."""
    image = autoencoder.bind(coding_config(), params).generate(y_hat[None])[0]
    return jnp.floor(jnp.clip(image, 0, 1) * 255 + 0.5).astype(jnp.uint8)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 150), st.integers(1, 64), st.booleans())
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


def test_how_an_image_lies_in_memory_changes_nothing():
    model, image = coding_model(), image_of(50, 60)
    expected = model.compress(image)
    read_only = image.copy()
    read_only.flags.writeable = False
    views = {
        "reversed": np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1],
        "transposed": np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2),
        "planes": np.ascontiguousarray(np.moveaxis(image, 2, 0)).transpose(1, 2, 0),
        "strided": np.repeat(np.repeat(image, 2, 0), 3, 1)[::2, ::3],
        "of RGBA": np.concatenate([image, image[..., :1]], axis=2)[..., :3],
        "read-only": read_only,
    }
    for name, view in views.items():
        assert model.compress(view) == expected, name
    alpha = image[..., 0]
    assert not alpha.flags.c_contiguous
    _, back = model.decompress_picture(model.compress(image, alpha=alpha))
    np.testing.assert_array_equal(back, alpha)


@pytest.fixture
def unchecked():
    """Annotations are not enforced, as where users call."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


UINT8 = np.zeros((4, 5, 3), np.uint8)
NO_IMAGES = {
    "float32 of shape (4, 5, 3)": UINT8.astype(np.float32),
    "int64 of shape (4, 5, 3)": UINT8.astype(np.int64),
    "bool of shape (4, 5, 3)": UINT8.astype(bool),
    "int8 of shape (4, 5, 3)": UINT8.astype(np.int8),
    "object of shape (4, 5, 3)": UINT8.astype(object),
    "uint8 of shape (4, 5)": UINT8[..., 0],
    "uint8 of shape (4, 5, 4)": np.zeros((4, 5, 4), np.uint8),
    "uint8 of shape (4, 5, 1)": UINT8[..., :1],
    "uint8 of shape (3, 4, 5)": UINT8.transpose(2, 0, 1),
    "uint8 of shape (1, 4, 5, 3)": UINT8[None],
    "uint8 of shape (0, 5, 3)": UINT8[:0],
    "uint8 of shape (4, 0, 3)": UINT8[:, :0],
    "uint8 of shape ()": np.uint8(3),
    "a list": UINT8.tolist(),
    "a bytes": UINT8.tobytes(),
    "a Image": Image.new("RGB", (5, 4)),
    "a NoneType": None,
}


@pytest.mark.parametrize("described", NO_IMAGES)
def test_what_is_no_image_is_described_with_what_to_give(unchecked, described):
    model, wrong = coding_model(), NO_IMAGES[described]
    sentence = (
        f"the image is {described}: give uint8 of shape (height, width, 3), RGB from 0 to 255"
    )
    for call in (model.compress, lambda image: model.compress_batch([UINT8, image])):
        with pytest.raises(UserError) as refused:
            call(wrong)
        assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "alpha, described",
    [
        (np.zeros((4, 5), np.float32), "float32 of shape (4, 5)"),
        (np.zeros((5, 4), np.uint8), "uint8 of shape (5, 4)"),
        (np.zeros((4, 5, 1), np.uint8), "uint8 of shape (4, 5, 1)"),
        ([[0] * 5] * 4, "a list"),
    ],
)
def test_what_is_no_alpha_is_described_with_what_to_give(unchecked, alpha, described):
    with pytest.raises(UserError) as refused:
        coding_model().compress(UINT8, alpha=alpha)
    assert str(refused.value) == (
        f"alpha is {described}: give uint8 of shape (4, 5), that of the image"
    )


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


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS, TABLES])
def test_a_file_that_is_missing_or_cannot_be_read_is_named(folder, name):
    (folder / name).unlink()
    expected = f"{name}: no such file, so the model is incomplete: copy or export it again"
    assert sentence_of(folder) == expected
    (folder / name).mkdir()
    expected = f"{name}: cannot be read (Is a directory): fix that, or copy the model again"
    assert sentence_of(folder) == expected


@pytest.mark.parametrize("name", [WEIGHTS, TABLES])
def test_damaged_arrays_are_named(folder, name):
    sound = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    other = {WEIGHTS: TABLES, TABLES: WEIGHTS}[name]
    flipped = [bytearray(sound) for _ in range(20)]
    for one in flipped:
        one[rng.integers(len(sound))] ^= 1 << int(rng.integers(8))
    cuts = [sound[: rng.integers(len(sound))] for _ in range(10)]
    for data in [b"", *flipped, *cuts, sound + b"\0", (folder / other).read_bytes()]:
        (folder / name).write_bytes(data)
        assert sentence_of(folder) == (
            f"{name}: is damaged, its SHA-256 is not the one in model.json: "
            "copy or export the model again"
        )


def test_arrays_of_another_model_are_refused(folder, tmp_path):
    other = save_model(coding_model(2), tmp_path / "other")
    for name in (WEIGHTS, TABLES, DESCRIPTION):
        kept = (folder / name).read_bytes()
        shutil.copy(other / name, folder / name)
        assert "its SHA-256 is not the one in model.json" in sentence_of(folder)
        (folder / name).write_bytes(kept)
    assert load_model(folder).model_id == coding_model().model_id


def test_a_changed_description_is_refused_or_says_nothing_that_matters(folder):
    path, model = folder / DESCRIPTION, coding_model()
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = []
    for position in rng.choice(len(sound), 150, replace=False):
        one = bytearray(sound)
        one[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(one))
    damaged += [sound[:end] for end in rng.integers(0, len(sound) - 2, 20)]
    damaged += [b"", b"\xff" * 99, b"[" * 10**5, b"[]", b"null", b'{"format": 1}', sound[::-1]]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            loaded = load_model(folder)
        except UserError as error:
            assert str(error).startswith(str(folder)) and str(error).isprintable()
            refused += 1
            continue
        assert loaded.model_id == model.model_id
        assert dataclasses.replace(loaded.config, fcm_dropout=0.0) == model.config
    assert refused > 0.7 * len(damaged)


def redescribed(folder: Path, **changes) -> None:
    """Changes model.json: of its "model" where the key is there, with checksums that match."""
    path = folder / DESCRIPTION
    described = json.loads(path.read_text())
    for key, value in changes.items():
        part = described["model"] if key in described["model"] else described
        part[key] = value
    for name in (WEIGHTS, TABLES):
        described["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(described))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_widths": [10**9] * 5},
        {"encoder_widths": [4, 4, 4, 4, 5]},
        {"encoder_widths": [4.0, 4, 4.5, 4, 4]},
        {"encoder_widths": ["4"] * 5},
        {"encoder_widths": 4},
        {"generator_widths": [10**9] * 5},
        {"generator_widths": [4] * 10**5},
        {"latent_channels": 10**12},
        {"latent_channels": -4},
        {"hyper_channels": 10**12},
        {"hyper_channels": None},
        {"residual_blocks": 10**12},
        {"residual_blocks": "1"},
        {"fcm_width": 10**12},
        {"dtype": "float8"},
        {"variant": []},
        {"id": "00" * 8},
        {"weights": "float8"},
        {"format": 2},
        {"sha256": {}, "origin": []},
    ],
    ids=lambda changes: f"{changes}"[:40],
)
def test_absurd_descriptions_are_refused_and_allocate_nothing(folder, changes):
    redescribed(folder, **changes)
    size = sum((folder / name).stat().st_size for name in (WEIGHTS, TABLES, DESCRIPTION))
    tracemalloc.start()
    try:
        sentence_of(folder)
        # The tables unfold from counts to rows of equal length: 64 of 1793 entries of 4 bytes.
        assert tracemalloc.get_traced_memory()[1] < 20 * size
    finally:
        tracemalloc.stop()


def test_an_encoder_of_other_widths_than_described_is_named(folder):
    # The model's id leaves the encoder out: it would show when the first image is compressed.
    redescribed(folder, encoder_widths=[4, 4, 4, 4, 5])
    assert sentence_of(folder) == (
        "model.json: is damaged, it states encoder widths (4, 4, 4, 4, 5), but the weights "
        "have (4, 4, 4, 4, 4): copy or export the model again"
    )


def test_arrays_that_are_none_are_named_even_under_their_own_checksum(folder):
    (folder / WEIGHTS).write_bytes(b"\x08" + bytes(30))
    redescribed(folder)
    assert sentence_of(folder).startswith(f"{WEIGHTS}: is damaged, it is not a safetensors file (")


@pytest.mark.parametrize(
    "name, change, sentence",
    [
        ("y.length", lambda a: np.full_like(a, 2**31 - 1), "y.length does not fit"),
        ("y.length", lambda a: np.repeat(a, 2), "y.length does not fit"),
        ("z.length", lambda a: a[:-1], "z.length does not fit"),
        ("z.length", lambda a: -a, "z.length does not fit"),
        ("y.counts", lambda a: a[::-1] * 0, "y.counts does not sum to 65536"),
        ("z.offset", lambda a: a[:2], "z.length does not fit"),
        ("z.offset", lambda a: a.astype(np.int64), "z.offset is missing or of another type"),
    ],
)
def test_tables_that_cannot_be_are_refused(name, change, sentence):
    sound = arrays.entropy_arrays(coding_model().entropy)
    with pytest.raises(UserError, match=f"^the coding tables are unusable, {sentence}.*: export"):
        arrays.entropy_from_arrays(sound | {name: change(sound[name])})


def test_tables_of_few_counts_that_would_unfold_to_gigabytes_are_refused():
    # 64 rows as wide as the widest: 64 * 2**24 entries of 4 bytes from counts of 32 MiB.
    sound = arrays.entropy_arrays(coding_model().entropy)
    length = np.full(64, 3, np.int32)
    length[0] = 2**24
    counts = np.ones(int(np.sum(length - 1)), np.uint16)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="y.length does not fit the other arrays"):
            arrays.entropy_from_arrays(sound | {"y.length": length, "y.counts": counts})
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# The command line.


def test_decompress_writes_what_is_sound_and_names_what_is_not(
    exported, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model: Model = coding_model()
    held = bitstream.unpack(fuzz_codec.files()[4])
    sound = damage.assembled(held)
    os.mkdir("in")
    files = {
        "a": sound,
        "b": damage.assembled(held._replace(y_stream=held.y_stream[:-5])),
        "c": damage.assembled(held._replace(symbols_crc=0)),
        "d": damage.assembled(held._replace(width=2**14, height=2**15)),
        "e": sound,
        "f": damage.assembled(held._replace(alpha_stream=b"\1alpha")),
        "g": b"",
        "h": damage.assembled(held._replace(width=2**40)),
        "i": sound,
    }
    for name, data in files.items():
        Path(f"in/{name}.fahj").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        main(["decompress", "in", "-o", "out", "--model", str(exported)])
    assert ended.value.code == 1
    assert sorted(os.listdir("out")) == ["a.png", "e.png", "i.png"]
    for name in "aei":
        with Image.open(f"out/{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), model.decompress(sound))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1].strip() for line in errors] == [f"in/{n}.fahj" for n in "bcdfgh"]
    for line, part in zip(
        errors,
        (
            "",
            "the symbols decoded here are not",
            "cannot hold an image of 16384 x 32768 pixels",
            "the transparency in the file is damaged",
            "not a fa-hific-jax file",
            "a number in the header is too long",
        ),
        strict=True,
    ):
        assert part in line
