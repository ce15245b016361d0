"""`fa-hific import-torch`: every parameter in its place, options found, bad files named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_state
import reference_weights
import torch_files
from pytorch_state import ARGS, TINY, tiny_checkpoint, tiny_state
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder, workdir_path
from fa_hific_jax.cli import main as cli
from fa_hific_jax.convert.torch_checkpoint import LEGACY_SIGMAS, Options, import_checkpoint
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw
from fa_hific_jax.training import state as training_state
from fa_hific_jax.training import warm_start


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_names_and_shapes_are_those_that_the_port_and_the_fork_save(data_folder):
    def listed(file, part):
        entries = json.loads((data_folder.parent / "golden" / file).read_text())[part]
        return {entry["name"]: tuple(entry["shape"]) for entry in entries}

    hific = listed("param_names_hific.json", "training_compression_gan")
    assert pytorch_state.hific_shapes() == hific
    fork = pytorch_state.shapes(reference_weights.paper(fcm_width=64, fcm="legacy"))
    fork |= {key: (1,) for row in LEGACY_SIGMAS for key in row}  # The fork saves no discriminator.
    added = listed("param_names_fahific.json", "training_compression_gan_added_to_upstream")
    assert fork == {k: v for k, v in hific.items() if not k.startswith("Discriminator.")} | added


def test_parameters_are_taken_in_our_layout(tmp_path):
    imported, state = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt")), tiny_state()
    found = imported.autoencoder["generator"]["up1"]["kernel"]
    kernel = state["Generator.upconv_block4.0.weight"]
    np.testing.assert_array_equal(found, kernel[:, :, ::-1, ::-1].transpose(2, 3, 0, 1))
    found = imported.training["discriminator"]["spectral"]["conv0"]["v"]
    vector = state["Discriminator.conv1.weight_v"].reshape(-1, 4, 4)
    np.testing.assert_array_equal(found, vector.transpose(1, 2, 0).ravel())


def test_the_command_writes_a_folder_that_inference_and_training_read(tmp_path, capsys):
    path, folder = tiny_checkpoint(tmp_path / "a.pt"), tmp_path / "imported"
    cli.main(["import-torch", str(path), "-o", str(folder)])
    printed = capsys.readouterr().out
    assert "--config.model.variant=pytorch --config.model.input_range=symmetric" in printed
    assert "--config.model.likelihood=logistic --config.model.residual_blocks=1\n" in printed
    assert "trained: 70 steps, regime med" in printed
    assert "ignored: epoch, compression_optimizer_state_dict (not part of the model)" in printed
    assert "assumed" not in printed

    imported = import_checkpoint(path)
    settings = tiny_settings(**TINY, loss__gan=0.15, init_from=str(folder))
    params, step, *_ = load_autoencoder(workdir_path(str(folder)), settings)
    assert step == 70
    equal(params, imported.autoencoder)

    fresh = jax.jit(training_state.create, static_argnums=0)(settings, jax.random.key(0))
    started, _ = warm_start.take(fresh, warm_start.find(settings))
    equal(started.params["autoencoder"], imported.autoencoder)
    theirs = imported.training["discriminator"]
    equal(started.discriminator.params, theirs["params"])
    equal(started.discriminator.spectral, theirs["spectral"])

    with pytest.raises(SystemExit, match="2"):
        cli.main(["import-torch", str(path), "-o", str(folder)])
    assert "holds checkpoints already" in capsys.readouterr().err


def test_without_a_discriminator_only_the_autoencoder_is_written_and_counted(tmp_path, capsys):
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
    imported = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", state))
    assert (imported.model.fcm, imported.model.fcm_width) == ("legacy", 3)
    norm = imported.autoencoder["generator"]["fcm1"]["norm1"]["scale"]
    np.testing.assert_array_equal(norm, state["Generator.FCM1.4.weight"])
    kernel = imported.autoencoder["generator"]["fcm2"]["conv2"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["Generator.FCM2.11.weight"])
    # [[A1, A2], [C1, C2]]; only their squares entered the fork's kernels.
    sigmas = sigma_from_raw(jnp.asarray(imported.training["dsl_sigma"]))
    np.testing.assert_allclose(sigmas, [[1, 2], [3, 4]], rtol=1e-6)


def test_what_evaluation_mode_saves_besides_is_ignored(tmp_path):
    state, likelihood = tiny_state(), "Hyperprior.hyperlatent_likelihood"
    copies = {
        key.replace(likelihood, "Hyperprior.hyperprior_entropy_model.distribution"): value
        for key, value in state.items()
        if key.startswith(likelihood)
    }
    copies["Hyperprior.prior_entropy_model.CDF"] = np.zeros((64, 9), np.int32)
    plain = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", state))
    imported = import_checkpoint(tiny_checkpoint(tmp_path / "b.pt", state | copies))
    equal(imported.autoencoder, plain.autoencoder)
    assert {name for name, _ in imported.ignored} >= set(copies)


STRUCT = torch_files.Call("src.helpers.utils", "Struct", state=ARGS)


@pytest.mark.parametrize(
    ("args", "options", "expected", "assumed"),
    [
        (ARGS, Options(), ("symmetric", "logistic", "med"), []),
        (STRUCT, Options(), ("symmetric", "logistic", "med"), []),
        (ARGS, Options("unit", "gaussian"), ("unit", "gaussian", "med"), []),
        (None, Options(), ("unit", "gaussian", None), ["input_range", "likelihood"]),
        (None, Options("symmetric", "logistic"), ("symmetric", "logistic", None), []),
    ],
)
def test_the_command_line_tells_the_options_then_the_arguments_then_a_guess(
    tmp_path, args, options, expected, assumed
):
    imported = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt", args=args), options)
    model = imported.model
    assert (model.input_range, model.likelihood, imported.regime) == expected
    assert imported.assumed == assumed


def test_a_state_dict_alone_is_enough(tmp_path):
    imported = import_checkpoint(torch_files.save(tmp_path / "a.pt", tiny_state()))
    assert (imported.model.residual_blocks, imported.step, imported.regime) == (1, 0, None)


def refused(path, sentence):
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(path)


def test_wrong_numbers_of_residual_blocks_are_named_and_can_be_corrected(tmp_path):
    path = tiny_checkpoint(tmp_path / "a.pt", args=ARGS | {"n_residual_blocks": 9})
    refused(path, "1 residual blocks, but its arguments .* give --residual-blocks 1")
    assert import_checkpoint(path, Options(residual_blocks=1)).model.residual_blocks == 1


BIAS = "Generator.conv_block_out.1.bias"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({BIAS: None}, f"a.pt: parameters are missing: {BIAS}$"),
        ({f"x.{i}": np.zeros(1) for i in range(5)}, "unknown: x.0, x.1, x.2 and 2 more$"),
        ({"Encoder.conv_block3.1.bias": None}, "conv_block3.1.bias is missing: the file does not"),
        ({BIAS: np.zeros(4, np.float32)}, rf"{BIAS} has the shape \(4,\) instead of \(3,\)"),
        ({BIAS: np.float32([0, np.nan, 0])}, f"{BIAS} holds values that are not finite"),
        ({BIAS: np.zeros(3, np.int64)}, f"{BIAS} holds values that are not finite floating-point"),
        ({BIAS: "text"}, f"{BIAS} has the shape None"),
        ({BIAS: torch_files.Call("argparse", "Namespace")}, f"{BIAS} has the shape None"),
        ({3: np.zeros(1)}, "parameters are unknown: 3$"),
        ({"Generator.\x1b[2J": np.zeros(1)}, r"unknown: Generator.\\x1b\[2J$"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, sentence):
    state = {key: value for key, value in (tiny_state() | change).items() if value is not None}
    refused(tiny_checkpoint(tmp_path / "a.pt", state), sentence)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"use_latent_mixture_model": True}, "use_latent_mixture_model, which is not supported"),
        ({"sample_noise": True}, "sample_noise, which is not supported"),
        ({"likelihood_type": "laplace"}, "model.likelihood is 'laplace': choose one of"),
        ({"likelihood_type": np.zeros(3)}, "model.likelihood is .*: choose one of"),
        ({"n_residual_blocks": np.zeros(3)}, "its arguments or the command line say otherwise"),
    ],
)
def test_kinds_of_models_that_do_not_exist_here_are_refused(tmp_path, change, sentence):
    refused(tiny_checkpoint(tmp_path / "a.pt", args=ARGS | change), sentence)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"model_state_dict": 3}])
def test_other_files_of_pytorch_are_refused(tmp_path, content):
    refused(torch_files.save(tmp_path / "a.pt", content), "PyTorch HiFiC")
