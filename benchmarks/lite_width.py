"""Compares widths of a codec for a CPU: their cost, and what each learns in the same time.

  python -m benchmarks.lite_width --start runs/start --train images/ --validation others/ \\
      --seconds 240

CANDIDATES lists the widths, as changes of configs/lite.py:base. The report has for each:

  parameters, export_mb   their number, and the megabytes of the exported model in float16
  encode_s, decode_s      seconds to encode (in float64, the default) and to decode an image of
                          768x512, the least of three runs
  steps, psnr, bpp        steps made in the time of training, and the PSNR and estimated rate on
                          validation images, at qualities from 0 to 1

All candidates start from the trained linear path (configs/lite.py:start). Its own PSNR and rate,
without networks, are `before`. So short a training favors small networks: it shows the cost of
large ones, not their final quality.

The report goes to benchmarks/results/lite_width.json after each candidate.
"""

import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from configs import lite
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.data.pipeline import train_batches
from fa_hific_jax.training import warm_start
from fa_hific_jax.training.ema import ema_autoencoder
from fa_hific_jax.training.state import TrainState, create
from fa_hific_jax.training.step import train_step
from fa_hific_jax.training.validation import validator
from fa_hific_jax.writing import write

# Encoder's widths (the generator's are the same, reversed) and residual blocks.
CANDIDATES = {
    "16..256, 5 blocks": ((16, 32, 64, 128, 256), 5),
    "16..192, 5 blocks": ((16, 32, 64, 128, 192), 5),
    "16..192, 3 blocks": ((16, 32, 64, 128, 192), 3),
    "24..192, 3 blocks": ((24, 48, 96, 144, 192), 3),
    "32..256, 5 blocks": ((32, 64, 128, 192, 256), 5),
    "folded, 64..192, 4 blocks": ((64, 128, 192), 4),
}
OUT = Path(__file__).parent / "results" / "lite_width.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", required=True, help="run of configs/lite.py:start")
    parser.add_argument("--train", required=True, help="images to train on")
    parser.add_argument("--validation", required=True, help="images to validate on")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="training time of each candidate (240)"
    )
    args = parser.parse_args()
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "seconds": args.seconds,
        "before": {},
        "candidates": {},
    }
    for name, (widths, blocks) in CANDIDATES.items():
        settings = settings_of(widths, blocks, args)
        measure, state = validator(settings, None), begun(settings)
        report["before"] = report["before"] or reached(measure, state)
        state, steps = trained(settings, state, args.seconds)
        found = {"steps": steps, **reached(measure, state), **costs(settings, state)}
        report["candidates"][name] = found
        print(name, found, flush=True)
        write(OUT, f"{json.dumps(report, indent=1)}\n".encode())


def settings_of(
    widths: tuple[int, ...], blocks: int, args: argparse.Namespace
) -> settings_lib.Settings:
    config = lite.get_config("base")
    config.model.encoder_widths, config.model.generator_widths = widths, widths[::-1]
    config.model.residual_blocks = blocks
    config.data.train, config.data.evaluation = (args.train,), args.validation
    config.init_from = args.start
    config.loss.lpips = 0.0
    # An average that covers this short training and little of the state before it.
    config.optimizer.warmup_steps = 10
    config.optimizer.ema_decay = 0.95
    return settings_lib.from_mapping(config.to_dict())


def begun(settings: settings_lib.Settings) -> TrainState:
    """Returns the initial state, with the linear path and the hyperprior of --start."""
    state = jax.jit(functools.partial(create, settings))(jax.random.key(0))
    return warm_start.take(state, warm_start.find(settings))[0]


def trained(settings: settings_lib.Settings, state: TrainState, seconds: float):
    """Returns (state after `seconds` of training without compilation, number of steps)."""
    step = jax.jit(functools.partial(train_step, settings=settings), donate_argnums=0)
    batches = train_batches(settings.data, batch_size=settings.train.batch_size, seed=0)
    key, started = jax.random.key(1), 0.0
    for count, images in enumerate(batches):
        state, _ = step(state, images, key, None)
        jax.block_until_ready(state.step)
        started = started or time.perf_counter()
        if time.perf_counter() - started >= seconds:
            return state, count + 1
    raise AssertionError("batches are endless")


def reached(measure, state: TrainState) -> dict[str, float]:
    """Returns validation metrics but the loss, whose qualities depend on the number of the step."""
    means = measure(state)
    return {name: round(means[f"eval/{name}"], 3) for name in ("psnr", "bpp")}


def costs(settings: settings_lib.Settings, state) -> dict[str, float]:
    """Returns the size of the exported model and its coding times for an image of 768x512."""
    params = ema_autoencoder(state)
    model = from_params(settings.model, params, weights="float16")
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(model, Path(folder) / "model")
        megabytes = sum(path.stat().st_size for path in saved.iterdir()) / 1e6
    image = np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)
    data = model.compress(image)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "export_mb": round(megabytes, 1),
        "encode_s": least(lambda: model.compress(image)),
        "decode_s": least(lambda: model.decompress(data)),
    }


def least(run) -> float:
    times = []
    for _ in range(4):  # the first compiles
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(min(times[1:]), 3)


if __name__ == "__main__":
    main()
