import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_weights import nhwc

from fa_hific_jax.losses.rate_distortion import mse_255, switch_lambda


def reference_lambda(arrays, regime, bpp_rounded, step, no_schedule=False):
    """The switch under the PyTorch HiFiC's schedules of its first 50,000 steps."""
    early = step < 50_000 and not no_schedule
    lambda_factor, target_factor = (2.0, 0.20 / 0.14) if early else (1.0, 1.0)
    return switch_lambda(
        jnp.asarray(bpp_rounded),
        float(arrays["target_rate"][int(regime)] * target_factor),
        float(arrays["lambda_A"][int(regime)] * lambda_factor),
        float(arrays["lambda_B"] * lambda_factor),
    )


def test_rates_under_the_schedules_agree_with_the_reference(golden, x64):
    arrays = golden("losses")
    assert len(arrays["rate_in"]) == 360
    rows = zip(arrays["rate_in"], arrays["rate_out"], strict=True)
    for (regime, bpp_noisy, bpp_rounded, step, no_schedule), expected in rows:
        lmbda = reference_lambda(arrays, regime, bpp_rounded, step, no_schedule)
        np.testing.assert_allclose([lmbda * bpp_noisy, lmbda], expected, rtol=1e-12)


def test_distortion_and_the_weighted_sum_agree_with_the_reference(golden, x64):
    arrays = golden("losses")  # the PyTorch HiFiC of J. Tan, NCHW
    mse = mse_255(*(nhwc(arrays[key], jnp.float64) for key in ("x_real", "x_gen")))
    np.testing.assert_allclose(mse, arrays["distortion"], rtol=1e-12)
    np.testing.assert_allclose(mse / 255, arrays["distortion_fork"], rtol=1e-12)
    # Whether the networks see [0, 1] or [-1, 1], the losses see [0, 1]: the sums are the same.
    for step, _, expected in arrays["compression_loss_lpips0p25"]:
        rate = 0.31 * reference_lambda(arrays, 0, 0.25, step)
        loss = rate + arrays["k_M"] * mse + arrays["k_P"] * 0.25
        np.testing.assert_allclose(loss, expected, rtol=1e-6)  # float32 there


def test_one_gray_level_of_error_costs_one():
    x = jnp.full((2, 4, 4, 3), 0.5)
    np.testing.assert_allclose(mse_255(x, x + 1 / 255), 1.0, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(mse_255)(x, x + 1 / 255), -2 * 255 / x.size, rtol=1e-4)


def test_distortion_of_bfloat16_images_is_float32():
    x = jnp.full((1, 4, 4, 3), 0.75, jnp.bfloat16)
    # bfloat16 would miss by 9e-4.
    np.testing.assert_allclose(mse_255(x, jnp.zeros_like(x)), 191.25**2, rtol=1e-6)


@pytest.mark.parametrize(("bpp_rounded", "lmbda"), [(0.2, 0.0625), (0.25, 0.0625), (0.26, 2.0)])
def test_weight_is_large_strictly_above_the_target(bpp_rounded, lmbda):
    given = [jnp.asarray(value) for value in (bpp_rounded, 0.25, 2.0, 0.0625)]
    assert switch_lambda(*given) == lmbda
    assert jax.grad(switch_lambda)(*given) == 0.0
