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


# Closed forms.


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25])
def test_a_curve_at_a_factor_of_the_rate_has_that_bd_rate(factor):
    a, b = made(BPP, [28, 30, 33, 35]), made([factor * r for r in BPP], [28, 30, 33, 35])
    found = bd_rate(a, b)
    assert found.value == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (found.low, found.high, found.share, found.dropped) == (28, 35, 1, 0)


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_a_curve_higher_by_a_constant_has_that_bd_metric(better, sign):
    values = np.array([0.9, 0.6, 0.4, 0.3]) * -sign
    found = bd_metric(made(BPP, values, better), made(BPP, values + 0.05, better))
    assert found.value == pytest.approx(0.05, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.8))


def test_where_lower_is_better_a_lower_curve_saves_rate():
    a, b = made(BPP, [0.2, 0.1, 0.06, 0.04], "lower"), made(BPP, [0.15, 0.08, 0.05, 0.03], "lower")
    assert bd_rate(a, b).value < -5 and bd_metric(a, b).value < 0
    assert bd_rate(a, b).low == 0.04 and bd_rate(a, b).high == 0.15


def test_a_signed_error_counts_by_its_size():
    a, b = made(BPP, [-4, -3, -2, -1], "zero"), made(BPP, [2, 1.5, 1, 0.5], "zero")
    assert bd_metric(a, b).value == pytest.approx(
        bd_metric(made(BPP, [4, 3, 2, 1], "lower"), made(BPP, [2, 1.5, 1, 0.5], "lower")).value
    )
    assert bd_metric(a, b).value < 0


def slopes_by_hand(x, y):
    """Fritsch and Butland's derivatives with the three-point ends of de Boor's pchip."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)

    def end(h0, h1, d0, d1):
        slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
        if np.sign(slope) != np.sign(d0):
            return 0.0
        return 3 * d0 if np.sign(d0) != np.sign(d1) and abs(slope) > 3 * abs(d0) else slope

    inner = []
    for i in range(1, len(x) - 1):
        w0, w1 = 2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]
        same = d[i - 1] * d[i] > 0
        inner.append((w0 + w1) / (w0 / d[i - 1] + w1 / d[i]) if same else 0.0)
    return np.array([end(h[0], h[1], d[0], d[1]), *inner, end(h[-1], h[-2], d[-1], d[-2])])


def mean_by_hand(x, y, low, high, steps=20_000):
    """The mean of the cubic Hermite pieces from low to high, by Simpson's rule."""
    t = np.linspace(low, high, 2 * steps + 1)
    i = np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2)
    m, h = slopes_by_hand(x, y), np.diff(x)
    u = (t - x[i]) / h[i]
    values = (
        (1 + 2 * u) * (1 - u) ** 2 * y[i]
        + u * (1 - u) ** 2 * h[i] * m[i]
        + u**2 * (3 - 2 * u) * y[i + 1]
        + u**2 * (u - 1) * h[i] * m[i + 1]
    )
    weights = np.full(len(t), 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return float(weights @ values / weights.sum())


# The example of the library's page: x265 with two presets, kbit/s.
X265 = (
    ([1358.24, 2486.44, 4593.60, 9487.76], [34.851, 36.845, 38.615, 40.037]),
    ([1356.24, 2451.52, 4469.00, 9787.80], [34.987, 36.970, 38.651, 40.121]),
)


def test_bd_numbers_agree_with_the_definition_worked_out_by_hand():
    (rate_a, psnr_a), (rate_b, psnr_b) = (tuple(map(np.array, each)) for each in X265)
    a, b = made(rate_a, psnr_a), made(rate_b, psnr_b)
    low, high = psnr_b[0], psnr_a[-1]
    log_rates = [
        mean_by_hand(psnr, np.log10(rate), low, high)
        for rate, psnr in ((rate_a, psnr_a), (rate_b, psnr_b))
    ]
    by_hand = 100 * (10 ** (log_rates[1] - log_rates[0]) - 1)
    assert bd_rate(a, b).value == pytest.approx(by_hand, abs=1e-7)
    assert -8 < by_hand < -2
    low, high = np.log10(rate_a[0]), np.log10(rate_a[-1])
    psnrs = [
        mean_by_hand(np.log10(rate), psnr, low, high)
        for rate, psnr in ((rate_a, psnr_a), (rate_b, psnr_b))
    ]
    assert bd_metric(a, b).value == pytest.approx(psnrs[1] - psnrs[0], abs=1e-7)


def test_bd_numbers_are_those_of_the_package_bjontegaard():
    package = pytest.importorskip("bjontegaard", reason="of the extra test")
    a, b = (made(*each) for each in X265)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    both = (a.bpp, a.scores, b.bpp, b.scores)
    assert bd_rate(a, b).value == package.bd_rate(*both, **options)
    assert bd_metric(a, b).value == package.bd_psnr(*both, **options)


steps = st.floats(0.05, 2.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(steps, steps), min_size=3, max_size=6), steps, steps)
def test_bd_rate_undoes_itself_and_scales_with_the_rate(points, shift, stretch):
    log_bpp, values = np.cumsum(np.array(points).T, axis=1)
    a = made(np.exp(log_bpp), values)
    b = made(np.exp(stretch * log_bpp + shift), values)
    there, back = bd_rate(a, b).value, bd_rate(b, a).value
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1, rel=1e-9)
    half = bd_rate(a, made(b.bpp / 2, values)).value
    assert 1 + half / 100 == pytest.approx((1 + there / 100) / 2, rel=1e-9)


# Where there is no number.


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (made(BPP, [40, 41, 42, 43]), "the curves share no qualities"),
        (made(BPP, [35, 37, 39, 41]), "the curves share no qualities"),  # only an end
        (made(BPP, [34, 37, 39, 41]), "share only 14% of the qualities of the shorter one"),
        (made(BPP[:2], [28, 30]), "a curve has 2 usable points where 3 are needed"),
        (made([], []), "a curve has 0 usable points where 3 are needed"),
    ],
)
def test_bd_rate_needs_qualities_in_common(b, reason):
    found = bd_rate(made(BPP, [28, 30, 33, 35]), b)
    assert found.value is None and reason in found.reason


def test_bd_metric_needs_rates_in_common():
    found = bd_metric(made(BPP, [28, 30, 33, 35]), made([1, 2, 4], [28, 30, 33]))
    assert found.value is None and found.reason == "the curves share no rates"


def test_points_that_do_no_better_than_a_cheaper_one_are_left_out_of_bd_rate_and_counted():
    values = [28, 30, 29.5, 33, 33, 35]
    bpp = [0.1, 0.2, 0.3, 0.4, 0.5, 0.8]
    whole, kept = made(bpp, values), made(BPP, [28, 30, 33, 35])
    assert bd_rate(kept, whole).value == pytest.approx(0, abs=1e-9)
    assert bd_rate(kept, whole).dropped == 2
    assert bd_metric(kept, whole).value < 0  # which averages over the rate and keeps the dent


def test_a_curve_takes_measured_points_in_order_of_rate_and_the_best_at_equal_rate():
    points = [
        {"bpp": 0.4, "values": {"psnr": 31.0}},
        {"bpp": 0.2, "values": {"psnr": 29.0}},
        {"bpp": 0.3, "values": {"psnr": None}},
        {"bpp": 0.2, "values": {"psnr": 30.0}},
        {"bpp": None, "values": {"psnr": 40.0}},
        {"bpp": 0.5, "values": {}},
    ]
    found = curve(points, "psnr", "higher")
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


# Intervals.


def noisy(codec: str, offset: float, seed: int, count: int = 12) -> list[dict]:
    generator = np.random.default_rng(seed)
    images = np.random.default_rng(0).normal(scale=3, size=count)  # images differ, codecs little
    return rows(
        codec,
        {
            f"image{i}": line(4, 38 + images[i] + offset + 0.1 * generator.normal())
            for i in range(count)
        },
    )


def test_the_interval_is_of_paired_images_and_so_narrower_than_their_spread():
    a, b = noisy("a", 0, 1), noisy("b", 0.5, 2)
    found = bootstrap(a, b, "psnr", "higher", bd_metric, seed=3, resamples=200)
    assert found.images == 12 and found.reason is None
    assert found.low < found.value < found.high
    assert found.low < 0.5 < found.high and found.high - found.low < 0.3


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    a, b = noisy("a", 0, 1), noisy("b", 0.5, 2)
    first, again, other = (
        bootstrap(a, b, "psnr", "higher", bd_rate, seed=seed, resamples=50) for seed in (3, 3, 4)
    )
    assert first == again and first[1:3] != other[1:3] and first.value == other.value


def test_an_interval_over_identical_differences_has_no_width():
    table = {f"image{i}": line(4, 30 + i) for i in range(5)}
    better = {image: [(b, v + 0.5) for b, v in points] for image, points in table.items()}
    found = bootstrap(
        rows("a", table), rows("b", better), "psnr", "higher", bd_metric, seed=0, resamples=50
    )
    np.testing.assert_allclose([found.value, found.low, found.high], 0.5, atol=1e-9)


def test_missing_values_leave_out_images_or_points_but_never_count_as_numbers():
    table = {f"image{i}": line(4, 30 + i) for i in range(4)}
    whole = bootstrap(
        rows("a", table), rows("b", table), "psnr", "higher", bd_rate, seed=0, resamples=20
    )
    gaps = dict(table)
    gaps["image0"] = [(b, None) for b, _ in gaps["image0"]]  # an image without the metric
    gaps["image1"] = [*gaps["image1"][:3], (0.8, None)]  # identical at the last point: infinite
    found = bootstrap(
        rows("a", table), rows("b", gaps), "psnr", "higher", bd_rate, seed=0, resamples=20
    )
    assert (whole.images, found.images) == (4, 3)
    assert whole.value == pytest.approx(0, abs=1e-9)
    assert found.value == pytest.approx(0, abs=1e-9)
    nothing = bootstrap(rows("a", table), [], "psnr", "higher", bd_rate, seed=0)
    assert nothing.value is None and nothing.reason == "no image was measured with both"


def test_resamples_without_a_number_leave_the_interval_out():
    # Drawn alone, half of the images of `b` share no quality with those of `a`.
    a = rows("a", {"low": line(1, 20), "high": line(1, 60)})
    b = rows("b", {"low": line(1, 80), "high": line(1, 0)})
    found = bootstrap(a, b, "psnr", "higher", bd_rate, seed=0, resamples=40)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.low is None and "of 40 resamples have too little in common" in found.reason


def test_the_mean_of_differences_has_the_interval_of_its_normal_limit():
    differences = np.random.default_rng(0).normal(loc=0.3, scale=1.0, size=400)
    found = mean_interval(differences, seed=1, resamples=4000)
    half = 1.96 * differences.std() / 20
    assert found.value == pytest.approx(differences.mean(), rel=1e-12)
    np.testing.assert_allclose([found.value - found.low, found.high - found.value], half, rtol=0.06)
    assert mean_interval(differences[:1], seed=1).low is None


def test_rows_of_two_codecs_are_not_one_curve():
    both = rows("a", {"x": line(4, 30)}) + rows("b", {"x": line(4, 30)})
    with pytest.raises(ValueError, match="several codecs"):
        bootstrap(both, both, "psnr", "higher", bd_rate, seed=0)


# Equal rates.


def one(a: list, b: list, better="higher", **options):
    return matched_rate(rows("a", {"x": a}), rows("b", {"x": b}), "psnr", better, seed=0, **options)


def test_curves_are_averaged_over_the_rates_they_share():
    (match,) = one(line(4, 30, (0.1, 0.2, 0.4)), line(4, 31, (0.2, 0.3, 0.8))).images
    assert match.bpp == (0.2, 0.4) and match.winner == "b"
    assert match.difference == pytest.approx(1, abs=1e-9)
    assert match.a == pytest.approx(30 + 4 * (math.log(0.2) + math.log(0.4)) / 2, abs=1e-9)


def test_the_mean_of_bent_curves_is_that_of_bd_metric():
    a, b = (
        list(zip(BPP, [28, 31, 32, 36], strict=True)),
        list(zip(BPP, [29, 30, 34, 35], strict=True)),
    )
    expected = bd_metric(made(*zip(*a, strict=True)), made(*zip(*b, strict=True))).value
    assert one(a, b).images[0].difference == pytest.approx(expected, abs=1e-12)


def test_a_single_point_meets_the_other_curve_at_its_rate():
    points = list(zip(BPP, [28, 31, 32, 36], strict=True))
    expected = PchipInterpolator(np.log(BPP), [28, 31, 32, 36])(math.log(0.3))
    (match,) = one(points, [(0.3, 33.0)]).images
    assert match.bpp == (0.3, 0.3) and match.a == pytest.approx(float(expected), abs=1e-12)
    assert match.b == 33.0
    (reversed_match,) = one([(0.3, 33.0)], points).images
    assert reversed_match.difference == pytest.approx(-match.difference)


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


def test_curves_that_nearly_meet_are_compared_at_their_nearest_ends():
    found = one(line(4, 30, (0.1, 0.2)), line(4, 30, (0.206, 0.4)))
    assert found.images[0].difference == pytest.approx(4 * math.log(0.206 / 0.2), abs=1e-9)


def test_winners_follow_what_is_better_and_equal_images_tie():
    table_a = {"x": line(4, 30), "y": line(4, 32), "z": line(4, 33)}
    table_b = {"x": line(4, 31), "y": line(4, 31), "z": line(4, 33)}
    a, b = rows("a", table_a), rows("b", table_b)
    higher, lower = (matched_rate(a, b, "psnr", better, seed=0) for better in ("higher", "lower"))
    assert [match.winner for match in higher.images] == ["b", "a", "tie"]
    assert [match.winner for match in lower.images] == ["a", "b", "tie"]
    assert higher.wins == lower.wins == {"a": 1, "b": 1, "tie": 1}
    assert higher.mean.value == lower.mean.value == pytest.approx(0, abs=1e-12)


def test_images_without_a_partner_are_named_with_the_reason():
    a = rows("a", {"x": line(4, 30), "y": line(4, 30), "z": line(4, 30)})
    b = rows("b", {"x": line(4, 30), "y": [(0.2, None)]})
    found = matched_rate(a, b, "psnr", "higher", seed=0)
    assert [match.image for match in found.images] == ["x"]
    assert found.not_measured == {
        "y": "the metric was not measured for both",
        "z": "coded by one of the two only",
    }


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(steps, steps), min_size=1, max_size=5),
    st.lists(st.tuples(steps, steps), min_size=1, max_size=5),
    st.sampled_from(["higher", "lower"]),
)
def test_exchanging_the_codecs_exchanges_the_winners(a, b, better):
    a, b = (list(zip(*np.cumsum(np.array(each).T, axis=1), strict=True)) for each in (a, b))
    there, back = one(a, b, better), one(b, a, better)
    assert (there.wins["a"], there.wins["b"]) == (back.wins["b"], back.wins["a"])
    assert len(there.images) + len(there.not_measured) == 1
    for match, mirrored in zip(there.images, back.images, strict=True):
        values = [v for _, v in (*a, *b)]
        assert min(values) - 1e-9 <= min(match.a, match.b)
        assert max(match.a, match.b) <= max(values) + 1e-9
        assert match.difference == pytest.approx(-mirrored.difference, abs=1e-12)
