"""`fa-hific import-torch`: every parameter in its place, options found, bad files named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_state
import torch_files
from pytorch_state import ARGS, TINY, tiny_checkpoint, tiny_state
from tiny_settings import tiny_settings

from fa_hific_jax.checkpoints import Checkpoints, load_autoencoder, workdir_path
from fa_hific_jax.cli import main as cli
from fa_hific_jax.convert.pytorch_hific import LEGACY_SIGMAS
from fa_hific_jax.convert.torch_checkpoint import Options, import_checkpoint
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
    added = listed("param_names_fahific.json", "training_compression_gan_added_to_upstream")
    without = {name: hific[name] for name in hific if not name.startswith("Discriminator.")}
    assert pytorch_state.fork_shapes() == without | added


def test_parameters_are_taken_in_our_layout(tmp_path):
    # test_networks.py and its like compare these layouts with the reference.
    imported, state = import_checkpoint(tiny_checkpoint(tmp_path / "a.pt"), Options()), tiny_state()
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
    assert "ignored: compression_optimizer_state_dict (an optimizer's state" in printed
    assert "assumed" not in printed

    imported = import_checkpoint(path, Options())
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
    equal(imported.autoencoder, plain.autoencoder)
    assert {name for name, _ in imported.ignored} >= {*copies, *tables}


def told(imported) -> tuple[str, str]:
    return imported.model.input_range, imported.model.likelihood


@pytest.mark.parametrize("form", ["dict", "Struct"])
def test_stored_arguments_tell_the_options_and_the_command_line_wins(tmp_path, form):
    struct = torch_files.Call("src.helpers.utils", "Struct", state=ARGS)
    path = tiny_checkpoint(tmp_path / "a.pt", args=ARGS if form == "dict" else struct)
    imported = import_checkpoint(path, Options())
    assert told(imported) == ("symmetric", "logistic")
    assert (imported.regime, imported.assumed) == ("med", [])
    assert told(import_checkpoint(path, Options("unit", "gaussian"))) == ("unit", "gaussian")


def test_without_arguments_the_keys_tell_and_the_rest_is_said_to_be_assumed(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", tiny_state())
    imported = import_checkpoint(path, Options())
    assert (imported.model.residual_blocks, imported.step, imported.regime) == (1, 0, None)
    assert told(imported) == ("unit", "gaussian")
    assert imported.assumed == ["input_range", "likelihood"]
    imported = import_checkpoint(path, Options("symmetric", "logistic"))
    assert (told(imported), imported.assumed) == (("symmetric", "logistic"), [])


def refused(path, sentence):
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(path, Options())


def test_wrong_numbers_of_residual_blocks_are_named_and_can_be_corrected(tmp_path):
    path = tiny_checkpoint(tmp_path / "a.pt", args=ARGS | {"n_residual_blocks": 9})
    refused(path, "1 residual blocks, but its arguments .* give --residual-blocks 1")
    assert import_checkpoint(path, Options(residual_blocks=1)).model.residual_blocks == 1


BIAS, NO_NUMBERS = "Generator.conv_block_out.1.bias", "has no numbers instead of the shape"
WRONG_SHAPE = rf"{BIAS} has the shape \(4,\) instead of the shape \(3,\)"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({BIAS: None}, f"a.pt: parameters are missing: {BIAS}$"),
        ({"Generator.extra": np.zeros(1)}, "parameters are unknown: Generator.extra$"),
        ({f"x.{i}": np.zeros(1) for i in range(5)}, "x.0, x.1, x.2 and 2 more$"),
        ({"Encoder.conv_block3.1.bias": None}, "conv_block3.1.bias is missing: the file does not"),
        ({BIAS: np.zeros(4, np.float32)}, WRONG_SHAPE),
        ({BIAS: np.float32([0, np.nan, 0])}, f"{BIAS} holds values that are not finite"),
        ({BIAS: np.zeros(3, np.int64)}, f"{BIAS} does not hold floating-point numbers"),
        ({BIAS: "text"}, f"{BIAS} {NO_NUMBERS}"),
        ({BIAS: torch_files.Call("argparse", "Namespace")}, f"{BIAS} {NO_NUMBERS}"),
        ({3: np.zeros(1)}, "model_state_dict or args is not a mapping"),
        ({"Generator.\x1b[2J": np.zeros(1)}, r"unknown: Generator.\\x1b\[2J$"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, sentence):
    state = {key: value for key, value in (tiny_state() | change).items() if value is not None}
    refused(tiny_checkpoint(tmp_path / "a.pt", state), sentence)


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
    refused(tiny_checkpoint(tmp_path / "a.pt", args=ARGS | change), sentence)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"model_state_dict": 3}])
def test_other_files_of_pytorch_are_refused(tmp_path, content):
    refused(torch_files.save(tmp_path / "a.pt", content), "PyTorch HiFiC")
