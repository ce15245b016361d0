"""Balance of the frequency loss on pixels with the distortion: `loss.balance`.

"fixed"     FFL with the weight `loss.ffl` (FA-HiFiC)
"gradient"  FFL; its gradient has `loss.balance_share` of the norm of that of MSE and LPIPS
"bands"     FFL with the weight `loss.ffl`, restricted to frequencies at which x_hat lacks power
"power"     `power_loss` instead of FFL; its gradient is scaled as for "gradient"

Gradients are those at the generator's output, which the step computes anyway (VQGAN, Esser et al.,
CVPR 2021, takes them at the last layer's kernel). The DSL has no gradient there and keeps its
weight.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.losses.band_power import BANDS, band_of, log_power_error
from fa_hific_jax.ops import Image
from fa_hific_jax.settings import LossConfig

Scalar = Float[Array, ""]

STEPS = 100  # window of the running means: each new value has the weight 1 / STEPS
LARGEST = 1e4  # upper bound of the weight, for terms whose gradient vanishes
_TINY = 1e-12


class BalanceState(flax.struct.PyTreeNode):
    """Running means over steps of what `Observed` says, float32."""

    log_ratio: Any
    log_power_error: Any
    seen: Any  # number of steps up to STEPS, so that the first steps form a plain mean


class Observed(flax.struct.PyTreeNode):
    """Measurements of one step."""

    log_ratio: Any  # ln(norm of the distortion's gradient / norm of the frequency term's)
    log_power_error: Any  # of each band, see `losses.band_power.log_power_error`


def start() -> BalanceState:
    """Returns the state before the first step, which assumes that all bands lack the same power."""
    zero = jnp.zeros((), jnp.float32)
    return BalanceState(zero, -jnp.ones(BANDS, jnp.float32), zero)


def weight(state: BalanceState, config: LossConfig) -> Scalar:
    """Returns the factor on the gradient of the frequency term, a constant to differentiation.

    It brings the gradient to `balance_share` of the distortion's norm and is at most LARGEST. It is
    0 before the first measurement, and 1 unless `loss.balance` is "gradient" or "power".
    """
    if config.balance not in ("gradient", "power"):
        return jnp.ones((), jnp.float32)
    ratio = jnp.minimum(config.balance_share * jnp.exp(state.log_ratio), LARGEST)
    return jax.lax.stop_gradient(jnp.where(state.seen > 0, ratio, 0.0))


def emphasis(
    state: BalanceState | None, x: Image, config: LossConfig
) -> Float[Array, "height half"] | None:
    """Returns the factor on each frequency of FFL for "bands", None for the other balances.

    It is the log-power that x_hat lacks in the radial band of the frequency, divided by that of the
    band that lacks most. It is 0 in bands where x_hat lacks no power.
    """
    if state is None or config.balance != "bands":
        return None
    lacking = jnp.maximum(-jax.lax.stop_gradient(state.log_power_error), 0.0)
    band = jnp.asarray(band_of(x.shape[1], x.shape[2]))
    return (lacking / jnp.maximum(jnp.max(lacking), _TINY))[band]


def measure(squares: dict[str, Scalar], term: str, x_hat: Image, x: Image) -> Observed:
    """Returns the measurements of a step, from the squared gradient norms of terms at x_hat."""
    distortion = sum(squares[name] for name in ("mse", "lpips") if name in squares)
    log_ratio = 0.5 * (jnp.log(distortion + _TINY) - jnp.log(squares[term] + _TINY))
    return Observed(log_ratio, log_power_error(x_hat, x))


def observe(state: BalanceState | None, observed: Observed | None) -> BalanceState | None:
    """Returns the running means after a step; None without a balance."""
    if state is None or observed is None:
        return None
    seen = jnp.minimum(state.seen + 1.0, STEPS)
    ratio, error = state.log_ratio, state.log_power_error
    ratio = ratio + (observed.log_ratio - ratio) / seen
    return BalanceState(ratio, error + (observed.log_power_error - error) / seen, seen)
