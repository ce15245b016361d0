"""Metrics of pairs and of sets of 8-bit images, which docs/evaluation.md defines."""

from fa_hific_jax.metrics.descriptions import DESCRIPTIONS
from fa_hific_jax.metrics.distances import frechet_distance, kid
from fa_hific_jax.metrics.measure import Measured, measure, measure_batch
from fa_hific_jax.metrics.sets import features, image_features, patches, set_metrics
from fa_hific_jax.metrics.squared_error import log_frequency_distance, psnr
from fa_hific_jax.metrics.structure import ms_ssim, ssim
from fa_hific_jax.metrics.weights import Weights, load_weights

__all__ = [
    "DESCRIPTIONS",
    "Measured",
    "Weights",
    "features",
    "frechet_distance",
    "image_features",
    "kid",
    "load_weights",
    "log_frequency_distance",
    "measure",
    "measure_batch",
    "ms_ssim",
    "patches",
    "psnr",
    "set_metrics",
    "ssim",
]
