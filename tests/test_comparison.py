"""Two evaluations at equal rate: who wins where, and why something was not compared."""

import json
import math

import pytest
import report_results

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import comparison
from fa_hific_jax.evaluation.comparison import format_comparison

BPP = (0.1, 0.2, 0.4)


def compare(*arguments) -> dict:
    return comparison.compare(*arguments, resamples=20)


def psnr_of(found: dict) -> dict:
    (pair,) = found["pairs"]
    return pair["metrics"]["psnr"]


def results(gain: float, details=(None,), images=("x", "y", "z"), fid=None) -> dict:
    """A model whose PSNR is `gain` above 30 + 4 ln bpp; on "x" it is below by as much."""
    names = [
        (f"q={i}" + ("" if detail is None else f",detail={detail:g}"), bpp)
        for i, bpp in enumerate(BPP)
        for detail in details
    ]
    rows = [
        report_results.row(
            image, codec, point, bpp,
            psnr=30 + 4 * math.log(bpp) + (-gain if image == "x" else gain),
            lpips=0.1 - 0.01 * math.log(bpp),
        )
        for codec in ("run", "jpeg")
        for image in images
        for point, bpp in names
    ]  # fmt: skip
    of_set = {"codec": "run", "metric": "fid", "not_measured": None, "protocol": {"patches": 8}}
    sets = [of_set | {"point": p, "value": fid - math.log(bpp)} for p, bpp in names if fid]
    return report_results.results(rows, len(images), sets)


def test_the_winner_is_told_by_image_and_in_total():
    found = compare(results(0.0), results(0.5))
    psnr, matched = psnr_of(found), psnr_of(found)["matched"]
    winners = [(m["image"], m["winner"]) for m in matched["images"]]
    assert winners == [("x", "a"), ("y", "b"), ("z", "b")]
    assert matched["wins"] == {"a": 1, "b": 2, "tie": 0}
    assert matched["mean"]["value"] == pytest.approx(0.5 / 3, abs=1e-9)
    # 4 ln bpp rises by 0.5/3 dB over a factor of exp(0.5/12).
    rate = 100 * (math.exp(-0.5 / 12) - 1)
    assert psnr["bd_rate"]["value"] == pytest.approx(rate, abs=1e-6)
    lpips = found["pairs"][0]["metrics"]["lpips_alex"]
    assert lpips["matched"]["wins"] == {"a": 0, "b": 0, "tie": 3}
    assert json.loads(json.dumps(found)) == found and not found["notes"]


def test_the_text_names_both_runs_and_every_image():
    text = format_comparison(compare(results(0.0), results(0.5), ("runs/a", "runs/b")))
    assert text.startswith("A = runs/a, B = runs/b: 3 images in both")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["PSNR"][:6] == ["PSNR", "dB", "higher", "1", "2", "0"]
    assert "+0.17" in lines["PSNR"] and "-4.1" in lines["PSNR"]
    assert lines["x"] == ["x", "0.100", "to", "0.400", "A", "-0.50", "=", "+0.0000"]
    assert lines["y"][4:6] == ["B", "+0.50"]


def test_each_detail_is_compared_with_the_same_detail_and_single_curves_in_any_case():
    found = compare(results(0.0, (0, 1)), results(0.5, (1, 0.5)))
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("run, detail=1",) * 2]
    assert found["notes"] == ["run and run do not both have detail=0, detail=0.5: not compared"]
    found = compare(results(0.0), results(0.5, (1,)))
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("run", "run, detail=1")]


def test_images_that_one_run_lacks_take_no_part_and_are_named():
    found = compare(results(0.0), results(0.5, images=("x", "y", "w")), ("a", "b"))
    assert found["images"] == ["x", "y"]
    assert found["notes"] == ["1 images are in a only: z", "1 images are in b only: w"]
    with pytest.raises(UserError, match="a and b share no image: evaluate both on the same ones"):
        compare(results(0.0), results(0.5, images=("u",)), ("a", "b"))


@pytest.mark.parametrize("changed", [{"width": 95}, {"sha256": "of other pixels"}])
def test_an_image_of_another_size_or_of_other_pixels_is_another_image(changed):
    b = results(0.5)
    for row in b["rows"]:
        row |= changed if row["image"] == "y" else {}
    found = compare(results(0.0), b)
    assert found["images"] == ["x", "z"]
    assert found["notes"][0] == "1 images are in A only or another picture: y"


def test_metrics_of_sets_are_compared_under_the_same_protocol_and_images_only():
    a, b = results(0.0, fid=5.0), results(0.5, fid=4.0)
    matched = compare(a, b)["pairs"][0]["sets"]["fid"]["matched"]
    assert matched["wins"] == {"a": 0, "b": 1, "tie": 0}
    assert matched["mean"]["value"] == pytest.approx(-1)
    assert "FID" in format_comparison(compare(a, b))
    for entry in b["sets"]:
        entry["protocol"] = {"patches": 9}
    for other, reason in ((b, "protocols"), (results(0.5, images=("x", "y"), fid=4.0), "images")):
        of_sets = compare(a, other)["pairs"][0]["sets"]
        assert of_sets["fid"]["not_measured"] == f"the two have different {reason}"


def test_what_was_not_measured_or_means_something_else_is_told_and_not_counted():
    a, b = results(0.0), results(0.5)
    a["metrics"]["lpips_alex"]["not_measured"] = "no weights"
    for row in b["rows"]:
        row["bpp"] *= 10 if row["image"] == "z" else 1
        row["values"]["psnr"] = None if row["image"] == "y" else row["values"]["psnr"]
    found = compare(a, b)
    assert found["notes"] == ["LPIPS: not measured: no weights"]
    text = format_comparison(found)
    assert "z: not compared: no rate in common: 0.100 to 0.400 and 1.000 to 4.000 bpp" in text
    assert "y: not compared: the metric was not measured for both (PSNR)" in text
    assert psnr_of(found)["matched"]["wins"] == {"a": 1, "b": 0, "tie": 0}
    a["metrics"]["lpips_alex"] |= {"not_measured": None, "reference": "version 0.2"}
    found = compare(a, b)
    assert found["notes"] == ["LPIPS: not compared: the two were defined differently"]
    assert list(found["pairs"][0]["metrics"]) == ["psnr"]
    b["codecs"]["run"]["kind"] = "control"
    with pytest.raises(UserError, match="B has no measured rows of a model: evaluate one there"):
        compare(a, b)


def test_nothing_in_common_is_told_without_a_number():
    b = results(0.5)
    for row in b["rows"]:
        row["bpp"] *= 100
        row["values"]["psnr"] += 100
    text = format_comparison(compare(results(0.0), b))
    assert "no BD-rate: the curves share no qualities (PSNR)" in text
    line = next(line for line in text.splitlines() if line.startswith("PSNR"))
    assert line.split() == ["PSNR", "dB", "higher", "0", "0", "0", "-", "-"]
