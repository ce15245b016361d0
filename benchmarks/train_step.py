"""Measures compilation, time and memory of a training step, and of the same step in PyTorch.

  python -m benchmarks.train_step                     # small and lite
  python -m benchmarks.train_step --all               # also the paper's width: 10 GB of memory
  python -m benchmarks.train_step --cores 1 --name cpu1

Both steps run by turns on the same device (benchmarks/by_turns.py). The result is the ratio of
their times. PyTorch needs the extra `torch`; without it its half and the counts that come from it
are left out. Each case has the networks and losses of
FA-HiFiC at the widths of its config, without LPIPS, on a CPU with smaller batches and crops
(CASES).

The report has these numbers:
  compile_s         seconds of tracing and compiling the step
  ms                wall-clock time of a step, least and median of --repeats
  processor_ms      the same in processor time of all threads. With --cores 1 it is nearly that of
                    an idle machine, even if other programs run. With more cores it says little,
                    since PyTorch's threads spin while they wait.
  images_per_s      from the least `ms`
  utilization       floating-point operations per second of the step (as PyTorch counts those of its
                    convolutions), relative to products of 2048x2048 matrices; from processor_ms
                    with --cores 1, otherwise from ms
  memory_mb         growth of the process, of which JAX needs part to compile
  ratio             time of JAX over time of PyTorch: below 1, JAX is faster
  load_of_others    load average of the machine at the start; if it exceeds the number of cores,
                    compile_s and ms are too long

The report goes to benchmarks/results/train_step-NAME.json.
"""

import argparse
import functools
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import by_turns

# Batch and crop on a CPU; elsewhere the config's own.
CASES = {"small": (1, 128), "lite": (1, 256), "paper": (1, 128)}
PACKAGES = ("jax", "jaxlib", "flax", "torch", "numpy")
MATRIX = 2048


def settings_of(case: str, cpu: bool):
    from configs import fa_hific, lite, small
    from fa_hific_jax import settings as settings_lib

    config = {
        "small": small.get_config(),
        "lite": lite.get_config("fa"),
        "paper": fa_hific.get_config(),
    }[case]
    with config.unlocked():
        config.loss.lpips = 0.0
        # The PyTorch model is FA-HiFiC, without the parts that only this project has.
        config.model.linear_path, config.model.qualities = "none", 0
        config.loss.rate_control, config.optimizer.kind = "switch", "adam"
        if cpu:
            config.train.batch_size, config.data.crop = CASES[case]
    return settings_lib.from_mapping(config.to_dict())


def images_of(settings):
    import numpy as np

    shape = (settings.train.batch_size, settings.data.crop, settings.data.crop, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def jax_step(case: str, cpu: bool) -> tuple[object, dict]:
    """Returns a function that takes one step and waits for it, and facts about the program."""
    import jax

    from fa_hific_jax.training.state import create, parameters
    from fa_hific_jax.training.step import train_step

    jax.config.update("jax_enable_compilation_cache", False)
    settings, key = settings_of(case, cpu), jax.random.key(0)
    state = jax.jit(functools.partial(create, settings))(key)
    images = jax.device_put(images_of(settings))
    start = time.perf_counter()
    step = jax.jit(functools.partial(train_step, settings=settings), donate_argnums=0)
    compiled = step.lower(state, images, key, None).compile()
    facts = {"compile_s": round(time.perf_counter() - start, 1)}
    facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(parameters(state)))

    def run():
        nonlocal state
        state, metrics = compiled(state, images, key, None)
        jax.block_until_ready(metrics)

    return run, facts


def torch_step(case: str, cpu: bool) -> tuple[object, dict]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.pytorch_model import Trainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    settings = settings_of(case, cpu)
    images = torch.from_numpy(images_of(settings)).permute(0, 3, 1, 2).to(device)
    trainer = Trainer(settings, device)

    def run():
        trainer.step(images).item()  # waits

    with FlopCounterMode(display=False) as counter:
        run()
    return run, {"parameters": trainer.count(), "gflop": counter.get_total_flops() / 1e9}


def matmul() -> tuple[object, dict]:
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((MATRIX, MATRIX))
    product = jax.jit(lambda a: a @ a)
    return lambda: jax.block_until_ready(product(matrix)), {}


def measure(case: str, repeats: int, clock: str, cpu: bool, with_torch: bool) -> dict:
    settings = settings_of(case, cpu)
    report = {"case": case, "batch": settings.train.batch_size, "crop": settings.data.crop}
    cases = {
        "matmul": by_turns.Case(matmul),
        "jax": by_turns.Case(jax_step, (case, cpu), by_turns.COMMANDS),
    }
    if with_torch:
        cases["torch"] = by_turns.Case(torch_step, (case, cpu))
    rows = by_turns.measure(cases, repeats)
    peak = 2 * MATRIX**3 / 1e6 / rows.pop("matmul")[clock]["least"]
    report["matmul_gflops"] = round(peak, 1)
    if with_torch:
        assert rows["torch"]["parameters"] == rows["jax"]["parameters"]
        gflop = report["gflop"] = round(rows["torch"].pop("gflop"), 2)
        report["ratio"] = by_turns.ratios(rows["jax"], rows["torch"])
        for row in rows.values():
            row["utilization"] = round(1e3 * gflop / row[clock]["least"] / peak, 3)
    for row in rows.values():
        row["images_per_s"] = round(1e3 * settings.train.batch_size / row["ms"]["least"], 2)
    return report | rows


def cases(everything: bool, cpu: bool) -> tuple[list[str], dict[str, str]]:
    """Returns the cases to measure, and the skipped ones with their reasons."""
    if everything or not cpu:
        return list(CASES), {}
    return ["small", "lite"], {"paper": "183 million parameters take minutes and 10 GB: --all"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="measure the paper's width on a CPU too")
    parser.add_argument("--cores", type=int, default=0, help="CPU cores to use, 0 for all")
    parser.add_argument("--repeats", type=int, default=15, help="steps to time (15)")
    parser.add_argument("--name", help="name of the report; by default the device and its cores")
    args = parser.parse_args()
    if args.cores:  # Before JAX and PyTorch count them.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores :])

    import jax

    from benchmarks.coder import cpu as cpu_name
    from benchmarks.coder import versions
    from fa_hific_jax import writing

    on_cpu = jax.default_backend() == "cpu"
    cores = len(os.sched_getaffinity(0))
    with_torch = importlib.util.find_spec("torch") is not None
    clock = "processor_ms" if on_cpu and cores == 1 else "ms"
    wanted, skipped = cases(args.all, on_cpu)
    report = {
        "device": cpu_name() if on_cpu else jax.devices()[0].device_kind,
        "cores": cores,
        "load_of_others": round(os.getloadavg()[0], 1),
        "repeats": args.repeats,
        "versions": versions(PACKAGES),
        "skipped": skipped,
        "cases": [],
    }
    kind = f"cpu{cores}" if on_cpu else jax.default_backend()
    path = Path(__file__).parent / "results" / f"train_step-{args.name or kind}.json"
    for case in wanted:
        row = measure(case, args.repeats, clock, on_cpu, with_torch)
        print(json.dumps(row), flush=True)
        report["cases"].append(row)
        left = wanted[len(report["cases"]) :]
        report["skipped"] = skipped | dict.fromkeys(left, "stopped before its turn had ended")
        writing.write(path, f"{json.dumps(report, indent=1)}\n".encode())
    for case, reason in skipped.items():
        print(f"{case} skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
