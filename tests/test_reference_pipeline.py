"""From image to reconstruction at the paper's size, against what the PyTorch HiFiC makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from reference_weights import nhwc

from fa_hific_jax import ops
from fa_hific_jax.entropy.gaussian import LIKELIHOODS, bits
from fa_hific_jax.models.autoencoder import Autoencoder


def reconstruct(model: Autoencoder, x):
    """What the PyTorch HiFiC's evaluation does with an image, by our modules.

    It pads the image to a multiple of 16 and then the latents to one of 4, where our codec pads the
    image to a multiple of 64; and it divides by the pixels of the padded image.
    """
    if model.config.input_range == "symmetric":
        x = 2 * x - 1
    padded = ops.pad_to_multiple(x, 16)
    y = ops.pad_to_multiple(model.encoder(padded)[0], 4)
    z_hat = ops.round_half_up(model.hyperprior.analysis(y))
    mean, scale = model.hyperprior.synthesis(z_hat)
    y_hat = mean + ops.round_half_up(y - mean)
    likelihood = LIKELIHOODS[model.config.likelihood](y_hat, mean, scale)
    costs = [jnp.sum(bits(p, "pytorch")) for p in (likelihood, model.hyperprior.prior(z_hat))]
    return {
        "y_padded": y,
        "mean": mean,
        "scale": scale,
        "latents_quantised": y_hat,
        "reconstruction": model.generate(y_hat)[:, : x.shape[1], : x.shape[2]],
        "bits": jnp.stack(costs),
        "padded": jnp.array(padded.shape[1] * padded.shape[2]),
    }


@pytest.fixture(scope="module")
def parameters():
    return {
        "encoder": reference_weights.encoder(),
        "hyperprior": reference_weights.hyperprior(),
        "generator": reference_weights.generator(9),
    }


def near(found, expected):
    # One latent that rounds the other way would be off by 1; measured: 1e-5.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long  # 2 GB; the tests of the networks compare each of them
@pytest.mark.parametrize("input_range, prefix", [("unit", ""), ("symmetric", "norm_")])
def test_evaluation_of_an_odd_image_equals_the_reference(golden, parameters, input_range, prefix):
    data = golden("pipeline")
    config = reference_weights.paper(input_range=input_range)
    run = jax.jit(lambda p, x: Autoencoder(config).apply({"params": p}, x, method=reconstruct))
    out = run(parameters, nhwc(data["x"]))
    if not prefix:
        assert out["y_padded"].shape == tuple(data["y_shape_after_pad"][[0, 2, 3, 1]])
        for name in ("y_padded", "mean", "scale", "latents_quantised"):
            near(out[name], nhwc(data[name]))
        pixels = data["x"].shape[2] * data["x"].shape[3]
        for cost, name in zip(out["bits"], ("latent", "hyper"), strict=True):
            # compress() of the reference divides by the pixels of the image itself.
            expected = data[f"compress_{name}_bits_bpp"]
            np.testing.assert_allclose([cost, cost / pixels], expected, rtol=1e-5)
    bpp = out["bits"] / out["padded"]
    np.testing.assert_allclose([*bpp, bpp.sum()], data[f"{prefix}qbpp"], rtol=1e-5)
    image = np.asarray(out["reconstruction"])
    before_clamp = nhwc(data[f"{prefix}reconstruction_preclamp_slice"])
    near(image[:, ::7, ::7], (before_clamp + 1) / 2 if prefix else before_clamp)
    near(np.clip(image, 0, 1), nhwc(data[f"{prefix}reconstruction"]))
