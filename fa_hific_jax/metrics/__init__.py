"""Metrics of pairs and of sets of 8-bit images, which docs/evaluation.md defines."""

from fa_hific_jax.metrics.descriptions import DESCRIPTIONS as DESCRIPTIONS
from fa_hific_jax.metrics.measure import Measured as Measured
from fa_hific_jax.metrics.measure import measure as measure
from fa_hific_jax.metrics.measure import measure_batch as measure_batch
from fa_hific_jax.metrics.sets import features as features
from fa_hific_jax.metrics.sets import frechet_distance as frechet_distance
from fa_hific_jax.metrics.sets import image_features as image_features
from fa_hific_jax.metrics.sets import kid as kid
from fa_hific_jax.metrics.sets import patches as patches
from fa_hific_jax.metrics.sets import set_metrics as set_metrics
from fa_hific_jax.metrics.squared_error import log_frequency_distance as log_frequency_distance
from fa_hific_jax.metrics.squared_error import psnr as psnr
from fa_hific_jax.metrics.structure import ms_ssim as ms_ssim
from fa_hific_jax.metrics.structure import ssim as ssim
from fa_hific_jax.metrics.weights import Weights as Weights
from fa_hific_jax.metrics.weights import load_weights as load_weights
