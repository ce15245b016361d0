"""train.py and eval.py as processes: one sentence and exit code 2 for every mistake of a user."""

import numpy as np
import pytest
from etils import epath
from forked import scripts

from configs import small
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.settings import from_mapping

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


@pytest.fixture(scope="module")
def command():
    with scripts() as run:
        yield run


@pytest.fixture
def sentence(command):
    """What a command that must fail says after "error: ", all else having been checked."""

    def said(*arguments) -> str:
        done = command(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1 and done.stderr.endswith(f"{errors[0]}\n"), done.stderr
        return errors[0].removeprefix("error: ")

    return said


@pytest.fixture
def said_of(sentence, tmp_path):
    """What training with a config of this content says, "PATH" instead of the config's name."""

    def said(content: str | bytes, *overrides: str) -> str:
        path = tmp_path / "config.py"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        said = sentence("train.py", f"--config={path}", f"--workdir={tmp_path / 'run'}", *overrides)
        return said.replace(str(path), "PATH")

    return said


@pytest.mark.parametrize(
    ("script", "example", "flags"),
    [
        ("train.py", "--config configs/fa_hific.py:lo --workdir runs/", ("config", "workdir")),
        ("eval.py", "--workdir runs/demo\n", ("config", "workdir", "models", "images", "out")),
    ],
)
def test_help_teaches_by_example_and_lists_the_flags(command, script, example, flags):
    done = command(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python {script} {example}" in done.stdout
    for flag in flags:
        assert f"\n  --{flag}: " in done.stdout


TRAINING = [
    ([CONFIG, "--config.loss.taget_bpp=1"], "did you mean loss.target_bpp?"),
    ([CONFIG, "--config.train.steps=many"], "train.steps is 'many': it must be a whole number"),
    (
        [CONFIG, "--config.loss.lpips=1", "--config.loss.lpips_file="],
        "loss.lpips_file is '': LPIPS needs weights: set it to 'alex', or turn LPIPS off with",
    ),
    ([CONFIG, "surplus"], "unexpected argument 'surplus': see --help"),
    ([CONFIG, "--workdir=LICENSE"], "--workdir LICENSE is a file: name a folder"),
    ([], "--config is missing: Config file, with its variant after a colon"),
    (["--config.train.steps=3"], "--config is missing, so there is no config.train.steps to"),
    (["--config=configs/no.py:lo"], "--config configs/no.py: no such file: give one that exists, "),
]


@pytest.mark.parametrize(("arguments", "expected"), TRAINING)
def test_bad_arguments_of_training_are_named(sentence, arguments, expected, tmp_path):
    assert expected in sentence("train.py", f"--workdir={tmp_path}", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_workdir_is_named(sentence):
    assert sentence("train.py", CONFIG).startswith(
        "--workdir is missing: Folder of a run, for its checkpoints"
    )


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
    assert expected in sentence("eval.py", *arguments)


def test_evaluation_of_no_checkpoint_and_of_another_model_than_trained_is_named(sentence, tmp_path):
    arguments = ["eval.py", CONFIG, f"--workdir={tmp_path}"]
    (tmp_path / "checkpoints").mkdir()
    assert sentence(*arguments).startswith(f"{tmp_path}/checkpoints holds no complete checkpoint: ")
    checkpoints = Checkpoints(epath.Path(tmp_path), kept=1)
    nothing = {"nothing": np.zeros((), np.float32)}
    checkpoints.save(5, nothing, nothing, from_mapping(small.get_config().to_dict()))
    checkpoints.close()
    said = sentence(*arguments, "--config.model.fcm_width=16")
    assert (
        "step 5 was made with model.fcm_width=8, the config says 16: use that run's config" in said
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("with config.unlocked(): config.loss.lpisp = 1.0", "unknown config key loss.lpisp: did "),
        ("config.train.steps = 'many'", "PATH, line 11: TypeError: many is of original type "),
        ("config.train.stesp = 1", 'PATH, line 11: KeyError: Key "stesp" does not exist and '),
        ("return config return", "PATH, line 11: SyntaxError: invalid syntax: fix the config"),
        ("import no_such_thing", "PATH, line 11: ModuleNotFoundError: No module named 'no_such"),
    ],
)
def test_mistake_within_a_config_is_placed(said_of, code, expected):
    assert said_of(SMALL.format(code)).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", "--config PATH: defines no function get_config: see docs/configuration.md"),
        (b"\x89PNG\0", "PATH: SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_config_that_is_none_is_named(said_of, content, expected):
    assert said_of(content).startswith(expected)


def test_training_on_no_images_and_on_a_broken_one_names_folder_and_file(said_of, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    config = SMALL.format(""), f"--config.data.train={folder}"
    assert said_of(*config).startswith(f"{folder}: no images here; expected a folder or glob")
    (folder / "broken.png").write_text("no picture")
    said = said_of(*config)
    assert said.startswith("none of the 1 images of a source can be read: ")
    assert f"{folder / 'broken.png'}: cannot be read as an image" in said
