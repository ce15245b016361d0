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
from fa_hific_jax.training.state import create
from fa_hific_jax.training.trainable import by_name

BASE = {"model__fcm_width": 0, "loss__gan": 0.0, "loss__ffl": 0.0, "loss__dsl": 0.0}
GAN = BASE | {"loss__gan": 0.01}
FA = {"loss__gan": 0.0}


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def state_of(seed: int, **overrides):
    """A state at step `seed` of random numbers, no two of its parameters alike."""
    settings = tiny_settings(**overrides)
    shapes = jax.eval_shape(functools.partial(create, settings), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(rng.random(leaf.shape, np.float32))
            if leaf.dtype == jnp.float32
            else jnp.full(leaf.shape, seed, leaf.dtype)
        ),
        shapes,
    )


@pytest.fixture
def saved(tmp_path):
    """Writes a state as the only checkpoint of a folder; returns the folder."""

    def save(state, **overrides) -> str:
        checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
        loop.save(state, tiny_settings(**overrides), checkpoints)
        checkpoints.close()
        return str(tmp_path)

    return save


def taken(folder: str, seed: int = 2, **overrides):
    """(fresh state, state after the warm start, summary)."""
    source = warm_start.find(tiny_settings(init_from=folder, **overrides))
    fresh = state_of(seed, **overrides)
    return fresh, *warm_start.take(fresh, source)


def equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_fcms_of_another_width_start_anew(saved):
    fcm = FA | {"model__fcm_width": 8}
    fresh, state, summary = taken(saved(state_of(1, **FA), **FA), **fcm)
    before, after = (by_name({"autoencoder": s.params["autoencoder"]}) for s in (fresh, state))
    kept = {name for name in before if np.array_equal(before[name], after[name])}
    assert kept == {name for name in before if name.startswith(warm_start.FCM)}
    assert "new: generator/fcm1, generator/fcm2" in summary


def test_the_autoencoder_is_taken_whole_and_the_rest_begins_afresh(saved):
    source = state_of(1, **BASE)
    fresh, state, summary = taken(saved(source, **BASE), **GAN)
    equal(state.params, source.params)
    equal(state.discriminator, fresh.discriminator)
    equal(state.optimizer, fresh.optimizer)
    assert int(state.step) == int(fresh.step)
    count = sum(leaf.size for leaf in jax.tree.leaves(source.params))
    assert summary.endswith(f" step 1: {count:,} parameters taken; new: discriminator")


def test_a_discriminator_comes_with_its_vectors_and_sigmas_come_along(saved):
    source = state_of(1)
    fresh, state, summary = taken(saved(source))
    equal(state.params, source.params)
    equal(state.discriminator.params, source.discriminator.params)
    equal(state.discriminator.spectral, source.discriminator.spectral)
    equal(state.discriminator.optimizer, fresh.discriminator.optimizer)
    assert "new" not in summary and "not used" not in summary


def test_new_parameters_stay_as_they_are_and_unused_ones_are_named(saved):
    source = state_of(1, **GAN)
    fresh, state, summary = taken(saved(source, **GAN), **FA)
    assert summary.endswith(
        "taken; new: generator/fcm1, generator/fcm2, dsl_sigma; not used: discriminator"
    )
    ours, before = by_name(state.params), by_name(fresh.params)
    theirs = by_name(source.params)
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name] if name in theirs else before[name], name)
    assert {name.split("/")[2] for name in set(ours) - set(theirs) if "/" in name} == {
        "fcm1",
        "fcm2",
    }


def test_part_of_a_network_is_named_leaf_by_leaf_only_where_it_must_be(saved):
    folder = saved(state_of(1, **BASE), **BASE)
    _, _, summary = taken(folder, **(BASE | {"model__residual_blocks": 2}))
    assert summary.endswith("; new: generator/block1")


@pytest.mark.parametrize("training", [{}, "sigma", "discriminator"])
def test_an_imported_checkpoint_gives_what_it_has(tmp_path, training):
    """As `import-torch` writes it: no step, no optimizer, without what the file did not hold."""
    source, settings = state_of(1), tiny_settings()
    if training == "sigma":
        training = {"dsl_sigma": np.asarray(source.params["dsl_sigma"])}
    elif training == "discriminator":
        judge = source.discriminator
        training = {"discriminator": {"params": judge.params, "spectral": judge.spectral}}
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=None)
    checkpoints.save(3, source.params["autoencoder"], training, settings)
    checkpoints.close()
    fresh, state, summary = taken(str(tmp_path))
    equal(state.params["autoencoder"], source.params["autoencoder"])
    sigmas = source if "dsl_sigma" in training else fresh
    equal(state.params["dsl_sigma"], sigmas.params["dsl_sigma"])
    judges = source if "discriminator" in training else fresh
    equal(state.discriminator.params, judges.discriminator.params)
    equal(state.discriminator.spectral, judges.discriminator.spectral)
    assert ("dsl_sigma" in summary) is ("dsl_sigma" not in training)
    assert ("discriminator" in summary) is ("discriminator" not in training)


def test_an_exported_model_gives_its_autoencoder(saved, tmp_path):
    source = state_of(1, **BASE)
    run, model = saved(source, **BASE), tmp_path / "model"
    main(["export", run, "-o", str(model), "--trainable", "--calibrate", "dead_leaves:1"])
    fresh, state, summary = taken(str(model), **GAN)
    equal(state.params["autoencoder"], source.params["autoencoder"])
    equal(state.discriminator, fresh.discriminator)
    assert f"warm start from {model} step 1" in summary and "; new: discriminator" in summary


def test_devices_of_the_source_do_not_matter(saved):
    """Written in halves from two devices, taken to one; and the other way round."""
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    source = state_of(1, **BASE)

    def halved(leaf):
        axis = next((axis for axis, size in enumerate(leaf.shape) if size % 2 == 0), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    folder = saved(jax.tree.map(halved, source), **BASE)
    _, state, _ = taken(folder, **BASE)
    equal(state.params, source.params)
    found = warm_start.find(tiny_settings(init_from=folder, **BASE))
    spread = jax.device_put(state_of(2, **BASE), NamedSharding(mesh, PartitionSpec()))
    state, _ = warm_start.take(spread, found)
    equal(state.params, source.params)
    assert all(leaf.sharding.num_devices == 2 for leaf in jax.tree.leaves(state.params))


def test_a_parameter_of_another_shape_is_named_with_both(saved):
    folder = saved(state_of(1, **BASE), **BASE)
    with pytest.raises(
        UserError,
        match=r"^config\.init_from /\S+: autoencoder/encoder/\S+ has shape \(\S.*\) there but "
        r"\(\S.*\) in this config: use the sizes of that run$",
    ):
        taken(folder, **(BASE | {"model__latent_channels": 8}))


def test_parameters_that_would_mean_something_else_are_refused(saved):
    folder = saved(state_of(1, **BASE), **BASE)
    with pytest.raises(
        UserError,
        match=r"^config\.init_from /\S+ was trained with model\.input_range=unit, the config says "
        r"symmetric: its parameters do not fit, so set --config\.model\.input_range=unit$",
    ):
        taken(folder, **(BASE | {"model__input_range": "symmetric"}))
    # Training noise, precision and kinds of FCM that the source does not have are free.
    taken(folder, **(FA | {"model__hyper_rounding": "noise", "model__fcm": "residual"}))


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^config\.init_from /\S+/no holds no checkpoints folder"):
        warm_start.find(tiny_settings(init_from=str(tmp_path / "no")))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"/checkpoints holds no complete checkpoint: train there"):
        warm_start.find(tiny_settings(init_from=str(tmp_path)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^config\.init_from \S+ is a file: name a folder$"):
        warm_start.find(tiny_settings(init_from=str(tmp_path / "file")))


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
    assert f"warm start from {tmp_path}/base step 2: " in said
    assert f"warm start from {tmp_path}/gan step 2: " in said
    gan, fa = by_name(states["gan"].params), by_name(states["fa"].params)
    still = {name for name, leaf in gan.items() if np.array_equal(leaf, fa[name])}
    assert still == set(gan)
    assert not np.array_equal(
        by_name(states["base"].params)["autoencoder/encoder/conv0/Conv_0/bias"],
        gan["autoencoder/encoder/conv0/Conv_0/bias"],
    )
    settings = tiny_settings(**short, **stages["fa"])
    flags = {"baselines": (), "untrained_control": False}
    evaluate(
        prepare(Request([str(tmp_path / "fa")], "--workdir", settings, flags)), tmp_path / "out", {}
    )
    assert (tmp_path / "out" / "report.html").exists()

    # A run's own checkpoint goes before its source, which need not be there any more.
    (tmp_path / "gan").rename(tmp_path / "moved")
    again = loop.train(settings, epath.Path(tmp_path / "fa"))
    equal(again.params, states["fa"].params)
