"""One step of training: what it changes, what it minimises, and that devices do not matter."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_settings import tiny_settings

from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.models.autoencoder import Autoencoder
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.training import sharding
from fa_hific_jax.training.objective import objective
from fa_hific_jax.training.state import create, discriminator_network, optimizers, parameters
from fa_hific_jax.training.step import (
    Decoded,
    forward,
    gradient_norms,
    judge,
    train_step,
    update_discriminator,
)
from fa_hific_jax.training.trainable import by_name

SETTINGS = tiny_settings()
KEY = jax.random.key(3)


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def state():
    return jax.jit(functools.partial(create, SETTINGS))(jax.random.key(0))


@pytest.fixture(scope="module")
def stepped(state, images):
    step = jax.jit(functools.partial(train_step, settings=SETTINGS))
    return step(state, images, KEY, None)


def decoded(outputs) -> Decoded:
    """A batch in one part."""
    return Decoded(outputs.x_hat[None], outputs.y_hat[None], outputs.rates.rounded[None])


def test_every_parameter_moves_but_those_behind_a_zero_kernel(state, stepped):
    new_state, _ = stepped
    moved = jax.tree_util.tree_map(
        lambda a, b: bool(jnp.any(a != b)),
        (state.params, state.discriminator.params),
        (new_state.params, new_state.discriminator.params),
    )
    still = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(moved)
        if not leaf
    }
    # FCM's last convolution starts at zero, so what lies before it moves from the second step on;
    # the kernels over z move once the first z rounds to something else than zero.
    names = {name for name in still if "fcm" not in name and "['up0']['kernel']" not in name}
    assert names == set()
    assert int(new_state.step) == 1


def test_metrics_are_finite_and_complete(stepped):
    _, metrics = stepped
    assert set(metrics) >= {"loss", "bpp_noisy", "bpp_rounded", "mse", "ffl", "dsl", "grad_norm"}
    assert all(np.isfinite(value) and value.dtype == jnp.float32 for value in metrics.values())


def test_gradient_is_that_of_the_whole_objective(state, stepped, images):
    """The step's split into forward pass, loss of outputs and pullback is exact."""
    new_state, metrics = stepped
    x = jnp.asarray(images, jnp.float32) / 255.0
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    lmbda = metrics["lambda_rate"]

    @jax.jit
    def reference(params):
        outputs = forward(params["autoencoder"], x, keys, SETTINGS)
        logits = judge(new_state.discriminator, outputs.x_hat, outputs.y_hat, SETTINGS)
        return objective(outputs, params["dsl_sigma"], x, logits, None, lmbda, SETTINGS.loss)[0]

    loss, grads = jax.value_and_grad(reference)(state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    for name, value in gradient_norms(grads).items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_loss_is_the_weighted_sum_of_its_reported_parts(stepped):
    _, metrics = stepped
    weights = SETTINGS.loss
    parts = (
        metrics["lambda_rate"] * metrics["bpp_noisy"]
        + weights.mse * metrics["mse"]
        + weights.gan * metrics["gan_generator"]
        + weights.ffl * metrics["ffl"]
        + weights.dsl * metrics["dsl"]
    )
    np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)


def test_discriminator_judges_each_image_under_its_own_latents(state, images):
    """[real, fake] beside [y, y]; repeating each latent in turn would give other logits."""
    x = jnp.asarray(images, jnp.float32) / 255.0
    outputs = Autoencoder(SETTINGS.model).apply(
        {"params": state.params["autoencoder"]}, x, jax.random.key(1)
    )
    outputs = outputs._replace(y_hat=jax.random.normal(jax.random.key(2), outputs.y_hat.shape) * 9)
    updated, metrics = jax.jit(functools.partial(update_discriminator, settings=SETTINGS))(
        state.discriminator, x[None], decoded(outputs)
    )
    variables = {"params": state.discriminator.params, SPECTRAL: updated.spectral}
    apply = jax.jit(discriminator_network(SETTINGS).apply)
    own = jnp.concatenate(
        [apply(variables, x[i : i + 1], outputs.y_hat[i : i + 1]) for i in (0, 1)]
    )
    np.testing.assert_allclose(metrics["logits_real"], jnp.mean(own), rtol=1e-5, atol=1e-6)
    first_twice = apply(variables, x, outputs.y_hat[jnp.array([0, 0])])
    assert abs(float(jnp.mean(first_twice) - metrics["logits_real"])) > 1e-4


def test_generator_step_leaves_the_power_iteration_alone(state, images):
    x = jnp.asarray(images, jnp.float32) / 255.0
    y_hat = jnp.zeros((2, 4, 4, 4))
    first = judge(state.discriminator, x, y_hat, SETTINGS)
    np.testing.assert_array_equal(first, judge(state.discriminator, x, y_hat, SETTINGS))


def test_noise_depends_on_key_and_step_alone(state, images, stepped):
    step = jax.jit(functools.partial(train_step, settings=SETTINGS))
    _, again = step(state, images, KEY, None)
    _, later = step(state.replace(step=state.step + 1), images, KEY, None)
    assert float(again["bpp_noisy"]) == float(stepped[1]["bpp_noisy"])
    assert float(later["bpp_noisy"]) != float(stepped[1]["bpp_noisy"])


def test_two_devices_train_as_one(state, images, stepped):
    mesh = sharding.data_mesh()
    assert mesh.size == 2
    copies, halves = sharding.replicated(mesh), sharding.split(mesh)
    step = jax.jit(
        functools.partial(train_step, settings=SETTINGS),
        in_shardings=(copies, halves, copies, copies),
        out_shardings=copies,
    )
    new_state, metrics = step(
        jax.device_put(state, copies), jax.device_put(images, halves), KEY, None
    )
    for name, value in metrics.items():
        np.testing.assert_allclose(value, stepped[1][name], rtol=1e-5, atol=1e-6, err_msg=name)
    for spread, single in zip(
        jax.tree.leaves(new_state.discriminator.spectral),
        jax.tree.leaves(stepped[0].discriminator.spectral),
        strict=True,
    ):
        np.testing.assert_allclose(spread, single, atol=1e-5)


def test_batch_that_devices_cannot_share_is_refused():
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    with pytest.raises(ValueError, match=r"train.batch_size is 3, .* choose a multiple of 2"):
        sharding.check_batch_size(3, mesh)


def test_terms_of_weight_zero_are_not_computed(images):
    settings = tiny_settings(loss__gan=0.0, loss__ffl=0.0, loss__dsl=0.0, model__fcm_width=0)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    assert state.discriminator is None
    step = jax.jit(functools.partial(train_step, settings=settings))
    _, metrics = step(state, images, KEY, None)
    assert not {"ffl", "dsl", "gan_generator", "gan_discriminator", "lpips"} & set(metrics)


def test_only_gradients_longer_than_the_limit_are_scaled_down():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array(12.0)}  # of norm 13

    def first_moment(clip_norm):
        optimizer = optimizers(tiny_settings(optimizer__clip_norm=clip_norm).optimizer)[0]
        _, state = optimizer.update(grads, optimizer.init(params), params)
        return state[1][0].mu["b"]

    for clip_norm, expected in [(0.0, 12.0), (26.0, 12.0), (1.3, 1.2)]:
        np.testing.assert_allclose(first_moment(clip_norm), 0.1 * expected, rtol=1e-6)


@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_sigmas_are_learned_only_by_the_dynamic_loss(images, pairwise, learned):
    settings = tiny_settings(
        loss__dsl_sigma_pairwise=pairwise,
        loss__dsl_sigma_learned=learned,
        loss__gan=0.0,
        loss__dsl=1.0,
    )
    state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
    assert state.params["dsl_sigma"].shape == ((1, 2) if pairwise else (2, 2))
    a = [jax.random.normal(jax.random.key(i), (1, 64 // i, 64 // i, 4)) for i in (1, 2)]
    outputs = jax.eval_shape(
        lambda: Autoencoder(settings.model).init_with_output(
            jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jax.random.key(1)
        )[0]
    )
    outputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), outputs)
    outputs = outputs._replace(encoder_features=tuple(a), fcm_features=tuple(0.5 * f for f in a))
    grad = jax.grad(
        lambda raw: objective(
            outputs,
            raw,
            jnp.zeros((1, 64, 64, 3)),
            None,
            None,
            jnp.ones(()),
            settings.loss,
        )[0]
    )(jnp.full(state.params["dsl_sigma"].shape, 2.0))
    assert bool(jnp.all(grad != 0)) is learned


def test_frozen_parameters_keep_their_bits(state, images):
    """Ten steps with Adam, clipping and a discriminator of which only the head trains."""
    names = ("fcm", "sigma", "discriminator/conv_out")
    settings = tiny_settings(trainable=names, optimizer__clip_norm=1.0)
    first = fresh = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    for _ in range(10):
        fresh, metrics = step(fresh, images, KEY, None)
    before, after = by_name(parameters(first)), by_name(parameters(fresh))
    trained = {name for name in before if any(part in name for part in names)}
    changed = {name for name, leaf in before.items() if np.any(leaf != after[name])}
    assert changed == trained
    assert np.isfinite(metrics["loss"])
    # The spectral norm follows a discriminator that trains.
    u = [state.discriminator.spectral["conv0"]["u"] for state in (first, fresh)]
    assert np.any(u[0] != u[1])


def test_optimizers_hold_two_moments_of_what_trains_and_a_few_counters():
    def sizes(**overrides):
        create_tiny = functools.partial(create, tiny_settings(**overrides))
        state = jax.eval_shape(create_tiny, jax.random.key(0))
        of = [leaf.size for leaf in jax.tree.leaves(state.optimizer)]
        judging = [leaf.size for leaf in jax.tree.leaves(state.discriminator.optimizer)]
        return state, sum(of), sum(judging), len(of)

    state, held, judging, _ = sizes()
    everything = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert (held, judging > 100) == (2 * everything + 2, True)
    state, held, judging, arrays = sizes(trainable=("fcm", "sigma"))
    params = by_name(state.params)
    trained = [leaf.size for name, leaf in params.items() if "fcm" in name or "sigma" in name]
    assert (held, arrays) == (2 * sum(trained) + 2, 2 * len(trained) + 2)
    assert judging == 2


def test_a_frozen_encoder_costs_no_gradient(images):
    """XLA's own count of the step's operations: a third falls to what does not train."""

    def operations(**overrides) -> float:
        settings = tiny_settings(loss__gan=0.0, loss__dsl=0.0, loss__ffl=0.0, **overrides)
        state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
        step = jax.jit(functools.partial(train_step, settings=settings))
        cost: Any = step.lower(state, images, KEY, None).cost_analysis()
        return cost["flops"]

    assert operations(trainable=("fcm1",)) < 0.67 * operations()


def test_a_frozen_discriminator_judges_as_it_is(images):
    settings = tiny_settings(trainable=("fcm", "sigma"))
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    after, metrics = step(state, images, KEY, None)
    jax.tree.map(np.testing.assert_array_equal, after.discriminator, state.discriminator)
    assert "gan_generator" in metrics and "gan_discriminator" not in metrics


def test_the_discriminator_is_updated_by_its_own_loss_alone(images):
    """Were the generator's gradient left over from the step before, a weight of 1e3 would show."""
    settings = tiny_settings(trainable=("discriminator",), loss__gan=1e3)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    x = jnp.asarray(images, jnp.float32) / 255.0

    @jax.jit
    def own_gradient(state):
        keys = jax.random.split(jax.random.fold_in(KEY, state.step), 2)
        outputs = forward(state.params["autoencoder"], x, keys, SETTINGS)
        pair = jnp.concatenate([x, outputs.x_hat]), jnp.concatenate([outputs.y_hat] * 2)

        def loss(params):
            variables = {"params": params, SPECTRAL: state.discriminator.spectral}
            logits, _ = discriminator_network(SETTINGS).apply(variables, *pair, mutable=[SPECTRAL])
            return discriminator_loss(*jnp.split(logits, 2), "non_saturating")

        return jax.grad(loss)(state.discriminator.params)

    moment = jax.tree.map(jnp.zeros_like, state.discriminator.params)
    for _ in range(2):
        moment = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moment, own_gradient(state))
        state, _ = step(state, images, KEY, None)
        found = state.discriminator.optimizer[1][0].mu
        jax.tree.map(
            lambda m, mu: np.testing.assert_allclose(mu, m, rtol=1e-4, atol=1e-7), moment, found
        )
