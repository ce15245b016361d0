"""Networks of the paper's size: parameter counts, and the reference's numbers for its weights."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_weights
from reference_weights import nhwc, statistics

from fa_hific_jax.models.discriminator import Discriminator, DiscriminatorConfig
from fa_hific_jax.models.hific import Encoder, Generator
from fa_hific_jax.models.hyperprior import HyperAnalysis, HyperSynthesis
from fa_hific_jax.settings.model import ModelConfig

ENCODER = Encoder(ModelConfig())
JUDGE = DiscriminatorConfig()
# Measured: 3e-6 to 6e-6 at values up to 5; float32 alone moves whole networks by 1e-6 to 2e-5.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize(
    "network, shapes, count",
    [
        (ENCODER, [(1, 64, 64, 3)], 7_423_420),
        (Generator(ModelConfig()), [(1, 4, 4, 220)], 156_774_683),
        (HyperAnalysis(320, "pytorch"), [(1, 4, 4, 220)], 5_754_560),
        (HyperSynthesis(320, 220, 0.0), [(1, 1, 1, 320)], 5_754_460),
        (Discriminator(JUDGE, "pytorch", "unit"), [(1, 64, 64, 3), (1, 4, 4, 220)], 2_793_117),
        (Discriminator(JUDGE, "tensorflow", "unit"), [(1, 64, 64, 3), (1, 4, 4, 220)], 2_800_797),
    ],
    ids="encoder generator hyper-analysis hyper-synthesis discriminator tensorflow".split(),
)
def test_networks_have_as_many_parameters_as_the_references(network, shapes, count):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == count


def assert_equals_both_precisions(found, data, name):
    for dtype in ("", "_f64"):
        np.testing.assert_allclose(found, nhwc(data[f"{name}{dtype}"]), **NEAR, err_msg=name)


def check_traces(data, intermediates, blocks):
    """What each block puts out: `blocks` maps the reference's names to (our module, activation)."""
    for name, (module, activation) in blocks.items():
        (output,) = intermediates[module]["__call__"]
        output = np.asarray(activation(output))
        stored = nhwc(data[f"trace__{name}__slice"])
        np.testing.assert_allclose(output[:1, :4, :6, :5], stored, **NEAR, err_msg=name)
        # The mean is near zero where positive and negative values cancel.
        expected = data[f"trace__{name}__stats"]
        np.testing.assert_allclose(statistics(output), expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_encoder_and_all_its_blocks_equal_the_reference(golden):
    data = golden("encoder")
    apply = jax.jit(lambda p, x: ENCODER.apply({"params": p}, x, capture_intermediates=True))
    (y, features), state = apply(reference_weights.encoder(), nhwc(data["x"]))
    assert_equals_both_precisions(y, data, "y")
    blocks = {f"conv_block{level + 1}": (f"norm{level}", nn.relu) for level in range(5)}
    check_traces(data, state["intermediates"], blocks)
    for level, feature in enumerate(features):
        (before,) = state["intermediates"][f"norm{level}"]["__call__"]
        np.testing.assert_allclose(feature, nn.relu(before), **NEAR)


@pytest.mark.parametrize("residual_blocks", [2, pytest.param(9, marks=pytest.mark.slow)])
def test_generator_and_all_its_blocks_equal_the_reference(golden, residual_blocks):
    data = golden(f"generator_res{residual_blocks}")
    assert data["n_residual_blocks"] == residual_blocks
    network = Generator(ModelConfig(residual_blocks=residual_blocks))
    apply = jax.jit(lambda p, y: network.apply({"params": p}, y, capture_intermediates=True))
    parameters = reference_weights.generator(residual_blocks)
    (image, features), state = apply(parameters, nhwc(data["y"]))
    assert features == ()
    assert_equals_both_precisions(image, data, "image")
    blocks = {"conv_block_init": ("norm_head", jnp.asarray)}
    blocks |= {f"resblock_{m}": (f"block{m}", jnp.asarray) for m in range(residual_blocks)}
    blocks |= {f"upconv_block{k}": (f"norm{5 - k}", nn.relu) for k in (1, 2, 3, 4)}
    check_traces(data, state["intermediates"], blocks)
