"""BD-rate, BD-metric, their intervals, equal rates: closed forms, and no number without cause."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from fa_hific_jax.evaluation.paired import bootstrap, matched_rate, mean_interval
from fa_hific_jax.evaluation.rate_distortion import bd_metric, bd_rate, curve, families, of_arrays

BPP = (0.1, 0.2, 0.4, 0.8)
PSNR = (28, 30, 33, 35)


def made(bpp, values, better="higher"):
    return of_arrays(np.array(bpp, float), np.array(values, float), better)


def rows(codec: str, table: dict[str, list[tuple[float, float | None]]]) -> list[dict]:
    """table: image -> (bpp, psnr) of its points."""
    return [
        {"codec": codec, "image": image, "point": f"quality {i}", "bpp": bpp, "values": {"psnr": v}}
        for image, points in table.items()
        for i, (bpp, v) in enumerate(points)
    ]


def line(slope: float, at_one: float, bpp=BPP) -> list[tuple[float, float]]:
    """psnr = at_one + slope ln bpp, which PCHIP over ln bpp follows exactly."""
    return [(b, at_one + slope * math.log(b)) for b in bpp]


@pytest.mark.parametrize("factor", [0.5, 1.25])
def test_a_curve_at_a_factor_of_the_rate_has_that_bd_rate(factor):
    found = bd_rate(made(BPP, PSNR), made([factor * r for r in BPP], PSNR))
    assert found.value == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (found.low, found.high, found.share, found.dropped) == (28, 35, 1, 0)


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_a_curve_higher_by_a_constant_has_that_bd_metric(better, sign):
    values = np.array([0.9, 0.6, 0.4, 0.3]) * -sign
    found = bd_metric(made(BPP, values, better), made(BPP, values + 0.05, better))
    assert found.value == pytest.approx(0.05, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.8))


def test_a_signed_error_counts_by_its_size():
    signed, sizes = (
        bd_metric(made(BPP, a, better), made(BPP, [2, 1.5, 1, 0.5], better)).value
        for a, better in (([-4, -3, -2, -1], "zero"), ([4, 3, 2, 1], "lower"))
    )
    assert signed == pytest.approx(sizes) and signed < 0


# The example of the package bjontegaard's page: x265 with two presets, kbit/s and PSNR.
X265 = (
    ([1358.24, 2486.44, 4593.60, 9487.76], [34.851, 36.845, 38.615, 40.037]),
    ([1356.24, 2451.52, 4469.00, 9787.80], [34.987, 36.970, 38.651, 40.121]),
)


def test_bd_numbers_are_those_of_the_definition_and_of_the_package_bjontegaard():
    a, b = (made(*each) for each in X265)
    # Cubic Hermite pieces with Fritsch and Butland's slopes, integrated by Simpson's rule.
    assert bd_rate(a, b).value == pytest.approx(-4.4174853506, abs=1e-9)
    assert bd_metric(a, b).value == pytest.approx(0.1196927854, abs=1e-9)
    package = pytest.importorskip("bjontegaard", reason="of the extra test")
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    both = (a.bpp, a.scores, b.bpp, b.scores)
    assert bd_rate(a, b).value == package.bd_rate(*both, **options)
    assert bd_metric(a, b).value == package.bd_psnr(*both, **options)


steps = st.floats(0.05, 2.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(steps, steps), min_size=3, max_size=6), steps, steps)
def test_bd_rate_undoes_itself_and_scales_with_the_rate(points, shift, stretch):
    log_bpp, values = np.cumsum(np.array(points).T, axis=1)
    a, b = made(np.exp(log_bpp), values), made(np.exp(stretch * log_bpp + shift), values)
    there, back = bd_rate(a, b).value, bd_rate(b, a).value
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1, rel=1e-9)
    half = bd_rate(a, made(b.bpp / 2, values)).value
    assert 1 + half / 100 == pytest.approx((1 + there / 100) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("number", "b", "reason"),
    [
        (bd_rate, made(BPP, [35, 37, 39, 41]), "the curves share no qualities"),  # only an end
        (bd_rate, made(BPP, [34, 37, 39, 41]), "share only 14% of the qualities of the shorter"),
        (bd_rate, made(BPP[:2], [28, 30]), "a curve has 2 usable points where 3 are needed"),
        (bd_rate, made([], []), "a curve has 0 usable points where 3 are needed"),
        (bd_metric, made([1, 2, 4], [28, 30, 33]), "the curves share no rates"),
    ],
)
def test_bd_numbers_need_something_in_common(number, b, reason):
    found = number(made(BPP, PSNR), b)
    assert found.value is None and reason in found.reason


def test_points_that_do_no_better_than_a_cheaper_one_are_left_out_of_bd_rate_and_counted():
    whole = made([0.1, 0.2, 0.3, 0.4, 0.5, 0.8], [28, 30, 29.5, 33, 33, 35])
    kept = made(BPP, PSNR)
    assert bd_rate(kept, whole).value == pytest.approx(0, abs=1e-9)
    assert bd_rate(kept, whole).dropped == 2
    assert bd_metric(kept, whole).value < 0  # which averages over the rate and keeps the dent


def test_a_curve_takes_measured_points_in_order_of_rate_and_the_best_at_equal_rate():
    points = [(0.4, 31.0), (0.2, 29.0), (0.3, None), (0.2, 30.0), (None, 40.0)]
    points = [{"bpp": bpp, "values": {"psnr": psnr}} for bpp, psnr in points]
    found = curve([*points, {"bpp": 0.5, "values": {}}], "psnr", "higher")
    np.testing.assert_array_equal(found.bpp, [0.2, 0.4])
    np.testing.assert_array_equal(found.scores, [30, 31])


def test_each_detail_of_a_decoder_has_a_curve_of_its_own():
    names = ["q=0,detail=0", "q=0,detail=1", "q=1,detail=0", "quality 40", "q=0.5", ""]
    found = families({"point": name} for name in names)
    assert {family: [p["point"] for p in points] for family, points in found.items()} == {
        "detail=0": ["q=0,detail=0", "q=1,detail=0"],
        "detail=1": ["q=0,detail=1"],
        "": ["quality 40", "q=0.5", ""],
    }


def noisy(offset: float, seed: int) -> dict:
    """A dozen images that differ much, under a codec that is better by about `offset`."""
    images = np.random.default_rng(0).normal(scale=3, size=12)
    noise = 0.1 * np.random.default_rng(seed).normal(size=12)
    return {f"image{i}": line(4, 38 + at + offset) for i, at in enumerate(images + noise)}


def test_the_interval_is_of_paired_images_and_so_narrower_than_their_spread():
    found, again, other = (
        interval(noisy(0, 1), noisy(0.5, 2), bd_metric, seed=seed, resamples=200)
        for seed in (3, 3, 4)
    )
    assert found.images == 12 and found.reason is None and found.low < found.value < found.high
    assert found.low < 0.5 < found.high and found.high - found.low < 0.3
    assert found == again and found[1:3] != other[1:3] and found.value == other.value


def interval(a: dict, b: dict, statistic=bd_rate, seed=0, resamples=50):
    """Of two tables as in `rows`."""
    of_both = rows("a", a), rows("b", b)
    return bootstrap(*of_both, "psnr", "higher", statistic, seed=seed, resamples=resamples)


def test_missing_values_leave_out_images_or_points_but_never_count_as_numbers():
    whole = {f"image{i}": line(4, 30 + i) for i in range(4)}
    gaps = dict(whole)
    gaps["image0"] = [(b, None) for b, _ in whole["image0"]]  # an image without the metric
    gaps["image1"] = [*whole["image1"][:3], (0.8, None)]  # identical at the last point: infinite
    for table, images in ((whole, 4), (gaps, 3)):
        found = interval(whole, table)
        assert found.images == images and found.value == pytest.approx(0, abs=1e-9)
    nothing = interval(whole, {})
    assert nothing.value is None and nothing.reason == "no image was measured with both"


def test_resamples_without_a_number_leave_the_interval_out():
    # Drawn alone, half of the images of the second share no quality with those of the first.
    a = {"low": line(1, 20), "high": line(1, 60)}
    found = interval(a, {"low": line(1, 80), "high": line(1, 0)}, resamples=40)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.low is None and "of 40 resamples have too little in common" in found.reason


def test_the_mean_of_differences_has_the_interval_of_its_normal_limit():
    differences = np.random.default_rng(0).normal(loc=0.3, scale=1.0, size=400)
    found = mean_interval(differences, seed=1, resamples=4000)
    half = 1.96 * differences.std() / 20
    assert found.value == pytest.approx(differences.mean(), rel=1e-12)
    np.testing.assert_allclose([found.value - found.low, found.high - found.value], half, rtol=0.06)
    assert mean_interval(differences[:1], seed=1).low is None


def one(a: list, b: list, better="higher"):
    """The comparison of a single image."""
    return matched_rate(rows("a", {"x": a}), rows("b", {"x": b}), "psnr", better, seed=0)


BENT = list(zip(BPP, [28, 31, 32, 36], strict=True))


def test_the_mean_of_bent_curves_is_that_of_bd_metric():
    values = [29, 30, 34, 35]
    expected = bd_metric(made(*zip(*BENT, strict=True)), made(BPP, values)).value
    (match,) = one(BENT, list(zip(BPP, values, strict=True))).images
    assert match.difference == pytest.approx(expected, abs=1e-12)


def test_curves_are_averaged_over_the_rates_they_share_or_compared_where_they_nearly_meet():
    (match,) = one(line(4, 30, (0.1, 0.2, 0.4)), line(4, 31, (0.2, 0.3, 0.8))).images
    assert match.bpp == (0.2, 0.4) and match.winner == "b"
    assert match.difference == pytest.approx(1, abs=1e-9)
    assert match.a == pytest.approx(30 + 4 * (math.log(0.2) + math.log(0.4)) / 2, abs=1e-9)
    (match,) = one(line(4, 30, (0.1, 0.2)), line(4, 30, (0.206, 0.4))).images
    assert match.difference == pytest.approx(4 * math.log(0.206 / 0.2), abs=1e-9)
    expected = PchipInterpolator(*np.array([(math.log(b), v) for b, v in BENT]).T)(math.log(0.3))
    (match,) = one(BENT, [(0.3, 33.0)]).images
    assert (match.bpp, match.b) == ((0.3, 0.3), 33.0)
    assert match.a == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "compared"), [(0.3, True), (0.314, True), (0.286, True), (0.316, False), (0.2, False)]
)
def test_two_points_are_compared_only_at_rates_that_pass_for_equal(rate, compared):
    found = one([(0.3, 30.0)], [(rate, 30.5)])
    if compared:
        assert found.images[0].bpp == (min(0.3, rate), max(0.3, rate))
        assert found.wins == {"a": 0, "b": 1, "tie": 0} and found.mean.value == 0.5
    else:
        assert not found.images and found.mean.value is None
        assert found.not_measured["x"].startswith("no rate in common: 0.300 to 0.300 and")


def test_winners_follow_what_is_better_and_images_without_a_partner_are_named():
    a = {"x": line(4, 30), "y": line(4, 32), "z": line(4, 33), "v": BENT, "w": BENT}
    b = {"x": line(4, 31), "y": line(4, 31), "z": line(4, 33), "v": [(0.2, None)]}
    for better, winners in (("higher", ["b", "a", "tie"]), ("lower", ["a", "b", "tie"])):
        found = matched_rate(rows("a", a), rows("b", b), "psnr", better, seed=0)
        assert [match.winner for match in found.images] == winners
        assert found.wins == {"a": 1, "b": 1, "tie": 1}
        assert found.mean.value == pytest.approx(0, abs=1e-12)
    assert found.not_measured == {
        "v": "the metric was not measured for both",
        "w": "coded by one of the two only",
    }


curves = st.lists(st.tuples(steps, steps), min_size=1, max_size=5).map(
    lambda points: [tuple(point) for point in np.cumsum(points, axis=0)]
)


@settings(deadline=None, max_examples=40)
@given(curves, curves, st.sampled_from(["higher", "lower"]))
def test_exchanging_the_codecs_exchanges_the_winners(a, b, better):
    there, back = one(a, b, better), one(b, a, better)
    assert (there.wins["a"], there.wins["b"]) == (back.wins["b"], back.wins["a"])
    assert len(there.images) + len(there.not_measured) == 1
    for match, mirrored in zip(there.images, back.images, strict=True):
        values = [v for _, v in (*a, *b)]
        assert min(values) - 1e-9 <= min(match.a, match.b)
        assert max(match.a, match.b) <= max(values) + 1e-9
        assert match.difference == pytest.approx(-mirrored.difference, abs=1e-12)
