"""`fa-hific train` and `eval`: one sentence and exit code 2 for every mistake of a user."""

import sys

import numpy as np
import pytest
from absl.testing import flagsaver
from cpu_devices import ROOT
from etils import epath

from configs import small
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.cli import eval, train  # noqa: F401  (define their flags, loop those of Grain)
from fa_hific_jax.cli.main import main
from fa_hific_jax.settings import from_mapping
from fa_hific_jax.training import loop  # noqa: F401

CONFIG = "--config=configs/small.py"
SMALL = """
from configs import small
def get_config():
    config = small.get_config()
    config.model.encoder_widths = config.model.generator_widths = (4, 4, 4, 4, 4)
    config.model.latent_channels = config.model.hyper_channels = 4
    config.model.residual_blocks = 1
    config.model.fcm_width = 4
    config.loss.gan = 0.0
    config.train.batch_size = 2
    {}
    return config
"""


@pytest.fixture
def ended(capsys, monkeypatch):
    """Exit code, standard output and standard error of a command in the repository's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [])  # to be restored

    def run(*arguments) -> tuple[int, str, str]:
        sys.modules.pop("config_config", None)  # in which ml_collections keeps the last config
        with pytest.raises(SystemExit) as end, flagsaver.flagsaver():
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def sentence(ended):
    """What a command that must fail says after "error: "."""

    def said(*arguments) -> str:
        code, _, err = ended(*arguments)
        (line,) = (line for line in err.splitlines() if line.startswith("error:"))
        assert code == 2 and "Traceback" not in err and err.endswith(f"{line}\n")
        return line.removeprefix("error: ")

    return said


@pytest.mark.parametrize(
    ("command", "example", "given"),
    [
        ("train", "--config configs/fa_hific.py:lo --workdir runs/", ("config", "workdir")),
        ("eval", "--workdir runs/demo\n", ("config", "workdir", "models", "images", "out")),
    ],
)
def test_help_teaches_by_example_and_lists_the_flags(ended, command, example, given):
    code, out, err = ended(command, "--help")
    assert (code, err) == (0, "") and f"python {command}.py {example}" in out
    assert all(f"\n  --{flag}: " in out for flag in given)


TRAINING = [
    ([CONFIG, "--config.loss.taget_bpp=1"], "did you mean loss.target_bpp?"),
    ([CONFIG, "--config.train.steps=many"], "train.steps is 'many': it must be a whole number"),
    (
        [CONFIG, "--config.loss.lpips=1", "--config.loss.lpips_file="],
        "loss.lpips_file is '': LPIPS needs weights: set it to 'alex', or turn LPIPS off with",
    ),
    ([CONFIG, "surplus"], "unexpected argument 'surplus': see --help"),
    ([CONFIG, "--workdir=LICENSE"], "--workdir LICENSE is a file: name a folder"),
    ([CONFIG, "--workdir="], "--workdir is missing: Folder of a run, for its checkpoints"),
    ([], "--config is missing: Config file, with its variant after a colon"),
    (["--config.train.steps=3"], "--config is missing, so there is no config.train.steps to"),
    (["--config=configs/no.py:lo"], "--config configs/no.py: no such file: give one that exists, "),
]


@pytest.mark.parametrize(("arguments", "expected"), TRAINING)
def test_bad_arguments_of_training_are_named(sentence, arguments, expected, tmp_path):
    assert expected in sentence("train", f"--workdir={tmp_path}", *arguments)
    assert list(tmp_path.iterdir()) == []


EVALUATION = [
    ([], "name what to evaluate: a run with --workdir, or several with --models"),
    (["--workdir=a", "--models=b"], "name what to evaluate: a run with --workdir, or several"),
    (["--models=a,b"], "--out is missing: several models need a folder for their results"),
    (["--workdir=a", "surplus"], "unexpected argument 'surplus': see --help"),
    (["--compare", "a", ""], "--compare takes two folders, not 1: --compare RUN_A RUN_B"),
    (["--workdir=a", "--out="], "--out is an empty name: give another, or leave it out"),
    (["--workdir=a", "--quality=high"], "--quality is high: give numbers from 0 to 1"),
    (["--workdir=a", "--limit=few"], "--limit=few: invalid literal for int()"),
    ([CONFIG, "--workdir=absent"], "absent holds no checkpoints folder: train there with train.py"),
]


@pytest.mark.parametrize(("arguments", "expected"), EVALUATION)
def test_evaluation_that_makes_no_sense_is_refused_in_a_sentence(sentence, arguments, expected):
    assert expected in sentence("eval", *arguments)


def test_evaluation_of_no_checkpoint_and_of_another_model_than_trained_is_named(sentence, tmp_path):
    arguments = ["eval", CONFIG, f"--workdir={tmp_path}"]
    (tmp_path / "checkpoints").mkdir()
    assert sentence(*arguments).startswith(f"{tmp_path}/checkpoints holds no complete checkpoint: ")
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=1)
    nothing = {"nothing": np.zeros((), np.float32)}
    checkpoints.save(5, nothing, nothing, from_mapping(small.get_config().to_dict()))
    checkpoints.close()
    expected = "step 5 was made with model.fcm_width=8, the config says 16: use that run's config"
    assert expected in sentence(*arguments, "--config.model.fcm_width=16")


MISTAKES = {
    "with config.unlocked(): config.loss.lpisp = 1.0": "unknown config key loss.lpisp: did you ",
    "config.train.steps = 'many'": "PATH, line 11: TypeError: many is of original type ",
    "config.train.stesp = 1": 'PATH, line 11: KeyError: Key "stesp" does not exist and ',
    "return config return": "PATH, line 11: SyntaxError: invalid syntax: fix the config",
    "import no_such_thing": "PATH, line 11: ModuleNotFoundError: No module named 'no_such",
    "config.data.train = ('empty',)": "empty: no images here; expected a folder or glob",
    "config.data.train = ('images',)": "none of the 1 images of a source can be read: ",
}
NO_CONFIGS = {
    "{}": "--config PATH: defines no function get_config: see docs/configuration.md",
    "\x89PNG\0": "PATH: SyntaxError: source code string cannot contain null bytes",
}


@pytest.mark.parametrize(
    ("content", "expected"),
    [*((SMALL.format(code), said) for code, said in MISTAKES.items()), *NO_CONFIGS.items()],
)
def test_mistakes_of_a_config_are_placed(sentence, content, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/broken.png").write_text("no picture")
    path = tmp_path / "config.py"
    path.write_bytes(content.encode("latin-1"))
    said = sentence("train", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert said.replace(str(path), "PATH").startswith(expected)
