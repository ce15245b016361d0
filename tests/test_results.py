"""Means never hide what is missing; files are whole; tables say what was not measured."""

import csv
import io
import json
import math

import pytest
from report_results import results, row

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import explained
from fa_hific_jax.evaluation import results as res

FID = {"codec": "demo", "point": "", "metric": "fid", "not_measured": None, "protocol": {}}


def test_every_image_weighs_the_same_whatever_its_size():
    (mean,) = res.means([row("a", bpp=0.1, psnr=20.0), row("b", bpp=0.4, psnr=31.0, width=960)], 2)
    assert mean["bpp"] == pytest.approx(0.25, rel=1e-15)
    assert mean["values"]["psnr"] == 25.5
    seconds = {"seconds_encode": 2, "seconds_decode": 2}
    assert mean["measured"] == seconds | {"bpp": 2, "bpp_estimated": 0, "psnr": 2, "lpips_alex": 0}


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_value_that_is_missing_leaves_no_mean_and_is_counted(missing):
    (mean,) = res.means([row("a", psnr=missing), row("b", psnr=20.0)], 2)
    assert mean["values"]["psnr"] is None
    assert mean["measured"]["psnr"] == 1
    assert mean["bpp"] == 0.25


def test_results_come_back_from_their_file_without_infinity(tmp_path):
    content, path = results([row("a"), row("b")]), tmp_path / "results.json"
    res.write_json(path, content)
    assert res.read_results(path) == content and list(tmp_path.iterdir()) == [path]
    res.write_json(path, {"psnr": math.inf, "list": [math.nan, 1.0]})
    assert json.loads(path.read_text()) == {"psnr": None, "list": [None, 1.0]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"^there are no results at .*results\.json: run eval\.py"),
        ("{", r"results\.json is not JSON: write it again with eval"),
        ('{"meta": {}, "rows": []}', "lacks codecs, metrics, means, sets, published: write it ag"),
    ],
)
def test_file_that_holds_no_results_is_named(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        res.read_results(tmp_path / "results.json")


def test_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/results\.json cannot be written \(.*\): fix that$"):
        res.write_json(tmp_path / "file" / "results.json", {})


def test_csv_has_a_line_for_each_point_and_counts_what_was_measured():
    content = results([row("a"), row("b", psnr=None)], sets=[FID | {"value": 12.5}])
    (line,) = csv.DictReader(io.StringIO(res.summary_csv(content)))
    assert (line["codec"], line["point"], line["images"], line["fid"]) == ("demo", "", "2", "12.5")
    for name, cells in {"bpp": ("0.25", "2"), "psnr": ("", "1"), "lpips_alex": ("", "0")}.items():
        assert (line[name], line[f"{name}_measured"]) == cells


def test_table_aligns_and_shows_partial_means_as_counts():
    jpeg = {"codec": "jpeg", "point": "quality 5"}
    rows = [row("a"), row("b"), row("a", **jpeg), row("b", psnr=None, **jpeg)]
    assert res.format_table(results(rows)).splitlines()[:4] == [
        "mean over images",
        "codec  point      images     bpp  est. bpp  PSNR dB",
        "demo                   2  0.2500         -    30.00",
        "jpeg   quality 5       2  0.2500         -   1 of 2",
    ]


def test_everything_that_was_not_measured_is_said_with_its_reason():
    content = results(
        [row("a"), row("b", psnr=None, not_measured={"psnr": "identical images: infinite"})],
        skipped=[{"image": "c", "reason": "c.png: damaged"}],
        failed=[{"image": "a", "codec": "webp", "point": "quality 5", "reason": "too wide"}],
        sets=[FID | {"value": None, "not_measured": "no Inception weights"}],
    )
    content["codecs"]["bpg"] = {"label": "BPG", "kind": "baseline", "not_measured": "no bpgenc"}
    content["metrics"]["lpips_vgg"] = content["metrics"]["lpips_alex"] | {"label": "LPIPS (VGG16)"}
    assert res.notes(content) == [
        "LPIPS, LPIPS (VGG16): not measured: no weights",
        "FID: not measured: no Inception weights",
        "BPG: not measured: no bpgenc",
        "c: skipped: c.png: damaged",
        "a, webp quality 5: not measured: too wide",
        "PSNR: not measured for 1 of 2 rows: identical images: infinite",
    ]


def test_text_under_the_table_explains_columns_and_names_who_leads_at_the_same_rate():
    rows = [
        row("a"),
        row("a", "jpeg", "quality 5", bpp=0.2, psnr=31.0),
        row("a", "jpeg", "quality 9", bpp=0.3, psnr=33.0),
        row("a", "webp", "quality 5", bpp=0.3, psnr=50.0),
    ]
    content = results(rows, images=1)
    assert [line.split("  ")[0] for line in explained.legend(content)][:2] == ["bpp", "est. bpp"]
    value = 31 + 2 * math.log(0.25 / 0.2) / math.log(0.3 / 0.2)
    (sentence,) = explained.leaders(content)
    assert f"classical codecs lead in PSNR dB (jpeg {value:.2f}; here 30.00)." in sentence
