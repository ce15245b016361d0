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
    traces, cached = [], []
    train_step, compiled = loop.train_step, loop._compiled

    def traced(*args, **kwargs):
        traces.append(args)
        return train_step(*args, **kwargs)

    def watched(*args):
        step = compiled(*args)

        def step_and_count(*args):
            result = step(*args)
            cached.append(step._cache_size())
            return result

        return step_and_count

    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())  # slow to start
    monkeypatch.setattr(loop, "train_step", traced)
    monkeypatch.setattr(loop, "_compiled", watched)
    workdir = epath.Path(tmp_path)
    loop.train(tiny_settings(train__steps=3), workdir)
    assert len(traces) == 1
    loop.train(tiny_settings(), workdir)
    assert len(traces) == 2
    # One program for each kind of argument that it ever met: sizes, types and shardings.
    assert cached == [1] * 6
