"""Trains a model.

Example, the original's first stage and then the real thing at its lowest rate:

  python train.py --config configs/mse_lpips.py:lo --workdir runs/mse_lpips_lo
  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo

Any key of the config can be changed: --config.train.batch_size=16. A run that was stopped goes on
where its last checkpoint in --workdir was written.
"""

from absl import flags
from ml_collections import config_flags

from fa_hific_jax import checkpoints, commands, settings

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its variant behind a colon: configs/fa_hific.py:lo"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder for checkpoints and logs of this run")


def main() -> None:
    run_settings = settings.from_mapping(CONFIG.value.to_dict())
    from fa_hific_jax.training.loop import train  # After the config's own errors: it loads slowly.

    train(run_settings, checkpoints.workdir_path(WORKDIR.value))


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"])
