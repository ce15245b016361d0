"""How the implementations of HiFiC differ: one record for each value of `model.variant`.

"pytorch" is Justin-Tan/high-fidelity-generative-compression, on which FA-HiFiC was built.
"tensorflow" is the original, tensorflow/compression, models/hific. "neuralcompression" is
`HiFiCAutoencoder` of facebookresearch/NeuralCompression, the network of its MS-ILLM and NoGAN
models, with the entropy models of CompressAI. Encoder, generator and hyper networks have the same
layers in all of them, but their convolutions treat edges differently.
"""

from typing import Literal, NamedTuple

LEGACY_SIDE = 256  # side in pixels of the only images that the FCM kind "legacy" takes
Padding = tuple[tuple[int, int], tuple[int, int]]


class Variant(NamedTuple):
    """Details in which one implementation differs from another."""

    # What convolutions see beyond the edges of an image, where the variants differ.
    edges: Literal["reflect", "constant"]
    # Rows above and below, columns left and right, that a 3x3 convolution of stride 2 adds. The
    # PyTorch HiFiC pads above and right (src/network/encoder.py), TensorFlow's "SAME" below and
    # right, NeuralCompression above and left (`padding=1` and even sides).
    down: Padding
    # Taps of a 3x3 transposed convolution before the tap on the input's own pixel: the adjoint of a
    # centered convolution (1) or of one that pads below and right (2, Keras).
    up_center: int
    halves: Literal["up", "even"]  # direction in which halves are rounded
    prior_filters: tuple[int, ...]  # widths of the hidden layers of the prior's cumulative
    prior_ends_linear: bool  # the last layer of the prior's cumulative has no nonlinearity
    medians: bool  # z is rounded around a median of each channel instead of around 0
    bits_offset: float  # number added to a likelihood within the logarithm
    # Side of the discriminator's last kernel; see `Discriminator`. That of MS-ILLM is not part of
    # this package.
    discriminator_head: int


VARIANTS = {
    "pytorch": Variant("reflect", ((1, 0), (0, 1)), 1, "up", (3, 3, 3), False, False, 1e-9, 1),
    "tensorflow": Variant("constant", ((0, 1), (0, 1)), 2, "up", (3, 3, 3), True, False, 0.0, 4),
    "neuralcompression": Variant(
        "constant", ((1, 0), (1, 0)), 1, "even", (3, 3, 3, 3), True, True, 0.0, 1
    ),
}
