"""Import a checkpoint of the PyTorch HiFiC, or of the FA-HiFiC authors' fork of it.

Reads a .pt file of torch.save without PyTorch and without running what it contains, converts every
parameter and writes them as a run's folder, from which evaluation, export and training go on:

  fa-hific import-torch hific_low.pt -o runs/imported
  python eval.py --config configs/hific.py:lo --workdir runs/imported MODEL_OPTIONS
  python train.py --config configs/fa_hific.py:lo --workdir runs/finetuned \\
      --config.init_from=runs/imported MODEL_OPTIONS

It prints MODEL_OPTIONS, which tell the configs what kind of model it is. What the options below
would say usually stands in the file.
"""

import argparse

from fa_hific_jax.cli import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "checkpoint", metavar="CKPT.pt", type=files.path_name, help="file of torch.save"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        type=files.path_name,
        help="folder to write, without a run in it",
    )
    parser.add_argument(
        "--input-range",
        choices=("unit", "symmetric"),
        help="of the images that the network sees: 0 to 1, or -1 to 1 with tanh at the end "
        "(normalize_input_image, as the published low and high models)",
    )
    parser.add_argument(
        "--likelihood",
        choices=("gaussian", "logistic"),
        help="distribution of the latents (likelihood_type; logistic in the published med model)",
    )
    parser.add_argument(
        "--residual-blocks",
        metavar="N",
        type=int,
        help="of the generator, where the file's own arguments are wrong (n_residual_blocks)",
    )


def run(args: argparse.Namespace) -> None:
    """Converts and saves; raises a UserError for a bad file or a folder that is taken."""
    from fa_hific_jax.checkpoints import FOLDER, Checkpoints, workdir_path
    from fa_hific_jax.convert.pytorch_hific import Options, import_checkpoint, known_settings
    from fa_hific_jax.errors import UserError

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
    checkpoints.save(
        imported.step,
        imported.autoencoder,
        imported.training,
        known_settings(imported),
    )
    checkpoints.close()
    print(f"written: {folder / FOLDER / str(imported.step)}")


def _describe(imported) -> None:
    import dataclasses

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
        print(f"assumed: {name} {model[name]}, as the file does not say (--{option} does)")
    print(f"trained: {imported.step} steps, regime {imported.regime or 'unknown'}")
    if "dsl_sigma" in imported.training:
        print("blur widths of the dynamic spectrum loss: --config.loss.dsl_legacy_kernel=True")
    reasons: dict[str, list[str]] = {}
    for name, reason in imported.ignored:
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        print(f"ignored: {', '.join(names[:2])}{more} ({reason})")
