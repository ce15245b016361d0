"""Models that code: any image in, the same bytes out, folders that keep them, sentences."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fa_hific_jax.codec.arrays import flat
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, load_parameters, save_model
from fa_hific_jax.codec.weights import restored, rounded, stored
from fa_hific_jax.errors import UserError

IMAGE = image_of(63, 65)


@pytest.fixture(scope="module")
def file() -> bytes:
    return coding_model().compress(IMAGE)


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


def test_existing_folder_is_replaced_on_request_and_only_if_it_is_a_model(tmp_path):
    folder = save_model(coding_model(), tmp_path / "small")
    with pytest.raises(UserError, match="small: exists already"):
        save_model(coding_model(), folder)
    save_model(coding_model(seed=2), folder, replace=True)
    assert load_model(folder).model_id == coding_model(seed=2).model_id
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    with pytest.raises(UserError, match="is not a model, so it is not replaced"):
        save_model(coding_model(), tmp_path, replace=True)


def test_names_are_told_from_folders():
    with pytest.raises(UserError, match=r"^heavy: no such folder, nor a model .* \(lite, "):
        load_model("heavy")


# Data types of the weights.


@hypothesis.settings(deadline=None)
@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(-30, 30))
def test_a_kernel_is_rounded_to_half_a_step_and_only_once(seed, log_scale):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 4, 5)) * np.exp(log_scale + rng.normal(size=5))
    kernel[..., 2] = 0
    kernel = kernel.astype(np.float32)
    once = rounded(kernel, "int8")
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    assert np.all(np.abs(once - kernel) <= (1 + 2**-9) * largest / 127 / 2)
    assert rounded(once, "int8").tobytes() == once.tobytes()
    arrays = stored({"kernel": once}, "int8")
    assert (arrays["kernel"].dtype, arrays["kernel/step"].dtype) == (np.int8, np.float32)
    assert restored(arrays)["kernel"].tobytes() == once.tobytes()
    del arrays["kernel/step"]
    with pytest.raises(KeyError, match="kernel/step"):
        restored(arrays)


def test_other_parameters_are_rounded_to_half_precision():
    bias = np.float32([1.0001, -3e-5, 0])
    np.testing.assert_array_equal(rounded(bias, "int8"), bias.astype(np.float16))
    with pytest.raises(UserError, match="not finite, or too large for int8"):
        rounded(np.float32([1e5]), "int8")
    with pytest.raises(UserError, match="not finite, or too large for int8"):
        rounded(np.full((1, 1, 1, 1), np.inf, np.float32), "int8")


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def saved(request, tmp_path_factory):
    """A model, and the folder that holds it and what training needs."""
    model = from_params(coding_config(), coding_params(), weights=request.param)
    folder = tmp_path_factory.mktemp("models") / request.param
    return model, save_model(model, folder, to_train_on=coding_params())


def test_a_model_codes_as_before_it_was_stored_and_takes_the_bytes_of_its_kind(saved):
    model, folder = saved
    loaded = load_model(folder)
    assert (loaded.model_id, loaded.config) == (model.model_id, model.config)
    assert loaded.weights == model.weights
    assert (model.model_id == coding_model().model_id) == (model.weights == "float32")
    image = image_of(20, 30)
    file = model.compress(image)
    assert loaded.compress(image) == file
    np.testing.assert_array_equal(loaded.decompress(file), model.decompress(file))
    kernels = sum(a.size for a in flat(model.params).values() if a.ndim == 4)
    arrays = load_file(folder / "weights.safetensors")
    stored_bytes = sum(a.nbytes for a in arrays.values() if a.ndim == 4)
    assert stored_bytes == kernels * {"float32": 4, "float16": 2, "int8": 1}[model.weights]


def test_all_parameters_come_back_for_training(saved):
    model, folder = saved
    _, leaves = load_parameters(folder)
    expected = flat(coding_params())
    assert leaves.keys() == expected.keys()
    swapped = [name for name in leaves if "/synthesis_" in name and model.weights != "float32"]
    for name, leaf in leaves.items():
        error = np.abs(leaf - expected[name])
        if leaf.ndim == 4 and (model.weights == "int8" or name in swapped):
            # Kernels of the hyper-synthesis come from the integers of the coding tables.
            steps = 2**15 if name in swapped else 250
            assert np.all(error <= np.abs(expected[name]).max(axis=(0, 1, 2)) / steps), name
        else:
            kind = "float32" if model.weights == "float32" else "float16"
            np.testing.assert_array_equal(leaf, np.asarray(expected[name], kind))
