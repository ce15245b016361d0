"""Evaluation from folders of models to results: real files, what is skipped, what resumes."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import init_parameters, many_rates_model
from etils import epath
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax import metrics
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, points
from fa_hific_jax.evaluation import evaluate as evaluation
from fa_hific_jax.evaluation.prepare import Request, prepare
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import read_results, summary_csv
from fa_hific_jax.evaluation.rows import Row, RowLog
from fa_hific_jax.settings import EvaluationConfig

STEP = 7
SIZES = {"large": (50, 70), "small": (40, 66)}  # height, width; both padded to 64 x 128
SETTINGS = tiny_settings(evaluation__same_size=True, evaluation__untrained_control=True)


@functools.cache
def parameters(seed: int):
    return init_parameters(SETTINGS.model, jax.random.key(seed))


@functools.cache
def model_of(seed: int):
    return from_params(SETTINGS.model, parameters(seed))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a checkpoint of parameters that are not those of train.seed."""
    path = epath.Path(tmp_path_factory.mktemp("runs") / "ours")
    path.mkdir()
    checkpoints = Checkpoints(path, kept=1)
    checkpoints.save(STEP, parameters(seed=3), {"sigma": jnp.zeros((1, 2))}, SETTINGS)
    checkpoints.close()
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The same model as a folder, which loads sooner."""
    return save_model(model_of(seed=3), tmp_path_factory.mktemp("models") / "ours")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (name, size) in enumerate(SIZES.items()):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def evaluate(model, out, *more, images=None, config=None, named_by="--models", **options):
    """The results.json of an evaluation in `out`; options are those of Request and its config."""
    names = [field.name for field in dataclasses.fields(EvaluationConfig)]
    flags = {name: options.pop(name) for name in names if name in options}
    folders, images = [str(folder) for folder in (model, *more)], images and str(images)
    request = Request(folders, named_by, config, flags, images, **options)
    evaluation.evaluate(prepare(request), Path(out), {})
    return read_results(Path(out) / "results.json")


@pytest.fixture(scope="module")
def evaluated(workdir, images, tmp_path_factory):
    """(folder of the results, results.json) of what the run's own config says."""
    out = tmp_path_factory.mktemp("out") / "not" / "yet"
    return out, evaluate(workdir, out, images=images, jobs=2, baseline_points=2)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def point_ids(results):
    return [(row["image"], row["codec"], row["point"]) for row in results["rows"]]


def lines_of(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def same_but_for_time(results):
    """Rows without what differs from run to run."""
    return [row | {"seconds_encode": 0, "seconds_decode": 0} for row in results["rows"]]


def test_each_image_has_a_row_of_each_point_in_one_order(evaluated):
    _, results = evaluated
    of_each = [("ours", ""), ("untrained", "")]
    for codec in ("jpeg", "webp"):
        sweep = baselines.codec(codec).sweep
        of_each.append((f"{codec}-same-size", ""))
        of_each += [(codec, f"quality {quality}") for quality in (sweep[0], sweep[-1])]
    assert point_ids(results) == [(image, *point) for image in sorted(SIZES) for point in of_each]
    assert [(m["codec"], m["point"]) for m in results["means"]] == of_each
    kinds = [results["codecs"][codec]["kind"] for codec in ("ours", "untrained", "jpeg")]
    assert kinds == ["model", "control", "baseline"]


def test_bpp_is_that_of_the_bytes_to_which_estimate_and_bits_by_position_sum_up(evaluated):
    out, results = evaluated
    for row in results["rows"]:
        assert (row["height"], row["width"]) == SIZES[row["image"]]
        count = row["width"] * row["height"]
        assert row["bpp"] == 8 * row["bytes"] / count
        if results["codecs"][row["codec"]]["kind"] == "baseline":
            assert row["bpp_estimated"] is row["bits"] is None
            continue
        # Header of 25 bytes and a few, 1 % and the ends of two streams.
        estimated = row["bpp_estimated"] * count / 8
        assert abs(row["bytes"] - 25 - estimated) <= 0.01 * estimated + 16
        with np.load(out / row["bits"]) as arrays:
            y, z = arrays["y"], arrays["z"]
        assert (y.dtype, z.dtype) == (np.float32, np.float32)
        assert (y.shape, z.shape) == ((4, 8), (1, 2)) and min(y.min(), z.min()) > 0
        total = (y.sum(dtype=np.float64) + z.sum(dtype=np.float64)) / 8
        assert total <= row["bytes"] <= total + 25 + 16
        assert total == pytest.approx(estimated, rel=0.01)


def test_qualities_are_those_of_the_pictures_beside_the_results(evaluated, images):
    out, results = evaluated
    bytes_of = {(row["image"], row["codec"]): row["bytes"] for row in results["rows"]}
    for row in results["rows"]:
        name = row["image"]
        original, decoded = pixels(images / f"{name}.png"), pixels(out / row["file"])
        np.testing.assert_array_equal(pixels(out / "originals" / f"{name}.png"), original)
        assert row["values"]["psnr"] == pytest.approx(metrics.psnr(original, decoded), rel=1e-12)
        if row["codec"] == "webp-same-size":
            nearest = baselines.encode_nearest(original, "webp", bytes_of[name, "ours"])
            assert row["bytes"] == len(nearest.data)


def test_results_tell_step_target_and_model_and_why_a_number_is_missing(evaluated):
    _, results = evaluated
    ours, mean = results["codecs"]["ours"], results["means"][0]
    assert (ours["step"], ours["target_bpp"]) == (STEP, SETTINGS.loss.target_bpp)
    assert ours["model_id"] == model_of(seed=3).model_id.hex()
    assert {row["values"]["lpips_alex"] for row in results["rows"]} == {None}
    assert (mean["values"]["lpips_alex"], mean["measured"]["lpips_alex"]) == (None, 0)
    reason = results["metrics"]["lpips_alex"]["not_measured"]
    assert reason == "not requested: add alex to --lpips"
    assert all(entry["value"] is None and entry["not_measured"] for entry in results["sets"])


@pytest.fixture(scope="module")
def alone(exported, images, tmp_path_factory):
    """(folder, options, results) of the same model and JPEG in this process."""
    out = tmp_path_factory.mktemp("alone")
    options = dict(images=images, same_size=False, baselines=("jpeg",), baseline_points=2)
    return out, options, evaluate(exported, out, **options)


@pytest.fixture
def copied(alone, tmp_path):
    """A copy of the folder of `alone`, to go on in."""
    return shutil.copytree(alone[0], tmp_path / "out")


def test_number_of_jobs_changes_nothing(evaluated, alone):
    several = dict(zip(point_ids(evaluated[1]), same_but_for_time(evaluated[1]), strict=True))
    assert len(alone[2]["rows"]) == len(SIZES) * 3
    for place, row in zip(point_ids(alone[2]), same_but_for_time(alone[2]), strict=True):
        # An exported model has lost its own densities.
        assert row | {"bpp_estimated": None} == several[place] | {"bpp_estimated": None}


def test_what_another_model_has_written_over_is_coded_again(exported, images, alone, copied):
    """A row is not taken for the pictures, bits and features of a model of the same name."""
    other = save_model(model_of(seed=5), copied.parent / "ours")
    options = {"images": images / "large.png", "baselines": ()}
    theirs, again = (evaluate(model, copied, **options) for model in (other, exported))
    ours = {"rows": alone[2]["rows"][:1]}
    assert same_but_for_time(ours) == same_but_for_time(again) != same_but_for_time(theirs)
    (row,) = again["rows"]
    psnr = metrics.psnr(pixels(images / "large.png"), pixels(copied / row["file"]))
    assert row["values"]["psnr"] == pytest.approx(psnr, rel=1e-12)
    (copied / row["bits"]).write_bytes(b"damaged")
    evaluate(exported, copied, **options)
    with np.load(copied / row["bits"]) as arrays:
        assert arrays["y"].sum() > 0


def test_damaged_rows_are_measured_again_and_others_are_not(exported, alone, copied, monkeypatch):
    _, options, whole = alone
    lines = (copied / "rows.jsonl").read_bytes().splitlines()
    damaged = [lines[0][:-9], b"[]", b'{"key": 1}', b"\xff", b"", *lines[2:]]
    (copied / "rows.jsonl").write_bytes(b"\n".join(damaged))  # the last has no end of line
    coded = set()

    def noted(code):
        def wrapped(*arguments):
            row = next(each for each in arguments if isinstance(each, Row))
            coded.add((row.image, row.codec, row.point))
            return code(*arguments)

        return wrapped

    monkeypatch.setattr(points, "code", noted(points.code))
    monkeypatch.setattr(points, "code_baseline", noted(points.code_baseline))
    again = evaluate(exported, copied, **options)
    assert same_but_for_time(again) == same_but_for_time(whole)
    assert coded == {point_ids(whole)[i] for i in (0, 1, -1)}


def test_two_processes_that_do_not_know_of_each_other_share_their_rows(alone, tmp_path):
    mine, other = RowLog(tmp_path), RowLog(tmp_path)
    first, second = (Row(**line) for line in lines_of(alone[0])[:2])
    assert other.get(first.key, first.measured_with) is None
    assert mine.add(first) is first
    assert other.get(first.key, first.measured_with) == first
    assert other.add(dataclasses.replace(first, seconds_encode=99.0)) == first
    other.add(second)
    assert mine.get(second.key, "other weights") == second
    assert len(lines_of(tmp_path)) == 2


def test_summary_and_page_are_those_of_the_results_and_pictures(alone, tmp_path):
    folder, _, results = alone
    assert (folder / "summary.csv").read_text() == summary_csv(results)
    for name in ("originals", "reconstructions", "bits"):
        shutil.copytree(folder / name, tmp_path / name)
    again = write_report(results, tmp_path)
    assert again.read_bytes() == (folder / "report.html").read_bytes()


def test_only_what_changed_is_coded_or_measured_again(exported, images, alone, copied, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    Image.fromarray(255 - pixels(folder / "large.png")).save(folder / "large.png")
    before, options = lines_of(copied), {"images": folder, "baselines": ()}
    evaluate(exported, copied, **options)
    assert [line["image"] for line in lines_of(copied)[len(before) :]] == ["large"]
    original = pixels(copied / "originals" / "large.png")
    np.testing.assert_array_equal(original, pixels(folder / "large.png"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(points, "code")  # new weights of metrics do not need it
        again = evaluate(exported, copied, **options, lpips_files=("squeeze",))["rows"]
    assert all(0.0 < row["values"]["lpips_squeeze"] < 2.0 for row in again)
    unchanged = next(row for row in alone[2]["rows"] if row["image"] == "small")
    assert again[1]["bytes"] == unchanged["bytes"]


def test_torn_image_is_named_and_others_are_measured_of_names_that_are_not_utf_8(
    exported, images, tmp_path
):
    folder = tmp_path / os.fsdecode(b"images\xfe")
    folder.mkdir()
    whole = [folder / os.fsdecode(name) for name in (b"\xff\n.png", b"a\xff.png")]
    for path in whole:
        shutil.copy(images / "large.png", path)
    (folder / os.fsdecode(b"torn\xff.png")).write_bytes((images / "large.png").read_bytes()[:200])
    out = tmp_path / os.fsdecode(b"out\xff")
    results = evaluate(exported, out, images=folder, baselines=("jpeg",), baseline_points=1)
    named = [row["image"] for row in results["rows"]]
    assert len(set(named)) == 2 and named.count(named[0]) == named.count(named[-1]) == 2
    (skipped,) = results["meta"]["skipped"]
    assert "torn" in skipped["image"] and "torn" in skipped["reason"]
    assert results["meta"]["count"] == 2 and (out / "report.html").read_text("utf-8")
    for path in whole:
        path.unlink()
    with pytest.raises(UserError, match=r"^no image could be read: .*torn"):
        evaluate(exported, tmp_path / "out2", images=folder, baselines=())


def test_codecs_that_are_missing_or_fail_say_why_and_have_no_mean(
    exported, alone, tmp_path, monkeypatch
):
    codec = baselines.codec("jpeg")

    def only_large(data):
        image = codec.decode(data)
        return image if image.shape[1] == 70 else image[1:]

    monkeypatch.setitem(baselines._CODECS, "jpeg", codec._replace(decode=only_large))
    monkeypatch.setenv("PATH", "")
    options = alone[1] | {"baselines": ("jpeg", "bpg"), "baseline_points": 1}
    results = evaluate(exported, tmp_path, **options)
    ours, jpeg = results["means"]
    assert (jpeg["codec"], jpeg["images"], jpeg["measured"]["bpp"]) == ("jpeg", 2, 1)
    assert ours["bpp"] and jpeg["bpp"] is None and set(jpeg["values"].values()) == {None}
    (failed,) = results["meta"]["failed"]
    assert (failed["image"], failed["codec"]) == ("small", "jpeg")
    assert "jpeg could not code a 66x40 image, it came back as 66x39" in failed["reason"]
    assert "not on the PATH" in results["codecs"]["bpg"]["not_measured"]


def test_runs_and_exported_models_are_evaluated_together(workdir, exported, images, tmp_path):
    known = {"settings": {"loss": {"target_bpp": 0.25}}, "step": 9}
    model = from_params(SETTINGS.model, parameters(seed=5), origin=known)
    options = {"images": images, "baselines": ("none",), "limit": 1}
    folders = save_model(model, tmp_path / "ours"), exported
    results = evaluate(workdir, tmp_path / "out", *folders, **options)
    ids = ["ours", "ours-2", "ours-3", "untrained"]
    assert point_ids(results) == [("large", codec, "") for codec in ids]
    assert results["codecs"]["ours-2"]["step"] == 9
    first, other, same, _ = results["rows"]
    assert (first["bytes"], first["values"]) == (same["bytes"], same["values"])
    assert other["values"]["psnr"] != first["values"]["psnr"]
    # An exported model has lost its own densities: the code length under its tables instead.
    assert other["bpp_estimated"] < other["bpp"]


def test_model_of_many_rates_has_a_row_for_each_quality_and_detail(images, tmp_path):
    model = many_rates_model()
    folder, image = save_model(model, tmp_path / "many"), images / "large.png"
    options = {"baselines": ("none",), "qualities": (0.0, 1.0), "details": (0.0, 1.0)}
    results = evaluate(folder, tmp_path / "out", images=image, **options)
    places = list(itertools.product((0, 1), (0, 1)))
    assert [row["point"] for row in results["rows"]] == [f"q={q},detail={d}" for q, d in places]
    for row, (quality, detail) in zip(results["rows"], places, strict=True):
        data = model.compress(pixels(image), quality=float(quality))
        assert row["bytes"] == len(data)
        decoded = model.decompress(data, detail=float(detail))
        np.testing.assert_array_equal(pixels(tmp_path / "out" / row["file"]), decoded)


def test_flags_go_before_a_config_of_other_losses_and_that_before_the_run(
    workdir, images, tmp_path
):
    given = {"data__evaluation": str(images / "small.png"), "evaluation__baselines": ()}
    options = {"config": tiny_settings(loss__ffl=0.0, **given), "named_by": "--workdir"}
    of_config = evaluate(workdir, tmp_path, **options)
    assert point_ids(of_config) == [("small", "ours", "")]
    of_flags = evaluate(workdir, tmp_path, **options, images=images / "large.png")
    assert point_ids(of_flags) == [("large", "ours", "")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"qualities": (0.5,)}, "^--quality: none of the models has a variable rate"),
        ({"qualities": (1.5,)}, r"^--quality is \(1\.5,\): give numbers from 0 to 1$"),
        ({"jobs": 0}, "^--limit is 0 and --jobs 0: give a limit of at least 0"),
        ({"baseline_points": -2}, r"^evaluation\.baseline_points is -2: give a number"),
        ({"baselines": ("JPEG",)}, "^unknown baseline codec 'JPEG': choose one of jpeg, "),
        ({"images": "/nowhere"}, "^/nowhere: no images here"),
        ({"images": ""}, "^--images is missing: the model does not say on what"),
        ({"lpips_files": ("/nowhere.npz",)}, r"/nowhere\.npz"),
        ({"model": "/nowhere"}, r"^--models /nowhere: neither a run \(it holds no checkpoints fol"),
    ],
)
def test_options_without_sense_are_named_before_anything_is_coded(
    exported, images, tmp_path, options, sentence
):
    given = {"model": exported, "images": images} | options
    with pytest.raises(UserError, match=sentence):
        evaluate(out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows, more", [(2, {}), (1, {"discriminator": np.zeros(3, np.float32)})])
def test_training_state_of_another_shape_is_refused(workdir, rows, more):
    checkpoints = Checkpoints(workdir, kept=None)
    sentence = "^the checkpoint of step 7 holds another training state than the config needs: "
    with pytest.raises(UserError, match=sentence):
        checkpoints.restore(STEP, parameters(seed=3), {"sigma": jnp.zeros((rows, 2))} | more)
    checkpoints.close()
