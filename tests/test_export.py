"""`fa-hific export`: a checkpoint becomes a model that codes, and mistakes one sentence."""

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


def test_mistakes_are_named(workdir, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    said = refusal(capsys, tmp_path / "none", "-o", tmp_path / "model")
    assert "holds no checkpoints folder: train there" in said
    said = refusal(capsys, workdir, "--step", "5", "-o", tmp_path / "model")
    assert "holds no checkpoint of step 5: omit --step" in said
    assert not (tmp_path / "model").exists()


def test_a_trainable_model_holds_every_parameter(workdir, tmp_path):
    export(workdir, "-o", tmp_path / "model", "--trainable")
    origin, leaves = load_parameters(tmp_path / "model")
    assert origin["step"] == 7
    assert leaves.keys() == flat(coding_params(seed=7)).keys()
    export(workdir, "-o", tmp_path / "plain")
    with pytest.raises(UserError, match="only training needs: .* again with --trainable"):
        load_parameters(tmp_path / "plain")
    assert load_model(tmp_path / "model").model_id == load_model(tmp_path / "plain").model_id
