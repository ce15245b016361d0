"""One global batch over any number of devices and processes: the same training within rounding."""

import contextlib
import os
import shutil
import sys

import jax
import numpy as np
import pytest
import training_run

from fa_hific_jax.errors import UserError
from fa_hific_jax.training import processes, sharding
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


@pytest.mark.long
def test_a_split_state_trains_as_copies_do_and_goes_on_as_one(tmp_path):
    # Wide enough for arrays that are worth splitting.
    wide = SMALL | {"model__hyper_channels": 16, "train__batch_size": 4, "train__evaluate_every": 2}
    wide |= {"train__steps": 4, "train__summary_every": 2, "optimizer__ema_decay": 0.9}
    split = training_run.start_several(tmp_path / "split", 2, 2, train__fsdp=4, **wide)
    run([training_run.start(tmp_path / "copies", 1, **wide), *split])
    copies = training_run.losses(tmp_path / "copies")
    assert_same_losses(training_run.losses(tmp_path / "split"), copies)
    source = tmp_path / "split" / "checkpoints" / "2"
    shutil.copytree(source, tmp_path / "again" / "checkpoints" / "2")
    run([training_run.start(tmp_path / "again", 2, train__fsdp=2, **wide)])
    later = {step: loss for step, loss in copies.items() if step > 2}
    assert_same_losses(training_run.losses(tmp_path / "again"), later)


def test_large_arrays_are_split_along_their_longest_divisible_axis_and_small_ones_copied():
    mesh = sharding.data_mesh(fsdp=2)
    shapes = {
        "kernel": (3, 3, 64, 32),
        "odd": (3, 3, 1025, 32),
        "indivisible": (81, 81),
        "bias": (64,),
    }
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    placed = jax.device_put(arrays, sharding.of_state(arrays, mesh))
    held = {name: array.addressable_data(0).shape for name, array in placed.items()}
    assert held == {
        "kernel": (3, 3, 32, 32),
        "odd": (3, 3, 1025, 16),
        "indivisible": (81, 81),
        "bias": (64,),
    }
    gathered = sharding.gather(mesh)(placed)
    assert all(array.is_fully_replicated for array in gathered.values())
    np.testing.assert_array_equal(gathered["kernel"], arrays["kernel"])


def test_a_state_split_over_devices_that_are_not_there_is_refused(tmp_path):
    assert refusal(tmp_path, train__fsdp=3) == (
        "error: train.fsdp is 3, which does not divide the 4 devices: choose a divisor, or 1 for "
        "a full copy on each\n"
    )


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
    assert refusal(tmp_path, train__batch_size=6) == (
        "error: train.batch_size is 6, which 4 devices cannot share evenly: "
        "choose a multiple of 4\n"
    )


def refusal(tmp_path, **options) -> str:
    """What a run on four devices ends with, which must be exit status 2."""
    code, _, err = training_run.finish(training_run.start(tmp_path, devices=4, **options, **SMALL))
    assert code == 2
    return err


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


@pytest.mark.parametrize(("tasks", "expected"), [("", False), ("1", False), ("8", True)])
def test_slurm_step_of_several_tasks_is_known_by_its_variable(tasks, expected):
    assert processes._in_slurm_step({"SLURM_STEP_NUM_TASKS": tasks}) is expected


def test_slurm_variable_that_is_no_number_is_named():
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS is 'x': unset it, or set a number"):
        processes._in_slurm_step({"SLURM_STEP_NUM_TASKS": "x"})


def test_closed_and_full_standard_output_ends_no_run(monkeypatch):
    with open("/dev/full", "w") as full, open(os.devnull, "w") as closed:
        closed.close()
        for stream in (full, closed):
            monkeypatch.setattr(sys, "stdout", stream)
            processes.say("step 1/2")
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
