"""The demo's promises, on the results that `make demo` leaves behind."""

import os
from pathlib import Path

import pytest

from fa_hific_jax.evaluation.results import read_results

FOLDER = os.environ.get("FA_HIFIC_DEMO")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="set FA_HIFIC_DEMO to the workdir of a finished `make demo`"
)


@pytest.fixture(scope="module")
def results():
    return read_results(Path(FOLDER) / "evaluation" / "results.json")


def test_coded_size_is_within_a_quarter_of_the_target(results):
    bpp, target = results["mean"]["fa-hific"]["bpp"], results["meta"]["target_bpp"]
    assert 0.75 * target <= bpp <= 1.25 * target


def test_held_out_photographs_reach_20_db(results):
    assert results["mean"]["fa-hific"]["psnr"] >= 20.0


def test_training_gained_8_db(results):
    mean = results["mean"]
    assert mean["fa-hific"]["psnr"] >= mean["untrained"]["psnr"] + 8.0


def test_estimated_size_is_near_the_coded_one(results):
    for row in results["rows"]:
        if row["codec"] == "fa-hific":
            assert row["bpp_estimated"] == pytest.approx(row["bpp"], rel=0.1)


def test_report_is_there(results):
    assert (Path(FOLDER) / "evaluation" / "report.html").stat().st_size > 100_000
