"""`fa-hific import-torch`: every parameter in its place, options found, bad files named."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_state
import reference_weights
import torch_files
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder, workdir_path
from fa_hific_jax.cli import main as cli
from fa_hific_jax.convert.pytorch_hific import Options, import_checkpoint
from fa_hific_jax.convert.pytorch_layout import (
    LEGACY_SIGMAS,
    Source,
    autoencoder_sources,
    discriminator_sources,
)
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw
from fa_hific_jax.models.autoencoder import ModelConfig, bind
from fa_hific_jax.models.discriminator import SPECTRAL, Discriminator
from fa_hific_jax.training import state as training_state
from fa_hific_jax.training import warm_start

# Measured: 1e-6 to 6e-6 at values up to 4; float32 alone moves whole networks by 1e-6 to 2e-5.
NEAR = {"rtol": 1e-4, "atol": 1e-4}
TINY = dict(
    model__input_range="symmetric",
    model__likelihood="logistic",
    model__residual_blocks=1,
    model__fcm_width=0,
    model__hyper_rounding="noise",
    loss__dsl=0.0,
)
ARGS = {
    "normalize_input_image": True,
    "likelihood_type": "logistic",
    "n_residual_blocks": 1,
    "regime": "med",
    "use_latent_mixture_model": False,
    "sample_noise": False,
    "lambda_schedule": {"vals": [2.0, 1.0], "steps": [50000]},
    "image_dims": (3, 256, 256),
}


def sources(model, discriminator) -> list[Source]:
    trees = (
        autoencoder_sources(model),
        discriminator and discriminator_sources(discriminator, model),
    )
    return jax.tree.leaves(trees, is_leaf=lambda node: isinstance(node, Source))


def tiny_state(**overrides) -> dict[str, np.ndarray]:
    """A state dict of the port, of the size of `tiny_settings`."""
    settings, rng = tiny_settings(**TINY | overrides), np.random.default_rng(0)
    found = sources(settings.model, settings.discriminator)
    return {s.key: rng.normal(size=s.shape).astype(np.float32) for s in found}


def tiny_checkpoint(path, state=None, args=ARGS, **entries):
    content = {
        "model_state_dict": tiny_state() if state is None else state,
        "steps": 70,
        "epoch": 2,
    }
    content |= {"compression_optimizer_state_dict": {"state": {}}} | entries
    return torch_files.save(path, content if args is None else content | {"args": args})


@pytest.fixture(scope="module")
def full_width(golden, data_folder, tmp_path_factory):
    """The port's model of full width with 2 residual blocks and the reference's weights."""
    state = pytorch_state.hific(data_folder.parent / "golden", residual_blocks=2)
    vectors = golden("discriminator")
    for layer in range(1, 5):
        state[f"Discriminator.conv{layer}.weight_u"] = vectors[f"conv{layer}_u"]
        state[f"Discriminator.conv{layer}.weight_v"] = vectors[f"conv{layer}_v"]
    path = tmp_path_factory.mktemp("torch") / "hific.pt"
    torch_files.save(path, {"model_state_dict": state, "steps": 5})
    yield import_checkpoint(path, Options())
    path.unlink()


def test_names_and_shapes_are_those_that_the_port_and_the_fork_save(full_width, data_folder):
    folder = data_folder.parent / "golden"
    listed = json.loads((folder / "param_names_hific.json").read_text())["training_compression_gan"]
    model = dataclasses.replace(full_width.model, residual_blocks=9)
    found = {s.key: s.shape for s in sources(model, full_width.discriminator)}
    assert found == {entry["name"]: tuple(entry["shape"]) for entry in listed}

    added = json.loads((folder / "param_names_fahific.json").read_text())
    added = added["training_compression_gan_added_to_upstream"]
    legacy = dataclasses.replace(model, fcm_width=64, fcm="legacy")
    fork = {s.key: s.shape for s in sources(legacy, full_width.discriminator)}
    fork |= {key: (1,) for row in LEGACY_SIGMAS for key in row}
    assert fork == found | {entry["name"]: tuple(entry["shape"]) for entry in added}


def test_every_parameter_of_full_width_is_the_reference_in_our_layout(full_width):
    expected = {
        "encoder": reference_weights.encoder(),
        "generator": reference_weights.generator(2),
        "hyperprior": reference_weights.hyperprior(),
    }
    jax.tree.map(np.testing.assert_array_equal, full_width.autoencoder, expected)
    found = full_width.training["discriminator"]["params"]
    jax.tree.map(np.testing.assert_array_equal, found, reference_weights.discriminator())
    assert full_width.model.encoder_widths == reference_weights.WIDTHS
    assert full_width.model.generator_widths == reference_weights.WIDTHS[::-1]


def test_networks_of_full_width_equal_the_reference(full_width, golden):
    def run(function, array):
        network = jax.jit(lambda params, x: function(bind(full_width.model, params), x))
        return network(full_width.autoencoder, reference_weights.nhwc(array))

    data = golden("encoder")
    y = run(lambda m, x: m.encoder(x)[0], data["x"])
    np.testing.assert_allclose(y, reference_weights.nhwc(data["y"]), **NEAR)
    data = golden("generator_res2")
    image = run(lambda m, y: m.generate(y), data["y"])
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image"]), **NEAR)
    data = golden("hyper")
    mean, scale = run(lambda m, z: m.hyperprior.synthesis(z), data["z"])
    np.testing.assert_allclose(mean, reference_weights.nhwc(data["mu_out"]), **NEAR)
    raw = reference_weights.nhwc(data["std_raw_out"])
    np.testing.assert_allclose(scale, np.maximum(raw, 0.11), **NEAR)


def test_the_discriminator_equals_the_reference_with_its_stored_vectors(full_width, golden):
    data = golden("discriminator")
    network = Discriminator(full_width.discriminator, "pytorch", "unit")
    variables = full_width.training["discriminator"]
    logits = jax.jit(network.apply)(
        {"params": variables["params"], SPECTRAL: variables["spectral"]},
        *(reference_weights.nhwc(data[key]) for key in "xy"),
    )
    np.testing.assert_allclose(np.ravel(logits), data["eval_logits"][:, 0], **NEAR)


def test_the_command_writes_a_folder_that_inference_and_training_read(tmp_path, capsys):
    path, folder = tiny_checkpoint(tmp_path / "a.pt"), tmp_path / "imported"
    cli.main(["import-torch", str(path), "-o", str(folder)])
    printed = capsys.readouterr().out
    assert "--config.model.variant=pytorch --config.model.input_range=symmetric" in printed
    assert "--config.model.likelihood=logistic --config.model.residual_blocks=1\n" in printed
    assert "trained: 70 steps, regime med" in printed
    assert "ignored: compression_optimizer_state_dict (an optimizer's state" in printed
    assert "assumed" not in printed

    imported = import_checkpoint(path, Options())
    settings = tiny_settings(**TINY, loss__gan=0.15, init_from=str(folder))
    params, step, *_ = load_autoencoder(workdir_path(str(folder)), settings)
    assert step == 70
    jax.tree.map(np.testing.assert_array_equal, params, imported.autoencoder)

    fresh = jax.jit(training_state.create, static_argnums=0)(settings, jax.random.key(0))
    started, _ = warm_start.take(fresh, warm_start.find(settings))
    jax.tree.map(np.testing.assert_array_equal, started.params["autoencoder"], imported.autoencoder)
    theirs = imported.training["discriminator"]
    jax.tree.map(np.testing.assert_array_equal, started.discriminator.params, theirs["params"])
    jax.tree.map(np.testing.assert_array_equal, started.discriminator.spectral, theirs["spectral"])

    with pytest.raises(SystemExit, match="2"):
        cli.main(["import-torch", str(path), "-o", str(folder)])
    assert "holds checkpoints already" in capsys.readouterr().err


def test_counts_of_parameters_are_printed_by_part(tmp_path, capsys):
    state = {k: v for k, v in tiny_state().items() if not k.startswith("Discriminator.")}
    path = tiny_checkpoint(tmp_path / "a.pt", state)
    cli.main(["import-torch", str(path), "-o", str(tmp_path / "b")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = {line[1]: int(line[2].replace(",", "")) for line in lines if line[0] == "parameters:"}
    assert list(counts) == ["encoder", "generator", "hyperprior", "total"]
    assert counts["total"] == sum(value.size for value in state.values())
    stored = Checkpoints(workdir_path(str(tmp_path / "b")), kept=None)
    assert stored.contents(70, "training") == {}
    stored.close()


def test_legacy_modules_and_sigmas_of_the_fork_are_imported(tmp_path):
    state = tiny_state(model__fcm_width=3, model__fcm="legacy", data__crop=256)
    for number, key in enumerate(key for row in LEGACY_SIGMAS for key in row):
        state[key] = np.float32([(-1) ** number * (number + 1)])
    imported = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", state), Options())
    assert (imported.model.fcm, imported.model.fcm_width) == ("legacy", 3)
    norm = imported.autoencoder["generator"]["fcm1"]["norm1"]["scale"]
    np.testing.assert_array_equal(norm, state["Generator.FCM1.4.weight"])
    kernel = imported.autoencoder["generator"]["fcm2"]["conv2"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["Generator.FCM2.11.weight"])
    # [[A1, A2], [C1, C2]]; only their squares entered the fork's kernels.
    sigmas = sigma_from_raw(jnp.asarray(imported.training["dsl_sigma"]))
    np.testing.assert_allclose(sigmas, [[1, 2], [3, 4]], rtol=1e-6)


def test_what_evaluation_mode_saves_besides_is_ignored(tmp_path):
    state = tiny_state()
    plain = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", state), Options())
    likelihood = "Hyperprior.hyperlatent_likelihood"
    copies = {
        key.replace(likelihood, "Hyperprior.hyperprior_entropy_model.distribution"): value
        for key, value in state.items()
        if key.startswith(likelihood)
    }
    tables = {
        "Hyperprior.prior_entropy_model.CDF": np.zeros((64, 9), np.int32),
        "Hyperprior.hyperprior_entropy_model.CDF_offset": np.zeros(64, np.int32),
        "Hyperprior.prior_entropy_model.scale_table_tensor": np.zeros(64, np.float32),
        "Hyperprior.prior_entropy_model.min_scale_tensor": np.zeros(1, np.float32),
    }
    path = tiny_checkpoint(tmp_path / "b.pt", state | copies | tables)
    imported = import_checkpoint(path, Options())
    jax.tree.map(np.testing.assert_array_equal, imported.autoencoder, plain.autoencoder)
    assert {name for name, _ in imported.ignored} >= {*copies, *tables}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_pytorch_itself_is_imported(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    state = tiny_state()
    tensors = {key: torch.nn.Parameter(torch.from_numpy(value)) for key, value in state.items()}
    content = {"model_state_dict": tensors, "steps": 70, "args": ARGS}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = import_checkpoint(tmp_path / "a.pt", Options())
    expected = import_checkpoint(tiny_checkpoint(tmp_path / "b.pt", state), Options())
    jax.tree.map(np.testing.assert_array_equal, found.autoencoder, expected.autoencoder)
    jax.tree.map(np.testing.assert_array_equal, found.training, expected.training)


@pytest.mark.parametrize(
    "args",
    [ARGS, torch_files.Call("src.helpers.utils", "Struct", state=ARGS)],
    ids=["dict", "Struct"],
)
def test_stored_arguments_tell_the_options_and_the_command_line_wins(tmp_path, args):
    path = tiny_checkpoint(tmp_path / "a.pt", args=args)
    imported = import_checkpoint(path, Options())
    assert (imported.model.input_range, imported.model.likelihood) == ("symmetric", "logistic")
    assert (imported.regime, imported.assumed) == ("med", [])
    imported = import_checkpoint(path, Options("unit", "gaussian"))
    assert (imported.model.input_range, imported.model.likelihood) == ("unit", "gaussian")


def test_without_arguments_the_keys_tell_and_the_rest_is_said_to_be_assumed(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", tiny_state())
    imported = import_checkpoint(path, Options())
    assert (imported.model.residual_blocks, imported.step, imported.regime) == (1, 0, None)
    assert (imported.model.input_range, imported.model.likelihood) == ("unit", "gaussian")
    assert imported.assumed == ["input_range", "likelihood"]
    imported = import_checkpoint(path, Options("symmetric", "logistic"))
    assert (imported.model.input_range, imported.model.likelihood) == ("symmetric", "logistic")
    assert imported.assumed == []


def test_wrong_numbers_of_residual_blocks_are_named_and_can_be_corrected(tmp_path):
    path = tiny_checkpoint(tmp_path / "a.pt", args=ARGS | {"n_residual_blocks": 9})
    with pytest.raises(
        UserError, match="1 residual blocks, but its arguments .* give --residual-blocks 1"
    ):
        import_checkpoint(path, Options())
    assert import_checkpoint(path, Options(residual_blocks=1)).model.residual_blocks == 1


BIAS = "Generator.conv_block_out.1.bias"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({BIAS: None}, f"a.pt: parameters are missing: {BIAS}$"),
        ({"Generator.extra": np.zeros(1)}, "parameters are unknown: Generator.extra$"),
        ({f"x.{i}": np.zeros(1) for i in range(5)}, "x.0, x.1, x.2 and 2 more$"),
        (
            {"Encoder.conv_block3.1.bias": None},
            "conv_block3.1.bias is missing: the file does not hold",
        ),
        (
            {BIAS: np.zeros(4, np.float32)},
            rf"{BIAS} has the shape \(4,\) instead of the shape \(3,\)",
        ),
        ({BIAS: np.float32([0, np.nan, 0])}, f"{BIAS} holds values that are not finite"),
        ({BIAS: np.zeros(3, np.int64)}, f"{BIAS} does not hold floating-point numbers"),
        ({BIAS: "text"}, rf"{BIAS} has no numbers instead of the shape \(3,\)"),
        ({BIAS: torch_files.Call("argparse", "Namespace")}, f"{BIAS} has no numbers instead"),
        ({3: np.zeros(1)}, "model_state_dict or args is not a mapping"),
        ({"Generator.\x1b[2J": np.zeros(1)}, r"unknown: Generator.\\x1b\[2J$"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, sentence):
    state = {key: value for key, value in (tiny_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", state), Options())


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"use_latent_mixture_model": True}, r"mixture model \(DLMM\), which is not supported"),
        ({"sample_noise": True}, "its generator takes noise"),
        ({"likelihood_type": "laplace"}, "model.likelihood is 'laplace': choose one of"),
        ({"likelihood_type": np.zeros(3)}, "model.likelihood is 'ndarray': choose one of"),
        ({"n_residual_blocks": np.zeros(3)}, "its arguments or the command line say otherwise"),
    ],
)
def test_kinds_of_models_that_do_not_exist_here_are_refused(tmp_path, change, sentence):
    path = tiny_checkpoint(tmp_path / "a.pt", args=ARGS | change)
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(path, Options())


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"model_state_dict": 3}])
def test_other_files_of_pytorch_are_refused(tmp_path, content):
    path = torch_files.save(tmp_path / "a.pt", content)
    with pytest.raises(UserError, match="PyTorch HiFiC"):
        import_checkpoint(path, Options())


def imported_by_command(state, tmp_path):
    """(model, parameters) of a state dict, through a file, the command and its folder."""
    path = torch_files.save(tmp_path / "a.pt", {"model_state_dict": state, "steps": 5})
    cli.main(["import-torch", str(path), "-o", str(tmp_path / "run")])
    path.unlink()
    stored = Checkpoints(workdir_path(str(tmp_path / "run")), kept=None)
    config = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in stored.settings(5)["model"].items()
    }
    params = stored.read(5, "autoencoder", stored.contents(5, "autoencoder"))
    stored.close()
    return ModelConfig(**config), params


@pytest.mark.slow
def test_hific_with_nine_residual_blocks_equals_the_reference(tmp_path, golden, data_folder):
    data = golden("generator_res9")
    state = pytorch_state.hific(data_folder.parent / "golden", residual_blocks=9)
    model, params = imported_by_command(state, tmp_path)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 7_423_420 + 156_774_683 + 17_277_560
    image = bind(model, params).generate(reference_weights.nhwc(data["y"]))
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image"]), **NEAR)


@pytest.mark.slow
def test_the_model_of_the_fork_equals_the_reference(tmp_path, golden, data_folder):
    data = golden("authors_full")
    state = pytorch_state.fork(data_folder.parent / "golden", residual_blocks=9)
    model, params = imported_by_command(state, tmp_path)
    y = reference_weights.nhwc(data["y"].astype(np.float32))
    image = bind(model, params).generate(y)[:, ::5, ::5]
    np.testing.assert_allclose(image, reference_weights.nhwc(data["image_slice"]), **NEAR)
