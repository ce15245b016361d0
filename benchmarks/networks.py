"""Measures encoder, generator and decompression against the same networks in PyTorch.

  python -m benchmarks.networks                 # widths of HiFiC and of lite, 768x512

Each runs in a process of its own, by turns (benchmarks/by_turns.py): `encoder` and `generator` in
float32, `encoder_reproducible` in float64 as in compress, and `decompress`, from the bytes of a
file to pixels. Their ratios are to the same network of PyTorch in float32; `decompress` and
`encoder_reproducible` to its generator and its encoder alone. Below 1, this project is faster.
Parameters are random. It needs the extra `torch`.

`winograd_error` is the largest difference of the generator's picture in float32 from that in
float64, relative to the largest value.

The report goes to benchmarks/results/networks-NAME.json.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import by_turns
from fa_hific_jax.writing import write

HEIGHT, WIDTH = 512, 768
PACKAGES = ("jax", "jaxlib", "torch", "numpy")
CASES = ("paper", "lite")


def config_of(case: str):
    from configs import hific, lite
    from fa_hific_jax import settings

    config = {"paper": hific.get_config("lo"), "lite": lite.get_config("hific")}[case]
    # PyTorch has neither the linear path nor gains.
    with config.unlocked():
        config.model.linear_path, config.model.qualities = "none", 0
        config.loss.rate_control = "switch"
    return settings.from_mapping(config.to_dict()).model


def image() -> np.ndarray:
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([rows // 2, columns // 3, (rows + columns) // 5], -1).astype(np.uint8)


def parameters_of(config) -> Any:
    import jax

    from fa_hific_jax.models.autoencoder import init_parameters

    return jax.jit(init_parameters, static_argnums=0)(config, jax.random.key(0))


def latents(config) -> np.ndarray:
    shape = 1, HEIGHT // 16, WIDTH // 16, config.latent_channels
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def encoder(case: str):
    import jax

    from fa_hific_jax.models.autoencoder import bind

    config = config_of(case)
    params, x = parameters_of(config), jax.device_put(image()[None] / np.float32(255))
    encode = jax.jit(lambda params, x: bind(config, params).encode(x)[0])
    return lambda: jax.block_until_ready(encode(params, x)), {}


def encoder_reproducible(case: str):
    import jax

    from fa_hific_jax.models.autoencoder import bind
    from fa_hific_jax.ops import enable_x64

    config = config_of(case)
    with enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), parameters_of(config))
        x = jax.device_put(image()[None] / 255.0)
        encode = jax.jit(lambda params, x: bind(config, params, "float64").encode(x)[0])

    def run():
        with enable_x64(True):
            jax.block_until_ready(encode(params, x))

    return run, {}


def generator(case: str):
    import jax

    from fa_hific_jax.models.autoencoder import bind
    from fa_hific_jax.ops import enable_x64

    config = config_of(case)
    params, y_hat = parameters_of(config), latents(config)
    generate = jax.jit(lambda params, y_hat: bind(config, params).generate(y_hat))
    found = np.asarray(generate(params, y_hat))
    with enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        exact = jax.jit(lambda params, y_hat: bind(config, params, "float64").generate(y_hat))
        expected = np.asarray(exact(wide, y_hat.astype(np.float64)))
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    facts = {"winograd_error": float(f"{error:.1e}")}
    return lambda: jax.block_until_ready(generate(params, y_hat)), facts


def decompress(case: str):
    from fa_hific_jax.codec.model import from_params

    config = config_of(case)
    model = from_params(config, parameters_of(config))
    data = model.compress(image())
    return lambda: model.decompress(data), {"bytes": len(data)}


def torch_network(case: str, name: str):
    import torch

    from benchmarks.pytorch_model import Autoencoder

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = config_of(case)
    given = image()[None] / np.float32(255) if name == "encoder" else latents(config)
    given = torch.from_numpy(given).permute(0, 3, 1, 2)
    network = getattr(Autoencoder(config), name).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def run():
        network(given)

    return run, {}


def measure(case: str, repeats: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for theirs, ours in (
        ("encoder", (encoder, encoder_reproducible)),
        ("generator", (generator, decompress)),
    ):
        cases = {"torch": by_turns.Case(torch_network, (case, theirs))}
        cases |= {f.__name__: by_turns.Case(f, (case,), by_turns.COMMANDS) for f in ours}
        rows = by_turns.measure(cases, repeats)
        report[f"torch_{theirs}"] = rows.pop("torch")
        for name, row in rows.items():
            report[name] = row | {"ratio": by_turns.ratios(row, report[f"torch_{theirs}"])}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES, help="measure one model")
    parser.add_argument("--repeats", type=int, default=7, help="calls to time (7)")
    parser.add_argument("--name", help="name of the report; by default cpu and its cores")
    args = parser.parse_args()
    report = by_turns.conditions(PACKAGES)
    name = args.name or f"cpu{report['cores']}"
    path = Path(__file__).parent / "results" / f"networks-{name}.json"
    for case in [args.only] if args.only else CASES:
        report[case] = measure(case, args.repeats)
        print(json.dumps({case: report[case]}), flush=True)
        write(path, f"{json.dumps(report, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
