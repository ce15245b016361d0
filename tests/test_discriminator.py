"""Discriminator: the reference's logits and power iterations, spectral norm, pairing of latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from reference_weights import nchw, nhwc, relative_error

from fa_hific_jax.models.convolution import convolve
from fa_hific_jax.models.discriminator import (
    HALVING_4X4,
    SPECTRAL,
    Discriminator,
    DiscriminatorConfig,
    convolve_squares,
)
from fa_hific_jax.models.layers import pad

NETWORK = Discriminator(DiscriminatorConfig(), "pytorch", "unit")
TINY = DiscriminatorConfig((6, 5, 4, 4), context_channels=3)
LAYERS = range(4)
# Measured: logits 1e-6, vectors 3e-7, sigma 3e-7 relative.
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def random_array(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def stored_vectors(data, prefix=""):
    return {
        f"conv{layer}": {
            "u": jnp.asarray(data[f"{prefix}conv{layer + 1}_u"]),
            "v": jnp.asarray(reference_weights.right_vector(data[f"{prefix}conv{layer + 1}_v"])),
        }
        for layer in LAYERS
    }


def spectral_norm(parameters, spectral, layer):
    u, v = (spectral[f"conv{layer}"][key] for key in "uv")
    return v @ parameters[f"conv{layer}"]["kernel"].reshape(-1, len(u)) @ u


def test_logits_and_gradients_with_stored_vectors_equal_the_reference(golden):
    data = golden("discriminator")
    parameters, spectral = reference_weights.discriminator(), stored_vectors(data)

    def loss(parameters, x, y):
        logits = NETWORK.apply({"params": parameters, SPECTRAL: spectral}, x, y)
        return jnp.mean(jax.nn.softplus(-logits)), logits

    evaluate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, logits), (grads, *grad_xy) = evaluate(parameters, nhwc(data["x"]), nhwc(data["y"]))
    for dtype in ("", "_f64"):
        np.testing.assert_allclose(np.ravel(logits), data[f"eval_logits{dtype}"][:, 0], **NEAR)
    np.testing.assert_allclose(jax.nn.sigmoid(logits).ravel(), data["eval_prob"][:, 0], **NEAR)
    np.testing.assert_allclose(value, data["eval_nonsat_G_loss_f64"], rtol=1e-5)
    grad_x, grad_y = map(nchw, grad_xy)
    assert relative_error(grad_x[:, :, ::2, ::2], data["eval_grad_x_f64"]) < 1e-4
    assert relative_error(grad_y[:, ::5], data["eval_grad_y_f64"]) < 1e-4
    for layer in LAYERS:
        sigma = spectral_norm(parameters, spectral, layer)
        np.testing.assert_allclose(sigma, data[f"conv{layer + 1}_sigma"], rtol=1e-5)
        # Through W in sigma as well: without that part these would differ by far.
        kernel = grads[f"conv{layer}"]["kernel"].transpose(3, 2, 0, 1)[:6, :6]
        expected = data[f"eval_grad_conv{layer + 1}_weight_orig_slice_f64"]
        assert relative_error(kernel, expected) < 1e-4


def test_two_training_steps_equal_the_reference(golden):
    data = golden("discriminator")
    x, y = nhwc(data["x"]), nhwc(data["y"])
    parameters, spectral = reference_weights.discriminator(), stored_vectors(data)
    for layer in LAYERS:
        v = jnp.zeros_like(spectral[f"conv{layer}"]["v"])
        spectral[f"conv{layer}"] = {"u": data[f"conv{layer + 1}_rule_u"], "v": v}

    @jax.jit
    def step(spectral):
        return NETWORK.apply({"params": parameters, SPECTRAL: spectral}, x, y, mutable=[SPECTRAL])

    for prefix in ("train_step1_", "train_step2_"):
        logits, state = step(spectral)
        spectral, expected = state[SPECTRAL], stored_vectors(data, prefix)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), spectral, expected)
        for layer in LAYERS:
            sigma = spectral_norm(parameters, spectral, layer)
            np.testing.assert_allclose(sigma, data[f"{prefix}conv{layer + 1}_sigma"], rtol=1e-5)
        np.testing.assert_allclose(np.ravel(logits), data[f"{prefix}logits"][:, 0], **NEAR)


def test_real_and_generated_images_are_judged_beside_their_own_latents_unlike_in_the_reference(
    golden,
):
    data = golden("discriminator")
    images = nhwc(np.concatenate([data["pair_x_real"], data["pair_x_gen"]]))
    latents = data["pair_latents"]
    variables = {"params": reference_weights.discriminator(), SPECTRAL: stored_vectors(data)}
    apply = jax.jit(NETWORK.apply)
    logits = np.ravel(apply(variables, images, nhwc(np.concatenate([latents, latents]))))
    expected = data["pair_logits_if_latents_were_concatenated"]
    np.testing.assert_allclose(logits, expected, **NEAR)
    # The reference repeats each image's latents twice in a row, so that they meet other images.
    theirs = np.ravel(apply(variables, images, nhwc(np.repeat(latents, 2, axis=0))))
    stored = np.concatenate([data["pair_D_real_logits"], data["pair_D_gen_logits"]])
    np.testing.assert_allclose(theirs, stored, **NEAR)
    assert np.max(np.abs(theirs - logits)) > 1e-2


def test_each_image_is_judged_in_patches_of_16_beside_its_own_latents():
    x, y = random_array(0, 2, 32, 48, 3), random_array(1, 2, 2, 3, 5)
    network, symmetric = (Discriminator(TINY, "pytorch", span) for span in ("unit", "symmetric"))
    variables = jax.jit(network.init)(jax.random.key(0), x, y)
    logits = functools.partial(jax.jit(network.apply), variables)
    own, swapped = logits(x, y), logits(x, y[::-1])
    assert own.shape == (2, 2, 3, 1)
    assert logits(x[:, :24, :40], y).shape == (2, 1, 2, 1)  # cropped from its padded size
    np.testing.assert_allclose(logits(x[::-1], y[::-1]), own[::-1], atol=1e-6)
    assert np.all(np.max(np.abs(own - swapped), axis=(1, 2, 3)) > 1e-3)
    other = logits(x, y.at[1].add(1.0))
    np.testing.assert_array_equal(other[0], own[0])
    assert np.max(np.abs(other[1] - own[1])) > 1e-3
    # Symmetric input is the image stretched to -1 and 1.
    stretched = symmetric.apply(variables, x, y)
    np.testing.assert_allclose(stretched, logits(2 * x - 1, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_context_at_the_size_of_the_latents_is_convolved_as_its_upsampled_copy(mode, x64):
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.normal(size=(2, 2, 3, 5))),
        jnp.asarray(rng.normal(size=(4, 4, 5, 6))),
    )

    def upsampled(x, kernel):
        whole = jnp.repeat(jnp.repeat(x, 16, axis=1), 16, axis=2)
        return convolve(pad(whole, HALVING_4X4, mode), kernel, 2)

    found, pull_back = jax.vjp(lambda x, kernel: convolve_squares(x, kernel, mode), x, kernel)
    expected, reference = jax.vjp(upsampled, x, kernel)
    dy = jnp.asarray(rng.normal(size=expected.shape))
    pairs = zip((found, *pull_back(dy)), (expected, *reference(dy)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * jnp.max(jnp.abs(theirs)))


@pytest.mark.parametrize("variant", ["pytorch", "tensorflow"])
def test_logits_do_not_depend_on_how_the_context_is_convolved(variant):
    network = Discriminator(TINY, variant, "unit")
    x, y_hat = random_array(0, 1, 32, 192, 3), random_array(1, 1, 2, 12, 6)
    variables = network.init(jax.random.key(0), x, y_hat)
    larger = jnp.pad(y_hat, ((0, 0), (0, 0), (0, 1), (0, 0)))  # Its context has to be cropped.
    found, cropped = network.apply(variables, x, y_hat), network.apply(variables, x, larger)
    # The patches at the right edge see different latents.
    np.testing.assert_allclose(found[:, :, :6], cropped[:, :, :6], rtol=0, atol=1e-5)
