"""Networks of the paper's size: parameter counts, and the reference's numbers for its weights."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights

from fa_hific_jax.models.discriminator import Discriminator, DiscriminatorConfig
from fa_hific_jax.models.encoder import Encoder
from fa_hific_jax.models.generator import Generator
from fa_hific_jax.models.hyperprior import HyperAnalysis, Hyperprior, HyperSynthesis

ENCODER = Encoder((60, 120, 240, 480, 960), 220, "pytorch")
DISCRIMINATOR = Discriminator(DiscriminatorConfig((64, 128, 256, 512), 12), "pytorch", "unit")
# Measured: 3e-6 to 6e-6 at values up to 5; float32 alone moves whole networks by 1e-6 to 2e-5.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def plain_generator(residual_blocks: int) -> Generator:
    return Generator((960, 480, 240, 120, 60), residual_blocks, "pytorch")


@pytest.mark.parametrize(
    "network, shapes, count",
    [
        (ENCODER, [(1, 64, 64, 3)], 7_423_420),
        (plain_generator(9), [(1, 4, 4, 220)], 156_774_683),
        (HyperAnalysis(320, "pytorch"), [(1, 4, 4, 220)], 5_754_560),
        (HyperSynthesis(320, 220, 0.0), [(1, 1, 1, 320)], 5_754_460),
        (DISCRIMINATOR, [(1, 64, 64, 3), (1, 4, 4, 220)], 2_793_117),
    ],
    ids=["encoder", "generator", "hyper-analysis", "hyper-synthesis", "discriminator"],
)
def test_networks_have_as_many_parameters_as_the_reference(network, shapes, count):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == count


def statistics(x) -> np.ndarray:
    """Mean, standard deviation, minimum, maximum, sums of |x| and x^2: the reference's summary."""
    x = np.asarray(x, np.float64)
    return np.array(
        [x.mean(), x.std(), x.min(), x.max(), np.abs(x).sum(), np.square(x).sum()], np.float64
    )


def check_traces(data, intermediates, blocks):
    """What each block puts out: `blocks` maps the reference's names to (our module, activation)."""
    for name, (module, activation) in blocks.items():
        (output,) = intermediates[module]["__call__"]
        output = np.asarray(activation(output))
        stored = reference_weights.nhwc(data[f"trace__{name}__slice"])
        np.testing.assert_allclose(output[:1, :4, :6, :5], stored, **NEAR, err_msg=name)
        # The mean is near zero where positive and negative values cancel.
        expected = data[f"trace__{name}__stats"]
        np.testing.assert_allclose(statistics(output), expected, rtol=1e-4, atol=1e-5, err_msg=name)


def same(x):
    return x


def test_encoder_and_all_its_blocks_equal_the_reference(golden):
    data = golden("encoder")
    apply = jax.jit(lambda p, x: ENCODER.apply({"params": p}, x, capture_intermediates=True))
    parameters = reference_weights.encoder()
    (y, features), state = apply(parameters, reference_weights.nhwc(data["x"]))
    np.testing.assert_allclose(y, reference_weights.nhwc(data["y"]), **NEAR)
    np.testing.assert_allclose(y, reference_weights.nhwc(data["y_f64"]), **NEAR)
    blocks = {f"conv_block{level + 1}": (f"norm{level}", nn.relu) for level in range(5)}
    check_traces(data, state["intermediates"], blocks)
    for level, feature in enumerate(features):
        (before,) = state["intermediates"][f"norm{level}"]["__call__"]
        np.testing.assert_allclose(feature, nn.relu(before), **NEAR)


def test_encoder_of_a_larger_batch_equals_the_reference(golden):
    data = golden("encoder")
    x = reference_weights.uniform("input:encoder:x_big", tuple(data["x_big_shape"]))
    np.testing.assert_array_equal(x[:, :, :4, :4], data["x_big_corner"])
    apply = jax.jit(lambda p, x: ENCODER.apply({"params": p}, x)[0])
    y = np.asarray(apply(reference_weights.encoder(), reference_weights.nhwc(x)))
    y = y.transpose(0, 3, 1, 2)
    assert y.shape == tuple(data["y_big_shape"])
    for name in ("y_big_slice", "y_big_slice_f64"):
        np.testing.assert_allclose(y[:, ::11, ::3, ::3], data[name], **NEAR)
    np.testing.assert_allclose(y.mean((2, 3)), data["y_big_channel_mean"], **NEAR)
    np.testing.assert_allclose(statistics(y), data["y_big_stats"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residual_blocks", [2, 9])
def test_generator_and_all_its_blocks_equal_the_reference(golden, residual_blocks):
    data = golden(f"generator_res{residual_blocks}")
    assert data["n_residual_blocks"] == residual_blocks
    network = plain_generator(residual_blocks)
    apply = jax.jit(lambda p, y: network.apply({"params": p}, y, capture_intermediates=True))
    parameters = reference_weights.generator(residual_blocks)
    (image, features), state = apply(parameters, reference_weights.nhwc(data["y"]))
    assert features == ()
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image"]), **NEAR)
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image_f64"]), **NEAR)
    blocks = {"conv_block_init": ("norm_head", same)}
    blocks |= {f"resblock_{m}": (f"block{m}", same) for m in range(residual_blocks)}
    blocks |= {f"upconv_block{k}": (f"norm{5 - k}", nn.relu) for k in (1, 2, 3, 4)}
    check_traces(data, state["intermediates"], blocks)
    if "head" in data:
        (head,) = state["intermediates"]["norm_head"]["__call__"]
        np.testing.assert_allclose(head, reference_weights.nhwc(data["head"]), **NEAR)


def test_hyper_analysis_equals_the_reference(golden):
    data = golden("hyper")
    apply = jax.jit(HyperAnalysis(320, "pytorch").apply)
    z = apply({"params": reference_weights.hyper_analysis()}, reference_weights.nhwc(data["y"]))
    np.testing.assert_allclose(z, reference_weights.nhwc(data["analysis_out"]), **NEAR)
    np.testing.assert_allclose(z, reference_weights.nhwc(data["analysis_out_f64"]), **NEAR)


def test_hyper_synthesis_equals_the_reference_with_its_scale_bounded(golden):
    data = golden("hyper")
    parameters = {
        "synthesis_mean": reference_weights.hyper_synthesis("mu"),
        "synthesis_scale": reference_weights.hyper_synthesis("std"),
    }
    apply = jax.jit(
        lambda p, z: Hyperprior(320, 220, "pytorch").apply({"params": p}, z, method="synthesis")
    )
    mean, scale = apply(parameters, reference_weights.nhwc(data["z"]))
    raw = reference_weights.nhwc(data["std_raw_out"])
    np.testing.assert_allclose(mean, reference_weights.nhwc(data["mu_out"]), **NEAR)
    np.testing.assert_allclose(scale, np.maximum(raw, 0.11), **NEAR)
    assert raw.min() < 0.11  # the bound was at work
    raw = reference_weights.nhwc(data["std_raw_out_f64"])
    np.testing.assert_allclose(mean, reference_weights.nhwc(data["mu_out_f64"]), **NEAR)
    np.testing.assert_allclose(scale, np.maximum(raw, 0.11), **NEAR)
