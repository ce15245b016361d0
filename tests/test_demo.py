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


@pytest.fixture(scope="module")
def means(results):
    """The mean of each codec at the point it has, or at one of them."""
    return {mean["codec"]: mean for mean in results["means"]}


@pytest.fixture(scope="module")
def ours(results):
    """The id of the trained model: the name of its folder."""
    (model,) = (c for c, about in results["codecs"].items() if about["kind"] == "model")
    return model


def test_coded_size_is_within_a_quarter_of_the_target(results, means, ours):
    bpp, target = means[ours]["bpp"], results["codecs"][ours]["target_bpp"]
    assert 0.75 * target <= bpp <= 1.25 * target


def test_held_out_photographs_reach_20_db(means, ours):
    assert means[ours]["values"]["psnr"] >= 20.0


def test_training_gained_8_db(means, ours):
    untrained = means["untrained"]["values"]["psnr"]
    assert means[ours]["values"]["psnr"] >= untrained + 8.0


def test_estimated_size_is_near_the_coded_one(results, ours):
    rows = [row for row in results["rows"] if row["codec"] == ours]
    assert len(rows) == results["meta"]["count"] == 3
    for row in rows:
        assert row["bpp_estimated"] == pytest.approx(row["bpp"], rel=0.1)


def test_classical_codecs_are_beside_it_at_its_size_and_over_their_range(means, ours):
    for codec in ("jpeg", "webp"):
        # The nearest quality is 2.5 % off for JPEG, which has few settings at so low a rate.
        assert means[f"{codec}-same-size"]["bpp"] == pytest.approx(means[ours]["bpp"], rel=0.1)
        assert codec in means


def test_nothing_was_skipped(results):
    assert results["meta"]["skipped"] == results["meta"]["failed"] == []


def test_report_is_there():
    assert (Path(FOLDER) / "evaluation" / "report.html").stat().st_size > 100_000
