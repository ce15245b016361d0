"""Compares HiFiC, HiFiC + FFL, FA-HiFiC and ours, trained from one base for the same steps.

  python -m benchmarks.balance_study --base runs/lite_base --out runs/balance --steps 3000 \\
      --train images/ --kodak kodak/ --lpips alex

Trains the variants of configs/lite.py from the base, for the same number of steps on the same
images with the same seed. Evaluates the base and all variants on whole images at several qualities
and details, and stores the results as results/balance.json. Prints the metrics of each model at a
few rates, and their differences to HiFiC. If it was stopped, the same command continues with the
last checkpoint of training or the last image of evaluation.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import readme
from benchmarks.rates_table import rates_table
from fa_hific_jax.evaluation import results as res

VARIANTS = ("hific", "ffl", "fa", "ours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True, help="run of configs/lite.py:base")
    parser.add_argument("--out", required=True, type=Path, help="folder for runs and evaluation")
    parser.add_argument("--steps", required=True, type=int, help="training steps of each variant")
    parser.add_argument("--train", required=True, help="images to train on")
    parser.add_argument("--kodak", required=True, help="images to evaluate on")
    parser.add_argument("--lpips", default="alex", help="LPIPS weights of AlexNet (alex)")
    parser.add_argument(
        "--quality", default="0,0.2,0.4,0.6,0.8,1", help="qualities to evaluate (%(default)s)"
    )
    parser.add_argument("--detail", default="0,0.5,1", help="details to evaluate (%(default)s)")
    parser.add_argument("--jobs", default="1", help="as for eval.py (%(default)s)")
    parser.add_argument("--name", default="balance", help="name of the file in results/ (balance)")
    args = parser.parse_args()
    for variant in VARIANTS:
        train(variant, args)
    readme.keep(args.name, evaluate(args))
    print(rates_table(res.read_results(readme.path_of(args.name))))


def train(variant: str, args: argparse.Namespace) -> None:
    """Trains a variant to its last step; returns at once if that was done before."""
    run(
        ["train.py", f"--config=configs/lite.py:{variant}", f"--workdir={args.out / variant}"]
        + [f"--config.init_from={args.base}", f"--config.train.steps={args.steps}"]
        + [f"--config.data.train=('{args.train}',)", f"--config.loss.lpips_file={args.lpips}"]
        # The same schedule for all variants: the drops of their configs are for other lengths.
        + [f"--config.optimizer.drop_steps=({args.steps * 3 // 4},)"]
    )


def evaluate(args: argparse.Namespace) -> Path:
    """Evaluates base and variants on whole images, and returns the folder of the results."""
    out = args.out / "evaluation"
    models = [args.base, *(str(args.out / variant) for variant in VARIANTS)]
    run(
        ["eval.py", f"--models={','.join(models)}", f"--images={args.kodak}", f"--out={out}"]
        + [f"--quality={args.quality}", f"--detail={args.detail}", f"--lpips={args.lpips}"]
        + ["--baselines=", f"--jobs={args.jobs}"]
    )
    return out


def run(command: list[str]) -> None:
    subprocess.run([sys.executable, *command], check=True, cwd=readme.ROOT)


if __name__ == "__main__":
    main()
