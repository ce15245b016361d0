"""The demo's promises, on the results that `make demo` leaves behind."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fa_hific_jax.evaluation import explained
from fa_hific_jax.evaluation.results import columns, flat_means, read_results

FOLDER = Path(os.environ.get("FA_HIFIC_DEMO", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("FA_HIFIC_DEMO"),
    reason="set FA_HIFIC_DEMO to the workdir of a finished `make demo`",
)


@pytest.fixture(scope="module", params=["codecs", "evaluation"])
def results(request):
    return read_results(FOLDER / request.param / "results.json")


def test_classical_codecs_take_as_many_bytes():
    lite, *others = read_results(FOLDER / "codecs" / "results.json")["means"]
    assert [m["codec"].split("-")[0] for m in others] == ["jpeg", "webp", "avif"]
    for other in others:
        assert other["bpp"] == pytest.approx(lite["bpp"], rel=explained.SAME_RATE)


def test_nothing_was_skipped_and_lpips_and_fd_alex_come_first(results):
    assert results["meta"]["skipped"] == results["meta"]["failed"] == []
    assert columns(results)[1][2:4] == ["lpips_alex", "fd_alex"]


def test_the_spectrum_comes_closer_and_nothing_else_is_lost():
    before, after = flat_means(read_results(FOLDER / "evaluation" / "results.json"))
    assert before["bpp"] == after["bpp"]
    assert after["lsd"] < before["lsd"] - 1
    assert abs(after["band_high"]) < abs(before["band_high"]) - 1
    assert after["psnr"] > before["psnr"] - 0.5
    assert after["lpips_alex"] < before["lpips_alex"] + 0.01


def test_pictures_and_reports_are_there():
    pictures = sorted((FOLDER / "compared").glob("*_compare.png"))
    assert len(pictures) == 3
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width > 900
    pages = [path.with_suffix(".html") for path in pictures]
    for page in [*pages, *(FOLDER / name / "report.html" for name in ("codecs", "evaluation"))]:
        assert page.stat().st_size > 100_000
