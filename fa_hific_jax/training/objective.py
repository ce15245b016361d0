"""The weighted loss and its gradient at the autoencoder's outputs, term by term."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.losses.dynamic_spectrum import sigma_from_raw
from fa_hific_jax.losses.rate_distortion import mse_255
from fa_hific_jax.models.autoencoder import AutoencoderOutput
from fa_hific_jax.training import balance
from fa_hific_jax.training.terms import LossInputs, Term, active_terms, frequency_term

Scalar = Float[Array, ""]
Metrics = dict[str, Scalar]


class Gradients(NamedTuple):
    """Gradients of the weighted loss, and the measurements that their computation gives."""

    outputs: AutoencoderOutput  # gradient at the outputs of the autoencoder
    raw_sigmas: Array | None  # gradient at the raw sigmas
    squares: Metrics  # squared norm of each term's weighted gradient at x_hat
    observed: balance.Observed | None
    metrics: Metrics  # the loss, and its unweighted parts


def differentiate(given: LossInputs) -> Gradients:
    """Returns the gradients of the weighted loss at the outputs of the autoencoder.

    Each term is differentiated separately, with its weight. Detail and balance change only
    gradients, not the metrics of the terms and "loss".
    """
    config, metrics = given.settings.loss, _always_reported(given)
    loss, at_rate = jax.value_and_grad(lambda bpp: jnp.mean(given.lmbda * bpp))(
        given.outputs.rates.noisy
    )
    gradients, at_sigmas = {}, jax.tree.map(jnp.zeros_like, given.raw_sigmas)
    for term in active_terms(config):
        value, gradients[term.name], sigmas = _value_and_gradients(term, given)
        at_sigmas = jax.tree.map(jnp.add, at_sigmas, sigmas)
        metrics[term.metric or term.name] = value
        loss += getattr(config, term.weight) * value
    squares = {
        name: jnp.sum(jnp.square(gradient["x_hat"]))
        for name, gradient in gradients.items()
        if "x_hat" in gradient
    }
    observed = None
    if given.balance is not None:
        scaled, factor = frequency_term(config), balance.weight(given.balance, config)
        observed = balance.measure(squares, scaled, given.outputs.x_hat, given.x)
        gradients[scaled] = {"x_hat": factor * gradients[scaled]["x_hat"]}
        squares[scaled] = factor**2 * squares[scaled]
        metrics["balance_weight"] = factor
        metrics["log_power_error_high"] = observed.log_power_error[-1]
    total = {}  # by output; those that no term judges have a gradient of 0
    for gradient in gradients.values():
        for field, leaf in gradient.items():
            total[field] = jax.tree.map(jnp.add, total[field], leaf) if field in total else leaf
    at_outputs = jax.tree.map(jnp.zeros_like, given.outputs)._replace(**total)
    at_outputs = at_outputs._replace(rates=at_outputs.rates._replace(noisy=at_rate))
    return Gradients(at_outputs, at_sigmas, squares, observed, metrics | {"loss": loss})


def _value_and_gradients(
    term: Term, given: LossInputs
) -> tuple[Scalar, dict[str, Any], Array | None]:
    """Returns the unweighted value, and the weighted gradients at `term.judges` and the sigmas."""

    def value_at(judged, raw_sigmas):
        outputs = given.outputs._replace(**judged)
        return term.value(given._replace(outputs=outputs, raw_sigmas=raw_sigmas))

    judged = {field: getattr(given.outputs, field) for field in term.judges}
    value, pullback = jax.vjp(value_at, judged, given.raw_sigmas)
    gradient, sigmas = pullback(jnp.asarray(getattr(given.settings.loss, term.weight), value.dtype))
    if term.scales_with_detail and given.detail is not None:
        detail = given.detail[:, None, None, None]  # for images and feature maps
        gradient = jax.tree.map(lambda leaf: leaf * detail.astype(leaf.dtype), gradient)
    return value, gradient, sigmas


def _always_reported(given: LossInputs) -> Metrics:
    rates = given.outputs.rates
    metrics = {
        "lambda_rate": jnp.mean(given.lmbda),
        "bpp_noisy": jnp.mean(rates.noisy),
        "bpp_rounded": jnp.mean(rates.rounded),
        "bpp_rounded_z": jnp.mean(rates.rounded_z),
        "mse": mse_255(given.x, given.outputs.x_hat),
    }
    if given.raw_sigmas is not None:
        metrics["dsl_sigma"] = jnp.mean(sigma_from_raw(given.raw_sigmas))
    return metrics
