"""Measures each kind of layer, forwards and backwards, against the same layer in PyTorch.

  python -m benchmarks.layers                        # paper width and lite, 256x256, one image
  python -m benchmarks.layers --height 512 --width 768 --only paper

The table has milliseconds of this project and of PyTorch, medians of --repeats, and their ratio:
below 1, JAX is faster. Backwards are the gradients by input and parameters, without the forward
pass. Each framework runs in a process of its own, one after the other, so the machine should be
idle. It needs the extra `torch`. The report goes to benchmarks/results/layers.json.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
import torch

from benchmarks import pytorch_model
from benchmarks.by_turns import COMMANDS, conditions
from benchmarks.pytorch_model import ChannelNorm, up
from configs import fa_hific, lite
from fa_hific_jax.models import layers
from fa_hific_jax.writing import write

PACKAGES = ("jax", "jaxlib", "torch", "numpy")
Layer = tuple[str, nn.Module, torch.nn.Module, int, int]
"""Name, both modules, and stride and channels of the input (stride of the image)."""


def convolution(name: str, at: int, channels: int, features: int, kernel: int, stride=1) -> Layer:
    ours = layers.Conv(features, kernel, stride)
    return name, ours, pytorch_model.Conv(channels, features, kernel, stride), at, channels


def upsampling(name: str, at: int, channels: int, features: int, kernel: int) -> Layer:
    return name, layers.Upsample(features, kernel), up(channels, features, kernel), at, channels


def norm(name: str, at: int, channels: int) -> Layer:
    return name, layers.ChannelNorm(), ChannelNorm(channels), at, channels


def hyperprior(config) -> list[Layer]:
    channels, latents = config.hyper_channels, config.latent_channels
    return [
        convolution("hyper-analysis 0", 16, latents, channels, 3),
        convolution("hyper-analysis 1", 16, channels, channels, 5, 2),
        upsampling("hyper-synthesis 0", 64, channels, channels, 5),
        upsampling("hyper-synthesis 1", 32, channels, channels, 5),
        convolution("hyper-synthesis 2", 16, channels, latents, 3),
    ]


def discriminator(widths, context: int) -> list[Layer]:
    widths = (3 + context, *widths)
    return [
        convolution(f"discriminator {i}", 2**i, a, b, 4, 2)
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
    ]


def paper() -> list[Layer]:
    config = fa_hific.get_config()
    model, latents = config.model, config.model.latent_channels
    down, ups = model.encoder_widths, model.generator_widths
    return [
        convolution("encoder 0", 1, 3, down[0], 7),
        *(
            convolution(f"encoder {i + 1}", 2**i, a, b, 3, 2)
            for i, (a, b) in enumerate(zip(down, down[1:], strict=False))
        ),
        convolution("encoder out", 16, down[-1], latents, 3),
        *hyperprior(model),
        convolution("generator head", 16, latents, ups[0], 3),
        convolution("generator block", 16, ups[0], ups[0], 3),
        *(
            upsampling(f"generator up{4 - i}", 2 ** (4 - i), a, b, 3)
            for i, (a, b) in enumerate(zip(ups, ups[1:], strict=False))
        ),
        convolution("FCM 2 in", 2, ups[-2], 64, 3),
        convolution("FCM 1 in", 1, ups[-1], 64, 3),
        convolution("FCM 1 middle", 1, 64, 64, 3),
        convolution("generator out", 1, ups[-1], 3, 7),
        *(norm(f"norm {width}", at, width) for at, width in ((1, ups[-1]), (2, ups[-2]))),
        norm(f"norm {ups[0]}", 16, ups[0]),
        *discriminator(config.discriminator.widths, config.discriminator.context_channels),
    ]


def folded() -> list[Layer]:
    config = lite.get_config("fa")
    model, latents = config.model, config.model.latent_channels
    down, ups = model.encoder_widths, model.generator_widths
    return [
        convolution("encoder 0", 4, 48, down[0], 3),
        *(convolution(f"block {w}", 4 * 2**i, w, w, 3) for i, w in enumerate(down)),
        *(
            convolution(f"encoder {i + 1}", 4 * 2**i, a, b, 3, 2)
            for i, (a, b) in enumerate(zip(down, down[1:], strict=False))
        ),
        convolution("encoder out", 16, down[-1], latents, 3),
        *hyperprior(model),
        *(
            upsampling(f"generator up{2 - i}", 16 // 2**i, a, b, 3)
            for i, (a, b) in enumerate(zip(ups, ups[1:], strict=False))
        ),
        convolution("FCM 1 in", 4, ups[-1], model.fcm_width, 3),
        convolution("generator out", 4, ups[-1], 48, 3),
        *discriminator(config.discriminator.widths, config.discriminator.context_channels),
    ]


CASES: dict[str, Callable[[], list[Layer]]] = {"paper": paper, "lite": folded}


def runs_of_jax(layer: Layer, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    ours = layer[1]
    params = ours.init(jax.random.key(0), x)
    forward = jax.jit(ours.apply)
    backward = jax.jit(lambda params, x, dy: jax.vjp(ours.apply, params, x)[1](dy))
    gradient = np.ones(forward(params, x).shape, np.float32)
    return {
        "forward": lambda: jax.block_until_ready(forward(params, x)),
        "backward": lambda: jax.block_until_ready(backward(params, x, gradient)),
    }


def runs_of_torch(layer: Layer, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    theirs = layer[2].to(memory_format=torch.channels_last)
    given = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    y = theirs(given)
    gradient, inputs = torch.ones_like(y), [given, *theirs.parameters()]

    @torch.no_grad()
    def forward():
        theirs(given)

    return {
        "forward": forward,
        "backward": lambda: torch.autograd.grad(y, inputs, gradient, retain_graph=True),
    }


FRAMEWORKS = {"jax": (runs_of_jax, COMMANDS), "torch": (runs_of_torch, {})}


def times(framework: str, case: str, size: tuple[int, int, int], repeats: int) -> list[dict]:
    """Returns the milliseconds of each layer of a case by direction."""
    images, height, width = size
    rows = []
    for layer in CASES[case]():
        at, channels = layer[3:]
        shape = images, height // at, width // at, channels
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        row = {}
        for direction, run in FRAMEWORKS[framework][0](layer, x).items():
            row[direction] = statistics.median(list(_milliseconds(run, repeats)))
        rows.append({"layer": layer[0], "input": list(shape)} | row)
    return rows


def _milliseconds(run: Callable[[], Any], repeats: int) -> Iterator[float]:
    run()  # The first call compiles.
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        yield 1e3 * (time.perf_counter() - start)


def measure(case: str, size: tuple[int, int, int], repeats: int) -> list[dict[str, Any]]:
    """Returns the rows of the table of a case."""
    found = {}
    for framework, (_, environment) in FRAMEWORKS.items():
        with mock.patch.dict(os.environ, environment):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[framework] = pool.apply(times, (framework, case, size, repeats))
    rows = []
    for ours, theirs in zip(found["jax"], found["torch"], strict=True):
        row = {key: ours[key] for key in ("layer", "input")}
        for direction in ("forward", "backward"):
            jax_ms, torch_ms = ours[direction], theirs[direction]
            row[direction] = {
                "jax_ms": round(jax_ms, 2),
                "torch_ms": round(torch_ms, 2),
                "ratio": round(jax_ms / torch_ms, 2),
            }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES, help="measure the layers of one model")
    parser.add_argument("--images", type=int, default=1, help="batch (1)")
    parser.add_argument("--height", type=int, default=256, help="height of the image (256)")
    parser.add_argument("--width", type=int, default=256, help="width of the image (256)")
    parser.add_argument("--repeats", type=int, default=9, help="calls to time (9)")
    parser.add_argument("--name", default="layers", help="name of the report (layers)")
    args = parser.parse_args()
    size = args.images, args.height, args.width
    report = conditions(PACKAGES)
    for case in [args.only] if args.only else CASES:
        report[case] = measure(case, size, args.repeats)
        for row in report[case]:
            f, b = row["forward"], row["backward"]
            print(
                f"{case:6} {row['layer']:20} {row['input']!s:22}"
                f" forward {f['jax_ms']:8.2f} {f['torch_ms']:8.2f} {f['ratio']:6.2f}"
                f" backward {b['jax_ms']:8.2f} {b['torch_ms']:8.2f} {b['ratio']:6.2f}",
                flush=True,
            )
    path = Path(__file__).parent / "results" / f"{args.name}.json"
    write(path, f"{json.dumps(report, indent=1)}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
