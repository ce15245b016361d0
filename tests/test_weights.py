"""Weights of 8-bit integers: what they round, and the model folders that hold them."""

import hypothesis
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fa_hific_jax.codec.arrays import flat
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, load_parameters, save_model
from fa_hific_jax.codec.weights import restored, rounded, stored
from fa_hific_jax.errors import UserError


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
