"""Beginning with the parameters of an earlier stage: what is taken, what is refused and why."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.cli.main import main
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.evaluate import evaluate
from fa_hific_jax.evaluation.prepare import Request, prepare
from fa_hific_jax.training import loop, warm_start
from fa_hific_jax.training.state import create, parameters
from fa_hific_jax.training.trainable import by_name

pytestmark = pytest.mark.usefixtures("standard_promotion")

BASE = {"model__fcm_width": 0, "loss__gan": 0.0, "loss__ffl": 0.0, "loss__dsl": 0.0}
GAN = BASE | {"loss__gan": 0.01}
FA = {"loss__gan": 0.0}


@functools.cache
def state_of(seed: int, **overrides):
    """A state at step `seed` of random numbers, no two of its parameters alike."""
    create_tiny = functools.partial(create, tiny_settings(**overrides))
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if leaf.dtype == jnp.float32:
            return jnp.asarray(rng.random(leaf.shape, np.float32))
        return jnp.full(leaf.shape, seed, leaf.dtype)

    return jax.tree.map(fill, jax.eval_shape(create_tiny, jax.random.key(0)))


@pytest.fixture
def saved(tmp_path):
    """Writes a state as the only checkpoint of a folder; returns the folder and the state."""

    def save(place=lambda leaf: leaf, **overrides):
        state = jax.tree.map(place, state_of(1, **overrides))
        checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
        loop.save(state, tiny_settings(**overrides), checkpoints)
        checkpoints.close()
        return str(tmp_path), state

    return save


def taken(folder: str, seed: int = 2, **overrides):
    """(fresh state, state after the warm start, summary)."""
    source = warm_start.find(tiny_settings(init_from=folder, **overrides))
    fresh = state_of(seed, **overrides)
    return fresh, *warm_start.take(fresh, source)


def equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        (BASE, GAN, "; new: discriminator"),
        ({}, {}, " parameters taken"),
        (GAN, FA, "; new: generator/fcm1, generator/fcm2, dsl_sigma; not used: discriminator"),
        (BASE, BASE | {"model__residual_blocks": 2}, "; new: generator/block1"),
        (FA, FA | {"model__fcm_width": 8}, "; new: generator/fcm1, generator/fcm2"),
    ],
)
def test_what_the_source_has_is_taken_and_the_rest_begins_afresh(was, now, told, saved):
    folder, source = saved(**was)
    fresh, state, summary = taken(folder, **now)
    theirs, before = by_name(parameters(source)), by_name(parameters(fresh))
    new_fcms = source.params["autoencoder"]["generator"].get("fcm1") and "model__fcm_width" in now
    for name, leaf in by_name(parameters(state)).items():
        expected = before if new_fcms and name.startswith(warm_start.FCM) else before | theirs
        np.testing.assert_array_equal(leaf, expected[name], name)
    equal(state.optimizer, fresh.optimizer)
    assert int(state.step) == int(fresh.step)
    if source.discriminator and state.discriminator:
        equal(state.discriminator.spectral, source.discriminator.spectral)
        equal(state.discriminator.optimizer, fresh.discriminator.optimizer)
    assert " step 1: " in summary and told in summary


@pytest.mark.parametrize("held,new", [("sigmas", "discriminator"), ("judge", "dsl_sigma")])
def test_an_imported_checkpoint_gives_what_it_has(tmp_path, held, new):
    """As `import-torch` writes it: no step, no optimizer, without what the file did not hold."""
    source = state_of(1)
    judge = source.discriminator
    training = {
        "sigmas": {"dsl_sigma": np.asarray(source.params["dsl_sigma"])},
        "judge": {"discriminator": {"params": judge.params, "spectral": judge.spectral}},
    }[held]
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
    checkpoints.save(3, source.params["autoencoder"], training, tiny_settings())
    checkpoints.close()
    fresh, state, summary = taken(str(tmp_path))
    assert summary.endswith(f"; new: {new}")
    equal(state.params["autoencoder"], source.params["autoencoder"])
    sigmas, judge = (source, fresh) if held == "sigmas" else (fresh, source)
    equal(state.params["dsl_sigma"], sigmas.params["dsl_sigma"])
    equal(state.discriminator.params, judge.discriminator.params)
    equal(state.discriminator.spectral, judge.discriminator.spectral)


def test_an_exported_model_gives_its_autoencoder(saved, tmp_path):
    (run, source), model = saved(**BASE), tmp_path / "model"
    main(["export", run, "-o", str(model), "--trainable", "--calibrate", "dead_leaves:1"])
    fresh, state, summary = taken(str(model), **GAN)
    equal(state.params["autoencoder"], source.params["autoencoder"])
    equal(state.discriminator, fresh.discriminator)
    assert f"warm start from {model} step 1" in summary and "; new: discriminator" in summary


def test_devices_of_the_source_do_not_matter(saved):
    """Written in halves from two devices, taken to one; and the other way round."""
    mesh = Mesh(np.asarray(jax.devices()), ("data",))

    def halved(leaf):
        axis = next((axis for axis, size in enumerate(leaf.shape) if size % 2 == 0), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    folder, source = saved(place=halved, **BASE)
    equal(taken(folder, **BASE)[1].params, source.params)
    found = warm_start.find(tiny_settings(init_from=folder, **BASE))
    spread = jax.device_put(state_of(2, **BASE), NamedSharding(mesh, PartitionSpec()))
    state, _ = warm_start.take(spread, found)
    equal(state.params, source.params)
    assert all(leaf.sharding.num_devices == 2 for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__latent_channels": 8},
            r"/\S+: autoencoder/encoder/\S+ has shape \(\S.*\) there but \(\S.*\) in this config: ",
        ),
        (
            {"model__input_range": "symmetric"},
            r"/\S+ was trained with model\.input_range=unit, the config says symmetric: ",
        ),
    ],
)
def test_parameters_of_another_shape_or_meaning_are_refused(saved, changes, message):
    folder, _ = saved(**BASE)
    with pytest.raises(UserError, match=rf"^config\.init_from {message}"):
        taken(folder, **BASE | changes)


def test_training_noise_and_kinds_of_fcm_that_the_source_lacks_are_free(saved):
    free = {"model__hyper_rounding": "noise", "model__fcm": "residual"}
    taken(saved(**BASE)[0], **FA | free)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^config\.init_from /\S+/no holds no checkpoints folder"):
        warm_start.find(tiny_settings(init_from=str(tmp_path / "no")))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"/checkpoints holds no complete checkpoint: train there"):
        warm_start.find(tiny_settings(init_from=str(tmp_path)))


@pytest.mark.long
def test_three_stages_and_evaluation(tmp_path, capsys):
    """MSE, then a discriminator, then FCM and sigmas alone; each begins with the one before."""
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    short = {"train__steps": 2, "data__evaluation": str(tmp_path / "black.png")}
    stages = {
        "base": BASE,
        "gan": GAN | {"init_from": str(tmp_path / "base")},
        "fa": FA | {"init_from": str(tmp_path / "gan"), "trainable": ("fcm", "sigma")},
    }
    states = {
        name: loop.train(tiny_settings(**short, **stage), epath.Path(tmp_path / name))
        for name, stage in stages.items()
    }
    said = capsys.readouterr().out
    assert all(f"warm start from {tmp_path}/{name} step 2: " in said for name in ("base", "gan"))
    base, gan, fa = (by_name(states[name].params) for name in stages)
    assert all(np.array_equal(leaf, fa[name]) for name, leaf in gan.items())
    bias = "autoencoder/encoder/conv0/Conv_0/bias"
    assert not np.array_equal(base[bias], gan[bias])
    settings = tiny_settings(**short, **stages["fa"])
    flags = {"baselines": (), "untrained_control": False}
    request = Request([str(tmp_path / "fa")], "--workdir", settings, flags)
    evaluate(prepare(request), tmp_path / "out", {})
    assert (tmp_path / "out" / "report.html").exists()

    # A run's own checkpoint goes before its source, which need not be there any more.
    (tmp_path / "gan").rename(tmp_path / "moved")
    again = loop.train(settings, epath.Path(tmp_path / "fa"))
    equal(again.params, states["fa"].params)
