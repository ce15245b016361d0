"""One global batch over any number of devices and processes: the same training within rounding."""

import shutil
from unittest import mock

import jax
import numpy as np
import pytest
import training_run
from etils import epath
from tiny_settings import tiny_settings

from fa_hific_jax.errors import UserError
from fa_hific_jax.training import processes, sharding
from fa_hific_jax.training.loop import train
from fa_hific_jax.training.processes import explicit

SMALL = {"loss__gan": 0.0, "loss__ffl": 0.0, "loss__dsl": 0.0, "model__fcm_width": 0}
SMALL |= {"train__log_every": 1, "train__checkpoint_every": 2}


def run(processes) -> list[str]:
    """What each printed; all must succeed."""
    printed = []
    for code, out, err in map(training_run.finish, processes):
        assert code == 0, err
        printed.append(out)
    return printed


def assert_same_losses(folder, expected, after=0):
    """Those of later steps, within rounding: sums over the batch are made in another order."""
    found, expected = training_run.losses(folder), training_run.losses(expected)
    expected = {step: loss for step, loss in expected.items() if step > after}
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    options = SMALL | {"train__steps": 3, "loss__gan": 0.01}
    alone = training_run.start(tmp_path / "one", **options)
    several = training_run.start_several(tmp_path / "two", **options)
    _, first, second = run([alone, *several])
    assert_same_losses(tmp_path / "two", tmp_path / "one")
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
    assert_same_losses(tmp_path / "split", tmp_path / "copies")
    step = "checkpoints/2"
    shutil.copytree(tmp_path / "split" / step, tmp_path / "again" / step)
    run([training_run.start(tmp_path / "again", 2, train__fsdp=2, **wide)])
    assert_same_losses(tmp_path / "again", tmp_path / "copies", after=2)


def test_large_arrays_are_split_along_their_longest_divisible_axis_and_small_ones_copied():
    mesh = sharding.data_mesh(fsdp=2)
    shapes = {"kernel": (3, 3, 64, 32), "odd": (3, 3, 1025, 32)}
    shapes |= {"indivisible": (81, 81), "bias": (64,)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    placed = jax.device_put(arrays, sharding.of_state(arrays, mesh))
    held = {name: array.addressable_data(0).shape for name, array in placed.items()}
    assert held == shapes | {"kernel": (3, 3, 32, 32), "odd": (3, 3, 1025, 16)}
    gathered = sharding.gather(mesh)(placed)
    assert all(array.is_fully_replicated for array in gathered.values())
    np.testing.assert_array_equal(gathered["kernel"], arrays["kernel"])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("fsdp", "train.fsdp is 3, which does not divide the 2 devices: choose a divisor"),
        ("batch_size", "train.batch_size is 3, which 2 devices .* choose a multiple of 2"),
    ],
)
def test_what_devices_cannot_share_is_refused(field, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tiny_settings(**{f"train__{field}": 3}), epath.Path(tmp_path))
    assert list(tmp_path.iterdir()) == []


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


def test_processes_are_described_by_flags_or_else_by_the_environment():
    def described(address, count, index):
        return dict(coordinator_address=address, num_processes=count, process_id=index)

    environment = dict(zip(processes.VARIABLES, ("node0:1234", "4", "3"), strict=True))
    assert explicit("", None, None, {}) is None
    assert explicit("", None, None, environment) == described("node0:1234", 4, 3)
    assert explicit("other:1", 2, 0, environment) == described("other:1", 2, 0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("node0:1234", 2, None), "--process is missing: several processes need --coordinator, "),
        (("node0", 2, 0), "--coordinator node0, --processes 2, --process 0: give host:port"),
        (("node0:1234", 2, 2), "numbered from 0 to one less than their number"),
        (("node0:0", 2, 1), "ports from 1 to 65535"),
    ],
)
def test_incomplete_description_of_processes_is_named(flags, expected):
    with pytest.raises(UserError, match=expected):
        explicit(*flags, {})


def test_a_slurm_step_of_several_tasks_is_known_by_its_variable():
    for tasks, several in {"": False, "1": False, "8": True}.items():
        assert processes._in_slurm_step({"SLURM_STEP_NUM_TASKS": tasks}) is several


def test_closed_and_full_standard_output_ends_no_run(monkeypatch):
    for error in (OSError(28, "No space left on device"), ValueError("closed file")):
        monkeypatch.setattr("sys.stdout", mock.Mock(write=mock.Mock(side_effect=error)))
        processes.say("step 1/2")
