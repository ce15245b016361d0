"""Import a checkpoint of the PyTorch HiFiC, its fork by the FA-HiFiC authors, or NeuralCompression.

Reads a .pt file of torch.save without PyTorch and without running code from it, converts every
parameter, and writes the folder of a training run. The models of NeuralCompression are MS-ILLM and
NoGAN; the file says all about them. Evaluation, export and training start from the folder:

  fa-hific import-torch hific_low.pt -o runs/imported
  python eval.py --config configs/hific.py:lo --workdir runs/imported MODEL_OPTIONS
  python train.py --config configs/fa_hific.py:lo --workdir runs/finetuned \\
      --config.init_from=runs/imported MODEL_OPTIONS

The command prints MODEL_OPTIONS, which tell the configs what kind of model it is. The options
below are only needed if the file does not contain these values, or contains wrong ones.
"""

import argparse
import dataclasses

from fa_hific_jax.cli import arguments
from fa_hific_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", metavar="CKPT.pt", type=arguments.path_name, help="file of torch.save"
    )
    arguments.add_folder(parser, "DIR", "folder to write; it must not hold a run")
    parser.add_argument(
        "--input-range",
        choices=("unit", "symmetric"),
        help="pixel range of the network: unit is 0 to 1, symmetric is -1 to 1 with tanh at the "
        "end (normalize_input_image, as in the published low and high models)",
    )
    parser.add_argument(
        "--likelihood",
        choices=("gaussian", "logistic"),
        help="distribution of the latents (likelihood_type; the published med model is logistic)",
    )
    parser.add_argument(
        "--residual-blocks",
        metavar="N",
        type=int,
        help="number of residual blocks of the generator, if the file states a wrong one "
        "(n_residual_blocks)",
    )


def run(args: argparse.Namespace) -> None:
    """Converts and saves; raises a UserError for a bad file or a folder that holds a run."""
    from fa_hific_jax.checkpoints import FOLDER, Checkpoints, workdir_path
    from fa_hific_jax.convert.pytorch_hific import Options, import_checkpoint, known_settings

    folder = workdir_path(args.output, "--output")
    if (folder / FOLDER).exists():
        raise UserError(f"--output {args.output} holds checkpoints already: name a new folder")
    options = Options(args.input_range, args.likelihood, args.residual_blocks)
    imported = import_checkpoint(args.checkpoint, options)
    _describe(imported)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(folder, kept=None)
    except OSError as error:
        raise UserError(
            f"--output {args.output} cannot be written: {error.strerror or error}"
        ) from error
    settings = known_settings(imported)
    checkpoints.save(imported.step, imported.autoencoder, imported.training, settings)
    checkpoints.close()
    print(f"written: {folder / FOLDER / str(imported.step)}")


def _describe(imported) -> None:
    from fa_hific_jax.convert.pytorch_hific import parameter_counts

    counts = parameter_counts(imported)
    for name, count in [*counts.items(), ("total", sum(counts.values()))]:
        print(f"parameters: {name:13} {count:>11,}")
    model = dataclasses.asdict(imported.model)
    fields = ["variant", "input_range", "likelihood", "residual_blocks"]
    if imported.model.fcm_width:
        fields += ["fcm_width", "fcm", "fcm_dropout"]
    print("options:", *(f"--config.model.{field}={model[field]}" for field in fields))
    for name in imported.assumed:
        option = name.replace("_", "-")
        print(f"assumed: {name} {model[name]}, as the file does not say (--{option} changes it)")
    print(f"trained: {imported.step} steps, regime {imported.regime or 'unknown'}")
    if "dsl_sigma" in imported.training:
        print(
            "blur widths of the dynamic spectrum loss: "
            "--config.loss.dsl_options=\"('channel_weighting', 'legacy_kernel')\""
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in imported.ignored:
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        print(f"ignored: {', '.join(names[:2])}{more} ({reason})")
