"""Metrics of 8-bit images: of pairs, and of sets of images."""

from fa_hific_jax.metrics.pixels import log_frequency_distance, psnr
from fa_hific_jax.metrics.structure import ms_ssim, ssim

__all__ = ["log_frequency_distance", "ms_ssim", "psnr", "ssim"]
