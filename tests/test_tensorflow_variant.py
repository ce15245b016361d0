"""The "tensorflow" variant against the layers of the original, built from TensorFlow's own ops.

The original (tensorflow/compression, models/hific/archs.py) needs TensorFlow 1.15: its networks are
written out here with the ops that its layers call, for the same random weights.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_weights import relative_error

from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator, DiscriminatorConfig
from fa_hific_jax.models.hific import Encoder, Generator
from fa_hific_jax.models.hyperprior import HyperAnalysis, HyperSynthesis
from fa_hific_jax.settings.model import ModelConfig

tf = pytest.importorskip("tensorflow", reason="the original's ops: install the extra train")


def random_variables(network, *inputs):
    """Variables of a network, all random: initial ones hide what biases and gains do."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 1 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape).astype("f4"),
        shapes,
    )


def random_array(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def assert_near(ours, theirs):
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs.numpy()) < 1e-5  # measured: 2e-7 to 2e-6


def conv(x, p, stride=1):
    """tf.keras.layers.Conv2D(padding="same")."""
    p = p.get("Conv_0", p)
    return tf.nn.conv2d(x, p["kernel"], stride, "SAME") + p["bias"]


def transposed(x, p):
    """tf.keras.layers.Conv2DTranspose(strides=2, padding="same"), whose kernel is ours flipped."""
    kernel = p["kernel"][::-1, ::-1].transpose(0, 1, 3, 2)
    batch, height, width, _ = x.shape
    shape = (batch, 2 * height, 2 * width, kernel.shape[2])
    return tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME") + p["bias"]


def signal_conv(x, p, stride=1):
    """tfc.SignalConv2D(corr=True, strides_down=stride, padding="same_zeros"): centered kernels."""
    p = p["Conv_0"]
    edge = p["kernel"].shape[0] // 2
    x = tf.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return tf.nn.conv2d(x, p["kernel"], stride, "VALID") + p["bias"]


def signal_up(x, p):
    """tfc.SignalConv2D(corr=False, strides_up=2, padding="same_zeros").

    Zeros between the samples, then a centered true convolution; our kernels are stored flipped.
    """
    batch, height, width, channels = x.shape
    dilated = np.zeros((batch, 2 * height, 2 * width, channels), np.float32)
    dilated[:, ::2, ::2] = x
    return tf.nn.conv2d(dilated, p["kernel"], 1, "SAME") + p["bias"]


def norm(x, p):
    """ChannelNorm of archs.py."""
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_sum(tf.square(x - mean), -1, keepdims=True) / (x.shape[-1] - 1)
    return tf.nn.batch_normalization(x, mean, variance, p["beta"], p["gamma"], 1e-3)


def encoder(p, x):
    h = tf.nn.relu(norm(conv(x, p["conv0"]), p["norm0"]))
    for level in range(1, 5):
        h = tf.nn.relu(norm(conv(h, p[f"conv{level}"], 2), p[f"norm{level}"]))
    return conv(h, p["conv_out"])


def generator(p, y):
    h = head = norm(conv(norm(y, p["norm_in"]), p["conv_head"]), p["norm_head"])
    for q in (p["block0"], p["block1"]):
        inner = tf.nn.relu(norm(conv(h, q["conv1"]), q["norm1"]))
        h = h + norm(conv(inner, q["conv2"]), q["norm2"])
    h = h + head
    for level in (4, 3, 2, 1):
        h = tf.nn.relu(norm(transposed(h, p[f"up{level}"]), p[f"norm{level}"]))
    return conv(h, p["conv_out"])


def hyper_analysis(p, y):
    h = tf.nn.relu(signal_conv(y, p["conv0"]))
    h = tf.nn.relu(signal_conv(h, p["conv1"], 2))
    return signal_conv(h, p["conv2"], 2)


def hyper_synthesis(p, z):
    h = tf.nn.relu(signal_up(z, p["up0"]))
    h = tf.nn.relu(signal_up(h, p["up1"]))
    return signal_conv(h, p["conv2"])


CONFIG = ModelConfig(
    variant="tensorflow",
    encoder_widths=(4, 5, 6, 7, 8),
    generator_widths=(8, 7, 6, 5, 4),
    latent_channels=3,
    residual_blocks=2,
)


@pytest.mark.parametrize(
    ("network", "original", "shape"),
    [
        (Encoder(CONFIG), encoder, (2, 64, 96, 3)),
        (Generator(CONFIG), generator, (2, 3, 5, 3)),
        (HyperAnalysis(6, "tensorflow"), hyper_analysis, (2, 8, 12, 5)),
        (HyperSynthesis(6, 5, 0.0), hyper_synthesis, (2, 2, 3, 6)),  # of both variants
    ],
    ids=["encoder", "generator", "hyper-analysis", "hyper-synthesis"],
)
def test_networks_are_the_originals(network, original, shape):
    x = random_array(*shape)
    variables = random_variables(network, x)
    ours = jax.jit(network.apply)(variables, x)
    ours = ours[0] if isinstance(ours, tuple) else ours
    assert_near(ours, original(variables["params"], x))


def test_discriminator_is_the_originals():
    network = Discriminator(DiscriminatorConfig((4, 5, 6, 7), 3), "tensorflow", "unit")
    x, y = random_array(2, 32, 48, 3), random_array(2, 2, 3, 5)
    variables = random_variables(network, x, y)
    p = variables["params"]

    def spectral_conv(h, name, stride):
        """arch_ops.conv2d(use_sn=True) of compare_gan, after its power iteration."""
        kernel, u = p[name]["kernel"], variables[SPECTRAL][name]["u"]
        w = kernel.reshape(-1, kernel.shape[-1])
        v = w @ u / np.linalg.norm(w @ u)
        u = v @ w / np.linalg.norm(v @ w)
        return tf.nn.conv2d(h, kernel / (v @ w @ u), stride, "SAME") + p[name]["bias"]

    context = tf.nn.leaky_relu(spectral_conv(y, "context", 1), 0.2)
    context = tf.image.resize(context, x.shape[1:3], "nearest")
    h = tf.concat([x, context], -1)
    for layer, stride in enumerate((2, 2, 2, 1)):
        h = tf.nn.leaky_relu(spectral_conv(h, f"conv{layer}", stride), 0.2)
    logits, _ = jax.jit(functools.partial(network.apply, mutable=[SPECTRAL]))(variables, x, y)
    assert logits.shape == (2, 4, 6, 1)
    assert_near(logits, spectral_conv(h, "conv_out", 1))


def test_prior_has_no_nonlinearity_in_its_last_layer():
    z = random_array(1, 1, 2, 3)
    shapes = jax.eval_shape(FactorizedPrior(3, "tensorflow").init, jax.random.key(0), z)["params"]
    assert "a2" in shapes and "a3" not in shapes
