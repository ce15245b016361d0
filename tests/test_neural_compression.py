"""The "neuralcompression" variant at small width: its checkpoints, and medians in the codec.

`test_neural_compression_reference.py` compares it at full width.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from coding_model import image_of
from neural_compression_state import CONFIG, small_state

from fa_hific_jax import ops
from fa_hific_jax.codec import coding, float_model
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.convert.torch_checkpoint import Options, import_checkpoint
from fa_hific_jax.entropy import factorized, tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import bind, forward, init_parameters


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The imported checkpoint of `small_state`."""
    path = torch_files.save(tmp_path_factory.mktemp("torch") / "a.pt", small_state())
    return import_checkpoint(path)


@pytest.fixture(scope="module")
def small_model(small):
    return from_params(small.model, small.autoencoder)


IMAGE = image_of(200, 136)


@pytest.fixture(scope="module")
def quantized(small_model):
    """The symbols of IMAGE."""
    return small_model.quantize([IMAGE])[0]


def test_widths_and_blocks_of_a_checkpoint_give_the_config_and_all_its_arrays(small):
    assert small.model == CONFIG
    shapes = jax.eval_shape(functools.partial(init_parameters, small.model), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), small.autoencoder, shapes)
    found = small.autoencoder["hyperprior"][MEDIAN]
    np.testing.assert_array_equal(found, small_state()["hyper_bottleneck.quantiles"][:, 0, 1])


def respelled(state):
    newer = {"_matrix": "matrices.", "_bias": "biases.", "_factor": "factors."}
    spelled = r"(?<=_bottleneck\.)_(matrix|bias|factor)"
    return {re.sub(spelled, lambda m: newer[m[0]], key): value for key, value in state.items()}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


BUFFERS = {
    "hyper_bottleneck._offset": np.ones(3, np.int32),
    "hyper_bottleneck.likelihood_lower_bound.bound": np.ones(1, np.float32),
    "hyper_bottleneck.target": np.zeros(3, np.float32),
    "latent_bottleneck.scale_table": np.ones(64, np.float32),
}
OTHER = {"discriminator.weight": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "content, ignored",
    [
        (lambda state: respelled(state), 0),
        (lambda state: state | BUFFERS, len(BUFFERS)),
        (lambda state: {"state_dict": state, "epoch": 3}, 1),
        (lambda state: prefixed("module.", state), 0),
        (lambda state: {"state_dict": prefixed("model.", state) | OTHER}, 1),
    ],
    ids=["newer CompressAI", "filled buffers", "wrapped", "module.", "model."],
)
def test_all_ways_to_save_a_state_dict_give_the_same_parameters(small, tmp_path, content, ignored):
    path = torch_files.save(tmp_path / "a.pt", content(small_state()))
    found = import_checkpoint(path)
    assert (found.model, len(found.ignored)) == (small.model, ignored)
    jax.tree.map(np.testing.assert_array_equal, found.autoencoder, small.autoencoder)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"hyper_bottleneck._bias4": None}, "are missing: hyper_bottleneck._bias4$"),
        ({"decoder.extra": np.zeros(1)}, "parameters are unknown: decoder.extra$"),
        ({"encoder.blocks.2.0.bias": None}, "encoder.blocks.2.0.bias is missing"),
        ({"hyper_bottleneck.matrices.0": np.zeros(1)}, "_matrix0 is there twice"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, sentence):
    state = {key: value for key, value in (small_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(torch_files.save(tmp_path / "a.pt", state))


@pytest.mark.parametrize(
    "content",
    [{"g_a.0.weight": np.zeros(1)}, {"state_dict": {"model.out.2.bias": np.zeros(1)}}, {3: 1}],
)
def test_checkpoints_of_other_projects_are_refused_in_one_sentence(tmp_path, content):
    with pytest.raises(UserError, match=r"not a checkpoint of .* \(it begins with .*\): they have"):
        import_checkpoint(torch_files.save(tmp_path / "a.pt", content))


def test_options_that_its_checkpoints_decide_are_refused(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", small_state())
    with pytest.raises(UserError, match="omit --input-range"):
        import_checkpoint(path, Options(input_range="symmetric"))


# Medians in the integers of the codec.


def with_medians(small, factor):
    """The integer model of the hyperprior with its medians times a factor, and its parameters."""
    medians = factor * small.autoencoder["hyperprior"][MEDIAN]
    hyperprior = small.autoencoder["hyperprior"] | {MEDIAN: medians}
    return float_model.entropy_model(small.model, hyperprior), hyperprior


@pytest.mark.parametrize("factor, tolerance", [(1, 2e-2), (20, 5e-2)], ids=["usual", "large"])
def test_means_and_rows_are_those_of_the_float_networks_up_to_the_borders(
    small, x64, factor, tolerance
):
    entropy, hyperprior = with_medians(small, factor)
    z = np.random.default_rng(1).integers(-4, 5, (3, 4, CONFIG.hyper_channels)).astype(np.int32)
    params = jax.tree.map(np.float64, small.autoencoder | {"hyperprior": hyperprior})
    synthesis = bind(small.model, params, "float64").hyperprior.synthesis
    mean, scale = (np.asarray(a)[0] for a in synthesis(jnp.asarray(z[None], jnp.float64)))
    found, rows = coding.integer_synthesis.parameters(entropy.synthesis, z)
    assert np.max(np.abs(found - mean) / scale) < tolerance
    assert np.max(np.abs(found - mean)) < 1e-3 * np.max(np.abs(mean))
    expected = tables.scale_indexes(scale.astype(np.float32), SCALE_TABLE)
    assert np.mean(rows != expected) < 0.02 and np.max(np.abs(rows - expected.astype(int))) <= 1
    # The medians matter, and most where not all of a kernel lies inside.
    without, _ = with_medians(small, 0)
    moved = np.abs(coding.integer_synthesis.parameters(without.synthesis, z)[0] - mean)
    assert np.max(moved[0]) > 0.05 and np.max(moved[5]) > 0.05


def test_strips_and_a_stored_copy_give_the_same_bits(small_model, tmp_path):
    z = np.random.default_rng(2).integers(-9, 10, (5, 3, CONFIG.hyper_channels)).astype(np.int32)
    save_model(small_model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.model_id == small_model.model_id
    assert loaded.entropy.synthesis.constants == (2**14, 1)
    whole = coding.integer_synthesis.parameters(small_model.entropy.synthesis, z)
    for strip in (1, 2, 7):
        strips = coding.integer_synthesis.parameters(loaded.entropy.synthesis, z, strip)
        for found, expected in zip(strips, whole, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_coding_tables_of_z_are_those_of_the_density_around_the_medians(small, small_model):
    prior = jax.tree.map(np.float64, small.autoencoder["hyperprior"]["prior"])
    medians = np.float64(small.autoencoder["hyperprior"][MEDIAN])[:, None]
    # The medians fold into the first bias: M0 (s + m) + b0 = M0 s + (b0 + M0 m).
    folded = prior | {"b0": prior["b0"] + np.logaddexp(prior["h0"], 0) * medians[:, None]}
    expected = tables.factorized_tables(
        lambda v: factorized.cdf_logits(factorized.layers_of(folded), v, np), CONFIG.hyper_channels
    )
    found = small_model.entropy.z_tables
    np.testing.assert_array_equal(found.offset, expected.offset)
    assert np.max(np.abs(found.cdf - expected.cdf)) <= 1


def test_a_file_has_the_estimated_size_and_decodes_alike_in_tiles(small, small_model, quantized):
    data = small_model.compress(IMAGE)
    assert small_model.compress(IMAGE, mode="exact") == data
    assert np.std(quantized.z) > 0.7 and np.std(quantized.y) > 0.7
    estimated = float_model.estimated_bits(small.model, small.autoencoder, quantized) / 8
    assert len(data) <= 1.003 * estimated + 64
    whole, tiled = (small_model.decompress(data, mode=mode) for mode in ("whole", "exact"))
    assert np.max(np.abs(whole.astype(int) - tiled)) <= 1


def test_the_codec_decodes_what_the_network_makes(small, small_model, quantized):
    x = jnp.asarray(IMAGE[None] / 255, jnp.float32)
    out = jax.jit(forward, static_argnums=0)(small.model, small.autoencoder, x)
    np.testing.assert_array_equal(quantized.z, np.asarray(out.z_hat)[0])
    y_hat = coding.decode(small_model.entropy, coding.bitstream.unpack(small_model.compress(IMAGE)))
    off = np.abs(y_hat - np.asarray(out.y_hat)[0])
    assert np.mean(off > 0.5) < 0.002  # a latent half a step from its mean
    assert np.max(off[off < 0.5]) < 3e-3  # measured: 2.2e-3


# What is not that of the reference, and gradients.


def test_medians_have_no_gradient_and_z_passes_its_own(small):
    def loss(params, keys):
        out = forward(small.model, params, jnp.asarray(image_of(64, 64)[None] / 255, "f4"), keys)
        return jnp.sum(out.rates.noisy) + jnp.sum(out.x_hat)

    keys = jax.random.key(0)[None]
    gradient = jax.jit(jax.grad(loss))(small.autoencoder, keys)["hyperprior"]
    assert not np.any(gradient[MEDIAN])
    assert np.any(gradient["analysis"]["conv2"]["Conv_0"]["bias"])


def test_halves_are_rounded_to_even(golden):
    values, expected = golden("msillm")["round_half"]
    found = ops.straight_through_round(jnp.asarray(values), halves="even")
    np.testing.assert_array_equal(found, expected)
    assert jnp.any(ops.straight_through_round(jnp.asarray(values)) != expected)
