"""Integer hyper-synthesis: the same bits however it is computed, and the rate of the float one."""

import functools
import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.entropy import tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.hyperprior import HyperSynthesis

# SHA-256 of the means, little-endian float32, and of the rows, for a model of `dyadic` weights.
GOLDEN_MEAN = "c89a9a6f5a12c46a90ef41976e5dfd9a7cc53b6a2a44004e2ee09aa9e005cc2d"
GOLDEN_INDEXES = "247546d4b768ebb900f043764119728a69e064c5b49eaeed356f1dcc5c3372ab"


def hyperprior(seed: int, cz: int, hidden: int, cy: int, draw) -> dict:
    """Parameters of both networks, `draw(rng, shape, fan_in)` giving kernels and biases."""
    rng = np.random.RandomState(seed)

    def layer(side, inputs, outputs):
        shape = (side, side, inputs, outputs)
        return {"kernel": draw(rng, shape, side**2 * inputs), "bias": draw(rng, (outputs,), 1)}

    return {
        name: {
            "up0": layer(5, cz, hidden),
            "up1": layer(5, hidden, hidden),
            "conv2": {"Conv_0": layer(3, hidden, cy)},
        }
        for name in ("synthesis_mean", "synthesis_scale")
    }


def dyadic(rng: np.random.RandomState, shape, fan_in):
    """Multiples of 2**-12, the same on every machine."""
    del fan_in
    return (rng.randint(-600, 700, shape) / 4096).astype(np.float32)


def gaussian(rng: np.random.RandomState, shape, fan_in):
    return (rng.normal(0, 2 / np.sqrt(fan_in), shape)).astype(np.float32)


def latents(seed: int, *shape: int, largest: int = 9) -> np.ndarray:
    rng = np.random.RandomState(seed)
    return rng.randint(-largest, largest + 1, shape).astype(np.int32)


@functools.cache
def small(draw=dyadic, cz=5, hidden=6, cy=4) -> integers.IntegerSynthesis:
    return integers.quantize_synthesis(hyperprior(0, cz, hidden, cy, draw), latents(1, 2, 3, 4, cz))


def correlate_in_int64(x, kernel):
    side = kernel.shape[0]
    height, width = x.shape[0] - side + 1, x.shape[1] - side + 1
    sums = np.zeros((height, width, kernel.shape[-1]), np.int64)
    for i, j in np.ndindex(height, width):
        patch = x[i : i + side, j : j + side, :, None]
        sums[i, j] = np.sum(patch * kernel.astype(np.int64), axis=(0, 1, 2))
    return sums


def sums_in_int64(network: integers.Network, z: np.ndarray) -> np.ndarray:
    """The definition, a correlation of the zero-dilated input, in int64 and shifts."""
    x = np.clip(z.astype(np.int64), -(2**15 - 1), 2**15 - 1)
    for layer in (network.up0, network.up1):
        dilated = np.zeros((2 * x.shape[0], 2 * x.shape[1], x.shape[2]), np.int64)
        dilated[::2, ::2] = x
        sums = correlate_in_int64(np.pad(dilated, ((2, 2), (2, 2), (0, 0))), layer.kernel)
        # Shifts to the left would overflow before they saturate.
        sums = np.clip(sums + layer.bias, 0, None)
        shifted = [
            [min(int(v) >> s if s >= 0 else int(v) << -s, 2**22) for v in sums[..., c].ravel()]
            for c, s in enumerate(layer.shift.tolist())
        ]
        x = np.array(shifted, np.int64).T.reshape(sums.shape)
    return correlate_in_int64(np.pad(x, ((1, 1), (1, 1), (0, 0))), network.conv2.kernel) + (
        network.conv2.bias
    )


def parameters_in_int64(synthesis: integers.IntegerSynthesis, z: np.ndarray):
    mean, scale = sums_in_int64(synthesis.mean, z), sums_in_int64(synthesis.scale, z)
    shift = synthesis.mean.conv2.shift.tolist()
    mean = [
        [v / Fraction(2) ** s for v, s in zip(row, shift, strict=True)]
        for row in mean.reshape(-1, len(shift)).tolist()
    ]
    mean = np.array([[float(v) for v in row] for row in mean]).astype(np.float32)
    rows = np.sum(scale[..., None] > synthesis.thresholds, axis=-1)
    return mean.reshape(scale.shape), rows.astype(np.uint8)


def assert_same(got, want):
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def float_parameters(params: dict, z: np.ndarray):
    """Mean and scale of the float network, the scale not yet bounded."""
    outputs = []
    for name in ("synthesis_mean", "synthesis_scale"):
        hidden, cy = params[name]["conv2"]["Conv_0"]["kernel"].shape[2:]
        network = HyperSynthesis(hidden, cy, 0.0)
        out = network.apply({"params": params[name]}, jnp.asarray(z[None], jnp.float32))
        outputs.append(np.asarray(out)[0])
    return outputs


@pytest.mark.parametrize("draw", [dyadic, gaussian])
def test_equals_the_definition_in_int64(draw):
    synthesis, z = small(draw), latents(2, 2, 3, 5)
    want = parameters_in_int64(synthesis, z)
    assert_same(integers.parameters(synthesis, z), want)
    assert len(np.unique(want[1])) > 10
    assert len(np.unique(want[0])) > 90


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_shape_any_integers_and_any_strips_equal_the_definition(data):
    hz, wz = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    largest = data.draw(st.sampled_from([1, 2**10, 2**31 - 1]))
    z = latents(data.draw(st.integers(0, 99)), hz, wz, 5, largest=largest)
    want = parameters_in_int64(small(), z)
    strip = data.draw(st.integers(1, 4 * hz))
    assert_same(integers.parameters(small(), z, strip), want)


def test_extreme_latents_and_weights_saturate_and_stay_exact():
    z = np.where(latents(3, 2, 2, 5) > 0, 2**31 - 1, -(2**31)).astype(np.int32)
    same = np.clip(z, -(2**15 - 1), 2**15 - 1)
    assert_same(integers.parameters(small(), z), integers.parameters(small(), same))

    def huge(rng, shape, fan_in):
        return np.where(dyadic(rng, shape, fan_in) > 0, 1000.0, -900.0)

    synthesis = integers.quantize_synthesis(
        hyperprior(0, 5, 6, 4, huge), np.zeros((1, 1, 1, 5), np.int32)
    )
    mean, indexes = integers.parameters(synthesis, z)
    assert_same((mean, indexes), parameters_in_int64(synthesis, z))
    assert np.isfinite(mean).all()


def test_result_does_not_depend_on_the_order_of_channels():
    synthesis, z = small(gaussian, 32, 32, 8), latents(4, 5, 4, 32)
    rng = np.random.RandomState(0)
    inputs, *hidden = (rng.permutation(32) for _ in range(5))

    def shuffled(network, first, second):
        up0, up1, conv2 = network
        return integers.Network(
            integers.Layer(up0.kernel[:, :, inputs][..., first], up0.bias[first], up0.shift[first]),
            integers.Layer(
                up1.kernel[:, :, first][..., second], up1.bias[second], up1.shift[second]
            ),
            integers.Layer(conv2.kernel[:, :, second], conv2.bias, conv2.shift),
        )

    other = integers.IntegerSynthesis(
        shuffled(synthesis.mean, *hidden[:2]),
        shuffled(synthesis.scale, *hidden[2:]),
        synthesis.thresholds,
    )
    want = integers.parameters(synthesis, z)
    assert_same(integers.parameters(other, z[..., inputs]), want)
    assert len(np.unique(want[1])) > 5


def test_one_thread_gives_the_bits_of_many(tmp_path):
    # Matrices large enough for BLAS to divide them among the threads of this process.
    synthesis, z = small(gaussian, 64, 64, 32), latents(5, 12, 12, 64)
    np.savez(tmp_path / "model.npz", z=z, **integers.to_arrays(synthesis))
    code = (
        "import sys, hashlib, numpy; "
        "from fa_hific_jax.codec.integer_synthesis import from_arrays, parameters; "
        "arrays = numpy.load(sys.argv[1]); "
        "mean, rows = parameters(from_arrays(arrays), arrays['z']); "
        "print(hashlib.sha256(mean.tobytes() + rows.tobytes()).hexdigest())"
    )
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.npz"],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | dict.fromkeys(variables, "1"),
        capture_output=True,
        text=True,
        check=True,
    )
    mean, indexes = integers.parameters(synthesis, z)
    assert done.stdout.strip() == hashlib.sha256(mean.tobytes() + indexes.tobytes()).hexdigest()


def test_bits_are_those_of_the_first_release():
    mean, indexes = integers.parameters(small(), latents(6, 3, 2, 5))
    assert hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest() == GOLDEN_MEAN
    assert hashlib.sha256(indexes.tobytes()).hexdigest() == GOLDEN_INDEXES


def test_memory_does_not_grow_with_the_number_of_rows(monkeypatch):
    z = latents(7, 6, 3, 5)
    want = integers.parameters(small(), z)
    monkeypatch.setattr(integers, "STRIP", 1)
    heights = []
    correlate = integers._correlate
    monkeypatch.setattr(
        integers,
        "_correlate",
        lambda x, kernel: heights.append(len(x)) or correlate(x, kernel),
    )
    assert_same(integers.parameters(small(), z), want)
    assert max(heights) <= 6


def test_thresholds_lie_between_the_sums_just_below_and_above_each_entry_of_the_table():
    synthesis = small(gaussian)
    for shift, edges in zip(
        synthesis.scale.conv2.shift.tolist(), synthesis.thresholds.tolist(), strict=True
    ):
        for entry, edge in zip(SCALE_TABLE[:-1].tolist(), edges, strict=True):
            assert Fraction(edge) / 2**shift <= Fraction(entry) < Fraction(edge + 1) / 2**shift


# Trained-like models: scales from the smallest of the table to 30, latents drawn from them.


@functools.cache
def trained_like() -> dict:
    params = hyperprior(8, 16, 24, 12, gaussian)
    mean, scale = float_parameters(params, prior_draws()[0])
    for name, output, spread, center in (
        ("synthesis_mean", mean, 3.0, 0.0),
        ("synthesis_scale", scale, 8.0, 6.0),
    ):
        last = params[name]["conv2"]["Conv_0"]
        gain = (spread / output.std(axis=(0, 1))).astype(np.float32)
        last["bias"] = (last["bias"] - output.mean(axis=(0, 1))) * gain + np.float32(center)
        last["kernel"] = last["kernel"] * gain
    return params


@functools.cache
def prior_tables() -> tables.Tables:
    center, spread = np.linspace(-2, 3, 16), np.geomspace(0.1, 6, 16)
    return tables.factorized_tables(lambda v: (v - center[:, None]) / spread[:, None], 16)


def prior_draws(seed: int = 9) -> np.ndarray:
    return integers.calibration_latents(prior_tables(), (1, 12, 12), seed)


def code_length(y, mean, indexes) -> float:
    symbols = np.floor(y - mean + 0.5).astype(np.int32)
    rows = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
    return tables.ideal_bits(symbols.ravel(), indexes.ravel().astype(np.int32), rows)


def correlated_draws() -> np.ndarray:
    """Neighbors that go together make activations larger than independent draws do."""
    return np.broadcast_to(prior_draws()[0, :, :1], (12, 12, 16)).copy()


@pytest.mark.parametrize("calibration", ["images", "prior", "zeros"])
@pytest.mark.parametrize("z", [prior_draws()[0], correlated_draws()], ids=["drawn", "correlated"])
def test_rate_and_parameters_are_those_of_the_float_network(calibration, z):
    mean, scale = float_parameters(trained_like(), z)
    scale = np.maximum(scale, SCALE_TABLE[0])
    assert np.mean(scale == SCALE_TABLE[0]) > 0.05
    assert scale.max() > 25
    y = mean + scale * np.random.default_rng(0).standard_normal(scale.shape)
    calibrations = {
        "images": (z, z[:5]),
        "prior": integers.calibration_latents(prior_tables()),
        "zeros": np.zeros((1, 1, 1, 16), np.int32),
    }
    synthesis = integers.quantize_synthesis(trained_like(), calibrations[calibration])
    exact_mean, indexes = integers.parameters(synthesis, z)
    float_indexes = tables.scale_indexes(scale, SCALE_TABLE)
    difference = np.abs(exact_mean - mean)
    assert np.max(difference / scale) <= 2e-2
    assert np.max(np.abs(indexes.astype(int) - float_indexes)) <= 1
    length = code_length(y, exact_mean, indexes)
    assert length == pytest.approx(code_length(y, mean, float_indexes), rel=5e-4)


def test_calibration_follows_the_prior_and_its_seed():
    drawn = integers.calibration_latents(prior_tables(), (4, 20, 20))
    assert drawn.shape == (4, 20, 20, 16)
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(drawn, integers.calibration_latents(prior_tables(), (4, 20, 20)))
    assert np.any(drawn != integers.calibration_latents(prior_tables(), (4, 20, 20), seed=1))
    # 1600 draws of each channel: means within four standard errors of those of the tables.
    for channel, (cdf, length) in enumerate(zip(*prior_tables()[::2], strict=True)):
        pmf = np.diff(cdf[:length]) / 2**16
        symbols = prior_tables().offset[channel] + np.arange(length - 1)
        center = np.sum(pmf * symbols)
        deviation = np.sqrt(np.sum(pmf * (symbols - center) ** 2))
        assert abs(drawn[..., channel].mean() - center) <= 4 * deviation / np.sqrt(1600)
        assert np.isin(drawn[..., channel], symbols).all()


def test_quantizing_twice_gives_the_same_arrays_and_they_survive_a_round_trip():
    params, z = hyperprior(0, 5, 6, 4, gaussian), latents(1, 2, 3, 4, 5)
    arrays = integers.to_arrays(integers.quantize_synthesis(params, z))
    again = integers.to_arrays(integers.from_arrays(arrays))
    listed = integers.to_arrays(integers.quantize_synthesis(params, list(z)))
    assert arrays.keys() == again.keys() == listed.keys()
    for key, array in arrays.items():
        assert_same((again[key], listed[key]), (array, array))


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("mean.up0.bias", None, "mean.up0.bias is missing"),
        (
            "scale.up1.kernel",
            lambda a: a.astype(np.int32),
            r"scale.up1.kernel is int32 \(5, 5, 6, 6\), not int16 \(5, 5, 6, any\)",
        ),
        (
            "mean.conv2.kernel",
            lambda a: a[:, :, 1:],
            r"mean.conv2.kernel is int16 \(3, 3, 5, 4\), not int16 \(3, 3, 6, any\)",
        ),
        ("thresholds", lambda a: a[:, 1:], r"thresholds is int64 \(4, 62\), not int64 \(4, 63\)"),
        ("thresholds", lambda a: -a, "thresholds is not sorted"),
        ("mean.up1.bias", lambda a: a + 2**53, r"sums of up1 reach 2\*\*53"),
        ("mean.up1.bias", lambda a: a * 0 + np.iinfo(np.int64).min, r"sums of up1 reach 2\*\*53"),
        ("scale.conv2.shift", lambda a: a + np.int32(90), "conv2.shift exceeds 64"),
    ],
)
def test_unusable_arrays_are_named(key, change, reason):
    arrays = integers.to_arrays(small())
    value = arrays.pop(key)
    if change:
        arrays[key] = change(value)
    sentence = f"^the integer hyper-synthesis is unusable, {reason}: export it again"
    with pytest.raises(UserError, match=sentence):
        integers.from_arrays(arrays)


def test_networks_of_different_widths_are_refused():
    arrays = integers.to_arrays(small())
    other = integers.to_arrays(small(dyadic, 5, 6, 3))
    mixed = arrays | {key: array for key, array in other.items() if key.startswith("mean")}
    with pytest.raises(UserError, match="conv2.kernel has 3 channels for mean, 4 for scale"):
        integers.from_arrays(mixed)


def test_weights_that_are_not_finite_and_absent_calibrations_are_refused():
    params = hyperprior(0, 5, 6, 4, gaussian)
    with pytest.raises(UserError, match="^the calibration holds no hyper-latents: give at"):
        integers.quantize_synthesis(params, [])
    params["synthesis_scale"]["up1"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(
        UserError, match="^the weights of up1 in the hyper-synthesis are not finite"
    ):
        integers.quantize_synthesis(params, latents(1, 1, 2, 2, 5))


def test_arrays_of_no_model_in_sight_cannot_overflow_at_the_widths_of_the_paper():
    # The widest sums of the paper: 9 taps of 320 channels, all weights at their largest.
    layer = integers.Layer(
        np.full((3, 3, 320, 1), -(2**15), np.int16), np.array([2**48]), np.zeros(1, np.int32)
    )
    up = integers.Layer(
        np.zeros((5, 5, 320, 320), np.int16), np.zeros(320, np.int64), np.zeros(320, np.int32)
    )
    network = integers.Network(up, up, layer)
    integers._check_sums(integers.IntegerSynthesis(network, network, np.zeros((1, 63), np.int64)))
