"""`fa-hific export`: a checkpoint becomes a model that codes, and mistakes one sentence."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_params, image_of
from etils import epath
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.cli.main import main
from fa_hific_jax.codec.arrays import flat
from fa_hific_jax.codec.model_folder import load_model, load_parameters
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import init_parameters

STEPS = (3, 7)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with two checkpoints, in a folder whose name would be a pattern for globs."""
    path = epath.Path(tmp_path_factory.mktemp("run")) / "a [1]"
    path.mkdir()
    checkpoints = Checkpoints(path, kept=2)
    for step in STEPS:
        params = coding_params(seed=step)
        checkpoints.save(step, params, {"sigma": jnp.zeros((1, 2))}, tiny_settings())
    checkpoints.close()
    return path


def export(*arguments) -> None:
    main(["export", *map(str, arguments), "--calibrate", "dead_leaves:1"])


def test_newest_checkpoint_becomes_a_model_that_codes(workdir, tmp_path, capsys):
    export(workdir, "-o", tmp_path / "model")
    model = load_model(tmp_path / "model")
    image = image_of(30, 40)
    assert model.decompress(model.compress(image)).shape == image.shape
    assert model.origin["step"] == 7
    assert model.origin["settings"]["model"]["latent_channels"] == 4
    generator = coding_params(seed=7)["generator"]["conv_out"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(
        model.params["generator"]["conv_out"]["Conv_0"]["kernel"], generator
    )
    printed = capsys.readouterr().out
    assert f"model: model {model.model_id.hex()}, step 7" in printed
    assert "weights.safetensors  0." in printed
    cost = float(printed.split("integers cost ")[1].split(" %")[0])
    assert abs(cost) < 0.1


def test_step_precision_and_replacement_are_the_users(workdir, tmp_path, capsys):
    export(workdir, "-o", tmp_path / "model", "--step", 3, "--dtype", "float16")
    model = load_model(tmp_path / "model")
    assert (model.origin["step"], model.weights) == (3, "float16")
    with pytest.raises(SystemExit) as end:
        export(workdir, "-o", tmp_path / "model")
    assert end.value.code == 2
    assert (
        "exists already: choose another name, or replace it with --force" in capsys.readouterr().err
    )
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{none}"], "holds no checkpoints folder: train there with train.py"),
        (["{run}", "--step", "5"], "holds no checkpoint of step 5: omit --step"),
    ],
)
def test_mistakes_are_named(workdir, tmp_path, capsys, arguments, sentence):
    (tmp_path / "none").mkdir()
    places = {"{none}": str(tmp_path / "none"), "{run}": str(workdir)}
    with pytest.raises(SystemExit) as end:
        export(*(places.get(a, a) for a in arguments), "-o", tmp_path / "model")
    assert end.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "model").exists()


def test_a_model_with_gains_keeps_its_choice_of_rates(tmp_path, capsys):
    settings = tiny_settings(model__qualities=3, loss__rate_control="quality")
    params = init_parameters(settings.model, jax.random.key(0))
    checkpoints = Checkpoints(epath.Path(tmp_path / "run"), kept=1)
    checkpoints.save(1, params, {"sigma": jnp.zeros((1, 2))}, settings)
    checkpoints.close()
    export(tmp_path / "run", "-o", tmp_path / "model")
    model = load_model(tmp_path / "model")
    np.testing.assert_array_equal(model.params["gains"]["log_gain"], params["gains"]["log_gain"])
    image = image_of(30, 40)
    assert model.decompress(model.compress(image, quality=0.9)).shape == image.shape
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
    plain = export_plain(workdir, tmp_path / "plain", dtype)
    assert load_model(tmp_path / "model").model_id == plain.model_id


def export_plain(workdir, folder, dtype):
    export(workdir, "-o", folder, "--dtype", dtype)
    with pytest.raises(
        UserError, match="only training needs: .* export the model again with --trainable"
    ):
        load_parameters(folder)
    return load_model(folder)
