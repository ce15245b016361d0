"""Export a trained model for compressing and decompressing.

  fa-hific export runs/demo -o models/demo
  fa-hific export runs/demo -o models/demo --dtype int8      a quarter of the size
  fa-hific compress photo.jpg --model models/demo

Reads the newest checkpoint of a training run, or that of --step, and writes a folder with all that
coding needs: the weights, the coding tables, and an integer version of the hyper-synthesis, which
must give the same bits on every machine. The integers are calibrated on procedural images, or on
your own with --calibrate.

Prints the sizes, the id of the model, and how many more bits the integers cost than the floats.
Keep the folder: a file can only be decompressed by the model that compressed it.
"""

import argparse
from pathlib import Path
from typing import Any

from fa_hific_jax import __version__
from fa_hific_jax.cli import arguments, runtime
from fa_hific_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace) -> None:
    """Writes the folder and prints its content."""
    with runtime.orderly():
        _export(args)


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
