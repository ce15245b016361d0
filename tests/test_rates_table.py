"""Models at a few rates: closed forms of curves, what does not reach a rate, the table."""

import math

import pytest
from report_results import results, row

from benchmarks.rates_table import at_rate, rates_table

RATES = (0.1, 0.2, 0.4, 0.8)


def rows_of(codec: str, offset: float, images=("a", "b", "c"), rates=RATES):
    """Points of psnr = 10 log2(bpp) + 60 + offset, and 1 dB more for each further image."""
    return [
        row(image, codec, f"q={place}", bpp, psnr=10 * math.log2(bpp) + 60 + offset + extra)
        for extra, image in enumerate(images)
        for place, bpp in enumerate(rates)
    ]


@pytest.mark.parametrize("bpp", [0.1, 0.3, 0.8])
def test_a_straight_curve_over_the_logarithm_is_read_exactly(bpp):
    found = at_rate(rows_of("a", 0.0), "psnr", bpp)
    assert found.value.value == pytest.approx(10 * math.log2(bpp) + 61, abs=1e-12)
    assert found.value.images == 3 and found.difference is None


def test_differences_are_paired():
    found = at_rate(rows_of("b", 2.0, rates=(0.1, 0.5)), "psnr", 0.3, rows_of("a", 0.0))
    assert found.difference.value == pytest.approx(2.0, abs=1e-12)
    assert found.difference.low == pytest.approx(2.0, abs=1e-12), "though the images differ"
    assert found.value.low < found.value.value - 0.1


def test_images_that_do_not_reach_the_rate_are_left_out():
    rows = rows_of("b", 0.0) + rows_of("b", 0.0, images=("short",), rates=(0.1, 0.2))
    assert at_rate(rows, "psnr", 0.3).value.images == 3
    nothing = at_rate(rows, "psnr", 0.9)
    assert nothing.value.value is None and nothing.value.images == 0
    assert at_rate(rows, "lpips", 0.3).value.value is None


def results_of(*rows):
    codecs, points = dict.fromkeys(row["codec"] for row in rows), list(enumerate(RATES))
    named = [({"codec": codec, "point": f"q={i}"}, i, bpp) for codec in codecs for i, bpp in points]
    sets = [point | {"metric": "fd_alex", "value": 5.0 - i} for point, i, _ in named]
    return results(list(rows), 3, sets) | {"means": [p | {"bpp": bpp} for p, _, bpp in named]}


def test_the_table_holds_each_against_the_reference():
    few = rows_of("few", 0.0, images=("a", "b"))
    of_all = results_of(*rows_of("hific", 0.0), *rows_of("ours", -1.0), *few)
    table = rates_table(of_all, rates=(0.2, 2.0), metrics=("psnr", "fd_alex"))
    first, second = table.split("\n\n")
    lines = [line.split() for line in first.splitlines()]
    assert lines == [
        ["0.2", "bpp", "PSNR", "dB", "FD-Alex"],
        ["hific", "37.78", "4.00"],
        ["ours", "36.78", "4.00"],
        ["-1.00", "±0.00", "+0.00"],
        ["few", "(2)", "37.28", "4.00"],
        ["+0.00", "±0.00", "+0.00"],
    ]
    assert second.split() == ["2", "bpp", "PSNR", "dB", "FD-Alex"], "nobody reaches it"


def test_a_reference_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no hific among ours"):
        rates_table(results_of(*rows_of("ours", 0.0)))
