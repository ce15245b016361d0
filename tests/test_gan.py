import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.gan import discriminator_loss, generator_loss


@pytest.mark.parametrize("kind", ["non_saturating", "least_squares"])
def test_losses_agree_with_the_reference(golden, x64, kind):
    # Reference numbers: the PyTorch HiFiC of J. Tan, in float64.
    arrays = golden("losses")
    real = jnp.asarray(arrays["logits_real"], jnp.float64)
    fake = jnp.asarray(arrays["logits_gen"], jnp.float64)
    losses = [discriminator_loss(real, fake, kind), generator_loss(fake, kind)]
    np.testing.assert_allclose(losses, arrays[f"gan_{kind}_f64"], rtol=1e-12)


@pytest.mark.parametrize("kind", ["non_saturating", "least_squares"])
def test_losses_of_float32_logits_agree_with_the_reference(golden, kind):
    arrays = golden("losses")
    real, fake = jnp.asarray(arrays["logits_real"]), jnp.asarray(arrays["logits_gen"])
    losses = [discriminator_loss(real, fake, kind), generator_loss(fake, kind)]
    np.testing.assert_allclose(losses, arrays[f"gan_{kind}_f64"], rtol=1e-6)


def test_undecided_discriminator_pays_known_losses():
    zeros = jnp.zeros((2, 3, 3, 1))
    found = [
        discriminator_loss(zeros, zeros, "non_saturating"),
        generator_loss(zeros, "non_saturating"),
        discriminator_loss(zeros, zeros, "least_squares"),
        generator_loss(zeros, "least_squares"),
    ]
    np.testing.assert_allclose(found, [2 * np.log(2), np.log(2), 0.25, 0.125], rtol=1e-6)


def test_non_saturating_generator_still_learns_from_a_certain_discriminator():
    certain = jnp.full((4,), -200.0)
    grad = jax.grad(lambda x: generator_loss(x, "non_saturating"))(certain)
    np.testing.assert_allclose(grad, -0.25)
    np.testing.assert_allclose(generator_loss(certain, "non_saturating"), 200.0)
    assert discriminator_loss(-certain, certain, "non_saturating") == 0


def test_bfloat16_logits_give_float32_losses():
    logits = jnp.linspace(-3, 3, 7).astype(jnp.bfloat16)
    for kind in ("non_saturating", "least_squares"):
        wide = logits.astype(jnp.float32)
        assert discriminator_loss(logits, logits, kind) == discriminator_loss(wide, wide, kind)
        assert generator_loss(logits, kind) == generator_loss(wide, kind)


def test_unknown_kind_is_refused_by_name():
    logits = jnp.zeros((2,))
    sentence = "GAN loss 'hinge' is unknown: choose non_saturating or least_squares"
    with pytest.raises(UserError, match=sentence):
        discriminator_loss(logits, logits, "hinge")
    with pytest.raises(UserError, match=sentence):
        generator_loss(logits, "hinge")
