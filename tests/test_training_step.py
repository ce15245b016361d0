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
from fa_hific_jax.training.knobs import Knobs
from fa_hific_jax.training.objective import objective
from fa_hific_jax.training.state import (
    averaged_autoencoder,
    create,
    discriminator_network,
    optimizers,
    parameters,
    restart_average,
    swapped,
)
from fa_hific_jax.training.step import (
    Decoded,
    forward,
    gradient_norms,
    judge,
    mean_over,
    parts,
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
    """The step's split into forward pass, loss of outputs and pullback is exact.

    The least of the norms, 0.001 of the hyperprior, is off by up to 5e-6 (jax 0.5.3).
    """
    new_state, metrics = stepped
    x = jnp.asarray(images, jnp.float32) / 255.0
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    lmbda = metrics["lambda_rate"]

    @jax.jit
    def reference(params):
        outputs = forward(params["autoencoder"], x, keys, Knobs(None, None), SETTINGS)
        logits = judge(new_state.discriminator, outputs.x_hat, outputs.y_hat, SETTINGS)
        return objective(outputs, params["dsl_sigma"], x, logits, None, lmbda, SETTINGS.loss)[0]

    loss, grads = jax.value_and_grad(reference)(state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    for name, value in gradient_norms(grads).items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


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
@pytest.mark.long
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
    """XLA's own count of the step's operations: 0.32 of them fall to what does not train."""

    def operations(**overrides) -> float:
        settings = tiny_settings(loss__gan=0.0, loss__dsl=0.0, loss__ffl=0.0, **overrides)
        state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
        step = jax.jit(functools.partial(train_step, settings=settings))
        cost: Any = step.lower(state, images, KEY, None).cost_analysis()
        return cost["flops"]

    assert operations(trainable=("fcm1",)) < 0.7 * operations()


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
        outputs = forward(state.params["autoencoder"], x, keys, Knobs(None, None), SETTINGS)
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


# Without the parts that take long to compile and have no say in what the following tests claim.
SMALL = {"loss__dsl": 0.0, "model__fcm_width": 0}
EVERYTHING = {"optimizer__ema_decay": 0.5, "loss__rate_control": "controller"}


@functools.cache
def in_parts(count: int, **overrides):
    """(first state, state after a step on four images, metrics), computed in so many parts."""
    settings = tiny_settings(train__batch_size=4, train__accumulate=count, **SMALL, **overrides)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    four = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    step = jax.jit(functools.partial(train_step, settings=settings))
    return state, *step(state, four, KEY, None)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_a_batch_in_parts_takes_the_same_step(count):
    """With GAN, rate control and running mean; measured: 7e-7 for parameters, 1e-5 for metrics."""
    _, whole, metrics = in_parts(1, **EVERYTHING)
    _, state, found = in_parts(count, **EVERYTHING)
    assert found.keys() == metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name], value, rtol=3e-5, err_msg=name)
    for part in ("params", "averaged", "controller"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            getattr(state, part),
            getattr(whole, part),
        )
    ours, theirs = state.discriminator, whole.discriminator
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


@pytest.mark.long
def test_computing_the_autoencoder_twice_takes_the_same_step():
    """Parameters, moments, running mean and metrics, within rounding."""
    _, once, metrics = in_parts(1, **EVERYTHING)
    _, twice, found = in_parts(1, train__recompute=True, **EVERYTHING)
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), twice, once)


@pytest.mark.long
def test_parts_and_computing_twice_save_memory():
    """Bytes of temporary buffers of the compiled step: measured 95 % and 13 %.

    The compiler for CPUs of jax 0.5.3 makes nothing of the former.
    """

    def temporary(**overrides) -> int:
        wide = {"discriminator__widths": (64,) * 4}
        wide |= {f"model__{part}_widths": (16,) * 5 for part in ("encoder", "generator")}
        settings = tiny_settings(train__batch_size=8, **wide, **overrides)
        state = jax.eval_shape(functools.partial(create, settings), KEY)
        eight = jax.ShapeDtypeStruct((8, 64, 64, 3), np.uint8)
        step = jax.jit(functools.partial(train_step, settings=settings))
        return step.lower(state, eight, KEY, None).compile().memory_analysis().temp_size_in_bytes

    kept = temporary()
    if jax.__version_info__ >= (0, 6):
        assert temporary(train__recompute=True) < 0.97 * kept
    assert temporary(train__accumulate=8) < 0.3 * kept


def test_devices_keep_their_images_when_a_batch_is_taken_in_parts():
    """Every second image in each of two parts: half of each part lies in either half."""
    np.testing.assert_array_equal(parts(jnp.arange(8), 2), [[0, 2, 4, 6], [1, 3, 5, 7]])
    mean = mean_over(lambda x: {"square": jnp.mean(x**2)}, parts(jnp.arange(8.0), 4))
    np.testing.assert_allclose(mean["square"], 17.5)


def test_the_switch_is_thrown_by_the_whole_batch():
    """The mean rate lies above the target, that of some images, each a part of its own, below."""
    _, _, metrics = in_parts(1, **EVERYTHING)
    target = 0.999 * float(metrics["bpp_rounded"])
    overrides = {"loss__target_bpp": target, "loss__warmup_steps": 0, "loss__gan": 0.0}
    _, _, found = in_parts(4, **overrides)
    assert float(found["lambda_rate"]) == 1.0
    np.testing.assert_allclose(
        found["loss"] - found["bpp_noisy"],
        SETTINGS.loss.mse * found["mse"] + SETTINGS.loss.ffl * found["ffl"],
        rtol=1e-5,
    )


def poisoned(state):
    """`state` with one NaN among the generator's parameters."""
    kernel = state.params["autoencoder"]["generator"]["conv_out"]["Conv_0"]
    kernel["bias"] = kernel["bias"].at[0].set(jnp.nan)
    return state


def test_steps_that_are_not_finite_change_nothing_but_counters(images):
    settings = tiny_settings(**SMALL, **EVERYTHING)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    bad = poisoned(jax.tree.map(lambda leaf: leaf, state))
    for taken in (1, 2):
        after, metrics = step(bad, images, KEY, None)
        assert not np.isfinite(metrics["loss"])
        np.testing.assert_array_equal(after.skipped, [taken, taken])
        assert float(metrics["skipped_in_row"]) == taken
        assert int(after.step) == taken
        same = after.replace(step=bad.step, skipped=bad.skipped)
        jax.tree.map(np.testing.assert_array_equal, same, bad)
        bad = after
    healthy = bad.replace(params=state.params, averaged=state.averaged)
    after, metrics = step(healthy, images, KEY, None)
    np.testing.assert_array_equal(after.skipped, [2, 0])
    assert np.isfinite(metrics["loss"]) and float(metrics["skipped"]) == 2.0


def test_gradient_norms_of_modules_add_up_to_that_of_all(stepped):
    _, metrics = stepped
    modules = ("encoder", "hyperprior", "generator", "fcm", "sigma")
    squares = [float(metrics[f"grad_norm/{module}"]) ** 2 for module in modules]
    np.testing.assert_allclose(sum(squares), float(metrics["grad_norm"]) ** 2, rtol=1e-5)
    assert float(metrics["grad_norm/discriminator"]) > 0
    for term in ("mse", "ffl", "gan"):
        assert float(metrics[f"grad_norm_term/{term}"]) > 0


def test_the_norm_of_a_term_is_that_of_its_weighted_gradient_at_x_hat(state, stepped, images):
    """d (k MSE) / d x_hat = 2 k 255^2 (x_hat - x) / size."""
    x = jnp.asarray(images, jnp.float32) / 255.0
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    x_hat = jax.jit(functools.partial(forward, settings=SETTINGS))(
        state.params["autoencoder"], x, keys, Knobs(None, None)
    ).x_hat
    expected = 2 * SETTINGS.loss.mse * 255.0**2 * jnp.linalg.norm((x_hat - x).ravel()) / x.size
    np.testing.assert_allclose(stepped[1]["grad_norm_term/mse"], expected, rtol=1e-5)


def test_the_running_mean_follows_the_parameters_that_train(images):
    """mean += (1 - min(decay, (1 + t) / (10 + t))) (parameters - mean), as TensorFlow's EMA."""
    losses = {"loss__gan": 0.0, "loss__ffl": 0.0}
    settings = tiny_settings(
        optimizer__ema_decay=0.15, trainable=("generator/",), **SMALL, **losses
    )
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    assert state.averaged["encoder"]["conv0"]["Conv_0"]["kernel"] is None
    expected = state.params["autoencoder"]
    for decay in (0.1, 0.15, 0.15):  # 1 / 10, then 2 / 11 and 3 / 12 are above the limit
        state, _ = step(state, images, KEY, None)
        expected = jax.tree.map(
            lambda mean, new, decay=decay: decay * mean + (1 - decay) * new,
            expected,
            state.params["autoencoder"],
        )
    found = averaged_autoencoder(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)

    # In a checkpoint the mean stands in the model's place; back again, nothing has changed.
    stored = swapped(state)
    jax.tree.map(np.testing.assert_array_equal, stored.params["autoencoder"], found)
    jax.tree.map(np.testing.assert_array_equal, swapped(stored), state)
    begun = averaged_autoencoder(restart_average(state))
    jax.tree.map(np.testing.assert_array_equal, begun, state.params["autoencoder"])
