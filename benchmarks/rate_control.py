"""Does the rate land? HiFiC's switch against the controller, at three targets.

  python benchmarks/rate_control.py       # writes benchmarks/results/rate_control.json

Trains configs/tiny.py on procedural images, with rate and MSE alone, once for each kind of
`loss.rate_control` and target, and measures the rate that the rounded latents of other images of
the same kind would cost. Exits with 1 where the controller ends further than LIMIT from a target.
"""

import copy
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import tiny
from fa_hific_jax import settings as settings_lib
from fa_hific_jax.data.dead_leaves import DeadLeaves
from fa_hific_jax.data.pipeline import train_batches
from fa_hific_jax.models import autoencoder
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import train_step

jax.config.update("jax_disable_most_optimizations", True)  # The run is short: compile fast.

TARGETS = (0.03, 0.05, 0.08)
STEPS, TAIL, EVERY = 1000, 100, 50
HELD_OUT_BATCHES = 128
LIMIT = 0.05


def settings_of(control: str) -> settings_lib.Settings:
    """configs/tiny.py with this control, on the `train` images of the benchmark."""
    config = tiny.get_config()
    config.data.train = ("dead_leaves",)
    config.model.fcm_width = 0
    config.loss.gan = config.loss.dsl = config.loss.ffl = 0.0
    config.loss.rate_control = control
    config.loss.control_steps = 15
    config.loss.warmup_steps = 100
    config.optimizer.clip_norm = 100.0
    config.optimizer.drop_steps = (750,)
    config.optimizer.drop_factor = 0.3
    config.train.steps = STEPS
    config.train.batch_size = 2
    return settings_lib.from_mapping(config.to_dict())


def batches(settings: settings_lib.Settings, seed: int):
    """Endless crops of 256 images that belong to this seed."""
    source = DeadLeaves(256, seed=seed)
    return train_batches(
        settings.data, batch_size=settings.train.batch_size, seed=seed, sources=[source]
    )


@functools.partial(jax.jit, static_argnums=0)
def rate_and_mse(config, params, images):
    """Mean bits per pixel of the rounded latents, and MSE in 0..255, of one batch."""
    x = images.astype(jnp.float32) / 255.0
    outputs = autoencoder.apply(config, params, x)
    error = 255.0 * (jnp.clip(outputs.x_hat, 0.0, 1.0) - x)
    return jnp.mean(outputs.rates.rounded), jnp.mean(jnp.square(error))


def aiming_at(target, settings: settings_lib.Settings) -> settings_lib.Settings:
    """`settings` with a traced number as the target, so that one program serves all targets."""
    settings, loss = copy.copy(settings), copy.copy(settings.loss)
    object.__setattr__(loss, "target_bpp", target)
    object.__setattr__(settings, "loss", loss)
    return settings


@functools.partial(jax.jit, static_argnums=0)
def initial(settings, target):
    return create(aiming_at(target, settings), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def one_step(settings, state, images, target):
    key = jax.random.key(1)
    return train_step(state, images, key, None, settings=aiming_at(target, settings))


def measure(control: str, target: float) -> dict:
    """One run, and what held-out images cost at its end."""
    settings = settings_of(control)
    state = initial(settings, target)
    history: dict[str, list[float]] = {"bpp_rounded": [], "lambda_rate": []}
    for _, images in zip(range(STEPS), batches(settings, seed=0), strict=False):
        state, metrics = one_step(settings, state, images, target)
        for name, values in history.items():
            values.append(float(metrics[name]))
    held_out = [
        rate_and_mse(settings.model, state.params["autoencoder"], images)
        for _, images in zip(range(HELD_OUT_BATCHES), batches(settings, seed=1), strict=False)
    ]
    rates, mses = np.asarray(jax.device_get(held_out)).T
    row = {
        "control": control,
        "target": target,
        "held_out_bpp": round(float(rates.mean()), 4),
        "held_out_percent_off": round(100 * (float(rates.mean()) / target - 1), 2),
        "held_out_standard_error_percent": round(
            100 * float(rates.std() / rates.mean() / np.sqrt(len(rates))), 2
        ),
        "held_out_psnr": round(10 * float(np.log10(255.0**2 / mses.mean())), 2),
        "training_bpp_of_last_steps": round(float(np.mean(history["bpp_rounded"][-TAIL:])), 4),
        "steps_skipped": int(state.skipped[0]),
    }
    means = {
        name: np.mean(np.reshape(values, (-1, EVERY)), axis=1) for name, values in history.items()
    }
    return row | {f"{name}_every_{EVERY}": means[name].round(4).tolist() for name in means}


def main() -> int:
    rows = []
    for control in ("controller", "switch"):
        for target in TARGETS:
            rows.append(measure(control, target))
            print({key: value for key, value in rows[-1].items() if "every" not in key}, flush=True)
            write({"steps": STEPS, "batch_size": 2, "crop": 64, "rows": rows})
    off = [abs(row["held_out_percent_off"]) for row in rows if row["control"] == "controller"]
    return int(max(off) > 100 * LIMIT)


def write(results: dict) -> None:
    path = Path(__file__).parent / "results" / "rate_control.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.rename(path)


if __name__ == "__main__":
    sys.exit(main())
