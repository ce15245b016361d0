"""Checkpoints in whatever folder, and the sentence where a folder cannot hold them."""

import dataclasses
import os
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fa_hific_jax.checkpoints import Checkpoints, LiteralPath, newest, workdir_path
from fa_hific_jax.errors import UserError
from fa_hific_jax.training.logs import read_scalars

ARRAYS = {"x": jnp.arange(5.0), "y": {"z": jnp.ones((2, 3))}}


@pytest.mark.parametrize(
    "name", ["a [1]/[/b*?", "[!a]/e%20#f/l é\n$HOME {x}", "~", "**", "a.tmp", "a:/a: b"]
)
def test_any_name_of_a_folder_holds_checkpoints(name, tmp_path):
    folder = workdir_path(os.fspath(tmp_path / name / "run"))
    other = tmp_path / "a 1" / "[" / "b*?" / "run"  # where "a [1]" leads to as a pattern
    other.mkdir(parents=True)
    checkpoints = Checkpoints(epath.Path(folder), kept=None, writer=True)
    checkpoints.save(3, ARRAYS, ARRAYS, {"known": 1})
    checkpoints.close()
    reopened, step = newest(epath.Path(folder), "--workdir")
    assert step == 3 and reopened.settings(3) == {"known": 1}
    for restored in reopened.restore(3, ARRAYS, ARRAYS):
        np.testing.assert_array_equal(restored["x"], ARRAYS["x"])
        np.testing.assert_array_equal(restored["y"]["z"], ARRAYS["y"]["z"])
    reopened.close()
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("c\\d", "has a backslash"), ("a\udcff", r"a\\xff/run is not valid")],
)
def test_names_that_cannot_hold_checkpoints_are_refused_before_training(name, expected, tmp_path):
    with pytest.raises(UserError, match=expected):
        workdir_path(os.fspath(tmp_path / name / "run"))
    with pytest.raises(UserError, match=expected):
        Checkpoints(epath.Path(tmp_path) / name / "run", kept=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "--workdir is empty: name a folder"),
        ("file:///x", r"--workdir file:///x: file:// is not one of gs://, s3://, az://, hf://: "),
        ("gs:/bucket/x", r"--workdir gs:/bucket/x: gs:/ is not one of gs://"),
        ("~nobody-here/x", r"--workdir ~nobody-here/x: there is no such home folder"),
        (__file__, "is a file: name a folder"),
    ],
)
def test_beginnings_that_stand_for_nothing_make_no_folder_of_that_name(name, expected):
    with pytest.raises(UserError, match=expected):
        workdir_path(name)


def test_a_run_that_may_not_be_looked_into_is_not_called_empty(tmp_path, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PermissionError, match="checkpoints"):
        newest(epath.Path(tmp_path), "--workdir")
    with pytest.raises(PermissionError, match="metrics.jsonl"):
        read_scalars(epath.Path(tmp_path))


def test_home_without_a_name_in_the_environment_is_that_of_the_user(monkeypatch):
    monkeypatch.delenv("HOME")
    assert os.fspath(workdir_path("~/runs")) == os.path.expanduser("~/runs") != "~/runs"


def test_literal_path_matches_what_lies_below_it_alone(tmp_path):
    base = LiteralPath(tmp_path) / "a*"
    for name in ("process_0", "process_1", "other"):
        (base / "sub" / name).mkdir(parents=True)
    assert sorted(path.name for path in base.glob("sub/process_*")) == ["process_0", "process_1"]
    assert list(base.glob("none/*")) == list((base / "none").glob("*")) == []


@dataclasses.dataclass
class Lost:
    """Raises an error where Python can only report it."""

    error: Exception

    def __del__(self):
        raise self.error


def test_threads_that_report_to_a_closed_loop_are_not_heard_and_other_errors_are(
    tmp_path, monkeypatch
):
    """As TensorStore's do after one array of many could not be written."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: heard.append(str(lost.exc_value)))
    for _ in range(2):
        Checkpoints(epath.Path(tmp_path), kept=1).close()
    for error in (RuntimeError("Event loop is closed"), RuntimeError("no"), ValueError("loop")):
        Lost(error)
    assert heard == ["no", "loop"]
