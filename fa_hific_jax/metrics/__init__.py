"""Metrics of pairs and of sets of 8-bit images, which docs/evaluation.md defines."""

from typing import Any

from fa_hific_jax.metrics.pairs import log_frequency_distance as log_frequency_distance
from fa_hific_jax.metrics.pairs import measure as measure
from fa_hific_jax.metrics.pairs import measure_batch as measure_batch
from fa_hific_jax.metrics.pairs import psnr as psnr
from fa_hific_jax.metrics.sets import features as features
from fa_hific_jax.metrics.sets import frechet_distance as frechet_distance
from fa_hific_jax.metrics.sets import image_features as image_features
from fa_hific_jax.metrics.sets import kid as kid
from fa_hific_jax.metrics.sets import patches as patches
from fa_hific_jax.metrics.sets import set_metrics as set_metrics
from fa_hific_jax.metrics.weights import Weights as Weights
from fa_hific_jax.metrics.weights import load_weights as load_weights

_FIELDS = ("label", "unit", "better", "decimals", "reference")
_LPIPS = "Zhang et al., CVPR 2018, version 0.1, {}"
_PATCHES = "patches as HiFiC, appendix A.7"
# The best value is 0: negative values mean lost detail, positive values mean invented detail.
_BAND = "mean error of log radial power over the {} third of 0 to 0.5 cycles per pixel"
_TABLE = {
    "psnr": ("PSNR", "dB", "higher", 2, "10 log10(255² / mse) over RGB"),
    "ms_ssim": ("MS-SSIM", "", "higher", 4, "Wang et al., 2003; as pytorch_msssim, RGB"),
    "ssim": ("SSIM", "", "higher", 4, "Wang et al., 2004; RGB, Gaussian window, full size"),
    "lpips_alex": ("LPIPS (AlexNet)", "", "lower", 4, _LPIPS.format("AlexNet")),
    "lpips_squeeze": ("LPIPS (SqueezeNet)", "", "lower", 4, _LPIPS.format("SqueezeNet")),
    "lpips_vgg": ("LPIPS (VGG16)", "", "lower", 4, _LPIPS.format("VGG16")),
    "lfd": ("LFD", "", "lower", 2, "Jiang et al., ICCV 2021: ln(1 + height · width · mse)"),
    "lsd": ("LSD", "dB", "lower", 2, "root mean square error of log radial power, 60 rings"),
    "band_low": ("Low band", "dB", "zero", 2, _BAND.format("lowest")),
    "band_middle": ("Middle band", "dB", "zero", 2, _BAND.format("middle")),
    "band_high": ("High band", "dB", "zero", 2, _BAND.format("highest")),
    "fid": ("FID", "", "lower", 2, f"Heusel et al., NeurIPS 2017; {_PATCHES}"),
    "kid": ("KID", "", "lower", 6, f"Bińkowski et al., ICLR 2018; {_PATCHES}"),
    "fd_alex": ("FD-Alex", "", "lower", 3, "FID's distance on AlexNet's last convolution"),
    "kid_alex": ("KID-Alex", "", "lower", 6, "KID's distance on AlexNet's last convolution"),
}

DESCRIPTIONS: dict[str, dict[str, Any]] = {
    name: {**dict(zip(_FIELDS, fields, strict=True)), "not_measured": None}
    for name, fields in _TABLE.items()
}
"""Metrics by id: label, unit, better ("higher", "lower" or "zero"), decimals, reference and
not_measured. The last four compare sets of images, the others pairs."""
