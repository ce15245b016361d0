"""Measures models on whole images, and classical codecs on the same images.

Every rate is that of a real file that was decoded again. The output is a page, report.html, and its
numbers: results.json, summary.csv, and one row for each image and file in rows.jsonl.

To evaluate a run, with the images and codecs of its own config, or with others:

  python eval.py --workdir runs/demo
  python eval.py --workdir runs/demo --images kodak/ --baselines jpeg,webp,avif --jobs 4 \\
      --lpips lpips_alex.npz

To evaluate several runs and exported models (written by `fa-hific export`) in one table, at several
rates where a model offers them:

  python eval.py --models runs/a,runs/b,models/c --images kodak/ --quality 0,0.5,1 --out compared

To compare two models at equal rate, image by image; each is a run, a model, or the --out of an
earlier evaluation:

  python eval.py --compare runs/a runs/b --images kodak/

After an interruption the same command resumes. --config is needed only to override settings of the
run, as in --config configs/demo.py --config.evaluation.baselines="('jpeg',)". Several processes
share the images as those of train.py share a batch. docs/evaluation.md describes all of it. Without
the repository, `fa-hific eval` does the same.
"""

import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from fa_hific_jax import checkpoints
from fa_hific_jax.cli import with_config
from fa_hific_jax.codec import shipped
from fa_hific_jax.errors import UserError
from fa_hific_jax.settings import Settings
from fa_hific_jax.training import processes

MODELS = flags.DEFINE_list("models", [], "Folders of runs and models, or names of models")
COMPARE = flags.DEFINE_bool("compare", False, "Compare two models: --compare RUN_A RUN_B")
IMAGES = flags.DEFINE_string("images", None, "Folder, glob or data set; data.evaluation by default")
LIMIT = flags.DEFINE_integer("limit", 0, "Number of images, from the first; 0 for all")
QUALITY = flags.DEFINE_list("quality", [], "Rates of models with a variable one: from 0 to 1")
DETAIL = flags.DEFINE_list("detail", [], "Details of models with FCM: numbers from 0 (smooth) to 1")
JOBS = flags.DEFINE_integer("jobs", 1, "Number of threads for the classical codecs")
OUT = flags.DEFINE_string("out", None, "Folder for the results; one model has a default")
FIELDS = {
    "baselines": flags.DEFINE_list(
        "baselines", None, "Of jpeg, webp, avif, jpeg2000, jpegxl, bpg, vvc; or all, or none"
    ),
    "baseline_points": flags.DEFINE_integer(
        "baseline_points", None, "Number of qualities of each classical codec; 0: all, -1: none"
    ),
    "same_size": flags.DEFINE_bool(
        "same_size", None, "Also run each classical codec at the size of the first model's file"
    ),
    "untrained_control": flags.DEFINE_bool(
        "untrained_control", None, "Also evaluate a model with random parameters"
    ),
    "lpips_files": flags.DEFINE_list(
        "lpips", None, "LPIPS networks: alex, squeeze, or files of fa-hific get-lpips"
    ),
    "inception_file": flags.DEFINE_string(
        "inception", None, "File of Inception weights, for FID and KID"
    ),
}
"""The flag that overrides each field of the group `evaluation`."""


def start() -> None:
    """Runs the command with the flags of sys.argv."""
    with_config.run(main, required=[], arguments=True)


def main(*arguments: str) -> None:
    given = with_config.given_settings()
    with_config.join_processes()
    if COMPARE.value:
        compare(arguments, given)
        return
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: see --help")
    for flag in (IMAGES, OUT):
        if flag.value == "":
            raise UserError(f"--{flag.name} is an empty name: give another, or leave it out")
    workdir, folders = with_config.WORKDIR.value, MODELS.value
    if bool(workdir) == bool(folders):
        raise UserError("name what to evaluate: a run with --workdir, or several with --models")
    if len(folders) > 1 and not OUT.value:
        raise UserError("--out is missing: several models need a folder for their results")
    called = "--workdir" if workdir else "--models"
    evaluate([workdir] if workdir else folders, called, given, OUT.value)


def evaluate(folders: list[str], called: str, given: Settings | None, out: str | None) -> Any:
    """Evaluates the models of these folders, prints the table, and returns the results.

    `called` is the flag that names them; `out` is the folder for the results of several models.
    """
    # These imports take seconds: errors of the config come first.
    from fa_hific_jax.evaluation import explained, results
    from fa_hific_jax.evaluation.evaluate import evaluate
    from fa_hific_jax.evaluation.prepare import Request, prepare

    folder = Path(os.path.expanduser(out)) if out else default_out(folders[0], called)
    values = {field: flag.value for field, flag in FIELDS.items() if flag.value is not None}
    request = Request(
        folders=folders,
        named_by=called,
        config=given,
        evaluation={k: tuple(v) if isinstance(v, list) else v for k, v in values.items()},
        images=IMAGES.value,
        qualities=_numbers(QUALITY),
        details=_numbers(DETAIL),
        limit=LIMIT.value,
        jobs=JOBS.value,
    )
    found = evaluate(prepare(request), folder, _origin())
    if found is not None:
        print("", results.format_table(found), "", *explained.legend(found), "", sep="\n")
        print(*explained.leaders(found), *results.notes(found), "", sep="\n")
        print(folder / "report.html")
    return found


def compare(names: Sequence[str], given: Settings | None) -> None:
    """Prints which of two models wins where; with --out, also writes comparison.json.

    Each name is that of a folder with results, or of a run or a model, which is evaluated first.
    """
    names = [name for name in names if name]  # An unset variable of a shell leaves "".
    if len(names) != 2:
        raise UserError(f"--compare takes two folders, not {len(names)}: --compare RUN_A RUN_B")
    from fa_hific_jax.evaluation import comparison, results

    evaluated = []
    for name in names:
        path = Path(os.path.expanduser(name)) / "results.json"
        known = results.read_results(path) if path.is_file() else None
        evaluated.append(known or evaluate([name], "--compare", given, None))
    if not processes.leads():
        return
    compared = comparison.compare(*evaluated, names=(names[0], names[1]))
    print(f"\n{comparison.format_comparison(compared)}")
    if OUT.value:
        path = Path(os.path.expanduser(OUT.value)) / "comparison.json"
        results.write_json(path, compared)
        print(f"\n{path}")


def default_out(folder: str, called: str) -> Path:
    """Returns the folder for the results of one model; `called` is the flag that named it."""
    if shipped.place(folder) != folder:  # Results do not belong in the folder of a named model.
        return Path(f"{folder}_evaluation")
    return Path(checkpoints.workdir_path(folder, called)) / "evaluation"


def _numbers(flag: flags.FlagHolder) -> tuple[float, ...]:
    try:
        return tuple(map(float, flag.value))
    except ValueError:
        told = ",".join(flag.value)
        raise UserError(f"--{flag.name} is {told}: give numbers from 0 to 1") from None


def _origin() -> dict[str, Any]:
    """Returns the command, commit, versions and device that make the results."""
    import jax

    from fa_hific_jax.training import record

    called = sys.argv[0]
    program = ["python", called] if called.endswith(".py") else called.split()
    return {
        "command": shlex.join([*program, *sys.argv[1:]]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **(record.git_state() or {"commit": None, "changed": None}),
        "versions": record.versions(),
        "device": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
        "jobs": JOBS.value,
    }
