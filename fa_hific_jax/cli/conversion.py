"""The commands that convert models: `export`, `export-onnx` and `import-torch`."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from fa_hific_jax import __version__
from fa_hific_jax.cli import arguments
from fa_hific_jax.codec.shipped import model_to_use
from fa_hific_jax.errors import UserError


def export(parser: argparse.ArgumentParser) -> arguments.Run:
    """Export a trained model for compressing and decompressing.

      fa-hific export runs/demo -o models/demo
      fa-hific export runs/demo -o models/demo --dtype int8      a quarter of the size
      fa-hific compress photo.jpg --model models/demo

    Reads the newest checkpoint of a training run, or that of --step, and writes a folder with all
    that coding needs: the weights, the coding tables, and an integer version of the
    hyper-synthesis, which must give the same bits on every machine. The integers are calibrated on
    procedural images, or on your own with --calibrate.

    Prints the sizes, the id of the model, and how many more bits the integers cost than the floats.
    Keep the folder: a file can only be decompressed by the model that compressed it.
    """
    name = arguments.path_name
    parser.add_argument("workdir", metavar="WORKDIR", type=name, help="folder of the training run")
    arguments.add_folder(
        parser, "MODEL", "folder to write; it must be new or empty, unless --force is given"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="data type of the stored weights (default: float32); float16 rounds them and halves "
        "the size, int8 rounds the kernels of convolutions to 8 bits and halves it again",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="step of the checkpoint (default: the newest)"
    )
    parser.add_argument(
        "--calibrate",
        metavar="IMAGES",
        default="dead_leaves:8",
        help="images on which the integers are calibrated: folder, glob, or dead_leaves:COUNT for "
        "procedural ones (default: dead_leaves:8); a dozen images are enough",
    )
    parser.add_argument(
        "--trainable",
        action="store_true",
        help="also store the parameters that only training needs, so that a training run can start "
        "from the model (config.init_from)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing model")
    return _export


def _export(args: argparse.Namespace) -> None:
    from fa_hific_jax.codec import model_folder
    from fa_hific_jax.codec.model import from_params, hyper_latents
    from fa_hific_jax.data.sources import open_source

    output = Path(args.output)
    model_folder.check_target(output, replace=args.force)
    source = open_source(args.calibrate)
    config, params, origin = _read(args.workdir, args.step)
    images = [source[i] for i in range(len(source))]
    model = from_params(
        config,
        params,
        calibration=hyper_latents(config, params, images),
        weights=args.dtype,
        origin=origin | {"calibration": args.calibrate},
    )
    params = {"hyperprior": params["hyperprior"]}  # The model has the other parts.
    model_folder.save_model(
        model, output, replace=args.force, to_train_on=params if args.trainable else None
    )
    loss = _rate_loss(model, params, images)
    print(f"{output}: model {model.model_id.hex()}, step {origin['step']}")
    for file in sorted(output.iterdir()):
        print(f"  {file.name}  {file.stat().st_size / 1e6:.2f} MB")
    print(f"  integers cost {loss:+.3f} % of the bits of y, over {len(images)} images")


def _read(workdir: str, step: int | None) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Returns config, parameters and origin of the model in a checkpoint."""
    import jax

    from fa_hific_jax import checkpoints
    from fa_hific_jax.settings.model import config_of

    path = checkpoints.workdir_path(workdir, "WORKDIR")
    kept, newest = checkpoints.newest(path, "WORKDIR")
    step = newest if step is None else step
    contents = kept.contents(step, "autoencoder")
    if not contents:
        raise UserError(f"{workdir} holds no checkpoint of step {step}: omit --step for the newest")
    stored = kept.settings(step)
    try:
        config = config_of(stored["model"])
    except TypeError as error:
        raise UserError(
            f"the checkpoint in {workdir} is from a version with other networks ({error}): "
            "export it with the version that wrote it"
        ) from error
    # On a CPU, what follows shares the memory of these arrays.
    params = jax.device_put(kept.read(step, "autoencoder", contents))
    kept.close()
    versions = {"fa_hific_jax": __version__, "jax": jax.__version__}
    return config, params, {"step": step, "settings": stored, "versions": versions}


def _rate_loss(model: Any, params: dict[str, Any], images: list[Any]) -> float:
    """Returns by how many percent y takes more bits than with the float hyper-synthesis.

    Both use the same tables, and a model with gains its default quality.
    """
    import jax
    import numpy as np

    from fa_hific_jax.codec import choices, tiling
    from fa_hific_jax.codec.coding import quantize, to_symbols
    from fa_hific_jax.codec.programs import Network
    from fa_hific_jax.entropy.tables import SCALE_TABLE, ideal_bits, scale_indexes
    from fa_hific_jax.models import autoencoder

    @jax.jit
    def synthesize(params, z):
        return autoencoder.bind(model.config, params).hyperprior.synthesis(z)

    level = choices.quality_level(model.config, None)
    network = Network(*choices.at_quality(model.config, model.params, level))
    bits = np.zeros(2)
    for image in images:
        ((y, z),) = tiling.analyze(network, [image])
        quantized = quantize(model.entropy, y, z)
        mean, scale = jax.device_get(synthesize(params, quantized.z[None].astype(np.float32)))
        symbols = to_symbols(y - mean[0])
        pairs = (quantized.y, quantized.rows), (symbols, scale_indexes(scale[0], SCALE_TABLE))
        bits += [
            ideal_bits(s.ravel(), rows.ravel().astype(np.int32), model.entropy.y_tables)
            for s, rows in pairs
        ]
    return 100 * float(bits[0] / bits[1] - 1)


def export_onnx(parser: argparse.ArgumentParser) -> arguments.Run:
    """Export a model to ONNX, for programs that do not use JAX.

      fa-hific export-onnx -o lite-onnx
      fa-hific export-onnx --model models/demo -o demo-onnx

    Writes a folder with the encoder and the decoder as ONNX models, for images of any height and
    width in multiples of 64 pixels, and with the integers of entropy coding. docs/onnx.md shows how
    to decode a .fahj file with them. Needs the package onnx: pip install 'fa-hific-jax[onnx]'
    """
    arguments.add_model(parser)
    arguments.add_folder(parser, "DIR", "folder to write; it must be new or empty")
    return _export_onnx


def _export_onnx(args: argparse.Namespace) -> None:
    from fa_hific_jax.codec.model_folder import load_model
    from fa_hific_jax.convert.onnx_networks import save_onnx

    output = Path(args.output)
    save_onnx(load_model(model_to_use(args.model)), output)
    for file in sorted(output.iterdir()):
        print(f"{file}  {file.stat().st_size / 1e6:.2f} MB")


def import_torch(parser: argparse.ArgumentParser) -> arguments.Run:
    """Import a checkpoint of the PyTorch HiFiC, its fork by the FA-HiFiC authors, or
    NeuralCompression.

    Reads a .pt file of torch.save without PyTorch and without running code from it, converts every
    parameter, and writes the folder of a training run. The models of NeuralCompression are MS-ILLM
    and NoGAN; the file says all about them. Evaluation, export and training start from the folder:

      fa-hific import-torch hific_low.pt -o runs/imported
      python eval.py --config configs/hific.py:lo --workdir runs/imported MODEL_OPTIONS
      python train.py --config configs/fa_hific.py:lo --workdir runs/finetuned \\
          --config.init_from=runs/imported MODEL_OPTIONS

    The command prints MODEL_OPTIONS, which tell the configs what kind of model it is. The options
    below are only needed if the file does not contain these values, or contains wrong ones.
    """
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
    return _import_torch


def _import_torch(args: argparse.Namespace) -> None:
    from fa_hific_jax.checkpoints import FOLDER, Checkpoints, workdir_path
    from fa_hific_jax.convert.torch_checkpoint import Options, import_checkpoint, known_settings

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
    from fa_hific_jax.convert.torch_checkpoint import parameter_counts

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
