"""The "neuralcompression" variant at small width: its checkpoints, and medians in the codec.

`test_neural_compression_reference.py` compares it at full width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from coding_model import image_of
from PIL import Image

from fa_hific_jax import ops
from fa_hific_jax.cli.main import main
from fa_hific_jax.codec import coding, float_model
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, load_parameters, save_model
from fa_hific_jax.convert import neural_compression
from fa_hific_jax.convert.pytorch_hific import Options, import_checkpoint
from fa_hific_jax.convert.pytorch_layout import Source, autoencoder_sources
from fa_hific_jax.entropy import factorized, tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import MEDIAN
from fa_hific_jax.models.autoencoder import ModelConfig, bind, forward, init_parameters
from fa_hific_jax.models.discriminator import Discriminator, DiscriminatorConfig

VARIANT = "neuralcompression"
CONFIG = ModelConfig(
    variant=VARIANT,
    encoder_widths=(4, 5, 6, 7, 8),
    generator_widths=(8, 7, 6, 5, 4),
    latent_channels=5,
    hyper_channels=6,
    residual_blocks=1,
)


@functools.cache
def small_state() -> dict[str, np.ndarray]:
    """A state dict of the width of CONFIG, whose symbols spread and whose medians are no integers.

    Kernels have gains as of trained networks, so that scales lie on both sides of the bound.
    """
    sources = jax.tree.leaves(
        autoencoder_sources(CONFIG, neural_compression.NAMING),
        is_leaf=lambda node: isinstance(node, Source),
    )
    rng, state = np.random.default_rng(0), {}
    for source in sources:
        fan_in = np.prod(source.shape[1:]) if len(source.shape) == 4 else 10
        value = rng.normal(0, np.sqrt(2 / fan_in), source.shape)
        if source.key.endswith("gamma"):
            value += 1
        state[source.key] = value.astype(np.float32)
    state["hyper_bottleneck.quantiles"] += np.float32([-10, 0, 10])
    state["hyper_analysis.4.weight"] *= 6
    state["encoder.blocks.5.weight"] *= 4
    state["hyper_synthesis_scale.4.bias"] += 2
    return state


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The imported checkpoint of `small_state`."""
    path = torch_files.save(tmp_path_factory.mktemp("torch") / "a.pt", small_state())
    return import_checkpoint(path, Options())


@pytest.fixture(scope="module")
def small_model(small):
    return from_params(small.model, small.autoencoder)


def test_widths_and_blocks_of_a_checkpoint_give_the_config_and_all_its_arrays(small):
    assert small.model == CONFIG
    shapes = jax.eval_shape(functools.partial(init_parameters, small.model), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), small.autoencoder, shapes)
    found = small.autoencoder["hyperprior"][MEDIAN]
    np.testing.assert_array_equal(found, small_state()["hyper_bottleneck.quantiles"][:, 0, 1])


def respelled(state):
    spellings = {"_matrix": "matrices.", "_bias": "biases.", "_factor": "factors."}
    return {
        functools.reduce(
            lambda key, pair: key.replace(*pair) if "_bottleneck" in key else key,
            spellings.items(),
            key,
        ): value
        for key, value in state.items()
    }


BUFFERS = {
    f"{bottleneck}_bottleneck.{name}": np.ones(3, np.int32)
    for bottleneck in ("hyper", "latent")
    for name in ("_offset", "_quantized_cdf", "_cdf_length", "likelihood_lower_bound.bound")
} | {
    "hyper_bottleneck.target": np.zeros(3, np.float32),
    "latent_bottleneck.scale_table": np.ones(64, np.float32),
    "latent_bottleneck.scale_bound": np.ones(1, np.float32),
    "latent_bottleneck.lower_bound_scale.bound": np.ones(1, np.float32),
}


@pytest.mark.parametrize(
    "content, save, ignored",
    [
        (lambda state: respelled(state), torch_files.save, 0),
        (lambda state: state | BUFFERS, torch_files.save, len(BUFFERS)),
        (lambda state: state, torch_files.save_legacy, 0),
        (lambda state: {"state_dict": state, "epoch": 3}, torch_files.save, 1),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, torch_files.save, 0),
        (
            lambda state: {
                "state_dict": {f"model.{k}": v for k, v in state.items()}
                | {"discriminator.weight": np.ones(2, np.float32)}
            },
            torch_files.save,
            1,
        ),
    ],
    ids=["newer CompressAI", "filled buffers", "legacy format", "wrapped", "module.", "model."],
)
def test_all_ways_to_save_a_state_dict_give_the_same_parameters(
    small, tmp_path, content, save, ignored
):
    found = import_checkpoint(save(tmp_path / "a.pt", content(small_state())), Options())
    assert (found.model, len(found.ignored)) == (small.model, ignored)
    jax.tree.map(np.testing.assert_array_equal, found.autoencoder, small.autoencoder)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"decoder.blocks.4.bias": None}, "parameters are missing: decoder.blocks.4.bias$"),
        ({"hyper_bottleneck._bias4": None}, "are missing: hyper_bottleneck._bias4$"),
        ({"decoder.extra": np.zeros(1)}, "parameters are unknown: decoder.extra$"),
        ({"encoder.blocks.2.0.bias": None}, "encoder.blocks.2.0.bias is missing"),
        (
            {"hyper_bottleneck.quantiles": np.zeros((6, 1, 2), np.float32)},
            r"quantiles has the shape \(6, 1, 2\) instead of the shape \(6, 1, 3\)",
        ),
        ({"hyper_bottleneck.matrices.0": np.zeros(1)}, "_matrix0 is there twice"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, sentence):
    state = {key: value for key, value in (small_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(torch_files.save(tmp_path / "a.pt", state), Options())


@pytest.mark.parametrize(
    "content",
    [
        {"g_a.0.weight": np.zeros(1), "entropy_bottleneck._matrix0": np.zeros(1)},
        {"state_dict": {"model.diffusion_model.out.2.bias": np.zeros(1)}},
        {3: np.zeros(1)},
    ],
)
def test_checkpoints_of_other_projects_are_refused_in_one_sentence(tmp_path, content):
    with pytest.raises(UserError, match=r"not a checkpoint of .* \(it begins with .*\): they have"):
        import_checkpoint(torch_files.save(tmp_path / "a.pt", content), Options())


def test_options_that_its_checkpoints_decide_are_refused(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", small_state())
    with pytest.raises(UserError, match="omit --input-range"):
        import_checkpoint(path, Options(input_range="symmetric"))


def test_a_file_of_pytorch_itself_is_imported(small, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(value) for key, value in small_state().items()}
    torch.save(tensors, tmp_path / "a.pt")
    found = import_checkpoint(tmp_path / "a.pt", Options())
    jax.tree.map(np.testing.assert_array_equal, found.autoencoder, small.autoencoder)


# Medians in the integers of the codec.


def synthesis_of(small, z):
    """Mean and scale of the float networks, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), small.autoencoder)
    mean, scale = bind(small.model, params, "float64").hyperprior.synthesis(
        jnp.asarray(z[None], jnp.float64)
    )
    return np.asarray(mean)[0], np.asarray(scale)[0]


@pytest.mark.parametrize("factor, tolerance", [(1, 2e-2), (20, 5e-2)], ids=["usual", "large"])
def test_means_and_rows_are_those_of_the_float_networks_up_to_the_borders(
    small, x64, factor, tolerance
):
    hyperprior = dict(small.autoencoder["hyperprior"])
    hyperprior[MEDIAN] = factor * hyperprior[MEDIAN]
    entropy = float_model.entropy_model(small.model, hyperprior)
    z = np.random.default_rng(1).integers(-4, 5, (3, 4, CONFIG.hyper_channels)).astype(np.int32)
    changed = small._replace(autoencoder=small.autoencoder | {"hyperprior": hyperprior})
    mean, scale = synthesis_of(changed, z)
    found, rows = coding.integer_synthesis.parameters(entropy.synthesis, z)
    assert np.max(np.abs(found - mean) / scale) < tolerance
    assert np.max(np.abs(found - mean)) < 1e-3 * np.max(np.abs(mean))
    expected = tables.scale_indexes(scale.astype(np.float32), SCALE_TABLE)
    assert np.mean(rows != expected) < 0.02 and np.max(np.abs(rows - expected.astype(int))) <= 1
    # The medians matter, and most where not all of a kernel lies inside.
    without = float_model.entropy_model(small.model, hyperprior | {MEDIAN: 0 * hyperprior[MEDIAN]})
    moved = np.abs(coding.integer_synthesis.parameters(without.synthesis, z)[0] - mean)
    assert np.max(moved[0]) > 0.05 and np.max(moved[5]) > 0.05


def test_the_two_constant_channels_cost_no_precision(small):
    # The same network with medians of 0 has the same weights, and the medians' channels add what
    # the float kernels add to half a unit of the last place.
    hyperprior = small.autoencoder["hyperprior"]
    medians = np.asarray(hyperprior[MEDIAN], np.float64)
    synthesis = float_model.entropy_model(small.model, hyperprior).synthesis
    zero = float_model.entropy_model(
        small.model, hyperprior | {MEDIAN: 0 * hyperprior[MEDIAN]}
    ).synthesis
    channels = CONFIG.hyper_channels
    for which in ("mean", "scale"):
        layer, plain = (getattr(each, which).up0 for each in (synthesis, zero))
        np.testing.assert_array_equal(layer.kernel[:, :, :channels], plain.kernel[:, :, :channels])
        assert not plain.kernel[:, :, channels:].any()
        added = np.tensordot(
            np.asarray(hyperprior[f"synthesis_{which}"]["up0"]["kernel"], np.float64),
            medians,
            axes=(2, 0),
        )
        stored = np.tensordot(layer.kernel[:, :, channels:].astype(float), [2**14, 1], (2, 0))
        # A unit is 2**-shift of the sums, before the shift to activations.
        unit = np.max(np.abs(hyperprior[f"synthesis_{which}"]["up0"]["kernel"]), (0, 1, 2))
        unit = np.ldexp(1.0, np.frexp(unit)[1] - 15)
        assert np.all(np.abs(stored * unit - added) <= 0.5 * unit * (1 + 1e-9))


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


@pytest.mark.parametrize("weights, tolerance", [("float32", 0), ("float16", 2e-3)])
def test_a_model_that_can_be_trained_further_keeps_all_parameters(
    small, tmp_path, weights, tolerance
):
    model = from_params(small.model, small.autoencoder, weights=weights)
    save_model(model, tmp_path / "model", to_train_on=small.autoencoder)
    _, found = load_parameters(tmp_path / "model")
    wanted = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(small.autoencoder)
    }
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_allclose(
            found[name], leaf, rtol=0, atol=tolerance * np.max(np.abs(leaf)), err_msg=name
        )


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


def test_a_file_has_the_estimated_size_and_decodes_alike_in_tiles(small, small_model):
    image = image_of(200, 136)
    data = small_model.compress(image)
    assert small_model.compress(image, mode="exact") == data
    (quantized,) = small_model.quantize([image])
    assert np.std(quantized.z) > 0.7 and np.std(quantized.y) > 0.7
    estimated = float_model.estimated_bits(small.model, small.autoencoder, quantized) / 8
    assert len(data) <= 1.003 * estimated + 64
    whole, tiled = (small_model.decompress(data, mode=mode) for mode in ("whole", "exact"))
    assert np.max(np.abs(whole.astype(int) - tiled)) <= 1


def test_the_commands_lead_from_a_checkpoint_to_a_decoded_image(small, tmp_path, capsys):
    checkpoint = torch_files.save(tmp_path / "a.pt", small_state() | BUFFERS)
    run, model, file = tmp_path / "run", tmp_path / "model", tmp_path / "a.fahj"
    main(["import-torch", str(checkpoint), "-o", str(run)])
    assert "--config.model.variant=neuralcompression" in capsys.readouterr().out
    main(["export", str(run), "-o", str(model), "--calibrate", "dead_leaves:1"])
    printed = capsys.readouterr().out
    assert abs(float(printed.split("integers cost ")[1].split(" %")[0])) < 0.3
    image = image_of(100, 72)
    Image.fromarray(image).save(tmp_path / "a.png")
    main(["compress", str(tmp_path / "a.png"), "--model", str(model), "-o", str(file)])
    main(["decompress", str(file), "--model", str(model), "-o", str(tmp_path / "b.png")])
    loaded = load_model(model)
    assert loaded.compress(image) == file.read_bytes()
    decoded = np.asarray(Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(decoded, loaded.decompress(file.read_bytes()))
    (quantized,) = loaded.quantize([image])
    estimated = float_model.estimated_bits(small.model, small.autoencoder, quantized) / 8
    assert file.stat().st_size <= 1.003 * estimated + 64


def test_the_codec_decodes_what_the_network_makes(small, small_model):
    image = image_of(72, 100)
    out = jax.jit(forward, static_argnums=0)(
        small.model, small.autoencoder, jnp.asarray(image[None] / 255, jnp.float32)
    )
    (quantized,) = small_model.quantize([image])
    np.testing.assert_array_equal(quantized.z, np.asarray(out.z_hat)[0])
    y_hat = coding.decode(small_model.entropy, coding.bitstream.unpack(small_model.compress(image)))
    off = np.abs(y_hat - np.asarray(out.y_hat)[0])
    assert np.mean(off > 0.5) < 0.002  # a latent half a step from its mean
    assert np.max(off[off < 0.5]) < 2e-3


# What is not that of the reference, and gradients.


def test_medians_have_no_gradient_and_z_passes_its_own(small):
    def loss(params, key):
        out = forward(small.model, params, jnp.asarray(image_of(64, 64)[None] / 255, "f4"), key)
        return jnp.sum(out.rates.noisy) + jnp.sum(out.x_hat)

    gradient = jax.jit(jax.grad(loss))(small.autoencoder, jax.random.key(0))["hyperprior"]
    assert not np.any(gradient[MEDIAN])
    assert np.any(gradient["analysis"]["conv2"]["Conv_0"]["bias"])


def test_halves_are_rounded_to_even(golden):
    values, expected = golden("msillm")["round_half"]
    found = ops.straight_through_round(jnp.asarray(values), halves="even")
    np.testing.assert_array_equal(found, expected)
    assert jnp.any(ops.straight_through_round(jnp.asarray(values)) != expected)


def test_the_discriminator_is_that_of_pytorch():
    x, y_hat = jnp.ones((1, 64, 64, 3)), jnp.ones((1, 4, 4, 5))
    settings = DiscriminatorConfig(widths=(4, 4))
    ours, port = (
        jax.jit(Discriminator(settings, variant, "unit").init_with_output)(
            jax.random.key(0), x, y_hat
        )[0]
        for variant in (VARIANT, "pytorch")
    )
    np.testing.assert_array_equal(ours, port)
