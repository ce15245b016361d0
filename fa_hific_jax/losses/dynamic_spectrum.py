"""Dynamic spectrum loss: the focal frequency loss of Gaussian-blurred feature maps."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.blur import Features, gaussian_blur
from fa_hific_jax.losses.focal_frequency import LINEAR, Focus, focal_frequency_loss
from fa_hific_jax.ops import Image

Blur = Callable[[Image, Float[Array, ""], int], Features]  # of features, sigma and kernel size


def spectrum_loss(
    encoder_features: Sequence[Features],
    generator_features: Sequence[Features],
    *,
    sigmas: Float[Array, "2 _"] | None = None,
    kernel_size: int = 9,
    blur: Blur = gaussian_blur,
    weighting: str = "mean",
    focus: Focus = LINEAR,
) -> Float[Array, ""]:
    """Returns the sum over levels i of weight_i FFL(blur(C_i, s[1, i]), blur(A_i, s[0, i])).

    With constant sigmas s this is the spectrum loss (SL), with trained sigmas the dynamic spectrum
    loss (DSL). Without sigmas nothing is blurred, and it is the focal frequency loss (FFL) of the
    features. Lin et al., "Catch Missing Details: Image Reconstruction with Frequency Augmented
    Variational Autoencoder", CVPR 2023. The defaults are that paper's mean over levels and its
    depthwise blur, with reflected borders as in the FA-VAE code.

    Args:
      encoder_features: A_i, finest level first, in any range.
      generator_features: C_i, with the shapes of A_i.
      sigmas: positive standard deviations in pixels for each level; row 0 is for the encoder, row 1
        for the generator. The four of the FA-HiFiC authors are [[A1, A2], [C1, C2]].
      kernel_size: side of the Gaussian kernel as the blur takes it.
      blur: `gaussian_blur`, or the blur of the FA-HiFiC authors (`fidelity.authors`).
      weighting: "mean" (FA-VAE) for 1 / number of levels, or "authors" (FA-HiFiC) for 1 / channels
        of the level, which is 1/60 and 1/120 at the paper's widths, although FFL is already a mean
        over channels.
      focus: options of `focal_frequency_loss`.

    Raises:
      ValueError: the numbers of levels differ.
    """
    levels = len(encoder_features)
    if sigmas is not None and sigmas.shape != (2, levels):
        raise ValueError(f"sigmas of shape {sigmas.shape} do not fit {levels} levels")
    losses = []
    for i, (a, c) in enumerate(zip(encoder_features, generator_features, strict=True)):
        divisor = {"mean": levels, "authors": a.shape[-1]}[weighting]
        if sigmas is not None:
            a, c = blur(a, sigmas[0, i], kernel_size), blur(c, sigmas[1, i], kernel_size)
        losses.append(focal_frequency_loss(c, a, focus=focus) / divisor)
    return jnp.sum(jnp.stack(losses))


def sigma_from_raw(raw: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns softplus(raw), a positive sigma from an unconstrained parameter."""
    return jax.nn.softplus(raw)


def raw_from_sigma(sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the parameter from which `sigma_from_raw` gives this positive sigma."""
    return sigma + jnp.log(-jnp.expm1(-sigma))
