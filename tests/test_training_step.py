"""One training step: what it changes and minimizes, alone, on two devices and in parts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_settings import tiny_settings

from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.models.autoencoder import AutoencoderOutput
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.training import sharding
from fa_hific_jax.training.accumulation import join, mean_over_parts, split
from fa_hific_jax.training.ema import ema_autoencoder, restart_ema, swapped
from fa_hific_jax.training.guards import gradient_norms
from fa_hific_jax.training.objective import differentiate
from fa_hific_jax.training.state import (
    create,
    discriminator_logits,
    discriminator_network,
    optimizers,
    parameters,
)
from fa_hific_jax.training.step import Decoded, forward, make_batch, train_step
from fa_hific_jax.training.step import update_discriminator as update
from fa_hific_jax.training.terms import TERMS, LossInputs
from fa_hific_jax.training.trainable import by_name

SETTINGS = tiny_settings()
KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
FOUR = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
# Without the parts that take long to compile and do not matter to a claim.
SMALL = {"loss__dsl": 0.0, "model__fcm_width": 0}
EVERYTHING = {"optimizer__ema_decay": 0.5, "loss__rate_control": "controller"}


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def begun(**overrides):
    """(settings, first state, compiled step of (state, images))."""
    settings = tiny_settings(**overrides)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    return settings, state, lambda state, images: step(state, images, KEY, None)


@functools.cache
def stepped(**overrides):
    """(first state, state after a step, metrics)."""
    settings, state, step = begun(**overrides)
    return state, *step(state, FOUR if settings.train.batch_size == 4 else IMAGES)


@functools.cache
def first_outputs():
    """(batch of the first step, outputs of its forward pass)."""
    batch = make_batch(jnp.asarray(IMAGES), KEY, jnp.zeros((), jnp.int32), SETTINGS)
    run = jax.jit(functools.partial(forward, settings=SETTINGS))
    return batch, run(stepped()[0].params["autoencoder"], batch)


def equal(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_every_parameter_moves_but_those_behind_a_zero_kernel():
    state, new_state, _ = stepped()
    before, after = by_name(parameters(state)), by_name(parameters(new_state))
    still = {name for name in before if not np.any(before[name] != after[name])}
    # FCM's last convolution starts at zero, so what lies before it moves from the second step on;
    # the kernels over z move once the first z rounds to something else than zero.
    assert not {name for name in still if "fcm" not in name and "up0/kernel" not in name}
    assert int(new_state.step) == 1


def test_metrics_are_finite_float32_and_the_loss_is_their_weighted_sum():
    *_, metrics = stepped()
    assert all(np.isfinite(value) and value.dtype == jnp.float32 for value in metrics.values())
    weights = SETTINGS.loss
    parts = (
        metrics["lambda_rate"] * metrics["bpp_noisy"]
        + weights.mse * metrics["mse"]
        + weights.gan * metrics["gan_generator"]
        + weights.ffl * metrics["ffl"]
        + weights.dsl * metrics["dsl"]
    )
    np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)


def test_gradient_is_that_of_the_whole_loss():
    """The step's split into forward pass, terms and pullback is exact.

    The least of the norms, 0.001 of the hyperprior, is off by up to 5e-6 (jax 0.5.3).
    """
    state, new_state, metrics = stepped()
    batch, _ = first_outputs()

    @jax.jit
    def reference(params):
        outputs = forward(params["autoencoder"], batch, SETTINGS)
        given = LossInputs(
            batch.x,
            outputs,
            params["dsl_sigma"],
            lmbda=metrics["lambda_rate"],
            detail=None,
            discriminator=new_state.discriminator,
            lpips_params=None,
            balance=None,
            settings=SETTINGS,
        )
        return differentiate(given).metrics["loss"]

    loss, grads = jax.value_and_grad(reference)(state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    for name, value in gradient_norms(grads).items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_norms_of_gradients_are_those_of_modules_and_terms():
    """d (k MSE) / d x_hat = 2 k 255^2 (x_hat - x) / size."""
    *_, metrics = stepped()
    modules = ("encoder", "hyperprior", "generator", "fcm", "sigma")
    squares = [float(metrics[f"grad_norm/{module}"]) ** 2 for module in modules]
    np.testing.assert_allclose(sum(squares), float(metrics["grad_norm"]) ** 2, rtol=1e-5)
    for name in ("grad_norm/discriminator", "grad_norm_term/ffl", "grad_norm_term/gan"):
        assert float(metrics[name]) > 0
    assert "grad_norm_term/dsl" not in metrics
    batch, outputs = first_outputs()
    error = jnp.linalg.norm((outputs.x_hat - batch.x).ravel())
    expected = 2 * SETTINGS.loss.mse * 255.0**2 * error / batch.x.size
    np.testing.assert_allclose(metrics["grad_norm_term/mse"], expected, rtol=1e-5)


def test_discriminator_judges_each_image_under_its_own_latents():
    """[real, fake] beside [y, y]; repeating each latent in turn would give other logits."""
    discriminator = stepped()[0].discriminator
    batch, outputs = first_outputs()
    y_hat = jax.random.normal(jax.random.key(2), outputs.y_hat.shape) * 9
    given = Decoded(outputs.x_hat, y_hat, outputs.rates.rounded)
    updated, metrics = jax.jit(functools.partial(update, settings=SETTINGS))(
        discriminator, batch, given
    )
    variables = {"params": discriminator.params, SPECTRAL: updated.spectral}
    apply = jax.jit(discriminator_network(SETTINGS).apply)
    own = [apply(variables, batch.x[i : i + 1], y_hat[i : i + 1]) for i in (0, 1)]
    np.testing.assert_allclose(metrics["logits_real"], np.mean(own), rtol=1e-5, atol=1e-6)
    first_twice = apply(variables, batch.x, y_hat[jnp.array([0, 0])])
    assert abs(float(jnp.mean(first_twice) - metrics["logits_real"])) > 1e-4


def test_generator_step_leaves_the_power_iteration_alone():
    batch, outputs = first_outputs()
    given = (stepped()[0].discriminator, batch.x, outputs.y_hat, SETTINGS)
    np.testing.assert_array_equal(discriminator_logits(*given), discriminator_logits(*given))


def test_noise_depends_on_key_and_step_alone():
    _, state, step = begun()
    *_, metrics = stepped()
    _, again = step(state, IMAGES)
    _, later = step(state.replace(step=state.step + 1), IMAGES)
    assert float(again["bpp_noisy"]) == float(metrics["bpp_noisy"]) != float(later["bpp_noisy"])


def test_two_devices_train_as_one():
    state, single, expected = stepped()
    mesh = sharding.data_mesh()
    assert mesh.size == 2
    copies, halves = sharding.replicated(mesh), sharding.split(mesh)
    step = jax.jit(
        functools.partial(train_step, settings=SETTINGS),
        in_shardings=(copies, halves, copies, copies),
        out_shardings=copies,
    )
    spread, metrics = step(jax.device_put(state, copies), jax.device_put(IMAGES, halves), KEY, None)
    equal(metrics, expected, rtol=1e-5, atol=1e-6)
    equal(spread.discriminator.spectral, single.discriminator.spectral, atol=1e-5)


def test_batch_that_devices_cannot_share_is_refused():
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    with pytest.raises(ValueError, match=r"train.batch_size is 3, .* choose a multiple of 2"):
        sharding.check_batch_size(3, mesh)


def test_terms_of_weight_zero_are_not_computed():
    state, _, metrics = stepped(loss__gan=0.0, loss__ffl=0.0, **SMALL)
    assert state.discriminator is None
    assert not {"ffl", "dsl", "gan_generator", "gan_discriminator", "lpips"} & set(metrics)


def test_only_gradients_longer_than_the_limit_are_scaled_down():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array(12.0)}  # of norm 13
    for clip_norm, expected in [(0.0, 12.0), (26.0, 12.0), (1.3, 1.2)]:
        optimizer = optimizers(tiny_settings(optimizer__clip_norm=clip_norm).optimizer)[0]
        _, state = optimizer.update(grads, optimizer.init(params), params)
        np.testing.assert_allclose(state[1][0].mu["b"], 0.1 * expected, rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_sigmas_are_learned_only_by_the_dynamic_loss(shared, learned):
    options = ("shared_sigma",) * shared + ("fixed_sigma",) * (not learned)
    settings = tiny_settings(loss__dsl_options=options, loss__gan=0.0)
    state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
    assert state.params["dsl_sigma"].shape == ((1, 2) if shared else (2, 2))
    a = tuple(jax.random.normal(jax.random.key(i), (2, 32 // i, 32 // i, 4)) for i in (1, 2))
    outputs = AutoencoderOutput(**dict.fromkeys(AutoencoderOutput._fields))._replace(
        encoder_features=a, fcm_features=tuple(0.5 * features for features in a)
    )
    given = LossInputs(IMAGES, outputs, None, 1.0, None, None, None, None, settings)
    dsl = next(term for term in TERMS if term.name == "dsl").value
    raw = jnp.full(state.params["dsl_sigma"].shape, 2.0)
    gradient = jax.jit(jax.grad(lambda raw: dsl(given._replace(raw_sigmas=raw))))(raw)
    assert bool(jnp.all(gradient != 0)) is learned


def test_frozen_parameters_keep_their_bits():
    """Ten steps with Adam, clipping and a discriminator of which only the head trains."""
    names = ("fcm", "sigma", "discriminator/conv_out")
    _, first, step = begun(trainable=names, optimizer__clip_norm=1.0)
    last = first
    for _ in range(10):
        last, metrics = step(last, IMAGES)
    before, after = by_name(parameters(first)), by_name(parameters(last))
    trained = {name for name in before if any(part in name for part in names)}
    assert {name for name, leaf in before.items() if np.any(leaf != after[name])} == trained
    assert np.isfinite(metrics["loss"])
    # The spectral norm follows a discriminator that trains.
    u = [state.discriminator.spectral["conv0"]["u"] for state in (first, last)]
    assert np.any(u[0] != u[1])


def test_optimizers_hold_two_moments_of_what_trains_and_a_few_counters():
    def sizes(**overrides):
        create_tiny = functools.partial(create, tiny_settings(**overrides))
        state = jax.eval_shape(create_tiny, jax.random.key(0))
        both = (state.optimizer, state.discriminator.optimizer)
        return state, *([leaf.size for leaf in jax.tree.leaves(each)] for each in both)

    state, held, judging = sizes()
    everything = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert (sum(held), sum(judging) > 100) == (2 * everything + 2, True)
    state, held, judging = sizes(trainable=("fcm", "sigma"))
    params = by_name(state.params)
    trained = [leaf.size for name, leaf in params.items() if "fcm" in name or "sigma" in name]
    assert (sum(held), len(held)) == (2 * sum(trained) + 2, 2 * len(trained) + 2)
    assert sum(judging) == 2


def test_a_frozen_encoder_costs_no_gradient():
    """XLA's own count of the step's operations: 0.32 of them fall to what does not train."""

    def operations(**overrides) -> float:
        settings = tiny_settings(loss__gan=0.0, loss__dsl=0.0, loss__ffl=0.0, **overrides)
        state = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
        step = jax.jit(functools.partial(train_step, settings=settings))
        cost: Any = step.lower(state, IMAGES, KEY, None).cost_analysis()
        return cost["flops"]

    assert operations(trainable=("fcm1",)) < 0.7 * operations()


def test_a_frozen_discriminator_judges_as_it_is():
    state, after, metrics = stepped(trainable=("fcm", "sigma"))
    jax.tree.map(np.testing.assert_array_equal, after.discriminator, state.discriminator)
    assert "gan_generator" in metrics and "gan_discriminator" not in metrics


def test_the_discriminator_is_updated_by_its_own_loss_alone():
    """Were the generator's gradient left over from the step before, a weight of 1e3 would show."""
    _, state, step = begun(trainable=("discriminator",), loss__gan=1e3)

    @jax.jit
    def own_gradient(state):
        batch = make_batch(jnp.asarray(IMAGES), KEY, state.step, SETTINGS)
        outputs = forward(state.params["autoencoder"], batch, SETTINGS)
        pair = jnp.concatenate([batch.x, outputs.x_hat]), jnp.concatenate([outputs.y_hat] * 2)

        def loss(params):
            variables = {"params": params, SPECTRAL: state.discriminator.spectral}
            logits, _ = discriminator_network(SETTINGS).apply(variables, *pair, mutable=[SPECTRAL])
            return discriminator_loss(*jnp.split(logits, 2), "non_saturating")

        return jax.grad(loss)(state.discriminator.params)

    moment = jax.tree.map(jnp.zeros_like, state.discriminator.params)
    for _ in range(2):
        moment = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moment, own_gradient(state))
        state, _ = step(state, IMAGES)
        equal(state.discriminator.optimizer[1][0].mu, moment, rtol=1e-4, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_a_batch_in_parts_takes_the_same_step(count):
    """With GAN, rate control and EMA; measured: 7e-7 for parameters, 1e-5 for metrics."""
    four = {"train__batch_size": 4, **SMALL, **EVERYTHING}
    _, whole, metrics = stepped(**four)
    _, state, found = stepped(train__accumulate=count, **four)
    equal(found, metrics, rtol=3e-5)
    for part in ("params", "ema_params", "controller", "discriminator"):
        equal(getattr(state, part), getattr(whole, part), atol=1e-5)


@pytest.mark.long
def test_computing_the_autoencoder_twice_takes_the_same_step():
    """Parameters, moments, EMA and metrics, within rounding."""
    four = {"train__batch_size": 4, **SMALL, **EVERYTHING}
    _, once, metrics = stepped(**four)
    _, twice, found = stepped(train__recompute=True, **four)
    equal(found, metrics, rtol=1e-5)
    equal(twice, once, rtol=1e-5, atol=5e-5)


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
    np.testing.assert_array_equal(split(jnp.arange(8), 2), [[0, 2, 4, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(join(split(jnp.arange(8), 4)), np.arange(8))
    mean = mean_over_parts(lambda x: {"square": jnp.mean(x**2)}, jnp.arange(8.0), 4)
    np.testing.assert_allclose(mean["square"], 17.5)


@pytest.mark.long
def test_the_switch_is_thrown_by_the_whole_batch():
    """The mean rate lies above the target, that of some images, each a part of its own, below."""
    four = {"train__batch_size": 4, **SMALL}
    *_, metrics = stepped(**four, **EVERYTHING)
    target = 0.999 * float(metrics["bpp_rounded"])
    overrides = {"loss__target_bpp": target, "loss__warmup_steps": 0, "loss__gan": 0.0}
    *_, found = stepped(train__accumulate=4, **four, **overrides)
    assert float(found["lambda_rate"]) == 1.0
    np.testing.assert_allclose(
        found["loss"] - found["bpp_noisy"],
        SETTINGS.loss.mse * found["mse"] + SETTINGS.loss.ffl * found["ffl"],
        rtol=1e-5,
    )


def test_steps_that_are_not_finite_change_nothing_but_counters():
    _, state, step = begun(**SMALL, **EVERYTHING)
    bad = jax.tree.map(lambda leaf: leaf, state)
    kernel = bad.params["autoencoder"]["generator"]["conv_out"]["Conv_0"]
    kernel["bias"] = kernel["bias"].at[0].set(jnp.nan)
    for taken in (1, 2):
        after, metrics = step(bad, IMAGES)
        assert not np.isfinite(metrics["loss"])
        np.testing.assert_array_equal(after.skipped, [taken, taken])
        assert float(metrics["skipped_in_row"]) == taken == int(after.step)
        same = after.replace(step=bad.step, skipped=bad.skipped)
        jax.tree.map(np.testing.assert_array_equal, same, bad)
        bad = after
    healthy = bad.replace(params=state.params, ema_params=state.ema_params)
    after, metrics = step(healthy, IMAGES)
    np.testing.assert_array_equal(after.skipped, [2, 0])
    assert np.isfinite(metrics["loss"]) and float(metrics["skipped"]) == 2.0


def test_ema_parameters_follow_the_parameters_that_train():
    """mean += (1 - min(decay, (1 + t) / (10 + t))) (parameters - mean), as TensorFlow's EMA."""
    trained = {"optimizer__ema_decay": 0.15, "trainable": ("generator/",)}
    _, state, step = begun(loss__gan=0.0, loss__ffl=0.0, **trained, **SMALL)
    assert state.ema_params["encoder"]["conv0"]["Conv_0"]["kernel"] is None
    expected = state.params["autoencoder"]
    for decay in (0.1, 0.15, 0.15):  # 1 / 10, then 2 / 11 and 3 / 12 are above the limit
        state, _ = step(state, IMAGES)
        expected = jax.tree.map(
            lambda mean, new, decay=decay: decay * mean + (1 - decay) * new,
            expected,
            state.params["autoencoder"],
        )
    found = ema_autoencoder(state)
    equal(found, expected, atol=1e-6)

    # A checkpoint has the EMA parameters in the place of the latest ones; undone, nothing changed.
    stored = swapped(state)
    jax.tree.map(np.testing.assert_array_equal, stored.params["autoencoder"], found)
    jax.tree.map(np.testing.assert_array_equal, swapped(stored), state)
    restarted = ema_autoencoder(restart_ema(state))
    jax.tree.map(np.testing.assert_array_equal, restarted, state.params["autoencoder"])
