"""Trains a model.

The original's first stage, then the rest at its lowest rate, which begins with the parameters of
the first (docs/training.md):

  python train.py --config configs/mse_lpips.py:lo --workdir runs/mse_lpips_lo
  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo \\
      --config.init_from=runs/mse_lpips_lo

Any key of the config can be changed: --config.train.batch_size=16. A run that was stopped goes on
where its last checkpoint in --workdir was written; SIGTERM and Ctrl-C write one first.

All devices of the machine share each batch. So do several processes: those of a SLURM step or a TPU
pod find each other; elsewhere start this once for each, with the same --workdir on a shared disk:

  python train.py ... --coordinator=node0:1234 --processes=2 --process=0    # on node0
  python train.py ... --coordinator=node0:1234 --processes=2 --process=1    # on another

Without the repository, `fa-hific train` is the same; its configs go by name: --config fa_hific:lo.
"""

from fa_hific_jax import checkpoints
from fa_hific_jax.cli import with_config


def start() -> None:
    """Runs the command with the flags of sys.argv."""
    with_config.run(main, required=["config", "workdir"], ends_itself=True)


def main() -> None:
    given = with_config.given_settings()
    workdir = checkpoints.workdir_path(with_config.WORKDIR.value)
    with_config.join_processes()
    from fa_hific_jax.training.loop import train  # After the config's own errors: it loads slowly.

    assert given is not None
    train(given, workdir)
