"""Measures a trained model: rate, distortion and spectra on whole images, beside classical codecs.

  python eval.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo

Compresses every image of config.data.evaluation with the newest checkpoint in --workdir into a
real file, decodes it, and writes results.json, the reconstructions and report.html to --out.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fa_hific_jax import checkpoints, commands, settings

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file with which the model was trained: configs/fa_hific.py:lo"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the training run")
OUT = flags.DEFINE_string("out", None, "Folder for the results; WORKDIR/evaluation by default")


def main() -> None:
    run_settings = settings.from_mapping(CONFIG.value.to_dict())
    # Loads slowly: after the config's own errors.
    from fa_hific_jax.evaluation.evaluate import evaluate

    workdir = checkpoints.workdir_path(WORKDIR.value)
    out = Path(OUT.value) if OUT.value else Path(workdir) / "evaluation"
    report, table = evaluate(run_settings, workdir, out)
    print(f"\n{table}\n\n{report}")


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"])
