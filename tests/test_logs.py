"""The log of a run that was killed and resumed has each step once."""

import json
import time
from unittest import mock

import pytest
from etils import epath

from fa_hific_jax.training import logs
from fa_hific_jax.training.logs import Logs, read_scalars


@pytest.fixture
def no_events(monkeypatch):
    """TensorBoard's writer takes seconds to load."""
    monkeypatch.setattr(logs, "_event_writer", mock.MagicMock())


def report(workdir, first_step, **losses):
    with Logs(workdir, first_step) as log:
        for name, loss in losses.items():
            log.scalars(int(name[1:]), {"loss": loss})


def test_reports_after_the_last_checkpoint_of_a_killed_run_are_superseded(tmp_path, no_events):
    workdir = epath.Path(tmp_path)
    report(workdir, 0, s2=1.0, s3=2.0, s4=float("nan"), s6=4.0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')  # killed while writing
    report(workdir, 3, s4=5.0, s6=6.0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 1), (3, 2), (4, 5), (6, 6)]
    losses = {step: values["loss"] for step, values in read_scalars(workdir).items()}
    assert losses == {2: 1.0, 3: 2.0, 4: 5.0, 6: 6.0}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.long
def test_tensorboard_shows_each_step_once(tmp_path):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    tf = pytest.importorskip("tensorflow")
    workdir = epath.Path(tmp_path)
    report(workdir, 0, s2=1.0, s3=2.0, s4=3.0, s6=4.0)
    for losses in ({"s4": 5.0}, {"s4": 6.0, "s6": 7.0}):
        time.sleep(1.1)  # Names of event files hold whole seconds.
        report(workdir, 3, **losses)
    accumulator = EventAccumulator(str(tmp_path / "logs"))
    accumulator.Reload()
    events = accumulator.Tensors("loss")
    shown = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events]
    assert shown == [(2, 1.0), (3, 2.0), (4, 6.0), (6, 7.0)]
