"""The training step is compiled for a run's first step, and never again."""

from unittest import mock

import jax
import pytest
from etils import epath
from tiny_settings import tiny_settings

from fa_hific_jax.training import logs, loop


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.long
def test_a_run_and_its_resumption_compile_the_step_once_each(tmp_path, monkeypatch):
    traces, programs = [], []
    train_step, jit = loop.train_step, jax.jit

    def traced(*args, **kwargs):
        traces.append(args)
        return train_step(*args, **kwargs)

    def watched(function, **options):
        program = jit(function, **options)
        if getattr(function, "func", None) is traced:
            programs.append(program)
        return program

    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())  # slow to start
    monkeypatch.setattr(loop, "train_step", traced)
    monkeypatch.setattr(jax, "jit", watched)
    workdir = epath.Path(tmp_path)
    loop.train(tiny_settings(train__steps=3), workdir)
    assert len(traces) == 1
    loop.train(tiny_settings(), workdir)
    assert len(traces) == 2
    # One program for each kind of argument that it ever met: sizes, types and shardings.
    assert [program._cache_size() for program in programs] == [1, 1]
