"""The networks: encoder, hyperprior, generator with FCM, discriminator."""

STRIDE = 64
"""Pixels to one hyper-latent: images are padded to a multiple of it."""

LOG_UNIT = "log_unit"
"""Name of the parameter that holds the logarithm of a synthesis' unit per channel."""

MEDIAN = "median"
"""Name of the parameter that holds the value around which each channel of z is rounded."""


def padded_shape(height: int, width: int) -> tuple[int, int]:
    """Returns height and width rounded up to multiples of STRIDE, as the networks need them."""
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE
