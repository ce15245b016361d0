"""Models that code: any image in, the same bytes out, folders that keep them, sentences."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.errors import UserError

IMAGE = image_of(63, 65)


@pytest.fixture(scope="module")
def file() -> bytes:
    return coding_model().compress(IMAGE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model."""
    return save_model(coding_model(), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def copied(folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_less_reproducible_files_decode_to_nearly_the_same_and_are_as_small(file):
    fast = coding_model().compress(IMAGE, reproducible=False)
    assert abs(len(file) - len(fast)) <= 8
    images = [coding_model().decompress(data).astype(int) for data in (file, fast)]
    assert np.mean(np.abs(images[0] - images[1])) < 0.5


def test_transparency_comes_back_to_the_bit_and_what_is_opaque_takes_no_bytes(file):
    alpha = np.random.default_rng(0).integers(0, 256, IMAGE.shape[:2], np.uint8)
    transparent = coding_model().compress(IMAGE, alpha=alpha)
    rgb, found = coding_model().decompress_picture(transparent)
    np.testing.assert_array_equal(found, alpha)
    np.testing.assert_array_equal(rgb, coding_model().decompress(transparent))
    assert coding_model().compress(IMAGE, alpha=np.full_like(alpha, 255)) == file
    assert coding_model().decompress_picture(file)[1] is None


def test_file_of_another_model_is_refused_by_name(file):
    model, other = coding_model(), coding_model(seed=2)
    with pytest.raises(BitstreamError, match=f"{model.model_id.hex()}, .* {other.model_id.hex()}"):
        other.decompress(file)


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


def test_existing_folder_is_replaced_on_request_and_only_if_it_is_a_model(folder, copied, tmp_path):
    with pytest.raises(UserError, match="copy: exists already"):
        save_model(coding_model(), copied)
    save_model(coding_model(seed=2), copied, replace=True)
    assert load_model(copied).model_id == coding_model(seed=2).model_id
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    with pytest.raises(UserError, match="is not a model, so it is not replaced"):
        save_model(coding_model(), tmp_path, replace=True)


def test_names_are_told_from_folders():
    with pytest.raises(UserError, match=r"^heavy: no such folder, nor a model .* \(lite, "):
        load_model("heavy")
