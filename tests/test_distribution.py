"""One global batch over any number of devices and processes: the same training within rounding."""

import shutil

import numpy as np
import pytest
import training_run

from fa_hific_jax.errors import UserError
from fa_hific_jax.training.processes import explicit

# Rounding alone: sums over the batch are made in another order.
TOLERANCE = 1e-5
SMALL = {
    "loss__gan": 0.0,
    "loss__ffl": 0.0,
    "loss__dsl": 0.0,
    "model__fcm_width": 0,
    "train__log_every": 1,
    "train__checkpoint_every": 2,
}
LAYOUTS = {
    "1 device": lambda workdir, **options: [training_run.start(workdir, 1, **options)],
    "8 devices": lambda workdir, **options: [training_run.start(workdir, 8, **options)],
    "2 processes of 4": lambda workdir, **options: training_run.start_several(
        workdir, 2, 4, **options
    ),
}


def run(processes) -> list[str]:
    """What each printed; all must succeed."""
    printed = []
    for code, out, err in map(training_run.finish, processes):
        assert code == 0, err
        printed.append(out)
    return printed


def assert_same_losses(ours, theirs):
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=TOLERANCE)


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    alone = training_run.start(tmp_path / "one", train__steps=3, **SMALL)
    several = training_run.start_several(tmp_path / "two", train__steps=3, **SMALL)
    _, first, second = run([alone, *several])
    assert_same_losses(training_run.losses(tmp_path / "two"), training_run.losses(tmp_path / "one"))
    assert "step 3/3" in first
    said = [line for line in second.splitlines() if not line.startswith("[Gloo]")]
    assert said == [], "only the first process prints"


@pytest.mark.slow
def test_loss_curve_is_that_of_one_device_in_every_layout(tmp_path):
    options = {
        "train__steps": 20,
        "train__batch_size": 8,
        "train__log_every": 1,
        "train__checkpoint_every": 10,
    }
    curves = {}
    for layout, begin in LAYOUTS.items():
        run(begin(tmp_path / layout, **options))
        curves[layout] = training_run.losses(tmp_path / layout)
        assert_same_losses(curves[layout], curves["1 device"])
    # From here on, the one checkpoint of step 10 goes on in all layouts.
    for layout, begin in LAYOUTS.items():
        folder = tmp_path / "again" / layout
        source = tmp_path / "2 processes of 4" / "checkpoints" / "10"
        shutil.copytree(source, folder / "checkpoints" / "10")
        run(begin(folder, **options))
        second_half = {step: loss for step, loss in curves["1 device"].items() if step > 10}
        assert_same_losses(training_run.losses(folder), second_half)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(tmp_path):
    first, second = training_run.start_several(tmp_path, **SMALL | {"train__steps": 1_000_000})
    for line in first.stdout:
        if line.startswith("step 4/"):
            break
    second.terminate()
    out, _ = run([first, second])
    step = out.rpartition("stopped after step ")[2].split()[0]
    assert (tmp_path / "checkpoints" / step).is_dir()


def test_batch_that_devices_cannot_share_is_refused(tmp_path):
    process = training_run.start(tmp_path, devices=4, train__batch_size=6, **SMALL)
    code, _, err = training_run.finish(process)
    assert (code, err) == (
        2,
        "error: train.batch_size is 6, which 4 devices cannot share evenly: "
        "choose a multiple of 4\n",
    )


NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def test_processes_are_described_by_flags_or_else_by_the_environment():
    environment = dict(zip(NAMES, ("node0:1234", "4", "3"), strict=True))
    assert explicit("", None, None, {}) is None
    assert explicit("", None, None, environment) == {
        "coordinator_address": "node0:1234",
        "num_processes": 4,
        "process_id": 3,
    }
    assert explicit("other:1", 2, 0, environment) == {
        "coordinator_address": "other:1",
        "num_processes": 2,
        "process_id": 0,
    }


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("node0:1234", 2, None), "--process is missing: several processes need --coordinator, "),
        (("", 2, 0), "--coordinator is missing"),
        (("node0", 2, 0), "--coordinator node0, --processes 2, --process 0: give host:port"),
        (("node0:1234", 2, 2), "numbered from 0 to one less than their number"),
        (("node0:0", 2, 1), "ports from 1 to 65535"),
    ],
)
def test_incomplete_description_of_processes_is_named(flags, expected):
    with pytest.raises(UserError, match=expected):
        explicit(*flags, {})
