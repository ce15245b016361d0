"""Networks of the paper's size: parameter counts, and the reference's numbers for its weights."""

import math

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
    return Generator((960, 480, 240, 120, 60), residual_blocks, fcm_width=0, variant="pytorch")


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


def test_encoder_and_its_features_equal_the_reference(golden):
    data = golden("encoder")
    apply = jax.jit(ENCODER.apply)
    y, features = apply({"params": reference_weights.encoder()}, reference_weights.nhwc(data["x"]))
    np.testing.assert_allclose(y, reference_weights.nhwc(data["y"]), **NEAR)
    for block, feature in enumerate(features, start=1):
        stored = reference_weights.nhwc(data[f"trace__conv_block{block}__slice"])
        np.testing.assert_allclose(feature[:, :4, :6, :5], stored, **NEAR)


@pytest.mark.parametrize("residual_blocks", [2, 9])
def test_generator_equals_the_reference(golden, residual_blocks):
    data = golden(f"generator_res{residual_blocks}")
    parameters = reference_weights.generator(residual_blocks)
    apply = jax.jit(plain_generator(residual_blocks).apply)
    image, features = apply({"params": parameters}, reference_weights.nhwc(data["y"]))
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image"]), **NEAR)
    assert features == ()


def test_hyper_analysis_equals_the_reference(golden):
    data = golden("hyper")
    apply = jax.jit(HyperAnalysis(320, "pytorch").apply)
    z = apply({"params": reference_weights.hyper_analysis()}, reference_weights.nhwc(data["y"]))
    np.testing.assert_allclose(z, reference_weights.nhwc(data["analysis_out"]), **NEAR)


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
