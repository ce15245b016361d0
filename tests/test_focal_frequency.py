import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_weights import nchw, nhwc, relative_error

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.focal_frequency import Focus, focal_frequency_loss

# Reference numbers: package focal-frequency-loss 0.3.0, NCHW.
OPTIONS = ("alpha", "patch_factor", "ave_spectrum", "log_matrix", "batch_matrix")


def ffl(p, t, alpha=1.0, log_matrix=False, batch_matrix=False, **options):
    focus = Focus(alpha, log_matrix, batch_matrix)
    return focal_frequency_loss(p, t, focus=focus, **options)


def random_pair(seed=0, shape=(2, 8, 12, 3)):
    return jnp.asarray(np.random.default_rng(seed).random((2, *shape)), jnp.float32)


def values_and_gradients(prediction, target, rows, dtype):
    """For each row of options the loss and its gradient in NCHW, from one compiled program."""

    @jax.jit
    def evaluate(p, t):
        results = []
        for alpha, patch_factor, *flags in rows:
            values = (float(alpha), int(patch_factor), *map(bool, flags))
            loss = functools.partial(ffl, **dict(zip(OPTIONS, values, strict=True)))
            results.append(jax.value_and_grad(loss)(p, t))
        return results

    for value, grad in evaluate(nhwc(prediction, dtype), nhwc(target, dtype)):
        assert value.dtype == grad.dtype == dtype
        yield float(value), np.asarray(nchw(grad), np.float64)


# Largest relative error measured over the 48 configurations: 3e-15 in float64, 2e-6 in float32.
def check_configurations(arrays, values, indexes, dtype, tolerance):
    full = dict(zip(arrays["grad_full_index"].tolist(), arrays["grad_full"], strict=True))
    rows = arrays["configs"][indexes]
    found = values_and_gradients(arrays["pred"], arrays["target"], rows, dtype)
    for i, row, (value, grad) in zip(indexes, rows, found, strict=True):
        assert relative_error(value, values[i]) < tolerance, row
        sliced = grad[:, :, ::4, ::4]
        assert relative_error(sliced, arrays["grad_slice_all"][i]) < tolerance, row
        assert relative_error(np.sum(grad**2), arrays["grad_sumsq_all"][i]) < tolerance, row
        if i in full:
            assert relative_error(grad, full[i]) < tolerance, row


def test_all_options_agree_with_the_reference_in_float64(golden, x64):
    arrays = golden("ffl")
    assert len(arrays["configs"]) == 48
    check_configurations(arrays, arrays["values"], range(48), jnp.float64, 1e-10)


def test_each_option_agrees_with_the_reference_in_float32(golden):
    arrays = golden("ffl")
    # Every exponent; patches, averages, logarithm and batch maximum on and off.
    check_configurations(arrays, arrays["values_f32"], range(0, 48, 5), jnp.float32, 1e-5)


def test_a_given_matrix_and_the_gradient_of_the_target_agree_with_the_reference(golden, x64):
    arrays, dtype = golden("ffl"), jnp.float64
    matrix = jnp.asarray(np.moveaxis(arrays["matrix"], 2, -1), dtype)
    loss = jax.jit(jax.value_and_grad(lambda p, t, m: 0.7 * focal_frequency_loss(p, t, matrix=m)))
    pair = nhwc(arrays["pred"], dtype), nhwc(arrays["target"], dtype)
    value, grad = loss(*pair, matrix)
    assert relative_error(value, arrays["matrix_value"]) < 1e-10
    assert relative_error(nchw(grad)[:, :, ::4, ::4], arrays["matrix_grad_slice"]) < 1e-10
    grad = jax.jit(jax.grad(focal_frequency_loss, argnums=1))(*pair)
    expected = arrays["grad_target_default_slice"]
    assert relative_error(nchw(grad)[:, :, ::4, ::4], expected) < 1e-10


def test_a_channel_without_error_adds_nothing_and_no_nan(golden, x64):
    arrays = golden("ffl")
    given = (arrays["pred"], arrays["nan_target"], arrays["nan_configs"])
    expected = zip(arrays["nan_values"], arrays["nan_grads"], strict=True)
    for found, reference in zip(values_and_gradients(*given, jnp.float64), expected, strict=True):
        assert relative_error(found[0], reference[0]) < 1e-10
        assert relative_error(found[1], reference[1]) < 1e-10
        assert not np.any(found[1][0, 1])


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 9), (8, 1)])
def test_half_spectrum_gives_the_mean_over_the_full_one(height, width, x64):
    p, t = np.random.default_rng(0).random((2, 2, height, width, 3))
    spectrum = np.abs(np.fft.fft2(t - p, axes=(1, 2), norm="ortho"))
    weight = spectrum / spectrum.max(axis=(1, 2), keepdims=True)
    found = focal_frequency_loss(jnp.asarray(p), jnp.asarray(t))
    np.testing.assert_allclose(found, np.mean(weight * spectrum**2), 1e-12)


CHOICES = [{}, {"log_matrix": True}, {"batch_matrix": True}, {"alpha": 0.5, "ave_spectrum": True}]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_equal_inputs_have_zero_loss_and_zero_gradient(options):
    x = random_pair()[0].astype(jnp.bfloat16)
    loss = jax.value_and_grad(functools.partial(ffl, **options), argnums=(0, 1))
    value, grads = jax.jit(loss)(x, x)
    assert value == 0 and value.dtype == jnp.float32
    assert all(not np.any(np.asarray(grad, np.float32)) for grad in grads)


def test_weight_carries_no_gradient():
    p, t = random_pair(seed=4)
    value, grad = jax.jit(jax.value_and_grad(focal_frequency_loss))(p, t)
    # With a constant weight the loss is quadratic: <gradient, p - t> = 2 loss, else 3 loss.
    np.testing.assert_allclose(jnp.sum(grad * (p - t)), 2 * value, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 9), (4, 1)])
def test_matrix_weights_each_frequency_of_each_patch_even_unsymmetrically(height, width, x64):
    rng = np.random.default_rng(6)
    p, t = rng.random((2, 2, 2 * height, 2 * width, 3))
    matrix = rng.random((2, 4, height, width, 3))
    d = (t - p).reshape(2, 2, height, 2, width, 3).transpose(0, 1, 3, 2, 4, 5)
    d = d.reshape(2, 4, height, width, 3)
    spectrum = np.abs(np.fft.fft2(d, axes=(2, 3), norm="ortho"))
    p, t, weights = map(jnp.asarray, (p, t, matrix))
    value = focal_frequency_loss(p, t, patch_factor=2, matrix=weights)
    np.testing.assert_allclose(value, np.mean(matrix * spectrum**2), rtol=1e-12)


def test_patches_and_matrices_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="patch_factor 2 does not divide"):
        focal_frequency_loss(*jnp.zeros((2, 1, 8, 9, 3)), patch_factor=2)
    x = jnp.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match="does not fit"):
        focal_frequency_loss(x, x, matrix=jnp.ones((2, 1, 8, 5, 3)))
