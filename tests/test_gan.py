import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.gan import discriminator_loss, generator_loss
from fa_hific_jax.settings.loss import GAN_KINDS


def losses(real, fake, kind):
    return [discriminator_loss(real, fake, kind), generator_loss(fake, kind)]


@pytest.mark.parametrize("kind", GAN_KINDS)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
def test_losses_agree_with_the_reference(golden, request, kind, dtype, tolerance):
    # Reference numbers: the PyTorch HiFiC of J. Tan, in float64.
    if dtype == "float64":
        request.getfixturevalue("x64")
    arrays = golden("losses")
    real, fake = (jnp.asarray(arrays[f"logits_{name}"], dtype) for name in ("real", "gen"))
    found = losses(real, fake, kind)
    np.testing.assert_allclose(found, arrays[f"gan_{kind}_f64"], rtol=tolerance)


@pytest.mark.parametrize(
    "kind, expected",
    [("non_saturating", [2 * np.log(2), np.log(2)]), ("least_squares", [0.25, 0.125])],
)
def test_undecided_discriminator_pays_known_losses_in_float32(kind, expected):
    found = losses(*jnp.zeros((2, 2, 3, 3, 1), jnp.bfloat16), kind)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0].dtype == found[1].dtype == jnp.float32


def test_non_saturating_generator_still_learns_from_a_certain_discriminator():
    certain = jnp.full((4,), -200.0)
    loss = jax.value_and_grad(lambda x: generator_loss(x, "non_saturating"))
    value, grad = loss(certain)
    np.testing.assert_allclose(grad, -0.25)
    np.testing.assert_allclose(value, 200.0)
    assert discriminator_loss(-certain, certain, "non_saturating") == 0


def test_unknown_kind_is_refused_by_name():
    with pytest.raises(UserError, match="'hinge' is unknown"):
        generator_loss(jnp.zeros((2,)), "hinge")
