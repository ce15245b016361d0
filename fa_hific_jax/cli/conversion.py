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

    Writes a folder with all that coding needs: the weights, the coding tables, and an integer
    version of the hyper-synthesis, which must give the same bits on every machine. Prints what the
    integers cost. Keep the folder: only the model that compressed a file can decompress it.
    """
    name, add = arguments.path_name, parser.add_argument
    add("workdir", metavar="WORKDIR", type=name, help="folder of the training run")
    arguments.add_folder(parser, "MODEL", "folder to write; new or empty unless --force is given")
    what = "stored weights (default: float32); float16 takes half of the size, int8 a quarter"
    add("--dtype", choices=("float32", "float16", "int8"), default="float32", help=what)
    what = "step of the checkpoint (default: the newest)"
    add("--step", type=int, metavar="N", help=what)
    what = "images to calibrate the integers: folder, glob, or dead_leaves:COUNT (the default: 8)"
    add("--calibrate", metavar="IMAGES", default="dead_leaves:8", help=what)
    what = "also store what only training needs, so that a run can start from it (config.init_from)"
    add("--trainable", action="store_true", help=what)
    arguments.add_force(parser)
    return _export


def _export(args: argparse.Namespace) -> None:
    import jax

    from fa_hific_jax import checkpoints
    from fa_hific_jax.codec import model_folder
    from fa_hific_jax.codec.model import from_params, hyper_latents
    from fa_hific_jax.data.sources import open_source

    output = Path(args.output)
    model_folder.check_target(output, replace=args.force)
    source = open_source(args.calibrate)
    images = [source[i] for i in range(len(source))]
    workdir = checkpoints.workdir_path(args.workdir, "WORKDIR")
    params, step, settings, config = checkpoints.load_autoencoder(
        workdir, called="WORKDIR", step=args.step
    )
    versions = {"fa_hific_jax": __version__, "jax": jax.__version__}
    origin = {"step": step, "settings": settings, "versions": versions}
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
    print(f"{output}: model {model.model_id.hex()}, step {step}")
    _print_sizes(output, "  ")
    loss = _rate_loss(model, params, images)
    print(f"  integers cost {loss:+.3f} % of the bits of y, over {len(images)} images")


def _print_sizes(folder: Path, before: str) -> None:
    for file in sorted(folder.iterdir()):
        print(f"{before}{file.name}  {file.stat().st_size / 1e6:.2f} MB")


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

    def bits(symbols, rows):
        return ideal_bits(symbols.ravel(), rows.ravel().astype(np.int32), model.entropy.y_tables)

    level = choices.quality_level(model.config, None)
    network = Network(*choices.at_quality(model.config, model.params, level))
    integers, floats = 0.0, 0.0
    for image in images:
        ((y, z),) = tiling.analyze(network, [image])
        quantized = quantize(model.entropy, y, z)
        mean, scale = jax.device_get(synthesize(params, quantized.z[None].astype(np.float32)))
        integers += bits(quantized.y, quantized.rows)
        floats += bits(to_symbols(y - mean[0]), scale_indexes(scale[0], SCALE_TABLE))
    return 100 * (integers / floats - 1)


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

    save_onnx(load_model(model_to_use(args.model)), Path(args.output))
    _print_sizes(Path(args.output), f"{args.output}/")


def import_torch(parser: argparse.ArgumentParser) -> arguments.Run:
    """Import a checkpoint of the PyTorch HiFiC, its fork by the FA-HiFiC authors, or
    NeuralCompression.

    Reads a .pt file of torch.save without PyTorch and without running code from it, and writes the
    folder of a training run, from which evaluation, export and training start:

      fa-hific import-torch hific_low.pt -o runs/imported
      python eval.py --config configs/hific.py:lo --workdir runs/imported MODEL_OPTIONS
      python train.py --config configs/fa_hific.py:lo --workdir runs/finetuned \\
          --config.init_from=runs/imported MODEL_OPTIONS

    The command prints MODEL_OPTIONS, which tell the configs what kind of model it is. The options
    below are only needed if the file does not contain these values, or contains wrong ones.
    """
    name, add = arguments.path_name, parser.add_argument
    add("checkpoint", metavar="CKPT.pt", type=name, help="file of torch.save")
    arguments.add_folder(parser, "DIR", "folder to write; it must not hold a run")
    what = "pixels from 0 to 1, or from -1 to 1 with tanh at the end (normalize_input_image)"
    add("--input-range", choices=("unit", "symmetric"), help=what)
    what = "distribution of the latents (likelihood_type)"
    add("--likelihood", choices=("gaussian", "logistic"), help=what)
    what = "number of residual blocks of the generator (n_residual_blocks)"
    add("--residual-blocks", metavar="N", type=int, help=what)
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
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, kept=None)
    settings = known_settings(imported)
    checkpoints.save(imported.step, imported.autoencoder, imported.training, settings)
    checkpoints.close()
    print(f"written: {folder / FOLDER / str(imported.step)}")


def _describe(imported: Any) -> None:
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
    for reason in dict.fromkeys(reason for _, reason in imported.ignored):
        names = [name for name, why in imported.ignored if why == reason]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        print(f"ignored: {', '.join(names[:2])}{more} ({reason})")
