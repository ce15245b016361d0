"""One training step: what it changes and minimizes, alone, on two devices and in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.models.autoencoder import AutoencoderOutput
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.training.accumulation import join, mean_over_parts, split
from fa_hific_jax.training.ema import ema_autoencoder, restart_ema, swapped
from fa_hific_jax.training.guards import gradient_norms
from fa_hific_jax.training.objective import differentiate
from fa_hific_jax.training.state import create, discriminator_network, optimizers, parameters
from fa_hific_jax.training.step import Decoded, forward, forward_vjp, make_batch, train_step
from fa_hific_jax.training.step import update_discriminator as update
from fa_hific_jax.training.terms import TERMS, LossInputs
from fa_hific_jax.training.trainable import by_name

pytestmark = pytest.mark.usefixtures("standard_promotion")

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
FOUR = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
SMALL = {"loss__dsl": 0.0, "model__fcm_width": 0}  # without what takes long to compile
EVERYTHING = {"optimizer__ema_decay": 0.15, "loss__rate_control": "controller"}
SETTINGS = tiny_settings()


@functools.cache
def begun(**overrides):
    """(first state, compiled step of (state, images))."""
    settings = tiny_settings(**overrides)
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, settings=settings))
    return state, lambda state, images: step(state, images, KEY, None)


@functools.cache
def stepped(**overrides):
    """(first state, state after a step, metrics)."""
    state, step = begun(**overrides)
    return state, *step(state, FOUR if overrides.get("train__batch_size") == 4 else IMAGES)


FORWARD = jax.jit(functools.partial(forward, settings=SETTINGS))


def outputs_of(state):
    """(batch of the next step, outputs of its forward pass)."""
    batch = make_batch(jnp.asarray(IMAGES), KEY, state.step, SETTINGS)
    return batch, FORWARD(state.params["autoencoder"], batch)


def equal(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_every_parameter_moves_but_those_behind_a_zero_kernel():
    state, new_state, _ = stepped()
    before, after = by_name(parameters(state)), by_name(parameters(new_state))
    still = {name for name in before if not np.any(before[name] != after[name])}
    # FCM's last convolution starts at zero, so what lies before it moves from the second step on;
    # the kernels over z move once the first z rounds to something else than zero.
    assert all("fcm" in name or "up0/kernel" in name for name in still)
    assert int(new_state.step) == 1


def test_metrics_are_finite_float32_and_the_loss_is_their_weighted_sum():
    *_, metrics = stepped()
    assert all(np.isfinite(value) and value.dtype == jnp.float32 for value in metrics.values())
    names = {"mse": "mse", "gan": "gan_generator", "ffl": "ffl", "dsl": "dsl"}
    terms = (getattr(SETTINGS.loss, field) * metrics[name] for field, name in names.items())
    expected = metrics["lambda_rate"] * metrics["bpp_noisy"] + sum(terms)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_gradient_is_that_of_the_whole_loss():
    """The step's split into forward pass, terms and pullback is exact."""
    state, new_state, metrics = stepped()
    batch, _ = outputs_of(state)

    @jax.jit
    @jax.value_and_grad
    def reference(params):
        outputs, sigmas = forward(params["autoencoder"], batch, SETTINGS), params["dsl_sigma"]
        weight, judge = metrics["lambda_rate"], new_state.discriminator
        given = LossInputs(batch.x, outputs, sigmas, weight, None, judge, None, None, SETTINGS)
        return differentiate(given).metrics["loss"]

    loss, grads = reference(state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    # The least of the norms, 0.001 of the hyperprior, is off by up to 5e-6 (jax 0.5.3).
    for name, value in gradient_norms(grads).items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_norms_of_gradients_are_those_of_modules_and_terms():
    """d (k MSE) / d x_hat = 2 k 255^2 (x_hat - x) / size."""
    state, _, metrics = stepped()
    modules = ("encoder", "hyperprior", "generator", "fcm", "sigma")
    squares = [float(metrics[f"grad_norm/{module}"]) ** 2 for module in modules]
    np.testing.assert_allclose(sum(squares), float(metrics["grad_norm"]) ** 2, rtol=1e-5)
    for name in ("grad_norm/discriminator", "grad_norm_term/ffl", "grad_norm_term/gan"):
        assert float(metrics[name]) > 0
    assert "grad_norm_term/dsl" not in metrics
    batch, outputs = outputs_of(state)
    error = jnp.linalg.norm((outputs.x_hat - batch.x).ravel())
    expected = 2 * SETTINGS.loss.mse * 255.0**2 * error / batch.x.size
    np.testing.assert_allclose(metrics["grad_norm_term/mse"], expected, rtol=1e-5)


def test_discriminator_judges_each_image_under_its_own_latents():
    """[real, fake] beside [y, y]; repeating each latent in turn would give other logits."""
    state, _ = begun()
    batch, outputs = outputs_of(state)
    y_hat = jax.random.normal(jax.random.key(2), outputs.y_hat.shape) * 9
    given = Decoded(outputs.x_hat, y_hat, outputs.rates.rounded)
    judge = jax.jit(functools.partial(update, settings=SETTINGS))
    updated, metrics = judge(state.discriminator, batch, given)
    variables = {"params": state.discriminator.params, SPECTRAL: updated.spectral}
    apply = jax.jit(discriminator_network(SETTINGS).apply)
    own = [apply(variables, batch.x[i : i + 1], y_hat[i : i + 1]) for i in (0, 1)]
    np.testing.assert_allclose(metrics["logits_real"], np.mean(own), rtol=1e-5, atol=1e-6)
    first_twice = apply(variables, batch.x, y_hat[jnp.array([0, 0])])
    assert abs(float(jnp.mean(first_twice) - metrics["logits_real"])) > 1e-4


def test_noise_depends_on_key_and_step_alone():
    state, step = begun()
    *_, metrics = stepped()
    _, again = step(state, IMAGES)
    _, later = step(state.replace(step=state.step + 1), IMAGES)
    assert float(again["bpp_noisy"]) == float(metrics["bpp_noisy"]) != float(later["bpp_noisy"])


def test_terms_of_weight_zero_are_not_computed():
    settings = tiny_settings(loss__gan=0.0, loss__ffl=0.0, **SMALL)
    state = jax.eval_shape(functools.partial(create, settings), KEY)
    step = functools.partial(train_step, settings=settings)
    _, metrics = jax.eval_shape(step, state, IMAGES, KEY, None)
    assert state.discriminator is None
    assert not {"ffl", "dsl", "gan_generator", "gan_discriminator", "lpips"} & set(metrics)


def test_only_gradients_longer_than_the_limit_are_scaled_down():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array(12.0)}  # of norm 13
    for clip_norm, expected in [(0.0, 12.0), (26.0, 12.0), (1.3, 1.2)]:
        optimizer = optimizers(tiny_settings(optimizer__clip_norm=clip_norm).optimizer)[0]
        _, state = optimizer.update(grads, optimizer.init(params), params)
        np.testing.assert_allclose(state[1][0].mu["b"], 0.1 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "shape", "learned"),
    [((), (2, 2), True), (("shared_sigma",), (1, 2), True), (("fixed_sigma",), (2, 2), False)],
)
def test_sigmas_are_shared_or_fixed_if_the_dynamic_loss_says_so(options, shape, learned):
    settings = tiny_settings(loss__dsl_options=options, loss__gan=0.0)
    state = jax.eval_shape(functools.partial(create, settings), KEY)
    assert state.params["dsl_sigma"].shape == shape
    a = tuple(jax.random.normal(jax.random.key(i), (2, 32 // i, 32 // i, 4)) for i in (1, 2))
    features = {"encoder_features": a, "fcm_features": tuple(0.5 * level for level in a)}
    outputs = AutoencoderOutput(**dict.fromkeys(AutoencoderOutput._fields) | features)
    given = LossInputs(IMAGES, outputs, None, 1.0, None, None, None, None, settings)
    dsl = next(term for term in TERMS if term.name == "dsl").value
    raw = jnp.full(shape, 2.0)
    gradient = jax.jit(jax.grad(lambda raw: dsl(given._replace(raw_sigmas=raw))))(raw)
    assert bool(jnp.all(gradient != 0)) is learned


TRAINED = ("generator/conv_out", "generator/up1", "discriminator/conv_out")


@functools.cache
def partly_frozen():
    """States before and after three steps with clipping, in which only `TRAINED` trains."""
    optimizer = {"optimizer__clip_norm": 1.0, "optimizer__ema_decay": 0.15}
    state, step = begun(trainable=TRAINED, loss__ffl=0.0, **optimizer, **SMALL)
    states = [state]
    for _ in range(3):
        state, metrics = step(state, IMAGES)
        assert np.isfinite(metrics["loss"])
        states.append(state)
    return states


def test_frozen_parameters_keep_their_bits():
    first, *_, last = partly_frozen()
    before, after = by_name(parameters(first)), by_name(parameters(last))
    trained = {name for name in before if any(part in name for part in TRAINED)}
    assert {name for name, leaf in before.items() if np.any(leaf != after[name])} == trained
    # The spectral norm follows a discriminator that trains.
    u = [state.discriminator.spectral["conv0"]["u"] for state in (first, last)]
    assert np.any(u[0] != u[1])


def test_ema_parameters_follow_the_parameters_that_train():
    """mean += (1 - min(decay, (1 + t) / (10 + t))) (parameters - mean), as TensorFlow's EMA."""
    first, *later = partly_frozen()
    assert first.ema_params["encoder"]["conv0"]["Conv_0"]["kernel"] is None
    expected = first.params["autoencoder"]
    for decay, state in zip((0.1, 0.15, 0.15), later, strict=True):  # 1/10; 2/11, 3/12 > 0.15
        expected = jax.tree.map(
            lambda mean, new, decay=decay: decay * mean + (1 - decay) * new,
            expected,
            state.params["autoencoder"],
        )
    found = ema_autoencoder(state)
    equal(found, expected, atol=1e-6)

    # A checkpoint has the EMA parameters in the place of the latest ones; undone, nothing changed.
    stored = swapped(state)
    equal(stored.params["autoencoder"], found, rtol=0)
    equal(swapped(stored), state, rtol=0)
    equal(ema_autoencoder(restart_ema(state)), state.params["autoencoder"], rtol=0)


def test_optimizers_hold_moments_of_what_trains_alone():
    settings = tiny_settings(trainable=("fcm", "sigma"))
    state = jax.eval_shape(functools.partial(create, settings), KEY)
    trained = {name for name in by_name(state.params) if "fcm" in name or "sigma" in name}
    adam = state.optimizer[1][0]
    for moments in (by_name(adam.mu), by_name(adam.nu)):
        assert {name for name, leaf in moments.items() if leaf is not None} == trained
    assert all(leaf.size == 1 for leaf in jax.tree.leaves(state.discriminator.optimizer))


def test_a_frozen_encoder_costs_no_gradient():
    """XLA's own count of the operations of a forward pass and its pullback."""
    state, _ = begun()
    batch, _ = outputs_of(state)

    def operations(**overrides) -> float:
        def gradient(params):
            result = forward_vjp(params, batch, tiny_settings(**overrides))
            return result.pullback((result.outputs, result.raw_sigmas))

        return jax.jit(gradient).lower(state.params).cost_analysis()["flops"]

    assert operations(trainable=("fcm1",)) < 0.7 * operations()


def test_a_frozen_discriminator_judges_as_it_is():
    state, _ = begun()
    batch, outputs = outputs_of(state)
    given = Decoded(outputs.x_hat, outputs.y_hat, outputs.rates.rounded)
    after, metrics = update(state.discriminator, batch, given, tiny_settings(trainable=("fcm",)))
    assert after is state.discriminator and metrics == {}


def test_the_discriminator_is_updated_by_its_own_loss_alone():
    """Were 0.01 of the generator's gradient left over from the step before, it would show."""
    state, step = begun()

    @jax.jit
    @jax.grad
    def own_gradient(params, spectral, x, y_hat):
        variables = {"params": params, SPECTRAL: spectral}
        logits, _ = discriminator_network(SETTINGS).apply(variables, x, y_hat, mutable=[SPECTRAL])
        return discriminator_loss(*jnp.split(logits, 2), "non_saturating")

    moment = jax.tree.map(jnp.zeros_like, state.discriminator.params)
    for _ in range(2):
        judge, (batch, outputs) = state.discriminator, outputs_of(state)
        pair = jnp.concatenate([batch.x, outputs.x_hat]), jnp.concatenate([outputs.y_hat] * 2)
        gradient = own_gradient(judge.params, judge.spectral, *pair)
        moment = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moment, gradient)
        state, _ = step(state, IMAGES)
        equal(state.discriminator.optimizer[1][0].mu, moment, rtol=1e-4, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("option", [{"train__accumulate": 2}, {"train__recompute": True}])
def test_a_batch_in_parts_or_computed_twice_takes_the_same_step(option):
    """With GAN, rate control and EMA, within float32 rounding."""
    four = {"train__batch_size": 4, **SMALL, **EVERYTHING}
    _, whole, metrics = stepped(**four)
    _, state, found = stepped(**four, **option)
    equal(found, metrics, rtol=3e-5)
    for part in ("params", "ema_params", "controller", "discriminator"):
        equal(getattr(state, part), getattr(whole, part), rtol=1e-5, atol=5e-5)


@pytest.mark.long
def test_parts_save_memory():
    """Bytes of temporary buffers of the compiled step: measured 13 %."""

    def temporary(**overrides) -> int:
        wide = {"discriminator__widths": (64,) * 4}
        wide |= {f"model__{part}_widths": (16,) * 5 for part in ("encoder", "generator")}
        settings = tiny_settings(train__batch_size=8, **wide, **overrides)
        state = jax.eval_shape(functools.partial(create, settings), KEY)
        eight = jax.ShapeDtypeStruct((8, 64, 64, 3), np.uint8)
        step = jax.jit(functools.partial(train_step, settings=settings))
        return step.lower(state, eight, KEY, None).compile().memory_analysis().temp_size_in_bytes

    assert temporary(train__accumulate=8) < 0.3 * temporary()


def test_devices_keep_their_images_when_a_batch_is_taken_in_parts():
    """Every second image in each of two parts: half of each part lies in either half."""
    np.testing.assert_array_equal(split(jnp.arange(8), 2), [[0, 2, 4, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(join(split(jnp.arange(8), 4)), np.arange(8))
    mean = mean_over_parts(lambda x: {"square": jnp.mean(x**2)}, jnp.arange(8.0), 4)
    np.testing.assert_allclose(mean["square"], 17.5)


def test_steps_that_are_not_finite_change_nothing_but_counters():
    state, step = begun()
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
    after, metrics = step(bad.replace(params=state.params), IMAGES)
    np.testing.assert_array_equal(after.skipped, [2, 0])
    assert np.isfinite(metrics["loss"]) and float(metrics["skipped"]) == 2.0
