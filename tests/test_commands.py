"""train.py and eval.py as processes: one sentence and exit code 2 for every mistake of a user."""

from pathlib import Path

import numpy as np
import pytest
from etils import epath
from forked import scripts

from configs import small
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.settings import from_mapping

DEMO = "--config=configs/small.py"
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
    return config
"""


@pytest.fixture(scope="module")
def command():
    with scripts() as run:
        yield run


@pytest.fixture
def sentence(command):
    """What a command that must fail says after "error: ", all else having been checked."""

    def said(*arguments) -> str:
        done = command(*arguments)
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.stderr
        assert done.stderr.splitlines()[-1] == errors[0]
        assert done.returncode == 2
        return errors[0].removeprefix("error: ")

    return said


@pytest.fixture
def write(tmp_path):
    """Writes a config file and returns its path."""

    def to_file(text: str) -> Path:
        path = tmp_path / "config.py"
        path.write_text(text)
        return path

    return to_file


@pytest.mark.parametrize(
    ("script", "example", "flags"),
    [
        ("train.py", "--config configs/fa_hific.py:lo --workdir runs/", ("config", "workdir")),
        ("eval.py", "--workdir runs/demo\n", ("config", "workdir", "models", "images", "out")),
    ],
)
def test_help_teaches_by_example_and_lists_the_flags(command, script, example, flags):
    done = command(script, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"python {script} {example}" in done.stdout
    for flag in flags:
        assert f"\n  --{flag}: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--config.loss.taget_bpp=1"],
            "unknown config key loss.taget_bpp: did you mean loss.target_bpp?",
        ),
        (
            ["--config.train.steps=many"],
            "train.steps is 'many': it must be a whole number",
        ),
        (
            ["--config.train.steps=1e3"],
            "train.steps is '1e3': write it without point or exponent, --config.train.steps=1000",
        ),
        (
            ["--config.optimizer.learning_rate=nan"],
            "optimizer.learning_rate is nan: it must be a finite number",
        ),
        (
            ["--config.loss.lpips=1", "--config.loss.lpips_file="],
            "loss.lpips is 1.0 but loss.lpips_file names no weights: set it to 'alex', or turn "
            "the term off with --config.loss.lpips=0",
        ),
        (
            ["--config.loss.gan_kind=wgan"],
            "loss.gan_kind is 'wgan': choose one of non_saturating, least_squares",
        ),
        (["surplus"], "unexpected argument 'surplus': see --help"),
        (["--workdir=LICENSE"], "--workdir LICENSE is a file: name a folder"),
    ],
)
def test_bad_argument_of_training_is_named(sentence, arguments, expected, tmp_path):
    assert sentence("train.py", DEMO, f"--workdir={tmp_path}", *arguments) == expected
    assert list(tmp_path.iterdir()) == []


def test_missing_flags_are_named(sentence, tmp_path):
    assert sentence("train.py", f"--workdir={tmp_path}") == (
        "--config is missing: Config file, with its variant behind a colon: "
        "configs/fa_hific.py:lo; see --help"
    )
    assert sentence("train.py", DEMO) == (
        "--workdir is missing: Folder for checkpoints and logs of this run; see --help"
    )
    assert sentence("train.py", f"--workdir={tmp_path}", "--config.train.steps=3") == (
        "--config is missing, so there is no config.train.steps to change: see --help"
    )


@pytest.mark.parametrize("override", [[], ["--config.train.steps=3"]])
def test_config_that_does_not_exist_is_named(sentence, override, tmp_path):
    said = sentence("train.py", "--config", "configs/no.py:lo", f"--workdir={tmp_path}", *override)
    assert said == (
        "--config configs/no.py: no such file: give one that exists, or "
        "base, demo, fa_hific, hific, lite, mse_lpips, small, tiny"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "with config.unlocked(): config.loss.lpisp = 1.0",
            "unknown config key loss.lpisp: did you mean loss.lpips?",
        ),
        ("config.train.steps = 'many'", "{path}, line 4: TypeError: many is of original type "),
        ("config.train.stesp = 1", '{path}, line 4: KeyError: Key "stesp" does not exist and '),
        ("return config return", "{path}, line 4: SyntaxError: invalid syntax: fix the config"),
        ("import no_such_thing", "{path}, line 4: ModuleNotFoundError: No module named 'no_such"),
    ],
)
def test_mistake_within_a_config_is_placed(sentence, code, expected, write, tmp_path):
    path = write(
        "from configs import small\ndef get_config():\n    config = small.get_config()\n"
        f"    {code}\n    return config\n"
    )
    said = sentence("train.py", "--config", path, f"--workdir={tmp_path / 'run'}")
    assert said.startswith(expected.format(path=path))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"{}", "--config {path}: defines no function get_config: see docs/configuration.md"),
        (b"\x89PNG\0", "{path}: SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_config_that_is_none_is_named(sentence, code, expected, tmp_path):
    path = tmp_path / "config.py"
    path.write_bytes(code)
    said = sentence("train.py", "--config", path, f"--workdir={tmp_path / 'run'}")
    assert said.startswith(expected.format(path=path))


def test_training_on_no_images_and_on_a_broken_one_names_folder_and_file(sentence, write, tmp_path):
    config, folder = write(SMALL), tmp_path / "images"
    folder.mkdir()
    arguments = (
        "train.py",
        f"--config={config}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.train={folder}",
    )
    assert sentence(*arguments).startswith(f"{folder}: no images here; expected a folder or glob")
    (folder / "broken.png").write_text("no picture")
    said = sentence(*arguments)
    assert said.startswith("none of the 1 images of a source can be read: ")
    assert f"{folder / 'broken.png'}: cannot be read as an image" in said


def test_evaluation_without_a_trained_model_names_the_folder(sentence, tmp_path):
    missing = tmp_path / "missing"
    said = sentence("eval.py", DEMO, f"--workdir={missing}")
    assert said == f"--workdir {missing} holds no checkpoints folder: train there with train.py"
    (tmp_path / "checkpoints").mkdir()
    said = sentence("eval.py", DEMO, f"--workdir={tmp_path}")
    assert said == f"{tmp_path}/checkpoints holds no complete checkpoint: train there with train.py"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name what to evaluate: a run with --workdir, or several with --models"),
        (["--workdir=a", "--models=b"], "name what to evaluate: a run with --workdir, or several"),
        (["--models=a,b"], "--out is missing: several models need a folder for their results"),
        (["--workdir=a", "surplus"], "unexpected argument 'surplus': see --help"),
        (["--compare", "a", ""], "--compare takes two folders, not 1: --compare RUN_A RUN_B"),
        (["--workdir=a", "--out="], "--out is an empty name: give another, or leave it out"),
        (["--workdir=a", "--quality=high"], "--quality is high: give numbers from 0 to 1"),
        (["--workdir=a", "--limit=few"], "--limit=few: invalid literal for int()"),
    ],
)
def test_evaluation_that_makes_no_sense_is_refused_in_a_sentence(sentence, arguments, expected):
    assert sentence("eval.py", *arguments).startswith(expected)


def test_evaluation_with_another_model_than_trained_names_the_key(sentence, tmp_path):
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=1)
    nothing = {"nothing": np.zeros((), np.float32)}
    checkpoints.save(5, nothing, nothing, from_mapping(small.get_config().to_dict()))
    checkpoints.close()
    said = sentence("eval.py", DEMO, f"--workdir={tmp_path}", "--config.model.fcm_width=16")
    assert said == (
        "the checkpoint of step 5 was made with model.fcm_width=8, the config says 16: "
        "use that run's config or another --workdir"
    )
