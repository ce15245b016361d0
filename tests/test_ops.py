import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax import ops


def test_halves_round_up_as_in_the_reference_with_the_gradient_of_the_identity(golden):
    data = golden("likelihoods")
    rounded, pull_back = jax.vjp(ops.straight_through_round, jnp.asarray(data["round_in"]))
    np.testing.assert_array_equal(rounded, data["round_out"])
    weights = jnp.arange(rounded.size, dtype=rounded.dtype).reshape(rounded.shape)
    np.testing.assert_array_equal(pull_back(weights)[0], weights)


def test_lower_bound_and_its_gradients_equal_the_reference(golden, x64):
    data = golden("likelihoods")
    bounded, pull_back = jax.vjp(lambda x: ops.lower_bound(x, 0.11), jnp.asarray(data["lbt_in"]))
    np.testing.assert_array_equal(bounded, data["lbt_out"])
    up, down = pull_back(jnp.ones(6))[0], pull_back(-jnp.ones(6))[0]
    np.testing.assert_array_equal(up, data["lbt_grad_for_upstream_pos"])
    np.testing.assert_array_equal(down, data["lbt_grad_for_upstream_neg"])
    _, pull_back = jax.vjp(lambda x: ops.lower_bound(x, 0.5), jnp.array([0.5, 0.5]))
    np.testing.assert_array_equal(pull_back(jnp.array([1.0, -1.0]))[0], [1, -1])  # at the bound


def test_precision_is_raised_to_float32_and_never_lowered(x64):
    for dtype, raised in [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]:
        assert ops.at_least_float32(jnp.ones(2, dtype)).dtype == raised


@pytest.mark.parametrize("height, width", [(64, 128), (63, 65), (40, 7), (2, 3), (1, 1)])
def test_padding_reflects_at_bottom_and_right_up_to_the_next_multiple(height, width):
    x = np.random.default_rng(0).random((2, height, width, 3), np.float32)
    padded = ops.pad_to_multiple(jnp.asarray(x), 64)
    rows, columns = 64 - height, (64 if width <= 64 else 128) - width
    expected = np.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, expected)
