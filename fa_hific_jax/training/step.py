"""One step of training: discriminator first, then everything else, from a single forward pass.

With `train.accumulate` the batch is computed in parts, and each part forward twice: once for the
discriminator and the mean rate, once more for the gradient after the discriminator has moved.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from fa_hific_jax.losses.band_power import deficit
from fa_hific_jax.losses.gan import discriminator_loss
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import AutoencoderOutput, Key
from fa_hific_jax.models.discriminator import SPECTRAL
from fa_hific_jax.settings import Settings
from fa_hific_jax.training import balance, knobs
from fa_hific_jax.training.balance import BalanceState, Observed
from fa_hific_jax.training.controller import rate_weight
from fa_hific_jax.training.knobs import Knobs
from fa_hific_jax.training.objective import frequency_term, objective, terms_of_x_hat
from fa_hific_jax.training.state import (
    DiscriminatorState,
    TrainState,
    discriminator_network,
    optimizers,
    split_discriminator,
)
from fa_hific_jax.training.trainable import by_name, merge, split

Metrics = dict[str, Float[Array, ""]]

DETAIL_TERMS = ("gan", "ffl", "power")
"""Terms of x_hat that ask for detail. DSL, of the features, does too."""


class Decoded(NamedTuple):
    """Of a forward pass, what discriminator and rate control see; images on the leading axes.

    `detail` is how much each image counts for the discriminator, None for all alike.
    """

    x_hat: Array
    y_hat: Array
    bpp_rounded: Array
    detail: Array | None = None


def train_step(
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key,
    lpips_params,
    *,
    settings: Settings,
) -> tuple[TrainState, Metrics]:
    """State after one step on `images` in 0..255, and the values that led there.

    The discriminator takes its step first, then judges the same x_hat for the generator; the
    autoencoder runs forward once. Noise follows from `key`, `state.step` and an image's place in
    the batch alone, so a resumed run sees what an unbroken one would, and `train.accumulate`
    changes nothing but rounding. Only what `settings.trainable` names is differentiated and
    changed; a discriminator of which nothing trains judges as it is.

    Where a value or a gradient is not finite, the state stays as it is but for `step` and
    `skipped`, and the step's other metrics are of no meaning.
    """
    x = images.astype(jnp.float32) / 255.0
    keys = jax.random.split(jax.random.fold_in(key, state.step), len(x))
    batches = parts((x, keys), settings.train.accumulate)
    trained, frozen = split(state.params, settings.trainable)

    def run(x, keys):
        def of_params(params) -> AutoencoderOutput:
            whole = merge(params, frozen["autoencoder"])
            return forward(whole, x, keys, knobs.draw(keys, settings), settings)

        recomputed = jax.checkpoint(of_params) if settings.train.recompute else of_params
        return jax.vjp(recomputed, trained["autoencoder"])

    def decode(outputs: AutoencoderOutput, keys) -> Decoded:
        detail = knobs.draw(keys, settings).detail
        return Decoded(outputs.x_hat, outputs.y_hat, outputs.rates.rounded, detail)

    once: Any = None
    if settings.train.accumulate == 1:
        once = run(*_part(batches, 0))
        decoded = jax.tree.map(lambda leaf: leaf[None], decode(once[0], batches[1][0]))
    else:
        decoded = jax.lax.map(lambda batch: decode(run(*batch)[0], batch[1]), batches)

    discriminator, metrics_d = state.discriminator, {}
    if discriminator is not None and _any(split_discriminator(discriminator.params, settings)[0]):
        discriminator, metrics_d = update_discriminator(
            discriminator, batches[0], decoded, settings
        )
    lmbda, target, controller = rate_weight(
        state.controller, state.step, jnp.mean(decoded.bpp_rounded), settings.loss
    )

    def gradient(batch):
        outputs, pullback = once or run(*batch)
        grad_outputs, grad_sigmas, squares, observed, metrics = gradient_at_outputs(
            outputs,
            batch[0],
            trained.get("dsl_sigma"),
            frozen.get("dsl_sigma"),
            discriminator,
            lpips_params,
            lmbda,
            knobs.draw(batch[1], settings),
            state.balance,
            settings,
        )
        grads = {"autoencoder": pullback(grad_outputs)[0]}
        if "dsl_sigma" in trained:
            grads["dsl_sigma"] = grad_sigmas
        return grads, squares, observed, metrics

    grads, squares, observed, metrics = mean_over(gradient, batches)
    updates, optimizer = optimizers(settings.optimizer)[0].update(grads, state.optimizer, trained)
    moved: Any = optax.apply_updates(trained, updates)
    metrics |= metrics_d | gradient_norms(grads)
    metrics |= {
        f"grad_norm_term/{term}": jnp.sqrt(square / settings.train.accumulate)
        for term, square in squares.items()
    }
    metrics["psnr"] = 10 * jnp.log10(255.0**2 / jnp.maximum(metrics["mse"], 1e-6))
    if target is not None:
        metrics["bpp_target"] = target
    new_state = state.replace(
        params=merge(moved, frozen),
        optimizer=optimizer,
        discriminator=discriminator,
        averaged=_averaged(state, moved["autoencoder"], settings.optimizer.ema_decay),
        controller=controller,
        balance=None if state.balance is None else balance.observe(state.balance, observed),
    )
    return _if_finite(new_state, state, metrics)


def forward(
    params, x: Float[Array, "b h w 3"], keys, chosen: Knobs, settings: Settings
) -> AutoencoderOutput:
    """The autoencoder in training, each image with a key and knobs of its own."""

    def one(x, key, chosen):
        return autoencoder.apply(settings.model, params, x[None], key, *chosen)

    single = jax.tree.map(lambda values: values[:, None], chosen)
    outputs = jax.vmap(one)(x, keys, single)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)


def parts(batch: Any, count: int) -> Any:
    """`batch` with a leading axis of `count` parts, every count-th image in each.

    So the images of a device, which are neighbours, are spread over all parts.
    """
    return jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1), batch
    )


def mean_over(function: Callable[[Any], Any], batches: Any) -> Any:
    """Mean of `function` over the parts, one at a time."""
    count, first = len(jax.tree.leaves(batches)[0]), _part(batches, 0)
    if count == 1:
        return function(first)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)
    )

    def add(total, batch):
        return jax.tree.map(jnp.add, total, function(batch)), None

    total, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda leaf: leaf / count, total)


def gradient_at_outputs(
    outputs: AutoencoderOutput,
    x: Float[Array, "b h w 3"],
    trained_sigmas,
    frozen_sigmas,
    discriminator: DiscriminatorState | None,
    lpips_params,
    lmbda: Float[Array, ""],
    chosen: Knobs,
    balanced: BalanceState | None,
    settings: Settings,
) -> tuple[AutoencoderOutput, Any, Metrics, Observed | None, Metrics]:
    """(gradient at `outputs`, at the sigmas, squared norms of the terms at x_hat, what the balance
    learns of them, metrics).

    Each term that judges x_hat has its own gradient there, weighted as in the loss; their sum is
    that of the loss, so telling them apart costs nothing. With a knob for detail, what asks for
    detail (the adversarial and the frequency terms) counts for an image as much as its detail, and
    the frequency term of x_hat has the weight of `balance`; the metrics are without.
    """
    if chosen.quality is not None:
        lmbda = lmbda * knobs.rate_weight(chosen.quality, settings.loss)
    views = dict.fromkeys(terms_of_x_hat(settings.loss), outputs.x_hat)
    emphasis = None
    if balanced is not None:
        emphasis = balance.emphasis(balanced, x.shape[1], x.shape[2], settings.loss)

    def loss(outputs: AutoencoderOutput, trained_sigmas, views):
        raw_sigmas = merge(trained_sigmas, frozen_sigmas)
        logits_fake = None
        if discriminator is not None:
            logits_fake = judge(discriminator, views["gan"], outputs.y_hat, settings)
        return objective(
            outputs,
            raw_sigmas,
            x,
            logits_fake,
            lpips_params,
            lmbda,
            settings.loss,
            views,
            emphasis,
        )

    (grads, grad_sigmas, grad_views), metrics = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(
        outputs, trained_sigmas, views
    )
    if chosen.detail is not None:
        asks = [term for term in grad_views if term in DETAIL_TERMS]
        grad_views |= {term: _times(chosen.detail, grad_views[term]) for term in asks}
        grads = grads._replace(
            encoder_features=_times(chosen.detail, grads.encoder_features),
            fcm_features=_times(chosen.detail, grads.fcm_features),
        )
    squares = {term: jnp.sum(jnp.square(grad)) for term, grad in grad_views.items()}
    observed = None
    if balanced is not None:
        term = frequency_term(settings.loss)
        lacking = jax.lax.stop_gradient(deficit(outputs.x_hat, x))
        observed = Observed(balance.ratio_of(squares, term), lacking)
        factor = balance.weight(balanced, settings.loss)
        grad_views |= {term: factor * grad_views[term]}
        squares |= {term: factor**2 * squares[term]}
        metrics |= {"balance_weight": factor, "deficit_high": lacking[-1]}
    return grads._replace(x_hat=sum(grad_views.values())), grad_sigmas, squares, observed, metrics


def gradient_norms(grads: Any) -> Metrics:
    """Norm of all gradients as "grad_norm", and of each module's as "grad_norm/encoder"."""
    squares: Metrics = {}
    for name, leaf in by_name(grads).items():
        if leaf is not None:
            module = _module(name.split("/"))
            square = jnp.sum(jnp.square(leaf))
            squares[module] = squares[module] + square if module in squares else square
    norms = {f"grad_norm/{module}": jnp.sqrt(square) for module, square in squares.items()}
    return norms | {"grad_norm": jnp.sqrt(sum(squares.values()))}


def _module(name: list[str]) -> str:
    if name[0] != "autoencoder":
        return name[0].removeprefix("dsl_")
    return "fcm" if name[2].startswith("fcm") else name[1]


def _if_finite(new: TrainState, old: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """`new`, or `old` where a metric is not finite, counted; and the metrics with the counts."""
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    state = jax.tree.map(lambda ours, theirs: jnp.where(finite, ours, theirs), new, old)
    total, in_row = old.skipped[0], old.skipped[1]
    bad = 1 - finite.astype(jnp.int32)
    skipped = jnp.stack([total + bad, (in_row + bad) * bad])
    counts = skipped.astype(jnp.float32)
    metrics = metrics | {"skipped": counts[0], "skipped_in_row": counts[1]}
    return state.replace(step=old.step + 1, skipped=skipped), metrics


def _averaged(state: TrainState, moved: Any, decay: float) -> Any:
    """Running mean that begins as a plain one: TensorFlow's min(decay, (1 + t) / (10 + t))."""
    t = state.step.astype(jnp.float32)
    share = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    if state.averaged is None:
        return None
    return jax.tree.map(lambda mean, new: mean + share * (new - mean), state.averaged, moved)


def _part(batches: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], batches)


def _times(weights: Float[Array, " b"], tree: Any) -> Any:
    """Each image of each leaf multiplied by its weight."""
    return jax.tree.map(
        lambda leaf: leaf * weights.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1)), tree
    )


def _any(tree) -> bool:
    return bool(jax.tree.leaves(tree))


def judge(
    discriminator: DiscriminatorState,
    x_hat: Float[Array, "b h w 3"],
    y_hat: Float[Array, "b hy wy cy"],
    settings: Settings,
) -> Float[Array, "b hd wd 1"]:
    """Logits of x_hat; the latents are a fixed condition, its state is untouched."""
    variables = {"params": discriminator.params, SPECTRAL: discriminator.spectral}
    logits: Any = discriminator_network(settings).apply(
        variables, x_hat, jax.lax.stop_gradient(y_hat)
    )
    return logits


def update_discriminator(
    discriminator: DiscriminatorState,
    x: Float[Array, "n b h w 3"],
    decoded: Decoded,
    settings: Settings,
) -> tuple[DiscriminatorState, Metrics]:
    """One Adam step of the discriminator on real and reconstructed images, the latter `decoded`.

    Both halves go through one call, each image beside its own latents: [x, x_hat] with
    [y_hat, y_hat]. (Repeating each latent twice in a row, as the PyTorch HiFiC does, would judge
    most images of a batch under another image's latents.) The gradient is that of this loss alone:
    nothing of the generator's loss reaches these parameters. The power iteration advances once.
    """
    trained, frozen = split_discriminator(discriminator.params, settings)

    def loss_of_params(params, x, x_hat, y_hat, detail):
        logits, mutated = discriminator_network(settings).apply(
            {"params": merge(params, frozen), SPECTRAL: discriminator.spectral},
            jnp.concatenate([x, x_hat]),
            jnp.concatenate([y_hat, y_hat]),
            mutable=[SPECTRAL],
        )
        real, fake = jnp.split(logits, 2)
        loss = discriminator_loss(real, fake, settings.loss.gan_kind, detail)
        metrics = {
            "gan_discriminator": loss,
            "logits_real": jnp.mean(real),
            "logits_fake": jnp.mean(fake),
        }
        return loss, (mutated[SPECTRAL], metrics)

    def gradient(batch):
        return jax.grad(loss_of_params, has_aux=True)(trained, *batch)

    # The vectors are the same for every part.
    batches = jax.lax.stop_gradient((x, decoded.x_hat, decoded.y_hat, decoded.detail))
    grads, (spectral, metrics) = mean_over(gradient, batches)
    updates, optimizer = optimizers(settings.optimizer)[1].update(
        grads, discriminator.optimizer, trained
    )
    params = merge(optax.apply_updates(trained, updates), frozen)
    norms = {"grad_norm/discriminator": gradient_norms({"discriminator": grads})["grad_norm"]}
    return DiscriminatorState(params, spectral, optimizer), metrics | norms
