"""Measures what a model of the paper's widths costs around its networks.

  python -m benchmarks.paper_size

A model of configs/hific.py with random parameters is exported, and an image of 768x512 is coded
with it, by the commands of `fa-hific` in processes of their own. The report has for each command
the seconds of processor time and of the clock, and the most memory in GB. The second run of a
command finds its compiled programs in the cache.

`integer_synthesis` has the seconds of the clock, least and median of nine runs, with the cores as
they are and beside two processes that never wait.

The report goes to benchmarks/results/paper_size.json. Its load average tells whether other programs
were using the cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from benchmarks.coder import cpu, versions
from configs import hific
from fa_hific_jax import load_model, settings
from fa_hific_jax.checkpoints import Checkpoints
from fa_hific_jax.codec.integer_synthesis import IntegerSynthesis, parameters
from fa_hific_jax.models.autoencoder import init_parameters
from fa_hific_jax.writing import write

PACKAGES = ("jax", "numpy")
HEIGHT, WIDTH = 512, 768
RUNS = 9


def make_run(folder: str) -> None:
    """Writes the folder of a training run."""
    known = settings.from_mapping(hific.get_config("lo").to_dict())
    params = init_parameters(known.model, jax.random.key(0))
    checkpoints = Checkpoints(epath.Path(folder), kept=1)
    checkpoints.save(0, params, {}, known)
    checkpoints.close()


def cost(*command: str) -> dict[str, float]:
    """Runs a command of `fa-hific`, and returns its processor time, time and memory."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "fa_hific_jax", *command])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"fa-hific {command[0]} failed")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }


def synthesis_seconds(synthesis: IntegerSynthesis) -> dict[str, float]:
    channels = synthesis.mean.up0.kernel.shape[2]
    shape = (HEIGHT // 64, WIDTH // 64, channels)
    z = np.random.default_rng(0).integers(-9, 10, shape).astype(np.int32)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        parameters(synthesis, z)
        seconds.append(time.perf_counter() - start)
    return {"least": round(min(seconds), 3), "median": round(float(np.median(seconds)), 3)}


def main() -> None:
    report: dict[str, Any] = {"cpu": cpu(), "cores": os.cpu_count(), "versions": versions(PACKAGES)}
    report["load_average_before"] = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        run, model, image, coded, decoded = (
            str(Path(folder) / name) for name in ("run", "model", "x.png", "x.fahj", "y.png")
        )
        os.environ["XDG_CACHE_HOME"] = folder
        # A process passes its memory on to the peaks of those that it starts.
        make = f"from benchmarks.paper_size import make_run; make_run({run!r})"
        subprocess.run([sys.executable, "-c", make], check=True)
        rows, columns = np.indices((HEIGHT, WIDTH))
        ramps = np.stack([rows // 2, columns // 3, (rows + columns) // 5], -1)
        Image.fromarray(ramps.astype(np.uint8)).save(image)
        report["export"] = cost("export", run, "-o", model)
        for name in ("compress_first", "compress"):
            report[name] = cost("compress", image, "-o", coded, "--model", model, "--force")
        for name in ("decompress_first", "decompress"):
            report[name] = cost("decompress", coded, "-o", decoded, "--model", model, "--force")
        synthesis = load_model(model).entropy.synthesis
        report["integer_synthesis"] = synthesis_seconds(synthesis)
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            report["integer_synthesis_beside_two"] = synthesis_seconds(synthesis)
        finally:
            for process in busy:
                process.kill()
    path = Path(__file__).parent / "results" / "paper_size.json"
    write(path, f"{json.dumps(report, indent=1)}\n".encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
