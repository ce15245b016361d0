"""How much the frequency loss on pixels weighs beside the distortion: `loss.balance`.

"fixed"     FFL with its weight `loss.ffl` (FA-HiFiC)
"gradient"  FFL, its gradient kept at `loss.balance_share` of that of MSE and LPIPS
"bands"     FFL with its weight, on the frequencies whose power the model is short of
"power"     `power_loss` in FFL's place, its gradient kept as under "gradient"

Gradient norms are those at the generator's output, where they are at hand: VQGAN (Esser et al.,
CVPR 2021), whose adversarial weight is such a ratio, takes them at the last layer's kernel. The
DSL, which judges features, does not reach either and keeps its weight.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.losses.band_power import RINGS, ring_of
from fa_hific_jax.settings import LossConfig

Scalar = Float[Array, ""]

STEPS = 100
"""Over which ratio and deficits are averaged, as 1 / STEPS of each new one."""

LARGEST = 1e4
"""Of the weight of a term whose gradient vanishes."""

SCALED = ("gradient", "power")
"""Values of `loss.balance` under which the term's weight follows from gradient norms."""

_TINY = 1e-12


class BalanceState(flax.struct.PyTreeNode):
    """Running means over the steps, float32: ln of the ratio of norms, and deficits by ring.

    `seen` counts the steps up to STEPS, so that the first of them are a plain mean.
    """

    log_ratio: Any
    deficit: Any
    seen: Any


class Observed(flax.struct.PyTreeNode):
    """What one step has to say: ln(norm of the distortion / norm of the term), and deficits."""

    log_ratio: Any
    deficit: Any


def start() -> BalanceState:
    """Nothing seen: all bands count alike, and the term has its own weight."""
    zero = jnp.zeros((), jnp.float32)
    return BalanceState(zero, jnp.ones(RINGS, jnp.float32), zero)


def weight(state: BalanceState, config: LossConfig) -> Scalar:
    """Factor on the gradient of the frequency term; no gradient comes through it.

    At the share wanted of the distortion's norm, at most LARGEST; 1 where it is not scaled, 0
    before anything has been seen.
    """
    if config.balance not in SCALED:
        return jnp.ones((), jnp.float32)
    ratio = jnp.minimum(config.balance_share * jnp.exp(state.log_ratio), LARGEST)
    return jax.lax.stop_gradient(jnp.where(state.seen > 0, ratio, 0.0))


def emphasis(
    state: BalanceState, height: int, width: int, config: LossConfig
) -> Float[Array, "height half"] | None:
    """Factor on each frequency of FFL under "bands": the deficit of its ring over the largest.

    Rings with as much power as the original, or more, have none.
    """
    if config.balance != "bands":
        return None
    lacking = jnp.maximum(jax.lax.stop_gradient(state.deficit), 0.0)
    return (lacking / jnp.maximum(jnp.max(lacking), _TINY))[jnp.asarray(ring_of(height, width))]


def ratio_of(squares: dict[str, Scalar], term: str) -> Scalar:
    """ln of the norm of the distortion's gradient over that of a term, from squared norms."""
    distortion = sum(squares[name] for name in ("mse", "lpips") if name in squares)
    return 0.5 * (jnp.log(distortion + _TINY) - jnp.log(squares[term] + _TINY))


def observe(state: BalanceState, observed: Observed) -> BalanceState:
    """The running means after a step."""
    seen = jnp.minimum(state.seen + 1.0, STEPS)

    def mean(old, new):
        return old + (new - old) / seen

    return BalanceState(
        mean(state.log_ratio, observed.log_ratio), mean(state.deficit, observed.deficit), seen
    )
