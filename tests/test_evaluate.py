"""Evaluation from checkpoint to report: rows of real files, controls, sentences for mistakes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from configs import demo
from fa_hific_jax import metrics
from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder, workdir_path
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.evaluate import evaluate
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.settings import from_mapping

STEP = 7
SIZES = {"wide": (40, 66), "tall": (50, 33)}  # height, width


def settings_of(**overrides):
    """configs/demo.py with the smallest model; overrides are "group__key=value"."""
    config = demo.get_config().to_dict()
    small = {"latent_channels": 4, "hyper_channels": 4, "residual_blocks": 1, "fcm_width": 4}
    widths = {"encoder_widths": (4, 4, 4, 4, 4), "generator_widths": (4, 4, 4, 4, 4)}
    config["model"].update(small | widths)
    for key, value in overrides.items():
        group, _, field = key.partition("__")
        config[group][field] = value
    return from_mapping(config)


def parameters(seed: int):
    return jax.jit(functools.partial(init_parameters, settings_of().model))(jax.random.key(seed))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder with a checkpoint of parameters that are not those of train.seed."""
    path = epath.Path(tmp_path_factory.mktemp("run"))
    checkpoints = Checkpoints(path, kept=1)
    checkpoints.save(STEP, parameters(seed=3), {"sigma": jnp.zeros((1, 2))}, settings_of())
    checkpoints.close()
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (name, size) in enumerate(SIZES.items()):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def evaluated(workdir, images, tmp_path_factory):
    """(folder of the results, path of the report, table, results.json)."""
    out = tmp_path_factory.mktemp("out") / "not" / "yet"
    report, table = evaluate(settings_of(data__evaluation=str(images)), workdir, out)
    return out, report, table, json.loads((out / "results.json").read_text())


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_each_image_has_a_row_of_each_codec(evaluated):
    *_, results = evaluated
    codecs = ("fa-hific", "untrained", "jpeg", "webp")
    rows = [(row["image"], row["codec"]) for row in results["rows"]]
    assert rows == [(image, codec) for image in sorted(SIZES) for codec in codecs]
    assert set(results["mean"]) == set(codecs)


def test_bpp_is_that_of_the_bytes_and_the_estimate_is_near(evaluated):
    for row in evaluated[-1]["rows"]:
        assert (row["height"], row["width"]) == SIZES[row["image"]]
        count = row["width"] * row["height"]
        assert row["bpp"] == 8 * row["bytes"] / count
        if row["codec"] in ("fa-hific", "untrained"):
            # Header of 25 bytes, 1 % and the ends of two streams.
            estimated = row["bpp_estimated"] * count / 8
            assert abs(row["bytes"] - 25 - estimated) <= 0.01 * estimated + 16
        else:
            assert row["bpp_estimated"] is None


def test_qualities_are_those_of_the_pictures_beside_the_results(evaluated, images):
    out, *_, results = evaluated
    for row in results["rows"]:
        original = pixels(images / f"{row['image']}.png")
        np.testing.assert_array_equal(pixels(out / "originals" / f"{row['image']}.png"), original)
        decoded = pixels(out / row["file"])
        assert row["psnr"] == pytest.approx(metrics.psnr(original, decoded), rel=1e-12)
        expected = metrics.log_frequency_distance(original, decoded)
        assert row["lfd"] == pytest.approx(expected, rel=1e-12)
        assert row["ms_ssim"] is None  # under 161 pixels


def test_untrained_control_is_another_model(evaluated):
    out, *_ = evaluated
    for name in SIZES:
        ours, untrained = (
            pixels(out / "reconstructions" / f"{name}.{codec}.png")
            for codec in ("fa-hific", "untrained")
        )
        assert np.any(ours != untrained)


def test_without_weights_lpips_is_none_and_said_to_be_missing(evaluated):
    *_, results = evaluated
    assert {row["lpips"] for row in results["rows"]} == {None}
    assert results["meta"]["lpips"] == "not measured: no weight file"


def test_report_and_table_tell_step_target_and_codecs(evaluated):
    out, report, table, results = evaluated
    assert report == out / "report.html"
    page = report.read_text("utf-8")
    assert all(name in page for name in SIZES)
    assert results["meta"]["step"] == STEP
    assert f"target {demo.get_config().loss.target_bpp:g} bpp" in table
    assert all(codec in table for codec in ("fa-hific", "untrained", "jpeg", "webp"))


def test_with_weights_lpips_is_measured_and_the_rest_is_as_before(
    workdir, images, evaluated, data_folder, tmp_path
):
    weights = data_folder / "lpips" / "lpips_alex.npz"
    if not weights.exists():
        pytest.skip(f"no LPIPS weights at {weights}")
    settings = settings_of(
        data__evaluation=str(images / "tall.png"),
        evaluation__lpips_file=str(weights),
        evaluation__baselines=(),
        evaluation__untrained_control=False,
    )
    evaluate(settings, workdir, tmp_path)
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert 0.0 < row["lpips"] < 2.0
    (before,) = (
        r for r in evaluated[-1]["rows"] if (r["image"], r["codec"]) == ("tall", "fa-hific")
    )
    assert (row["bytes"], row["psnr"]) == (before["bytes"], before["psnr"])


def test_parameters_come_back_to_the_bit(workdir):
    params, step = load_autoencoder(workdir, settings_of())
    assert step == STEP
    jax.tree.map(np.testing.assert_array_equal, params, parameters(seed=3))


def test_checkpoint_of_another_model_is_refused_by_the_field(workdir):
    sentence = (
        r"^the checkpoint of step 7 was made with model\.residual_blocks=1, the config says 2: "
        r"use that run's config or another --workdir$"
    )
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(workdir, settings_of(model__residual_blocks=2))


@pytest.mark.parametrize("rows, more", [(2, {}), (1, {"discriminator": np.zeros(3, np.float32)})])
def test_training_state_of_another_shape_is_refused(workdir, rows, more):
    training = {"sigma": jnp.zeros((rows, 2))} | more
    checkpoints = Checkpoints(workdir, kept=None)
    sentence = r"^the checkpoint of step 7 holds another training state than the config needs: "
    with pytest.raises(UserError, match=sentence):
        checkpoints.restore(STEP, parameters(seed=3), training)
    checkpoints.close()


def test_other_losses_than_in_training_may_be_evaluated(workdir):
    _, step = load_autoencoder(workdir, settings_of(loss__ffl=0.0))
    assert step == STEP


def test_folder_without_checkpoints_is_named(tmp_path):
    sentence = r"holds no checkpoints folder: train there with train\.py$"
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(epath.Path(tmp_path), settings_of())
    (tmp_path / "checkpoints").mkdir()
    sentence = r"checkpoints holds no whole checkpoint: train there with train\.py$"
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(epath.Path(tmp_path), settings_of())


def test_workdir_is_absolute_and_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert workdir_path("runs/a") == epath.Path(tmp_path.resolve() / "runs" / "a")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--workdir file is a file: name a folder$"):
        workdir_path("file")


@pytest.mark.parametrize("codec", ["bpg", "JPEG"])
def test_unknown_baseline_ends_before_anything_is_coded(workdir, images, tmp_path, codec):
    settings = settings_of(data__evaluation=str(images), evaluation__baselines=("jpeg", codec))
    with pytest.raises(UserError, match=rf"^unknown baseline codec '{codec}': choose one of jpeg"):
        evaluate(settings, workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
