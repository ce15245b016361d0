"""Integer hyper-synthesis: its bits are those of the definition, its rate is the float one's."""

import functools
import hashlib
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_hific_jax.codec import float_model
from fa_hific_jax.codec import integer_synthesis as integers
from fa_hific_jax.codec.arrays import entropy_arrays, entropy_from_arrays
from fa_hific_jax.codec.coding import EntropyModel
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
    params = hyperprior(0, cz, hidden, cy, draw)
    return float_model.quantize_synthesis(params, latents(1, 2, 3, 4, cz))


def correlate_in_int64(x, layer):
    side = layer.kernel.shape[0]
    height, width = x.shape[0] - side + 1, x.shape[1] - side + 1
    sums = np.zeros((height, width, layer.bias.size), np.int64)
    for i, j in np.ndindex(height, width):
        patch = x[i : i + side, j : j + side, :, None]
        sums[i, j] = np.sum(patch * layer.kernel.astype(np.int64), axis=(0, 1, 2))
    return sums + layer.bias


def shifted(sums, layer):
    """Exact fractions: sums / 2**shift."""
    return sums.astype(object) * [Fraction(2) ** -s for s in layer.shift.tolist()]


def sums_in_int64(network: integers.Network, z: np.ndarray) -> np.ndarray:
    """The definition, a correlation of the zero-dilated input, in int64 and fractions."""
    x = np.clip(z.astype(np.int64), -(2**15 - 1), 2**15 - 1)
    for layer in (network.up0, network.up1):
        dilated = np.zeros((2 * x.shape[0], 2 * x.shape[1], x.shape[2]), np.int64)
        dilated[::2, ::2] = x
        sums = correlate_in_int64(np.pad(dilated, ((2, 2), (2, 2), (0, 0))), layer)
        x = np.clip(shifted(sums, layer) // 1, 0, 2**22).astype(np.int64)
    return correlate_in_int64(np.pad(x, ((1, 1), (1, 1), (0, 0))), network.conv2)


def parameters_in_int64(synthesis: integers.IntegerSynthesis, z: np.ndarray):
    mean, scale = sums_in_int64(synthesis.mean, z), sums_in_int64(synthesis.scale, z)
    rows = np.sum(scale[..., None] > synthesis.thresholds, axis=-1)
    mean = shifted(mean, synthesis.mean.conv2).astype(np.float64)
    return mean.astype(np.float32), rows.astype(np.uint8)


def assert_same(got, want):
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_shape_any_integers_and_any_strips_equal_the_definition_in_int64(data):
    draw, cz = data.draw(st.sampled_from([(dyadic, 5), (gaussian, 32)]))
    hz, wz = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    largest = data.draw(st.sampled_from([1, 9, 2**10, 2**31 - 1]))
    z = latents(data.draw(st.integers(0, 99)), hz, wz, cz, largest=largest)
    strip = data.draw(st.integers(1, 4 * hz))
    found = integers.parameters(small(draw, cz), z, strip)
    assert_same(found, parameters_in_int64(small(draw, cz), z))


def test_extreme_weights_saturate_and_stay_exact():
    z = np.where(latents(3, 2, 2, 5) > 0, 2**31 - 1, -(2**31)).astype(np.int32)

    def huge(rng, shape, fan_in):
        return np.where(dyadic(rng, shape, fan_in) > 0, 1000.0, -900.0)

    zeros = np.zeros((1, 1, 1, 5), np.int32)
    synthesis = float_model.quantize_synthesis(hyperprior(0, 5, 6, 4, huge), zeros)
    mean, indexes = integers.parameters(synthesis, z)
    assert_same((mean, indexes), parameters_in_int64(synthesis, z))
    assert np.isfinite(mean).all()


def test_bits_are_those_of_the_first_release():
    mean, indexes = integers.parameters(small(), latents(6, 3, 2, 5))
    assert hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest() == GOLDEN_MEAN
    assert hashlib.sha256(indexes.tobytes()).hexdigest() == GOLDEN_INDEXES
    assert len(np.unique(mean)) > 90 and len(np.unique(indexes)) > 10


# Trained-like models: scales from the smallest of the table to 30, latents drawn from them.


def float_parameters(params: dict, z: np.ndarray):
    """Mean and scale of the float network, the scale not yet bounded."""
    outputs = []
    for name in ("synthesis_mean", "synthesis_scale"):
        hidden, cy = params[name]["conv2"]["Conv_0"]["kernel"].shape[2:]
        network = HyperSynthesis(hidden, cy, 0.0)
        out = network.apply({"params": params[name]}, jnp.asarray(z[None], jnp.float32))
        outputs.append(np.asarray(out)[0])
    return outputs


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
    return float_model.calibration_latents(prior_tables(), (1, 12, 12), seed)


def code_length(y, mean, indexes) -> float:
    symbols = np.floor(y - mean + 0.5).astype(np.int32)
    rows = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
    return tables.ideal_bits(symbols.ravel(), indexes.ravel().astype(np.int32), rows)


@pytest.mark.parametrize("correlated", [False, True])
def test_rate_and_parameters_are_those_of_the_float_network(correlated):
    z = prior_draws()[0]
    if correlated:  # Activations are larger where neighbors go together.
        z = np.broadcast_to(z[:, :1], z.shape).copy()
    mean, scale = float_parameters(trained_like(), z)
    scale = np.maximum(scale, SCALE_TABLE[0])
    assert np.mean(scale == SCALE_TABLE[0]) > 0.05
    assert scale.max() > 25
    y = mean + scale * np.random.default_rng(0).standard_normal(scale.shape)
    float_indexes = tables.scale_indexes(scale, SCALE_TABLE)
    float_length = code_length(y, mean, float_indexes)
    no_latents = np.zeros((1, 1, 1, 16), np.int32)
    for calibration in ((z, z[:5]), float_model.calibration_latents(prior_tables()), no_latents):
        synthesis = float_model.quantize_synthesis(trained_like(), calibration)
        exact_mean, indexes = integers.parameters(synthesis, z)
        assert np.max(np.abs(exact_mean - mean) / scale) <= 2e-2
        assert np.max(np.abs(indexes.astype(int) - float_indexes)) <= 1
        assert code_length(y, exact_mean, indexes) == pytest.approx(float_length, rel=5e-4)


def stored(synthesis: integers.IntegerSynthesis) -> dict[str, np.ndarray]:
    """Arrays of an entropy model with these networks."""
    rows = tables.gaussian_tables(SCALE_TABLE)
    return entropy_arrays(EntropyModel(tables.Tables(*(a[:5] for a in rows)), rows, synthesis))


def test_quantizing_twice_gives_the_same_arrays_and_they_survive_a_round_trip():
    params, z = hyperprior(0, 5, 6, 4, gaussian), latents(1, 2, 3, 4, 5)
    arrays = stored(small(gaussian))
    again = entropy_arrays(entropy_from_arrays(arrays))
    listed = stored(float_model.quantize_synthesis(params, list(z)))
    for other in (again, listed):
        assert other.keys() == arrays.keys()
        assert_same(other.values(), arrays.values())


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        (
            "scale.up1.kernel",
            lambda a: a.astype(np.int32),
            "up1.kernel is int32 .* not Int16 5 5 6 _",
        ),
        ("mean.conv2.kernel", lambda a: a[:, :, 1:], r"\(3, 3, 5, 4\), not Int16 3 3 6 _"),
        ("scale.conv2.kernel", lambda a: a[..., 1:], r"\(3, 3, 6, 3\), not Int16 3 3 6 4"),
        ("thresholds", lambda a: a[:, 1:], r"thresholds is int64 \(4, 62\), not Int64 4 63"),
        ("mean.up1.bias", lambda a: a * 0 + np.iinfo(np.int64).min, r"sums of up1 reach 2\*\*53"),
        ("scale.conv2.shift", lambda a: a + np.int32(90), "conv2.shift exceeds 64"),
    ],
)
def test_unusable_arrays_are_named(key, change, reason):
    arrays, key = stored(small()), f"exact.{key}"
    with pytest.raises(UserError, match=f"tables are unusable, .*{reason}: export the"):
        entropy_from_arrays(arrays | {key: change(arrays[key])})
    del arrays[key]
    with pytest.raises(KeyError, match=key):
        entropy_from_arrays(arrays)


def test_weights_that_are_not_finite_and_absent_calibrations_are_refused():
    params = hyperprior(0, 5, 6, 4, gaussian)
    with pytest.raises(UserError, match="the calibration holds no hyper-latents"):
        float_model.quantize_synthesis(params, [])
    params["synthesis_scale"]["up1"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="the weights of up1 in the hyper-synthesis are not finite"):
        float_model.quantize_synthesis(params, latents(1, 1, 2, 2, 5))
