"""`fa-hific export`: a checkpoint becomes a model that codes, and mistakes one sentence."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_params, image_of, init_parameters
from etils import epath
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.cli.main import main
from fa_hific_jax.codec.arrays import flat
from fa_hific_jax.codec.model_folder import load_model, load_parameters
from fa_hific_jax.errors import UserError

STEPS = (3, 7)


IMAGE = image_of(30, 40)


def save(path, steps, settings):
    """Checkpoints with parameters {step: parameters}."""
    checkpoints = Checkpoints(epath.Path(path), kept=2)
    for step, params in steps.items():
        checkpoints.save(step, params, {"sigma": jnp.zeros((1, 2))}, settings)
    checkpoints.close()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with two checkpoints, in a folder whose name would be a pattern for globs."""
    path = tmp_path_factory.mktemp("run") / "a [1]"
    path.mkdir()
    save(path, {step: coding_params(seed=step) for step in STEPS}, tiny_settings())
    return path


def export(*arguments) -> None:
    main(["export", *map(str, arguments), "--calibrate", "dead_leaves:1"])


def refusal(capsys, *arguments) -> str:
    """What an export that ends with exit code 2 says."""
    with pytest.raises(SystemExit) as end:
        export(*arguments)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_newest_checkpoint_becomes_a_model_that_codes(workdir, tmp_path, capsys):
    export(workdir, "-o", tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.decompress(model.compress(IMAGE)).shape == IMAGE.shape
    assert model.origin["step"] == 7
    assert model.origin["settings"]["model"]["latent_channels"] == 4
    found, expected = (
        params["generator"]["conv_out"]["Conv_0"]["kernel"]
        for params in (model.params, coding_params(seed=7))
    )
    np.testing.assert_array_equal(found, expected)
    printed = capsys.readouterr().out
    assert f"model: model {model.model_id.hex()}, step 7" in printed
    assert "weights.safetensors  0." in printed
    cost = float(printed.split("integers cost ")[1].split(" %")[0])
    assert abs(cost) < 0.1


def test_step_precision_and_replacement_are_the_users(workdir, tmp_path, capsys):
    export(workdir, "-o", tmp_path / "model", "--step", 3, "--dtype", "float16")
    model = load_model(tmp_path / "model")
    assert (model.origin["step"], model.weights) == (3, "float16")
    said = refusal(capsys, workdir, "-o", tmp_path / "model")
    assert "exists already: choose another name, or replace it with --force" in said
    export(workdir, "-o", tmp_path / "model", "--force")
    assert load_model(tmp_path / "model").origin["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.long
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_one_sentence_and_the_old_model_stays(
    workdir, tmp_path, capsys, monkeypatch, number
):
    export(workdir, "-o", tmp_path / "model", "--step", 3)

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemExit) as end:
        export(workdir, "-o", tmp_path / "model", "--force")
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'model'}") and said.count("\n") == 1
    assert said.endswith(f": {os.strerror(number)}\n")
    assert load_model(tmp_path / "model").origin["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_mistakes_are_named(workdir, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    said = refusal(capsys, tmp_path / "none", "-o", tmp_path / "model")
    assert "holds no checkpoints folder: train there" in said
    said = refusal(capsys, workdir, "--step", "5", "-o", tmp_path / "model")
    assert "holds no checkpoint of step 5: omit --step" in said
    assert not (tmp_path / "model").exists()


def test_a_model_with_gains_keeps_its_choice_of_rates(tmp_path, capsys):
    settings = tiny_settings(model__qualities=3, loss__rate_control="quality")
    params = init_parameters(settings.model, jax.random.key(0))
    save(tmp_path / "run", {1: params}, settings)
    export(tmp_path / "run", "-o", tmp_path / "model")
    model = load_model(tmp_path / "model")
    np.testing.assert_array_equal(model.params["gains"]["log_gain"], params["gains"]["log_gain"])
    assert model.decompress(model.compress(IMAGE, quality=0.9)).shape == IMAGE.shape
    assert "integers cost" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_trainable_model_holds_every_parameter(workdir, tmp_path, dtype):
    export(workdir, "-o", tmp_path / "model", "--trainable", "--dtype", dtype)
    origin, leaves = load_parameters(tmp_path / "model")
    expected = flat(coding_params(seed=7))
    assert origin["step"] == 7
    assert sorted(leaves) == sorted(expected)
    for name, leaf in leaves.items():
        assert leaf.dtype == np.float32
        if dtype == "float16" and "/synthesis_" in name and name.endswith("kernel"):
            # It comes from the integers of the coding tables.
            error = np.abs(leaf - expected[name]).max(axis=(0, 1, 2))
            assert np.all(error <= 2.0**-15 * np.abs(expected[name]).max(axis=(0, 1, 2))), name
        else:
            np.testing.assert_array_equal(leaf, np.asarray(expected[name], dtype))
    export(workdir, "-o", tmp_path / "plain", "--dtype", dtype)
    with pytest.raises(UserError, match="only training needs: .* again with --trainable"):
        load_parameters(tmp_path / "plain")
    assert load_model(tmp_path / "model").model_id == load_model(tmp_path / "plain").model_id
