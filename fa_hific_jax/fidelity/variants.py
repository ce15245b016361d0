"""How the implementations of HiFiC differ: one record for each value of `model.variant`.

"pytorch" is Justin-Tan/high-fidelity-generative-compression, on which FA-HiFiC was built.
"tensorflow" is the original, tensorflow/compression, models/hific. Encoder, generator and
hyperprior have the same layers in both, but their convolutions treat edges differently.
"""

from typing import Literal, NamedTuple

LEGACY_SIDE = 256
"""Side in pixels of the only images that the FCM kind "legacy" takes."""

Padding = tuple[tuple[int, int], tuple[int, int]]


class Variant(NamedTuple):
    """Details in which one implementation differs from another.

    Attributes:
      edges: what convolutions see beyond the edges of an image, where the variants differ.
      down: rows above and below, columns left and right, that a 3x3 convolution of stride 2 adds.
        The PyTorch HiFiC pads above and right (src/network/encoder.py), TensorFlow's "SAME" below
        and right.
      up_center: taps of a 3x3 transposed convolution before the tap on the input's own pixel. It is
        the adjoint of a centered convolution (1) or of one that pads below and right (2, Keras).
      prior_ends_linear: True where the last layer of the prior's cumulative has no nonlinearity.
      bits_offset: number added to a likelihood within the logarithm.
      discriminator_head: side of the discriminator's last kernel. With 1 its 4x4 convolutions all
        have stride 2, and neither head nor context has a spectral norm. With 4 the last 4x4
        convolution before the head has stride 1, and every convolution has a spectral norm.
    """

    edges: Literal["reflect", "constant"]
    down: Padding
    up_center: int
    prior_ends_linear: bool
    bits_offset: float
    discriminator_head: int


VARIANTS = {
    "pytorch": Variant("reflect", ((1, 0), (0, 1)), 1, False, 1e-9, 1),
    "tensorflow": Variant("constant", ((0, 1), (0, 1)), 2, True, 0.0, 4),
}
