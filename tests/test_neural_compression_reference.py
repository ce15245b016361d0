"""The "neuralcompression" variant at full width against NeuralCompression's own numbers.

The reference is its `HiFiCAutoencoder` with weights by the seed rule. They come here through
`import_checkpoint`, so the numbers also check the place of every parameter.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import neural_compression_state
import numpy as np
import pytest
import scipy.special
import torch_files
from reference_weights import nhwc

from fa_hific_jax import ops
from fa_hific_jax.codec import coding
from fa_hific_jax.codec.coding import Quantized
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.convert.pytorch_hific import Options, import_checkpoint
from fa_hific_jax.entropy import factorized
from fa_hific_jax.entropy.gaussian import bits, gaussian_likelihood
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import Autoencoder

pytestmark = pytest.mark.slow

IMAGES = ("a", "b")


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
    yield import_checkpoint(path, Options())
    path.unlink()


def evaluated(model: Autoencoder, x):
    """What the reference computes of a padded image, by our modules; z less its medians."""
    variant = model.config.variant
    rounded = functools.partial(ops.straight_through_round, halves="even")
    y, _ = model.encode(x)
    z = model.hyperprior.analysis(y)
    symbols = rounded(z)
    mean, scale = model.hyperprior.synthesis(symbols)
    y_hat = mean + rounded(y - mean)
    found = {
        "y": y,
        "z": z,
        "z_symbols": symbols,
        "z_likelihood": model.hyperprior.prior(symbols),
        "mean": mean,
        "scale": scale,
        "y_hat": y_hat,
        "y_symbols": rounded(y - mean),
        "y_likelihood": gaussian_likelihood(y_hat, mean, scale),
        "reconstruction": model.generate(y_hat),
    }
    likelihoods = found["y_likelihood"], found["z_likelihood"]
    return found | {"bits": jnp.stack([jnp.sum(bits(p, variant)) for p in likelihoods])}


def trained(model: Autoencoder, x, noise_z, noise_y):
    """The same in training mode, with the noise of the reference."""
    variant = model.config.variant
    rounded = functools.partial(ops.straight_through_round, halves="even")
    y, _ = model.encode(x)
    z_noisy = model.hyperprior.analysis(y) + noise_z
    mean, scale = model.hyperprior.synthesis(z_noisy)
    y_hat = mean + rounded(y - mean)
    prior = model.hyperprior.prior
    likelihoods = (
        gaussian_likelihood(y + noise_y, mean, scale),
        prior(z_noisy),
        gaussian_likelihood(y_hat, mean, scale),
        prior(rounded(z_noisy)),  # The reference rounds what already has noise.
    )
    return {
        "bits": jnp.stack([jnp.sum(bits(p, variant)) for p in likelihoods]),
        "y_hat": y_hat,
        "reconstruction": model.generate(y_hat),
    }


@pytest.fixture(scope="module")
def outputs(imported, golden):
    """(dtype, image) -> everything the networks compute, and what each module puts out."""
    data = golden("msillm")

    @functools.cache
    def compute(dtype: str, image: str):
        model = Autoencoder(imported.model, dtype)
        x = ops.pad_to_multiple(picture(data, image, dtype), 64)
        apply = functools.partial(model.apply, method=evaluated, capture_intermediates=True)
        found, state = jax.device_get(jax.jit(apply)(parameters(imported, dtype), x))
        return found, state["intermediates"]

    return compute


def picture(data, image: str, dtype: str):
    x = neural_compression_state.uniform(f"input:{image}", tuple(data[f"{image}_x_shape"]))
    np.testing.assert_array_equal(x[:, :, :4, :4], data[f"{image}_x_corner"])
    return nhwc(x.astype(dtype))


def parameters(imported, dtype: str):
    return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), imported.autoencoder)}


def nchw(array) -> np.ndarray:
    return np.asarray(array).transpose(0, 3, 1, 2)


def in_their_terms(found, imported, data, image: str) -> dict[str, np.ndarray]:
    """Outputs in the reference's layout, with medians, and cropped to the image."""
    medians = imported.autoencoder["hyperprior"][MEDIAN]
    height, width = data[f"{image}_x_shape"][2:]
    theirs = {name: nchw(array) for name, array in found.items() if name != "bits"}
    theirs["z_hat"] = nchw(found["z_symbols"] + medians)
    theirs["z"] = nchw(found["z"] + medians)
    theirs["reconstruction"] = theirs["reconstruction"][:, :, :height, :width]
    return theirs


def near(found, expected, tolerance: float, name: str = ""):
    """Equal to a share of the reference's largest value."""
    limit = tolerance * np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_from_pixels_to_pixels_equals_the_reference(imported, outputs, golden, image):
    data, (found, _) = golden("msillm"), outputs("float32", image)
    theirs = in_their_terms(found, imported, data, image)
    for name in ("y", "z", "z_hat", "z_likelihood", "mean", "y_likelihood", "reconstruction"):
        near(theirs[name], data[f"{image}_{name}"], 1e-4, name)
    near(theirs["scale"], np.maximum(data[f"{image}_scale_raw"], 0.11), 1e-4)
    np.testing.assert_array_equal(theirs["z_symbols"], data[f"{image}_z_symbols"])
    clear = np.ones(theirs["y"].size, bool)
    clear[data[f"{image}_y_near_boundary_idx"]] = False
    clear = clear.reshape(theirs["y"].shape)
    near(theirs["y_hat"][clear], data[f"{image}_y_hat"][clear], 1e-4)
    np.testing.assert_array_equal(theirs["y_symbols"][clear], data[f"{image}_y_symbols"][clear])
    np.testing.assert_allclose(found["bits"], data[f"{image}_bits"][0], rtol=1e-6)


@pytest.mark.parametrize("image", IMAGES)
def test_in_float64_it_equals_the_reference_to_ten_digits(imported, outputs, golden, x64, image):
    data, (found, _) = golden("msillm"), outputs("float64", image)
    theirs = in_their_terms(found, imported, data, image)
    for name in ("z", "z_hat", "z_likelihood"):
        near(theirs[name], data[f"{image}_{name}_f64"], 1e-10, name)
    for name in ("y", "mean", "y_likelihood", "y_hat"):
        near(theirs[name][:, ::4], data[f"{image}_{name}_slice_f64"], 1e-10, name)
    near(theirs["scale"][:, ::4], np.maximum(data[f"{image}_scale_raw_slice_f64"], 0.11), 1e-10)
    expected = data[f"{image}_reconstruction_slice_f64"]
    near(theirs["reconstruction"][:, :, ::2, ::2], expected, 1e-10)
    # The reference keeps the bound of the likelihood in float32, which moves bits by 2e-9.
    np.testing.assert_allclose(found["bits"], data[f"{image}_bits_f64"][0], rtol=1e-8)


TRACED = (
    [(f"encoder.blocks.{i}", "encoder", f"norm{i}", True) for i in range(5)]
    + [("encoder.blocks.5", "encoder", "conv_out", False)]
    + [("decoder.block_0", "generator", "norm_head", False)]
    + [(f"decoder.resid_blocks.{i}", "generator", f"block{i}", False) for i in range(9)]
    + [(f"decoder.blocks.{i}", "generator", f"norm{4 - i}", True) for i in range(4)]
    + [("decoder.blocks.4", "generator", "conv_out", False)]
    + [(f"hyper_analysis.{2 * i}", "analysis", f"conv{i}", i < 2) for i in range(3)]
    + [
        (f"hyper_synthesis_{which}.{2 * i}", f"synthesis_{which}", module, i < 2)
        for which in ("mean", "scale")
        for i, module in enumerate(("up0", "up1", "conv2"))
    ]
)


def test_every_module_puts_out_what_the_references_does(outputs, golden):
    data, (_, traced) = golden("msillm"), outputs("float32", "a")
    for name, network, module, activated in TRACED:
        inside = traced if network in ("encoder", "generator") else traced["hyperprior"]
        (output,) = inside[network][module]["__call__"]
        output = nchw(nn.relu(output) if activated else output)
        near(output[:1, :5, :4, :6], data[f"a_trace__{name}__slice"], 1e-4, name)
        energy, expected = np.square(output.astype(float)).sum(), data[f"a_trace__{name}__stats"][5]
        np.testing.assert_allclose(energy, expected, rtol=1e-4, err_msg=name)
    assert {name for name, *_ in TRACED} == {
        key.split("__")[1] for key in data if key.startswith("a_trace__")
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_mode_equals_the_reference(request, imported, golden, dtype):
    if dtype == "float64":
        request.getfixturevalue("x64")
    data, suffix = golden("msillm"), "" if dtype == "float32" else "_f64"
    x = picture(data, "a", dtype)
    noise = [
        nhwc((neural_compression_state.uniform(f"input:noise_{name}", shape) - 0.5).astype(dtype))
        for name, shape in (("z", data["a_z"].shape), ("y", data["a_y"].shape))
    ]
    apply = functools.partial(Autoencoder(imported.model, dtype).apply, method=trained)
    found = jax.jit(apply)(parameters(imported, dtype), x, *noise)
    rtol, tolerance = (1e-8, 1e-10) if suffix else (1e-6, 1e-4)
    np.testing.assert_allclose(found["bits"], data[f"a_train_bits{suffix}"][0], rtol=rtol)
    near(nchw(found["y_hat"])[:, ::4], data[f"a_train_y_hat_slice{suffix}"], tolerance)
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


@pytest.mark.parametrize("image", IMAGES)
def test_the_codec_finds_the_symbols_of_the_reference(imported, model, golden, image):
    data = golden("msillm")
    y, z = (data[f"{image}_{name}"][0].transpose(1, 2, 0).astype(float) for name in "yz")
    found = coding.quantize(model.entropy, y, z - imported.autoencoder["hyperprior"][MEDIAN])
    symbols = [data[f"{image}_{name}_symbols"][0].transpose(1, 2, 0) for name in "zy"]
    np.testing.assert_array_equal(found.z, symbols[0])
    assert np.mean(found.y != symbols[1]) < 2e-3  # a latent half a step from its mean
    indexes = data[f"{image}_y_indexes"][0].transpose(1, 2, 0)
    assert np.mean(found.rows != indexes) < 1e-2
    assert np.max(np.abs(found.rows.astype(int) - indexes)) <= 1


@pytest.mark.parametrize("image", IMAGES)
def test_a_file_of_the_references_symbols_has_its_size_and_decodes_to_its_image(
    model, golden, image
):
    data = golden("msillm")
    z, y = (data[f"{image}_{name}_symbols"][0].transpose(1, 2, 0) for name in "zy")
    _, rows = coding.integer_synthesis.parameters(model.entropy.synthesis, z)
    _, _, height, width = data[f"{image}_x_shape"].tolist()
    file = model.encode(Quantized(z, y, rows), height, width)
    # Random weights give many symbols the least likelihood, 29.9 bits, which escapes code in fewer.
    assert len(file) <= 1.003 * data[f"{image}_bits"].sum() / 8 + 64
    strings = data[f"{image}_compressed_bits"].sum() / 8  # of the reference's own coder
    assert abs(len(file) - strings) <= 0.02 * strings + 64
    pixels = model.decompress(file, mode="whole").astype(int)
    expected = np.floor(np.clip(data[f"{image}_reconstruction"][0], 0, 1) * 255 + 0.5)
    assert np.max(np.abs(pixels - expected.transpose(1, 2, 0))) <= 1
    assert np.max(np.abs(model.decompress(file, mode="exact").astype(int) - pixels)) <= 1
