"""Measures compilation, time and memory of a training step, and of the same step in PyTorch.

  python benchmarks/train_step.py                     # small and lite
  python benchmarks/train_step.py --all               # also the paper's width: 10 GB of memory
  python benchmarks/train_step.py --cores 1 --name cpu1

Both steps run alternately in one process on the same device, so that other work on the machine
affects both. The result is the ratio of their times. PyTorch needs the extra `torch`; without it
its half and the counts that come from it are left out. Each case has the networks and losses of
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
  memory_mb         JAX: arguments and temporary buffers of the compiled step; PyTorch: growth of a
                    process that takes two steps
  ratio             time of JAX over time of PyTorch: below 1, JAX is faster
  load_of_others    load average of the machine at the start; if it exceeds the number of cores,
                    compile_s and ms are too long

The report goes to benchmarks/results/train_step-NAME.json.
"""

import argparse
import functools
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

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


def jax_step(settings) -> tuple[object, dict]:
    """Returns a function that takes one step and waits for it, and facts about the program."""
    import jax

    from fa_hific_jax.training.state import create, parameters
    from fa_hific_jax.training.step import train_step

    key = jax.random.key(0)
    state = jax.jit(functools.partial(create, settings))(key)
    images = jax.device_put(images_of(settings))
    start = time.perf_counter()
    step = jax.jit(functools.partial(train_step, settings=settings), donate_argnums=0)
    compiled = step.lower(state, images, key, None).compile()
    facts = {"compile_s": round(time.perf_counter() - start, 1)}
    memory = compiled.memory_analysis()
    if memory is not None:
        size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        facts["memory_mb"] = round(size / 2**20)
    facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(parameters(state)))

    def run():
        nonlocal state
        state, metrics = compiled(state, images, key, None)
        jax.block_until_ready(metrics)

    return run, facts


def torch_step(settings) -> tuple[object, dict]:
    import torch
    from pytorch_model import Trainer
    from torch.utils.flop_counter import FlopCounterMode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images = torch.from_numpy(images_of(settings)).permute(0, 3, 1, 2).to(device)
    trainer = Trainer(settings, device)

    def run():
        trainer.step(images).item()  # waits

    with FlopCounterMode(display=False) as counter:
        run()
    return run, {"parameters": trainer.count(), "gflop": counter.get_total_flops() / 1e9}


def torch_memory_mb(case: str, cpu: bool) -> int | None:
    """Returns the growth of this process over two steps, or on a GPU what they allocate there."""
    import torch
    from pytorch_model import Trainer

    settings = settings_of(case, cpu)
    images = torch.from_numpy(images_of(settings)).permute(0, 3, 1, 2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = _peak_kb()
    trainer = Trainer(settings, device)
    for _ in range(2):
        trainer.step(images.to(device)).item()
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    after = _peak_kb()
    return None if before is None or after is None else round((after - before) / 2**10)


def _peak_kb() -> int | None:
    """Returns the peak memory of this process; `resource` would include that of its parent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def matmul():
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((MATRIX, MATRIX))
    product = jax.jit(lambda a: a @ a)
    return lambda: jax.block_until_ready(product(matrix))


def by_turns(runs: dict, repeats: int) -> dict[str, dict]:
    """Returns wall-clock and processor milliseconds of each function, without its first call."""
    times = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            both = (time.perf_counter() - wall, time.process_time() - processor)
            if turn:
                times[name].append(both)
    rows = {}
    for name, pairs in times.items():
        columns = zip(*pairs, strict=True)
        rows[name] = {
            key: {"least": round(1e3 * min(c), 2), "median": round(1e3 * statistics.median(c), 2)}
            for key, c in zip(("ms", "processor_ms"), columns, strict=True)
        }
    return rows


def measure(case: str, repeats: int, clock: str, cpu: bool, with_torch: bool) -> dict:
    settings = settings_of(case, cpu)
    report = {"case": case, "batch": settings.train.batch_size, "crop": settings.data.crop}
    facts, runs = {}, {"matmul": matmul()}
    runs["jax"], facts["jax"] = jax_step(settings)
    gflop = None
    if with_torch:
        runs["torch"], facts["torch"] = torch_step(settings)
        gflop = report["gflop"] = round(facts["torch"].pop("gflop"), 2)
        assert facts["torch"]["parameters"] == facts["jax"]["parameters"]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            facts["torch"]["memory_mb"] = pool.apply(torch_memory_mb, (case, cpu))
    rows = by_turns(runs, repeats)
    peak = 2 * MATRIX**3 / 1e6 / rows.pop("matmul")[clock]["least"]
    report["matmul_gflops"] = round(peak, 1)
    for name, row in rows.items():
        row |= facts[name]
        row["images_per_s"] = round(1e3 * settings.train.batch_size / row["ms"]["least"], 2)
        if gflop:
            row["utilization"] = round(1e3 * gflop / row[clock]["least"] / peak, 3)
        report[name] = row
    if with_torch:
        ours, theirs = rows["jax"], rows["torch"]
        report["ratio"] = {
            key: {which: round(ours[key][which] / theirs[key][which], 2) for which in ours[key]}
            for key in ("ms", "processor_ms")
        }
    return report


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
    from coder import cpu as cpu_name
    from coder import versions

    from fa_hific_jax import writing

    jax.config.update("jax_enable_compilation_cache", False)
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
    path = ROOT / "benchmarks" / "results" / f"train_step-{args.name or kind}.json"
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
