"""Evaluation from folders of models to results: real files, what is skipped, what resumes."""

import csv
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
from coding_model import init_parameters
from etils import epath
from PIL import Image

from configs import small
from fa_hific_jax import metrics
from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder, workdir_path
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, points, workers
from fa_hific_jax.evaluation import evaluate as evaluation
from fa_hific_jax.evaluation.prepare import Request, prepare
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import read_results
from fa_hific_jax.evaluation.rows import Row, RowLog
from fa_hific_jax.settings import EvaluationConfig, from_mapping

STEP = 7
SIZES = {"tall": (50, 33), "wide": (40, 66)}  # height, width
JPEG = dict(baselines=("jpeg",), baseline_points=2)


def settings_of(**overrides):
    """configs/small.py with the smallest model; overrides are "group__key=value"."""
    config = small.get_config().to_dict()
    tiny = {"latent_channels": 4, "hyper_channels": 4, "residual_blocks": 1, "fcm_width": 4}
    widths = {"encoder_widths": (4, 4, 4, 4, 4), "generator_widths": (4, 4, 4, 4, 4)}
    config["model"].update(tiny | widths)
    for key, value in overrides.items():
        group, _, field = key.partition("__")
        config[group][field] = value
    return from_mapping(config)


@functools.cache
def parameters(seed: int):
    return init_parameters(settings_of().model, jax.random.key(seed))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a checkpoint of parameters that are not those of train.seed."""
    path = epath.Path(tmp_path_factory.mktemp("runs") / "ours")
    path.mkdir()
    checkpoints = Checkpoints(path, kept=1)
    checkpoints.save(STEP, parameters(seed=3), {"sigma": jnp.zeros((1, 2))}, settings_of())
    checkpoints.close()
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The same model as a folder, which loads sooner."""
    model = from_params(settings_of().model, parameters(seed=3))
    return save_model(model, tmp_path_factory.mktemp("models") / "ours")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (name, size) in enumerate(SIZES.items()):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def evaluate(folders, out, config=None, named_by="--models", **options):
    """The results.json of an evaluation in `out`."""
    names = [field.name for field in dataclasses.fields(EvaluationConfig)]
    flags = {name: options.pop(name) for name in names if name in options}
    request = Request([str(folder) for folder in folders], named_by, config, flags, **options)
    evaluation.evaluate(prepare(request), Path(out), {})
    return read_results(Path(out) / "results.json")


@pytest.fixture(scope="module")
def evaluated(workdir, images, tmp_path_factory):
    """(folder of the results, results.json) of what the run's own config says."""
    out = tmp_path_factory.mktemp("out") / "not" / "yet"
    return out, evaluate([workdir], out, images=str(images), jobs=2, baseline_points=2)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def point_ids(results):
    return [(row["image"], row["codec"], row["point"]) for row in results["rows"]]


def same_but_for_time(results):
    """Rows without what differs from run to run."""
    timed = ("seconds_encode", "seconds_decode")
    return [{k: v for k, v in row.items() if k not in timed} for row in results["rows"]]


def test_each_image_has_a_row_of_each_point_in_one_order(evaluated):
    _, results = evaluated
    of_each = [("ours", ""), ("untrained", "")]
    for codec in ("jpeg", "webp"):
        ends = baselines.codec(codec).sweep[0], baselines.codec(codec).sweep[-1]
        of_each.append((f"{codec}-same-size", ""))
        of_each += [(codec, f"quality {quality}") for quality in ends]
    expected = [(image, *point) for image in sorted(SIZES) for point in of_each]
    assert point_ids(results) == expected
    assert [(m["codec"], m["point"]) for m in results["means"]] == of_each
    kinds = {codec: about["kind"] for codec, about in results["codecs"].items()}
    assert (kinds["ours"], kinds["untrained"], kinds["jpeg"]) == ("model", "control", "baseline")


def test_bpp_is_that_of_the_bytes_and_the_estimate_is_near(evaluated):
    for row in evaluated[-1]["rows"]:
        assert (row["height"], row["width"]) == SIZES[row["image"]]
        count = row["width"] * row["height"]
        assert row["bpp"] == 8 * row["bytes"] / count
        if row["codec"] in ("ours", "untrained"):
            # Header of 25 bytes and a few, 1 % and the ends of two streams.
            estimated = row["bpp_estimated"] * count / 8
            assert abs(row["bytes"] - 25 - estimated) <= 0.01 * estimated + 16
        else:
            assert row["bpp_estimated"] is None


def test_bits_by_position_sum_up_to_the_file(evaluated):
    out, results = evaluated
    for row in results["rows"]:
        if row["bits"] is None:
            assert results["codecs"][row["codec"]]["kind"] == "baseline"
            continue
        with np.load(out / row["bits"]) as arrays:
            y, z = arrays["y"], arrays["z"]
        assert (y.dtype, z.dtype) == (np.float32, np.float32)
        # Both images are padded to 64 x 64 or 64 x 128.
        wide = -(-row["width"] // 64)
        assert (y.shape, z.shape) == ((4, 4 * wide), (1, wide))
        assert min(y.min(), z.min()) > 0
        total = (y.sum(dtype=np.float64) + z.sum(dtype=np.float64)) / 8
        assert total <= row["bytes"] <= total + 25 + 16
        estimated = row["bpp_estimated"] * row["width"] * row["height"] / 8
        assert total == pytest.approx(estimated, rel=0.01)


def test_qualities_are_those_of_the_pictures_beside_the_results(evaluated, images):
    out, results = evaluated
    for row in results["rows"]:
        original = pixels(images / f"{row['image']}.png")
        np.testing.assert_array_equal(pixels(out / "originals" / f"{row['image']}.png"), original)
        decoded = pixels(out / row["file"])
        assert row["values"]["psnr"] == pytest.approx(metrics.psnr(original, decoded), rel=1e-12)
        assert row["values"]["ms_ssim"] is None
        assert row["not_measured"]["ms_ssim"] == "a side has 160 pixels or less"


def test_same_size_baseline_is_the_nearest_file_to_the_first_models(evaluated, images):
    bytes_of = {(row["image"], row["codec"]): row["bytes"] for row in evaluated[-1]["rows"]}
    for name in SIZES:
        target = bytes_of[name, "ours"]
        nearest = baselines.encode_nearest(pixels(images / f"{name}.png"), "webp", target)
        assert bytes_of[name, "webp-same-size"] == len(nearest.data)


def test_without_weights_the_reason_stands_where_the_number_would(evaluated):
    _, results = evaluated
    assert {row["values"]["lpips_alex"] for row in results["rows"]} == {None}
    reason = results["metrics"]["lpips_alex"]["not_measured"]
    assert reason == "not requested: add alex to --lpips"
    assert {entry["value"] for entry in results["sets"]} == {None}
    assert all(entry["not_measured"] for entry in results["sets"])
    (ours, *_) = results["means"]
    assert (ours["values"]["lpips_alex"], ours["measured"]["lpips_alex"]) == (None, 0)


def test_results_tell_step_target_and_model(evaluated):
    ours = evaluated[1]["codecs"]["ours"]
    assert (ours["step"], ours["target_bpp"]) == (STEP, small.get_config().loss.target_bpp)
    model = from_params(settings_of().model, parameters(seed=3))
    assert ours["model_id"] == model.model_id.hex()


def test_summary_and_page_are_written_beside_the_results(evaluated):
    out, results = evaluated
    with (out / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["bpp"] for line in lines] == [repr(mean["bpp"]) for mean in results["means"]]
    page = (out / "report.html").read_text("utf-8")
    assert all(name in page for name in SIZES)


def test_what_is_finished_is_not_computed_again(workdir, images, evaluated, monkeypatch):
    out, before = evaluated
    lines = (out / "rows.jsonl").read_text().splitlines()
    monkeypatch.setattr(points, "code", never)
    monkeypatch.setattr(workers, "code_baseline", never)
    again = evaluate([workdir], out, images=str(images), jobs=1, baseline_points=2)
    assert again["rows"] == before["rows"]
    assert (out / "rows.jsonl").read_text().splitlines() == lines


def never(*_):
    raise AssertionError("this was finished")


@pytest.fixture(scope="module")
def alone(exported, images, tmp_path_factory):
    """As `evaluated`, of our model and JPEG in this process."""
    out = tmp_path_factory.mktemp("alone")
    options = {"images": str(images), "same_size": False, **JPEG}
    results = evaluate([exported], out, **options)
    return out, options, results


def test_number_of_jobs_changes_nothing(evaluated, alone):
    several = {
        (row["image"], row["codec"], row["point"]): row for row in same_but_for_time(evaluated[1])
    }
    one = same_but_for_time(alone[2])
    assert len(one) == len(SIZES) * 3
    for row in one:
        # An exported model has lost its own densities.
        other = several[row["image"], row["codec"], row["point"]]
        assert row | {"bpp_estimated": None} == other | {"bpp_estimated": None}


def test_stopped_evaluation_ends_like_one_that_was_not(exported, alone, tmp_path, monkeypatch):
    _, options, whole = alone
    code = workers.code_baseline
    calls = []

    def third_call_is_interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return code(*arguments)

    monkeypatch.setattr(workers, "code_baseline", third_call_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate([exported], tmp_path, **options)
    assert not (tmp_path / "results.json").exists()
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"key": "half a li')  # as a kill in the middle of a write leaves it
    resumed = evaluate([exported], tmp_path, **options)
    assert same_but_for_time(resumed) == same_but_for_time(whole)
    keys = [json.loads(line)["key"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(whole["rows"])


def test_what_another_model_has_written_over_is_coded_again(exported, images, tmp_path):
    """A row is not taken for the pictures, bits and features of a model of the same name."""
    other = save_model(from_params(settings_of().model, parameters(seed=5)), tmp_path / "ours")
    options = {"images": str(images / "tall.png"), "baselines": ()}
    out = tmp_path / "out"
    ours, theirs, again = (evaluate([m], out, **options) for m in (exported, other, exported))
    assert same_but_for_time(ours) == same_but_for_time(again) != same_but_for_time(theirs)
    row = again["rows"][0]
    psnr = metrics.psnr(pixels(images / "tall.png"), pixels(out / row["file"]))
    assert row["values"]["psnr"] == pytest.approx(psnr, rel=1e-12)
    (out / row["bits"]).write_bytes(b"damaged")
    evaluate([exported], out, **options)
    with np.load(out / row["bits"]) as arrays:
        assert arrays["y"].sum() > 0


def test_damaged_rows_are_measured_again_and_others_are_not(exported, alone, tmp_path, monkeypatch):
    folder, options, whole = alone
    out = shutil.copytree(folder, tmp_path / "out")
    lines = (out / "rows.jsonl").read_bytes().splitlines()
    damaged = [lines[0][:-9], b"[]", b'{"key": 1}', b"\xff", b"", *lines[2:]]
    (out / "rows.jsonl").write_bytes(b"\n".join(damaged))
    coded = []
    code, code_model = workers.code_baseline, points.code
    monkeypatch.setattr(points, "code", lambda *a: coded.append("ours") or code_model(*a))
    monkeypatch.setattr(workers, "code_baseline", lambda *a: coded.append(a[:2]) or code(*a))
    again = evaluate([exported], out, **options)
    assert same_but_for_time(again) == same_but_for_time(whole)
    last = whole["rows"][-1]["point"].removeprefix("quality ")
    first = whole["rows"][1]["point"].removeprefix("quality ")
    assert coded == [
        "ours",  # to compile
        "ours",
        ("jpeg", int(first)),
        ("jpeg", int(last)),
    ]  # the last has no end of line


def test_two_processes_that_do_not_know_of_each_other_share_their_rows(alone, tmp_path):
    folder = alone[0]
    mine, other = RowLog(tmp_path), RowLog(tmp_path)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    first, second = (Row(**row) for row in rows[:2])
    assert other.get(first.key, first.measured_with) is None
    assert mine.add(first) is first
    assert other.get(first.key, first.measured_with) == first
    assert other.add(dataclasses.replace(first, seconds_encode=99.0)) == first
    other.add(second)
    assert mine.get(second.key, "other weights") == second
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 2


def test_the_page_can_be_made_again_from_the_results_and_the_pictures(alone, tmp_path):
    folder = alone[0]
    for name in ("originals", "reconstructions", "bits"):
        shutil.copytree(folder / name, tmp_path / name)
    again = write_report(read_results(folder / "results.json"), tmp_path)
    assert again.read_bytes() == (folder / "report.html").read_bytes()


def test_changed_image_is_coded_again_and_no_other(exported, images, alone, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in SIZES:
        (folder / f"{name}.png").write_bytes((images / f"{name}.png").read_bytes())
    options = alone[1] | {"images": str(folder), "baselines": ()}
    evaluate([exported], tmp_path / "out", **options)
    Image.fromarray(255 - pixels(folder / "tall.png")).save(folder / "tall.png")
    again = evaluate([exported], tmp_path / "out", **options)
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    written = [json.loads(line)["image"] for line in lines]
    assert written == ["tall", "wide", "tall"]
    original = pixels(tmp_path / "out" / "originals" / "tall.png")
    np.testing.assert_array_equal(original, pixels(folder / "tall.png"))
    row = again["rows"][0]
    decoded = pixels(tmp_path / "out" / row["file"])
    assert row["values"]["psnr"] == pytest.approx(metrics.psnr(original, decoded), rel=1e-12)


def test_new_weights_measure_pictures_that_are_there(
    exported, images, data_folder, tmp_path, monkeypatch
):
    weights = data_folder / "lpips" / "lpips_squeeze.npz"
    if not weights.exists():
        pytest.skip(f"no LPIPS weights at {weights}")
    options = {"images": str(images / "tall.png"), "baselines": ()}
    before = evaluate([exported], tmp_path, **options)
    monkeypatch.setattr(points, "code", never)
    after = evaluate([exported], tmp_path, **options, lpips_files=(str(weights),))
    for row, row_before in zip(after["rows"], before["rows"], strict=True):
        assert 0.0 < row["values"]["lpips_squeeze"] < 2.0
        assert (row["bytes"], row["values"]["psnr"]) == (
            row_before["bytes"],
            row_before["values"]["psnr"],
        )


def test_corrupt_image_is_named_and_the_others_are_measured(exported, images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    whole = (images / "tall.png").read_bytes()
    (folder / "tall.png").write_bytes(whole)
    (folder / "torn.png").write_bytes(whole[:200])
    results = evaluate([exported], tmp_path / "out", images=str(folder), baselines=("jpeg",))
    assert {row["image"] for row in results["rows"]} == {"tall"}
    (skipped,) = results["meta"]["skipped"]
    assert skipped["image"] == "torn" and "torn.png" in skipped["reason"]
    assert results["meta"]["count"] == 1
    (folder / "tall.png").unlink()
    with pytest.raises(UserError, match=r"^no image could be read: .*torn\.png"):
        evaluate([exported], tmp_path / "out2", images=str(folder), baselines=())


def test_names_that_are_not_utf_8_of_one_picture_have_rows_each(exported, images, tmp_path):
    folder = tmp_path / os.fsdecode(b"images\xfe")
    folder.mkdir()
    shutil.copy(images / "tall.png", folder / os.fsdecode(b"\xff\n.png"))
    shutil.copy(images / "tall.png", folder / os.fsdecode(b"a\xff.png"))
    (folder / os.fsdecode(b"torn\xff.png")).write_bytes(b"no image")
    out = tmp_path / os.fsdecode(b"out\xff")
    results = evaluate([exported], out, images=str(folder), **JPEG)
    named = [row["image"] for row in results["rows"]]
    assert len(set(named)) == 2 and named.count(named[0]) == named.count(named[-1]) == 3
    assert "torn" in results["meta"]["skipped"][0]["image"]
    assert (out / "report.html").read_text("utf-8")


def test_codec_that_cannot_code_an_image_leaves_no_mean(exported, images, tmp_path, monkeypatch):
    codec = baselines.codec("jpeg")

    def only_tall(data):
        image = codec.decode(data)
        return image if image.shape[1] == 33 else image[1:]

    monkeypatch.setitem(baselines._CODECS, "jpeg", codec._replace(decode=only_tall))
    results = evaluate(
        [exported], tmp_path, images=str(images), baselines=("jpeg",), baseline_points=1,
        same_size=False,
    )  # fmt: skip
    jpeg = next(mean for mean in results["means"] if mean["codec"] == "jpeg")
    assert (jpeg["images"], jpeg["measured"]["bpp"]) == (2, 1)
    assert jpeg["bpp"] is None and set(jpeg["values"].values()) == {None}
    (failed,) = results["meta"]["failed"]
    assert (failed["image"], failed["codec"]) == ("wide", "jpeg")
    sentence = "jpeg could not code a 66x40 image, it came back as 66x39: leave this baseline out"
    assert failed["reason"] == sentence


def test_baseline_without_its_program_is_said_to_be_missing(
    exported, images, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    results = evaluate(
        [exported], tmp_path / "out", images=str(images / "tall.png"), baselines=("bpg",)
    )
    assert results["codecs"]["bpg"]["not_measured"]
    assert {row["codec"] for row in results["rows"]} == {"ours"}


def test_unknown_baseline_ends_before_anything_is_coded(exported, images, tmp_path):
    with pytest.raises(UserError, match=r"^unknown baseline codec 'JPEG': choose one of jpeg, "):
        evaluate([exported], tmp_path / "out", images=str(images), baselines=("JPEG",))
    assert not (tmp_path / "out").exists()


def test_runs_and_exported_models_are_evaluated_together(workdir, images, tmp_path):
    exported = tmp_path / "ours"
    known = {"settings": {"loss": {"target_bpp": 0.25}}, "step": 9}
    save_model(from_params(settings_of().model, parameters(seed=5), origin=known), exported)
    results = evaluate(
        [workdir, exported, workdir], tmp_path / "out", images=str(images), baselines=("none",),
        limit=1,
    )  # fmt: skip
    ids = ["ours", "ours-2", "ours-3", "untrained"]
    assert point_ids(results) == [("tall", codec, "") for codec in ids]
    assert results["codecs"]["ours-2"]["step"] == 9
    first, other, same, _ = results["rows"]
    assert (first["bytes"], first["values"]) == (same["bytes"], same["values"])
    assert other["values"]["psnr"] != first["values"]["psnr"]
    # An exported model has lost its own densities: the code length under its tables instead.
    assert other["bpp_estimated"] < other["bpp"]


def test_model_of_many_rates_has_a_row_for_each_quality_and_detail(images, tmp_path):
    config = dataclasses.replace(settings_of().model, qualities=2)
    model = from_params(config, init_parameters(config, jax.random.key(1)))
    save_model(model, tmp_path / "many")
    results = evaluate(
        [tmp_path / "many"], tmp_path / "out", images=str(images / "tall.png"),
        baselines=("none",), qualities=(0.0, 1.0), details=(0.0, 1.0),
    )  # fmt: skip
    points = [f"q={quality},detail={detail}" for quality in (0, 1) for detail in (0, 1)]
    assert [row["point"] for row in results["rows"]] == points
    image = pixels(images / "tall.png")
    for row, (quality, detail) in zip(
        results["rows"], itertools.product((0.0, 1.0), repeat=2), strict=True
    ):
        data = model.compress(image, quality=quality)
        assert row["bytes"] == len(data)
        decoded = model.decompress(data, detail=detail)
        np.testing.assert_array_equal(pixels(tmp_path / "out" / row["file"]), decoded)


def test_flags_go_before_the_config_and_that_before_the_run(workdir, images, tmp_path):
    other = settings_of(data__evaluation=str(images / "wide.png"), evaluation__baselines=())
    results = evaluate([workdir], tmp_path / "a", config=other, named_by="--workdir")
    assert {row["image"] for row in results["rows"]} == {"wide"}
    assert {row["codec"] for row in results["rows"]} == {"ours", "untrained"}
    tall = str(images / "tall.png")
    results = evaluate([workdir], tmp_path / "b", config=other, named_by="--workdir", images=tall)
    assert {row["image"] for row in results["rows"]} == {"tall"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"qualities": (0.5,)}, r"^--quality: none of the models has a variable rate"),
        ({"qualities": (1.5,)}, r"^--quality is \(1\.5,\): give numbers from 0 to 1$"),
        ({"jobs": 0}, r"^--limit is 0 and --jobs 0: give a limit of at least 0"),
        ({"baseline_points": -2}, r"^evaluation\.baseline_points is -2: give a number"),
        ({"images": "/nowhere"}, r"^/nowhere: no images here"),
        ({"lpips_files": ("/nowhere.npz",)}, r"/nowhere\.npz"),
    ],
)
def test_options_without_sense_are_named(exported, images, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluate([exported], tmp_path, **{"images": str(images)} | options)


def test_model_that_does_not_know_its_images_needs_some(exported, tmp_path):
    with pytest.raises(UserError, match=r"^--images is missing: the model does not say on what"):
        evaluate([exported], tmp_path)


def test_folder_that_is_no_model_is_named(tmp_path):
    sentence = r"^--models .*nowhere: neither a run \(it holds no checkpoints folder\) nor an exp"
    with pytest.raises(UserError, match=sentence):
        evaluate([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match=r"nowhere holds no checkpoints folder: train there with"):
        evaluate([tmp_path / "nowhere"], tmp_path, named_by="--workdir")


def test_parameters_come_back_to_the_bit(workdir):
    params, step, *_ = load_autoencoder(workdir, settings_of())
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
    step = load_autoencoder(workdir, settings_of(loss__ffl=0.0))[1]
    assert step == STEP


def test_folder_without_checkpoints_is_named(tmp_path):
    sentence = r"holds no checkpoints folder: train there with train\.py$"
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(epath.Path(tmp_path), settings_of())
    (tmp_path / "checkpoints").mkdir()
    sentence = r"checkpoints holds no complete checkpoint: train there with train\.py$"
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(epath.Path(tmp_path), settings_of())


def test_workdir_is_absolute_and_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert workdir_path("runs/a") == epath.Path(tmp_path.resolve() / "runs" / "a")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--workdir file is a file: name a folder$"):
        workdir_path("file")
