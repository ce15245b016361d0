"""Muon: steps of convolution kernels whose singular values are all about one.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(KellerJordan/Muon); the length of the steps after Liu et al., "Muon is Scalable for LLM Training",
arXiv 2502.16982.
"""

import jax
import optax
from optax.contrib import MuonDimensionNumbers

NEWTON_SCHULZ_STEPS = 3
"""Iterations towards equal singular values, where 5 are usual: on a CPU they take much of a short
step, and a trial of 170 steps lost nothing with 3."""

ADAMS_RMS = 0.2
"""Of a step's elements, as a share of the learning rate, so that Adam's rates can be kept (Liu et
al.)."""


def muon(rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon for convolution kernels, taken as matrices from patches to channels, Adam for the rest.

    Adam has the biases, norms, priors and gains, and the convolution that makes the image: its
    three channels are the output, not hidden features (Jordan et al.).
    """
    return optax.contrib.muon(
        rate,
        ns_steps=NEWTON_SCHULZ_STEPS,
        consistent_rms=ADAMS_RMS,
        muon_weight_dimension_numbers=matrices,
    )


def matrices(params):
    """For each parameter, which axes are rows and columns of the matrix that it is, or None."""

    def of(leaf) -> MuonDimensionNumbers | None:
        if leaf.ndim != 4 or leaf.shape[-1] <= 3:
            return None
        return MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    return jax.tree.map(of, params)
