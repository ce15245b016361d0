import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.dynamic_spectrum import (
    gaussian_blur,
    gaussian_kernel,
    raw_from_sigma,
    sigma_from_raw,
    spectrum_loss,
)
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss

# Reference numbers: the code of FA-VAE and of the FA-HiFiC authors, NCHW, float64.
FAVAE_LOSS_WEIGHT = 0.01  # FA-VAE keeps the weight inside its focal frequency loss


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1), jnp.float64)


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("size", [3, 5, 9, 15])
def test_blur_agrees_with_the_reference(golden, x64, size):
    arrays = golden("favae_blur")

    def energy(x, sigma):
        blurred = gaussian_blur(x, sigma, size)
        return jnp.sum(jnp.square(blurred)), blurred

    gradients = jax.jit(jax.grad(energy, argnums=(0, 1), has_aux=True))
    for sigma in arrays["sigmas"].tolist():
        kernel = gaussian_kernel(size, jnp.asarray(sigma))
        (dx, dsigma), blurred = gradients(nhwc(arrays["x"]), jnp.asarray(sigma))
        tag = f"k{size}_s{sigma}"
        np.testing.assert_allclose(kernel, arrays[f"{tag}_kernel2d"], rtol=1e-10)
        np.testing.assert_allclose(nchw(blurred), arrays[f"{tag}_out"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(nchw(dx), arrays[f"{tag}_dx"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(dsigma, arrays[f"{tag}_dsigma"][0], rtol=1e-10)


def favae_losses(encoder, decoder, encoder_sigmas=None, decoder_sigmas=None):
    """FA-VAE lists its decoder features, and their sigmas, from coarse to fine."""
    sigmas = None
    if encoder_sigmas is not None:
        sigmas = jnp.stack([encoder_sigmas, decoder_sigmas[::-1]])
    return FAVAE_LOSS_WEIGHT * spectrum_loss(encoder, decoder[::-1], sigmas=sigmas)


@pytest.fixture
def favae(golden, x64):
    arrays = golden("dsl_favae")
    encoder = [nhwc(arrays[f"en{i}"]) for i in range(4)]
    decoder = [nhwc(arrays[f"de{i}"]) for i in range(4)]
    return arrays, encoder, decoder


def test_loss_without_blur_agrees_with_favae(favae):
    arrays, encoder, decoder = favae
    value, grads = jax.jit(jax.value_and_grad(favae_losses, argnums=1))(encoder, decoder)
    np.testing.assert_allclose(value, arrays["loss"][0], rtol=1e-10)
    for i, grad in enumerate(grads):
        reference = arrays[f"grad_de{i}"]
        np.testing.assert_allclose(nchw(grad), reference, rtol=0, atol=1e-10 * abs(reference).max())


def test_one_sigma_for_list_positions_agrees_with_favae(favae):
    arrays, encoder, decoder = favae
    sigmas = jnp.asarray(arrays["pair_sigmas"])
    # A "pair" there is a position in both lists, not a level: encoder i and decoder i share sigma.
    both = jax.jit(jax.value_and_grad(lambda s: favae_losses(encoder, decoder, s, s)))
    value, grad = both(sigmas)
    np.testing.assert_allclose(value, arrays["pair_loss"][0], rtol=1e-9)
    np.testing.assert_allclose(grad, arrays["pair_dsigma"], rtol=1e-8)


def test_separate_sigmas_agree_with_favae(favae):
    arrays, encoder, decoder = favae
    sigmas = jnp.asarray(arrays["pair_sigmas"]), jnp.asarray(arrays["nonpair_dec_sigmas"])
    both = jax.jit(jax.value_and_grad(favae_losses, argnums=(2, 3)))
    value, grads = both(encoder, decoder, *sigmas)
    np.testing.assert_allclose(value, arrays["nonpair_loss"][0], rtol=1e-9)
    np.testing.assert_allclose(grads[0], arrays["nonpair_denc_sigma"], rtol=1e-8)
    np.testing.assert_allclose(grads[1], arrays["nonpair_ddec_sigma"], rtol=1e-8)


def test_levels_agree_with_the_fa_hific_authors_up_to_their_division_by_channels(golden, x64):
    arrays = golden("dsl_authors")
    for level, channels in ((1, 60), (2, 120)):
        a, c = nhwc(arrays[f"A{level}"]), nhwc(arrays[f"C{level}"])
        value, grad = jax.jit(jax.value_and_grad(focal_frequency_loss))(c, a)
        np.testing.assert_allclose(value / channels, arrays[f"dsl{level}"], rtol=1e-10)
        np.testing.assert_allclose(
            nchw(grad) / channels, arrays[f"grad_C{level}"], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize(("height", "width"), [(1, 7), (2, 3), (5, 16)])
def test_blur_takes_any_sides(height, width):
    x = random(1, height, width, 2)
    blurred = gaussian_blur(x, jnp.asarray(2.0), 9)
    padded = np.pad(np.asarray(x), ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    kernel = np.asarray(gaussian_kernel(9, jnp.asarray(2.0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(1, 2))
    expected = np.einsum("bhwcij,ij->bhwc", windows, kernel)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


def test_blur_keeps_constants_and_channels_apart():
    x = jnp.broadcast_to(jnp.asarray([1.0, -2.0, 0.0]), (1, 6, 5, 3))
    np.testing.assert_allclose(gaussian_blur(x, jnp.asarray(3.0), 9), x, atol=1e-6)


def test_bfloat16_features_are_blurred_in_float32():
    x = random(1, 8, 8, 2).astype(jnp.bfloat16)
    blurred = gaussian_blur(x, jnp.asarray(1.0), 5)
    assert blurred.dtype == jnp.float32
    expected = gaussian_blur(x.astype(jnp.float32), jnp.asarray(1.0), 5)
    np.testing.assert_array_equal(blurred, expected)


def test_vanishing_sigma_leaves_the_loss_without_blur():
    a, c = random(1, 8, 8, 2), random(1, 8, 8, 2, seed=1)
    both = jax.jit(jax.value_and_grad(lambda s: spectrum_loss([a], [c], sigmas=s)))
    value, grad = both(jnp.full((2, 1), 0.05))
    np.testing.assert_allclose(value, focal_frequency_loss(c, a), rtol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


def test_equal_features_cost_nothing_only_under_equal_sigmas():
    levels = [random(2, 16, 16, 3), random(2, 8, 8, 5)]
    loss = jax.jit(jax.value_and_grad(lambda s: spectrum_loss(levels, levels, sigmas=s)))
    value, grad = loss(jnp.asarray([[3.0, 2.0], [3.0, 2.0]]))
    assert value == 0 and not np.any(grad)
    value, grad = loss(jnp.asarray([[3.0, 2.0], [3.0, 1.0]]))
    assert value > 1e-4
    # Sharper than the encoder's, the generator's blur is pushed to widen, the encoder's to narrow.
    assert grad[1, 1] < 0 < grad[0, 1] and not np.any(grad[:, 0])


def test_loss_is_the_mean_over_levels_and_passes_its_options_on():
    a = [random(1, 8, 8, 2, seed=i) for i in range(3)]
    c = [random(1, 8, 8, 2, seed=i) for i in range(3, 6)]
    each = [
        focal_frequency_loss(q, p, alpha=2.0, log_matrix=True) for p, q in zip(a, c, strict=True)
    ]
    value = spectrum_loss(a, c, alpha=2.0, log_matrix=True)
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-6)


def test_levels_that_do_not_match_are_refused():
    x = random(1, 8, 8, 2)
    with pytest.raises(ValueError, match="2 encoder levels, 1 generator levels"):
        spectrum_loss([x, x], [x])
    with pytest.raises(ValueError, match=r"sigmas of shape \(2, 2\) do not go together"):
        spectrum_loss([x], [x], sigmas=jnp.ones((2, 2)))


@pytest.mark.parametrize("size", [1, 4, 17])
def test_kernel_sizes_other_than_odd_3_to_15_are_the_users_to_mend(size):
    with pytest.raises(UserError, match=f"kernel size {size}: choose an odd number from 3 to 15"):
        gaussian_kernel(size, jnp.asarray(1.0))


def test_sigma_and_raw_are_inverse():
    sigma = jnp.asarray([1e-3, 0.1, 1.0, 3.0, 30.0, 100.0])
    np.testing.assert_allclose(sigma_from_raw(raw_from_sigma(sigma)), sigma, rtol=1e-5)
    assert jnp.all(sigma_from_raw(jnp.linspace(-20.0, 20.0, 41)) > 0)
