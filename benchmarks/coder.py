"""Measures the speed of the entropy coders and their excess over the ideal code length.

  python benchmarks/coder.py              # writes benchmarks/results/coder-NAME.json

Codes 337,920 latents, the number of an image of 768 x 512 pixels at paper size (220 channels). They
are drawn from Gaussians with log-normal scales (sigma of the logarithm: 1.2), whose medians give
the paper's three rates. Times are milliseconds of processor time on one core. If
tensorflow-compression-ops is installed (requirements-tfc.txt), its coder codes the same latents and
NAME is `tfc`; otherwise NAME is `main`. Exits with 1 if a result exceeds LIMITS.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from fa_hific_jax.codec import coders
from fa_hific_jax.entropy import tables
from fa_hific_jax.entropy.tables import SCALE_TABLE
from fa_hific_jax.writing import write

LATENTS, PIXELS = 337_920, 768 * 512
MEDIANS = {"lo": 0.066, "mi": 0.115, "hi": 0.165}  # 0.14, 0.30 and 0.45 bits per pixel
REPEATS = 30
LIMITS = {"ms": 40.0, "percent_over_ideal": 0.5}
PACKAGES = ("numpy", "constriction", "tensorflow", "tensorflow-compression-ops")


def draw(median: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns symbols and table rows of one image."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(np.log(median), 1.2, LATENTS)).astype(np.float32)
    scale = np.maximum(scale, SCALE_TABLE[0])
    symbols = np.floor(scale * rng.standard_normal(LATENTS) + 0.5).astype(np.int32)
    return symbols, tables.scale_indexes(scale, SCALE_TABLE).astype(np.uint8)


def timed(call) -> tuple[object, dict[str, float]]:
    """Returns the result of `call`, and the median and least time of REPEATS calls.

    Times are milliseconds of processor time in all threads, which other work on the machine hardly
    changes.
    """
    result, times = call(), []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return result, {"median": round(statistics.median(times), 2), "least": round(min(times), 2)}


def measure(coder: str, rate: str) -> dict:
    table = tables.gaussian_tables(tables.middle_scales(SCALE_TABLE))
    symbols, indexes = draw(MEDIANS[rate])
    data, encode_ms = timed(lambda: coders.encode(symbols, indexes, table, coder))
    decoded, decode_ms = timed(lambda: coders.decode(data, indexes, table, coder))
    assert np.array_equal(decoded, symbols)
    ideal = tables.ideal_bits(symbols, indexes.astype(np.int32), table) / 8
    return {
        "coder": coder,
        "rate": rate,
        "bytes": len(data),
        "bpp": round(8 * len(data) / PIXELS, 4),
        "ideal_bytes": round(ideal, 1),
        "percent_over_ideal": round(100 * (len(data) / ideal - 1), 4),
        "encode_ms": encode_ms,
        "decode_ms": decode_ms,
    }


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def use_one_core() -> bool:
    """Pins this process and its threads to one core; returns False if the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def main() -> int:
    pinned = use_one_core()
    has_tfc = importlib.util.find_spec("tensorflow_compression_ops") is not None
    names = ("constriction", "tfc") if has_tfc else ("constriction",)
    rows = [measure(coder, rate) for rate in MEDIANS for coder in names]
    machine = {"cpu": cpu(), "system": platform.system(), "one_core": pinned}
    report = {
        "latents": LATENTS,
        "repeats": REPEATS,
        "machine": machine,
        "versions": versions(),
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / f"coder-{'tfc' if has_tfc else 'main'}.json"
    write(path, f"{json.dumps(report, indent=1)}\n".encode())
    for row in rows:
        print(*row.values(), sep="  ")
    slowest = max(row[side]["median"] for row in rows for side in ("encode_ms", "decode_ms"))
    largest = max(row["percent_over_ideal"] for row in rows)
    return int(slowest > LIMITS["ms"] or largest > LIMITS["percent_over_ideal"])


if __name__ == "__main__":
    sys.exit(main())
