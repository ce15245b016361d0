"""The demo's promises, on the results that `make demo` leaves behind."""

import os
from pathlib import Path

import pytest

from fa_hific_jax.evaluation.results import read_results

FOLDER = os.environ.get("FA_HIFIC_DEMO")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="set FA_HIFIC_DEMO to the workdir of a finished `make demo`"
)
POINTS = ("q=0.2", "q=0.5", "q=0.8")


@pytest.fixture(scope="module")
def results():
    return read_results(Path(FOLDER) / "evaluation" / "results.json")


@pytest.fixture(scope="module")
def means(results):
    """The means of a codec by its points."""
    found = {}
    for mean in results["means"]:
        found.setdefault(mean["codec"], {})[mean["point"]] = mean
    return found


@pytest.mark.parametrize("model", ["lite", "demo"])
def test_a_higher_quality_takes_more_bits_and_gives_a_better_image(means, model):
    rates = [means[model][point]["bpp"] for point in POINTS]
    psnr = [means[model][point]["values"]["psnr"] for point in POINTS]
    assert rates == sorted(rates) and psnr == sorted(psnr)
    assert rates[-1] > 1.5 * rates[0]


def test_two_minutes_of_training_on_lose_nothing(results, means):
    ids = {results["codecs"][model]["model_id"] for model in ("lite", "demo")}
    assert len(ids) == 2, "nothing was trained"
    for point in POINTS:
        before, after = means["lite"][point], means["demo"][point]
        assert after["values"]["psnr"] > before["values"]["psnr"] - 0.5
        assert after["bpp"] < 1.2 * before["bpp"]


def test_estimated_size_is_near_the_coded_one(results):
    rows = [row for row in results["rows"] if row["codec"] == "demo"]
    assert len(rows) == 3 * len(POINTS)
    for row in rows:
        # A symbol far outside its scale costs 30 bits in the estimate, fewer as an escape.
        assert 0.95 < row["bpp_estimated"] / row["bpp"] < 1.25


def test_classical_codecs_are_beside_it_over_its_range(means):
    for codec in ("jpeg", "webp"):
        rates = [mean["bpp"] for mean in means[codec].values()]
        assert min(rates) < means["lite"]["q=0.8"]["bpp"] < max(rates)


def test_nothing_was_skipped(results):
    assert results["meta"]["skipped"] == results["meta"]["failed"] == []


def test_report_is_there():
    assert (Path(FOLDER) / "evaluation" / "report.html").stat().st_size > 100_000
