"""Muon: an optimizer whose steps of convolution kernels have nearly equal singular values.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(KellerJordan/Muon); the length of the steps follows Liu et al., "Muon is Scalable for LLM
Training", arXiv 2502.16982.
"""

import jax
import optax
from optax.contrib import MuonDimensionNumbers

NEWTON_SCHULZ_STEPS = 3
"""Iterations towards equal singular values. Five are usual, but on a CPU they take a large share of
a short step, and a trial of 170 steps lost nothing with 3."""

ADAMS_RMS = 0.2
"""Root mean square of a step's elements, relative to the learning rate. It is close to Adam's, so
that Adam's learning rates can be kept (Liu et al.)."""


def muon(rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns Muon for convolution kernels, seen as matrices from patches to channels.

    All other parameters have Adam: biases, norms, priors, gains, and the convolution that makes the
    image, whose three channels are the output rather than hidden features (Jordan et al.).
    """
    return optax.contrib.muon(
        rate,
        ns_steps=NEWTON_SCHULZ_STEPS,
        consistent_rms=ADAMS_RMS,
        muon_weight_dimension_numbers=matrices,
    )


def matrices(params):
    """Returns for each parameter the axes of its matrix's rows and columns, None for Adam."""

    def axes(leaf) -> MuonDimensionNumbers | None:
        if leaf.ndim != 4 or leaf.shape[-1] <= 3:
            return None
        return MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    return jax.tree.map(axes, params)
