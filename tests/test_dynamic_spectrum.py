import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_weights import nchw, relative_error
from reference_weights import nhwc as in_our_layout
from tiny_settings import tiny_settings

from fa_hific_jax.blur import gaussian_blur
from fa_hific_jax.errors import UserError
from fa_hific_jax.fidelity.authors import legacy_gaussian_blur
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw, spectrum_loss
from fa_hific_jax.losses.focal_frequency import Focus, focal_frequency_loss
from fa_hific_jax.losses.rate_distortion import mse_255, switch_lambda
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Rates
from fa_hific_jax.training.terms import TERMS, LossInputs

# Reference numbers: the code of FA-VAE and of the FA-HiFiC authors, NCHW, float64.
BLURS = [jax.jit(blur, static_argnums=2) for blur in (gaussian_blur, legacy_gaussian_blur)]
jitted_loss = jax.jit(spectrum_loss, static_argnames=("blur", "focus"))


def nhwc(x):
    return in_our_layout(x, jnp.float64)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def blurred_energies(blur, arrays, size):
    """For each of the reference's sigmas: the beginning of the names of its arrays, gradients by x
    and sigma of the sum of squares, the blurred x, and that in float32."""

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def compute(x, sigma):
        blurred = blur(x, sigma, size)
        return jnp.sum(jnp.square(blurred)), blurred

    x, starts = nhwc(arrays["x"]), {"_".join(key.split("_")[:2]) for key in arrays}
    tags = [tag for tag in starts if tag.startswith(f"k{size}_s")]
    assert len(tags) == 3
    for tag in tags:
        sigma = jnp.asarray(float(tag.split("_s")[1]))
        yield tag, *compute(x, sigma), compute(x.astype(jnp.float32), sigma)[1]


@pytest.mark.parametrize("size", [3, 5, 9, 15])
def test_blur_agrees_with_the_reference(golden, x64, size):
    arrays = golden("favae_blur")
    for tag, (dx, dsigma), blurred, single in blurred_energies(gaussian_blur, arrays, size):
        np.testing.assert_allclose(nchw(blurred), arrays[f"{tag}_out"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(nchw(dx), arrays[f"{tag}_dx"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(dsigma, arrays[f"{tag}_dsigma"][0], rtol=1e-10)
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(nchw(single), arrays[f"{tag}_out_f32"], rtol=0, atol=2e-6)


# The authors' kernel; measured: 4e-15 (2e-6 in float32) for values up to 4, 2e-14 for gradients.
@pytest.mark.parametrize("size", [3, 8, 9, 15])
def test_legacy_blur_agrees_with_the_fa_hific_authors(golden, x64, size):
    arrays = golden("authors_gaussian_kernel")
    for tag, (_, dsigma), blurred, single in blurred_energies(legacy_gaussian_blur, arrays, size):
        assert blurred.shape == ((1, 21, 25, 1) if size == 8 else (1, 20, 24, 1))
        np.testing.assert_allclose(blurred[..., 0], arrays[f"{tag}_out_f64"], rtol=0, atol=1e-12)
        # They sum over all four equal channels.
        np.testing.assert_allclose(4 * dsigma, arrays[f"{tag}_dsumsq_dsigma_f64"][0], rtol=1e-10)
        np.testing.assert_allclose(single[..., 0], arrays[f"{tag}_out"], rtol=0, atol=5e-6)


def test_our_blur_keeps_channels_apart_where_the_legacy_blur_sums_them():
    """A fault of the FA-HiFiC authors' kernel that the default does not have."""
    x, sigma = random(1, 12, 12, 3), jnp.asarray(2.0)
    other = x.at[..., 1].add(1.0)
    ours, theirs = (np.asarray(blur(other, sigma, 9) - blur(x, sigma, 9)) for blur in BLURS)
    np.testing.assert_allclose(ours, np.broadcast_to([0.0, 1.0, 0.0], ours.shape), atol=1e-6)
    assert theirs.shape[-1] == 1 and theirs[0, 6, 6, 0] > 0.9
    # Errors that cancel in the sum over channels cost nothing there.
    c = x + jnp.asarray([1.0, -1.0, 0.0])[None, None, None] * random(1, 12, 12, 1, seed=1)
    losses = [jitted_loss([x], [c], sigmas=jnp.ones((2, 1)), blur=blur) for blur in BLURS]
    assert losses[0] > 1e-3 and losses[1] < 1e-9


@pytest.fixture
def favae(golden, x64):
    """(reference numbers, encoder features, decoder features)."""
    arrays = golden("dsl_favae")
    return arrays, *([nhwc(arrays[f"{side}{i}"]) for i in range(4)] for side in ("en", "de"))


def favae_loss(encoder, decoder, encoder_sigmas=None, decoder_sigmas=None):
    """(loss, its terms in the order of the encoder).

    FA-VAE lists its decoder features, and their sigmas, from coarse to fine, and keeps the weight
    of 0.01 inside its focal frequency loss.
    """
    decoder, sigmas, each = decoder[::-1], None, [None] * 4
    if encoder_sigmas is not None:
        sigmas = jnp.stack([encoder_sigmas, decoder_sigmas[::-1]])
        each = [sigmas[:, i : i + 1] for i in range(4)]
    levels = zip(encoder, decoder, each, strict=True)
    terms = [0.01 * spectrum_loss([a], [c], sigmas=s) for a, c, s in levels]
    return 0.01 * spectrum_loss(encoder, decoder, sigmas=sigmas), jnp.stack(terms)


def test_loss_without_blur_agrees_with_favae(favae):
    arrays, encoder, decoder = favae
    compute = jax.jit(jax.value_and_grad(favae_loss, argnums=1, has_aux=True))
    (value, terms), grads = compute(encoder, decoder)
    np.testing.assert_allclose(value, arrays["loss"][0], rtol=1e-10)
    np.testing.assert_allclose(terms, arrays["losses"], rtol=1e-10)
    for i, grad in enumerate(grads):
        assert relative_error(nchw(grad), arrays[f"grad_de{i}"]) < 1e-10


def test_loss_with_shared_and_separate_sigmas_agrees_with_favae(favae):
    arrays, encoder, decoder = favae
    compute = jax.jit(jax.value_and_grad(favae_loss, argnums=(2, 3), has_aux=True))
    assert arrays["pair_kernel_size"] == 9  # our default
    sigmas = jnp.asarray(arrays["pair_sigmas"])
    others = jnp.asarray(arrays["nonpair_dec_sigmas"])
    # A "pair" there is a position in both lists, not a level: encoder i and decoder i share sigma.
    for name, decoder_sigmas in (("pair", sigmas), ("nonpair", others)):
        (value, terms), grads = compute(encoder, decoder, sigmas, decoder_sigmas)
        np.testing.assert_allclose(value, arrays[f"{name}_loss"][0], rtol=1e-9)
        np.testing.assert_allclose(terms, arrays[f"{name}_losses"], rtol=1e-10)
        if name == "pair":
            np.testing.assert_allclose(sum(grads), arrays["pair_dsigma"], rtol=1e-8)
        else:
            expected = [arrays["nonpair_denc_sigma"], arrays["nonpair_ddec_sigma"]]
            np.testing.assert_allclose(grads, expected, rtol=1e-8)


@pytest.fixture
def authors(golden, x64):
    """(reference numbers, A_1 and A_2, C_1 and C_2): features of a tenth of the paper's width."""
    arrays = golden("dsl_authors")
    return arrays, *([nhwc(arrays[f"{letter}{level}"]) for level in (1, 2)] for letter in "AC")


@jax.jit
def authors_loss(a, c, sigmas=None):
    # The authors divide by 60 and 120 whatever the width, we by the 6 and 12 channels there are.
    return 0.1 * spectrum_loss(a, c, sigmas=sigmas, blur=legacy_gaussian_blur, weighting="authors")


def test_weighting_of_levels_agrees_with_the_fa_hific_authors(authors):
    arrays, a, c = authors
    value, grads = jax.jit(jax.value_and_grad(authors_loss, argnums=(0, 1)))(a, c)
    np.testing.assert_allclose(value, arrays["dsl"], rtol=1e-10)
    for i in (0, 1):
        alone = authors_loss(a[i : i + 1], c[i : i + 1])
        np.testing.assert_allclose(alone, arrays[f"dsl{i + 1}"], rtol=1e-10)
        for letter, grad in zip("AC", grads, strict=True):
            assert relative_error(nchw(grad[i]), arrays[f"grad_{letter}{i + 1}"]) < 1e-10


def test_loss_behind_the_four_legacy_kernels_agrees_with_the_fa_hific_authors(authors):
    arrays, a, c = authors
    # A1, A2; C1, C2. The authors' parameters are float32, so the last is not quite 0.8.
    sigmas = jnp.asarray(arrays["chain_sigmas"].reshape(2, 2).astype(np.float32), jnp.float64)
    value, grad = jax.jit(jax.value_and_grad(authors_loss, argnums=2))(a, c, sigmas)
    np.testing.assert_allclose(value, arrays["chain_dsl"], rtol=1e-10)
    np.testing.assert_allclose(np.ravel(grad), arrays["chain_dsigma"], rtol=1e-9)


def test_ours_does_not_silently_divide_the_mse_by_255(authors):
    """The authors' whole loss comes out only with the division that ours does not have."""
    arrays, a, c = authors
    real, generated = nhwc(arrays["x_real"]), nhwc(arrays["x_gen"])
    mse, ffl = mse_255(real, generated), jax.jit(focal_frequency_loss)(generated, real)
    np.testing.assert_allclose(mse, 255 * arrays["fork_distortion"], rtol=1e-12)
    np.testing.assert_allclose(ffl, arrays["fork_ffl_pixel"], rtol=1e-10)
    rate = 0.31 * switch_lambda(jnp.asarray(0.33), 0.3, 1.0, 0.0625)
    k_m, k_p, k_ffl, k_dsl = (float(arrays[key]) for key in ("k_M", "k_P", "k_ffl", "k_dsl"))
    others = rate + k_p * 0.25 + k_ffl * ffl + k_dsl * authors_loss(a, c)
    theirs, ours = others + k_m * mse / 255, others + k_m * mse
    np.testing.assert_allclose(theirs, arrays["fork_compression_loss"], rtol=1e-10)
    assert ours > 40 * theirs


@pytest.mark.parametrize(("height", "width"), [(1, 7), (2, 16)])
def test_blur_takes_any_sides(height, width):
    x = random(1, height, width, 2)
    padded = np.pad(np.asarray(x), ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(1, 2))
    kernel = np.exp(-0.5 * np.square(np.arange(-4, 5) / 2.0))
    kernel /= np.sum(kernel)
    expected = np.einsum("bhwcij,i,j->bhwc", windows, kernel, kernel)
    np.testing.assert_allclose(BLURS[0](x, jnp.asarray(2.0), 9), expected, atol=1e-6)


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
    a, c = ([random(1, 8, 8, 2, seed=i) for i in seeds] for seeds in (range(3), range(3, 6)))
    focus = Focus(alpha=2.0, log_matrix=True)
    each = [focal_frequency_loss(q, p, focus=focus) for p, q in zip(a, c, strict=True)]
    np.testing.assert_allclose(jitted_loss(a, c, focus=focus), np.mean(each), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "blur", "weighting"),
    [
        ((), gaussian_blur, "mean"),
        (("legacy_kernel",), legacy_gaussian_blur, "mean"),
        (("channel_weighting",), gaussian_blur, "authors"),
    ],
)
def test_the_term_of_the_training_loss_blurs_and_weights_as_configured(options, blur, weighting):
    settings = tiny_settings(loss__dsl_blur=(5, 3.0), loss__dsl_options=options)
    a, c = (tuple(random(1, 16 // i, 16 // i, 4, seed=s + i) for i in (1, 2)) for s in (0, 2))
    unused, raw = jnp.ones(1), random(2, 2, seed=9)
    outputs = AutoencoderOutput(*[unused] * 4, a, c, Rates(*[unused] * 4))
    given = LossInputs(unused, outputs, raw, unused, None, None, None, None, settings)
    found = next(term for term in TERMS if term.name == "dsl").value(given)
    sigmas = sigma_from_raw(raw)
    expected = spectrum_loss(a, c, sigmas=sigmas, kernel_size=5, blur=blur, weighting=weighting)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_levels_that_do_not_match_are_refused():
    x = random(1, 8, 8, 2)
    with pytest.raises(ValueError, match="shorter"):
        spectrum_loss([x, x], [x])
    with pytest.raises(ValueError, match=r"sigmas of shape \(2, 2\)"):
        spectrum_loss([x], [x], sigmas=jnp.ones((2, 2)))


@pytest.mark.parametrize("size", [1, 2, 4, 16, 17])
def test_kernel_sizes_other_than_3_to_15_odd_for_our_blur_are_refused(size):
    x, sigma = random(1, 8, 8, 2), jnp.asarray(1.0)
    for blur in (gaussian_blur, legacy_gaussian_blur)[: 1 if size == 4 else 2]:
        with pytest.raises(UserError, match=f"kernel size {size}"):
            blur(x, sigma, size)
