"""Models that code: any image in, the same bytes out, folders that keep them, sentences."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of

import fa_hific_jax
from fa_hific_jax.codec import arrays, bitstream, coding
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model import from_params, hyper_latents
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.entropy.tables import Tables
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model."""
    return save_model(coding_model(), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def copied(folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_decoded_image_is_the_networks_of_the_decoded_latents():
    model, image = coding_model(), image_of(63, 65)
    data = model.compress(image)
    decoded = model.decompress(data)
    assert (decoded.shape, decoded.dtype) == (image.shape, np.uint8)
    y_hat = coding.decode(model.entropy, bitstream.unpack(data))
    generate = jax.jit(autoencoder.bind(model.config, coding_params()).generate)
    x_hat = np.asarray(generate(y_hat[None]))[0, :63, :65]
    expected = np.floor(np.clip(x_hat, 0, 1) * 255 + 0.5)
    assert np.max(np.abs(decoded - expected)) <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (64, 64), (130, 70)])
def test_images_of_any_size_come_back_in_their_size(height, width):
    model, image = coding_model(), image_of(height, width)
    assert model.decompress(model.compress(image)).shape == image.shape


def test_compressing_twice_gives_the_same_bytes_and_decompressing_the_same_image():
    image = image_of(63, 65)
    again = from_params(coding_config(), coding_params())
    first = coding_model().compress(image)
    assert coding_model().compress(image) == again.compress(image) == first
    np.testing.assert_array_equal(coding_model().decompress(first), again.decompress(first))


def test_less_reproducible_files_decode_to_nearly_the_same_and_are_as_small():
    image = image_of(130, 70)
    exact = coding_model().compress(image)
    fast = coding_model().compress(image, reproducible=False)
    assert abs(len(exact) - len(fast)) <= 8
    images = [coding_model().decompress(file).astype(int) for file in (exact, fast)]
    assert np.mean(np.abs(images[0] - images[1])) < 0.5


def test_transparency_comes_back_to_the_bit():
    image, rng = image_of(30, 50), np.random.default_rng(0)
    alpha = rng.integers(0, 256, (30, 50)).astype(np.uint8)
    file = coding_model().compress(image, alpha=alpha)
    rgb, found = coding_model().decompress_picture(file)
    np.testing.assert_array_equal(found, alpha)
    np.testing.assert_array_equal(rgb, coding_model().decompress(file))
    opaque = coding_model().compress(image, alpha=np.full((30, 50), 255, np.uint8))
    assert opaque == coding_model().compress(image)
    assert coding_model().decompress_picture(opaque)[1] is None
    sentence = r"^alpha is uint8 of shape \(50, 30\): give uint8 of shape \(30, 50\), that of the i"
    with pytest.raises(UserError, match=sentence):
        coding_model().compress(image, alpha=alpha.T)


def test_file_of_another_model_is_refused_by_name():
    data = coding_model().compress(image_of(1, 7))
    other = coding_model(seed=2)
    sentence = (
        f"^the file was made with model {coding_model().model_id.hex()}, the model given is "
        f"{other.model_id.hex()}: give the model that compressed it$"
    )
    with pytest.raises(BitstreamError, match=sentence):
        other.decompress(data)


def test_id_follows_all_that_decoding_depends_on_and_nothing_else():
    config, params, model = coding_config(), coding_params(), coding_model()
    for change in ({"dtype": "bfloat16"}, {"hyper_rounding": "noise"}, {"fcm_dropout": 0.5}):
        assert from_params(dataclasses.replace(config, **change), params).model_id == model.model_id
    deaf = params | {"encoder": jax.tree.map(jnp.zeros_like, params["encoder"])}
    assert from_params(config, deaf).model_id == model.model_id
    mute = params | {"generator": jax.tree.map(jnp.zeros_like, params["generator"])}
    others = [
        from_params(config, mute),
        from_params(dataclasses.replace(config, likelihood="logistic"), params),
        from_params(dataclasses.replace(config, input_range="symmetric"), params),
    ]
    z_tables = model.entropy.z_tables
    moved = model.entropy._replace(z_tables=z_tables._replace(offset=z_tables.offset + 1))
    others.append(dataclasses.replace(model, entropy=moved))
    assert len({model.model_id, *(other.model_id for other in others)}) == 5


def test_tables_survive_their_flat_form():
    entropy = coding_model().entropy
    again = arrays.entropy_from_arrays(arrays.entropy_arrays(entropy))
    jax.tree.map(np.testing.assert_array_equal, entropy, again)
    assert isinstance(again.y_tables, Tables)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("z.counts", lambda a: a[:-1]),
        ("z.counts", lambda a: a + np.uint16(1)),
        ("y.length", lambda a: a * 0),
        ("y.offset", lambda a: a.astype(np.int64)),
        ("y.offset", lambda a: None),
    ],
)
def test_impossible_tables_are_refused(name, change):
    flat = arrays.entropy_arrays(coding_model().entropy)
    flat[name] = change(flat[name])
    with pytest.raises(UserError, match=f"^the coding tables are unusable, {name[0]}\\."):
        arrays.entropy_from_arrays({k: v for k, v in flat.items() if v is not None})


def test_loaded_model_codes_as_the_one_that_was_saved(folder):
    model = fa_hific_jax.load_model(str(folder))
    assert model.model_id == coding_model().model_id
    image = image_of(63, 65)
    file = coding_model().compress(image)
    assert model.compress(image) == file
    np.testing.assert_array_equal(model.decompress(file), coding_model().decompress(file))
    assert model.config == coding_config()


def test_half_precision_is_half_as_large_and_codes_as_before_it_was_stored(tmp_path):
    model = from_params(coding_config(), coding_params(), weights="float16", origin={"step": 7})
    saved = save_model(model, tmp_path / "half")
    loaded = load_model(saved)
    assert loaded.model_id == model.model_id != coding_model().model_id
    assert (loaded.weights, loaded.origin) == ("float16", {"step": 7})
    image = image_of(20, 30)
    assert loaded.compress(image) == model.compress(image)
    full = save_model(coding_model(), tmp_path / "full") / "weights.safetensors"
    assert (saved / full.name).stat().st_size < 0.7 * full.stat().st_size


def test_weights_that_half_precision_cannot_hold_are_refused():
    params = dict(coding_params())
    params["encoder"] = jax.tree.map(lambda leaf: leaf + 1e5, params["encoder"])
    with pytest.raises(UserError, match="^a weight is not finite, or too large for float16: take"):
        from_params(coding_config(), params, weights="float16")


def test_existing_folder_is_replaced_on_request_and_only_if_it_is_a_model(folder, copied, tmp_path):
    with pytest.raises(UserError, match="copy: exists already: choose another name, or replace it"):
        save_model(coding_model(), copied)
    save_model(coding_model(seed=2), copied, replace=True)
    assert load_model(copied).model_id == coding_model(seed=2).model_id
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    with pytest.raises(UserError, match="is not a model, so it is not replaced: choose another"):
        save_model(coding_model(), tmp_path, replace=True)


def rewrite(folder, **changes):
    path = folder / "model.json"
    described = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: shutil.rmtree(f), r"copy: no such folder: give one that fa-hific export has w"),
        (lambda f: (f / "model.json").unlink(), r"model\.json: no such file, so the model"),
        (lambda f: (f / "tables.safetensors").unlink(), r"tables\.safetensors: no such file, so "),
        (
            lambda f: (f / "weights.safetensors").write_bytes(
                (f / "weights.safetensors").read_bytes()[:-1]
            ),
            r"weights\.safetensors: is damaged, its SHA-256 is not the one in model\.json: copy or",
        ),
        (lambda f: (f / "model.json").write_text("{"), r"model\.json: is damaged, it is not JSON:"),
        (lambda f: (f / "model.json").write_text("[]"), r"is damaged, it states no format: copy"),
        (
            lambda f: rewrite(f, format=2),
            r"copy: has model format 2, this build reads 1: install the release of fa-hific-jax th",
        ),
        (lambda f: rewrite(f, origin=None), r"model\.json: is damaged, 'origin' is missing: copy"),
        (lambda f: rewrite(f, weights="int4"), r"it states weights of 'int4': copy or export"),
        (
            lambda f: rewrite(f, id="00" * 8),
            rf"copy: the content is that of model {{id}}, model\.json says {'00' * 8}: copy or exp",
        ),
        (
            lambda f: rewrite(f, model={"latent_channels": 3}),
            r"model\.json: describes networks that this build does not know \(.*encoder_wi",
        ),
    ],
)
def test_damaged_folders_are_refused_in_one_sentence(copied, damage, sentence):
    damage(copied)
    with pytest.raises(UserError, match=sentence.replace("{id}", coding_model().model_id.hex())):
        load_model(copied)


def test_names_and_files_are_told_from_folders(folder, tmp_path):
    sentence = r"^heavy: no such folder, nor a model with a name \(lite, .*-0.9\): give the path"
    with pytest.raises(UserError, match=sentence):
        load_model("heavy")
    with pytest.raises(UserError, match="is a file: give the model's folder, as fa-hific export w"):
        load_model(folder / "model.json")


def test_calibration_images_give_a_model_that_codes_them():
    images = [image_of(64, 128), image_of(10, 10)]
    latents = hyper_latents(coding_config(), coding_params(), images)
    assert [z.shape for z in latents] == [(1, 2, 4), (1, 1, 4)]
    model = from_params(coding_config(), coding_params(), calibration=latents)
    for image in images:
        assert model.decompress(model.compress(image)).shape == image.shape


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 5, 4), (5, 5)])
def test_what_is_no_image_is_named(shape):
    from fa_hific_jax.codec.model import _check_image

    with pytest.raises(UserError, match=r"^the image is uint8 of shape \(.*: give uint8 of shape"):
        _check_image(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"^the image is float64 of shape \(2, 2, 3\): give uint8"):
        _check_image(np.zeros((2, 2, 3)))
