"""The "neuralcompression" variant at full width against NeuralCompression's own numbers.

The reference is its `HiFiCAutoencoder` with weights by the seed rule. They come here through
`import_checkpoint`, so the numbers also check the place of every parameter.
"""

import functools

import jax
import jax.numpy as jnp
import neural_compression_state
import numpy as np
import pytest
import scipy.special
import torch_files
from reference_weights import nchw, nhwc, uniform

from fa_hific_jax import ops
from fa_hific_jax.codec import coding
from fa_hific_jax.codec.coding import Quantized
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.convert.torch_checkpoint import import_checkpoint
from fa_hific_jax.entropy import factorized
from fa_hific_jax.entropy.gaussian import bits, gaussian_likelihood
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import Autoencoder

pytestmark = pytest.mark.slow

BOTH_IMAGES = pytest.mark.parametrize("image", ["a", "b"])


@pytest.fixture(autouse=True, scope="module")
def optimized():
    """Convolutions in float64 are ten times slower without."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)  # as in conftest.py


@pytest.fixture(scope="module")
def imported(data_folder, tmp_path_factory):
    state = neural_compression_state.full_width(data_folder.parent / "golden")
    path = tmp_path_factory.mktemp("torch") / "msillm.pt"
    torch_files.save(path, state)
    yield import_checkpoint(path)
    path.unlink()


def rounded(values):
    return ops.straight_through_round(values, halves="even")


def total_bits(*likelihoods):
    return jnp.stack([jnp.sum(bits(p, "neuralcompression")) for p in likelihoods])


def evaluated(model: Autoencoder, x):
    """What the reference computes of a padded image, by our modules; z less its medians."""
    y, _ = model.encode(x)
    z = model.hyperprior.analysis(y)
    mean, scale = model.hyperprior.synthesis(rounded(z))
    y_hat = mean + rounded(y - mean)
    found = {
        "y": y,
        "z": z,
        "z_symbols": rounded(z),
        "z_likelihood": model.hyperprior.prior(rounded(z)),
        "mean": mean,
        "scale": scale,
        "y_hat": y_hat,
        "y_symbols": rounded(y - mean),
        "y_likelihood": gaussian_likelihood(y_hat, mean, scale),
        "reconstruction": model.generate(y_hat),
    }
    return found | {"bits": total_bits(found["y_likelihood"], found["z_likelihood"])}


def trained(model: Autoencoder, x, noise_z, noise_y):
    """The same in training mode, with the noise of the reference."""
    y, _ = model.encode(x)
    z_noisy = model.hyperprior.analysis(y) + noise_z
    mean, scale = model.hyperprior.synthesis(z_noisy)
    y_hat = mean + rounded(y - mean)
    likelihoods = (
        gaussian_likelihood(y + noise_y, mean, scale),
        model.hyperprior.prior(z_noisy),
        gaussian_likelihood(y_hat, mean, scale),
        model.hyperprior.prior(rounded(z_noisy)),  # The reference rounds what already has noise.
    )
    image = model.generate(y_hat)
    return {"bits": total_bits(*likelihoods), "y_hat": y_hat, "reconstruction": image}


def picture(data, image: str, dtype: str):
    x = uniform(f"input:{image}", tuple(data[f"{image}_x_shape"]), "msillm")
    np.testing.assert_array_equal(x[:, :, :4, :4], data[f"{image}_x_corner"])
    return nhwc(x.astype(dtype))


def parameters(imported, dtype: str):
    return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), imported.autoencoder)}


def outputs(imported, data, dtype: str, image: str) -> dict[str, np.ndarray]:
    """What `evaluated` computes, in the reference's layout, with medians, cropped to the image."""
    apply = functools.partial(Autoencoder(imported.model, dtype).apply, method=evaluated)
    x = ops.pad_to_multiple(picture(data, image, dtype), 64)
    found = jax.device_get(jax.jit(apply)(parameters(imported, dtype), x))
    medians = imported.autoencoder["hyperprior"][MEDIAN]
    found |= {"z_hat": found["z_symbols"] + medians, "z": found["z"] + medians}
    height, width = data[f"{image}_x_shape"][2:]
    found["reconstruction"] = found["reconstruction"][:, :height, :width]
    return {name: array if name == "bits" else nchw(array) for name, array in found.items()}


def near(found, expected, tolerance: float, name: str = ""):
    """Equal to a share of the reference's largest value."""
    limit = tolerance * np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=name)


@BOTH_IMAGES
def test_an_image_from_pixels_to_pixels_equals_the_reference(imported, golden, image):
    data = golden("msillm")
    found = outputs(imported, data, "float32", image)
    for name in ("y", "z", "z_hat", "z_likelihood", "mean", "y_likelihood", "reconstruction"):
        near(found[name], data[f"{image}_{name}"], 1e-4, name)
    near(found["scale"], np.maximum(data[f"{image}_scale_raw"], 0.11), 1e-4)
    np.testing.assert_array_equal(found["z_symbols"], data[f"{image}_z_symbols"])
    clear = np.ones(found["y"].size, bool)
    clear[data[f"{image}_y_near_boundary_idx"]] = False
    clear = clear.reshape(found["y"].shape)
    near(found["y_hat"][clear], data[f"{image}_y_hat"][clear], 1e-4)
    np.testing.assert_array_equal(found["y_symbols"][clear], data[f"{image}_y_symbols"][clear])
    np.testing.assert_allclose(found["bits"], data[f"{image}_bits"][0], rtol=1e-6)


@BOTH_IMAGES
def test_in_float64_it_equals_the_reference_to_ten_digits(imported, golden, x64, image):
    data = golden("msillm")
    found = outputs(imported, data, "float64", image)
    for name in ("z", "z_hat", "z_likelihood"):
        near(found[name], data[f"{image}_{name}_f64"], 1e-10, name)
    for name in ("y", "mean", "y_likelihood", "y_hat"):
        near(found[name][:, ::4], data[f"{image}_{name}_slice_f64"], 1e-10, name)
    near(found["scale"][:, ::4], np.maximum(data[f"{image}_scale_raw_slice_f64"], 0.11), 1e-10)
    expected = data[f"{image}_reconstruction_slice_f64"]
    near(found["reconstruction"][:, :, ::2, ::2], expected, 1e-10)
    # The reference keeps the bound of the likelihood in float32, which moves bits by 2e-9.
    np.testing.assert_allclose(found["bits"], data[f"{image}_bits_f64"][0], rtol=1e-8)


def test_training_mode_equals_the_reference(imported, golden, x64):
    data = golden("msillm")
    noise = [
        nhwc(uniform(f"input:noise_{name}", data[f"a_{name}"].shape, "msillm") - 0.5)
        for name in "zy"
    ]
    apply = functools.partial(Autoencoder(imported.model, "float64").apply, method=trained)
    x = picture(data, "a", "float64")
    found = jax.jit(apply)(parameters(imported, "float64"), x, *(n.astype("f8") for n in noise))
    np.testing.assert_allclose(found["bits"], data["a_train_bits_f64"][0], rtol=1e-8)
    near(nchw(found["y_hat"])[:, ::4], data["a_train_y_hat_slice_f64"], 1e-10)
    expected = data["a_train_reconstruction_slice"]  # float32 alone
    near(nchw(found["reconstruction"])[:, :, ::3, ::3], expected, 1e-4)


def test_the_density_equals_the_reference(imported, golden):
    data = golden("msillm")
    layers = factorized.layers_of(
        jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64)[data["density_channels"]],
            imported.autoencoder["hyperprior"]["prior"],
        )
    )
    values = np.tile(data["density_values"].astype(np.float64), (4, 1))
    near(factorized.cdf_logits(layers, values, np), data["density_logits_f64"], 1e-12)
    upper, lower = (factorized.cdf_logits(layers, values + d, np) for d in (0.5, -0.5))
    likelihood = np.maximum(scipy.special.expit(upper) - scipy.special.expit(lower), 1e-9)
    np.testing.assert_allclose(likelihood, data["density_likelihood_f64"], rtol=1e-6, atol=1e-15)


@pytest.fixture(scope="module")
def model(imported):
    return from_params(imported.model, imported.autoencoder)


def hwc(array) -> np.ndarray:
    """The only image of a batch of the reference."""
    return array[0].transpose(1, 2, 0)


@BOTH_IMAGES
def test_the_codec_finds_the_symbols_of_the_reference(imported, model, golden, image):
    data = golden("msillm")
    y, z = (hwc(data[f"{image}_{name}"]).astype(float) for name in "yz")
    found = coding.quantize(model.entropy, y, z - imported.autoencoder["hyperprior"][MEDIAN])
    np.testing.assert_array_equal(found.z, hwc(data[f"{image}_z_symbols"]))
    # A latent may lie half a step from its mean.
    assert np.mean(found.y != hwc(data[f"{image}_y_symbols"])) < 2e-3
    indexes = hwc(data[f"{image}_y_indexes"])
    assert np.mean(found.rows != indexes) < 1e-2
    assert np.max(np.abs(found.rows.astype(int) - indexes)) <= 1


@BOTH_IMAGES
def test_a_file_of_the_references_symbols_has_its_size_and_decodes_to_its_image(
    model, golden, image
):
    data = golden("msillm")
    z, y = (hwc(data[f"{image}_{name}_symbols"]) for name in "zy")
    _, rows = coding.integer_synthesis.parameters(model.entropy.synthesis, z)
    _, _, height, width = data[f"{image}_x_shape"].tolist()
    file = model.encode(Quantized(z, y, rows), height, width)
    # Random weights give many symbols the least likelihood, 29.9 bits, which escapes code in fewer.
    assert len(file) <= 1.003 * data[f"{image}_bits"].sum() / 8 + 64
    strings = data[f"{image}_compressed_bits"].sum() / 8  # of the reference's own coder
    assert abs(len(file) - strings) <= 0.02 * strings + 64
    pixels = model.decompress(file, mode="whole").astype(int)
    expected = np.floor(np.clip(hwc(data[f"{image}_reconstruction"]), 0, 1) * 255 + 0.5)
    assert np.max(np.abs(pixels - expected)) <= 1
    assert np.max(np.abs(model.decompress(file, mode="exact").astype(int) - pixels)) <= 1
