"""HiFiC (Mentzer et al. 2020): the first stage's losses and a conditional discriminator.

  python train.py --config configs/hific.py:lo --workdir runs/hific_lo \\
      --config.init_from=runs/mse_lpips_lo \\
      --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp. As in the original, training starts from a
trained `mse_lpips` (docs/training.md).

1M steps of 8 crops of 256x256. Estimate, not measured: 2.83 TFLOP per step as JAX counts them, 20
hours at a sustained 40 TFLOP/s (a quarter of an A100's dense TF32).

Published with the original's code (data.csv), Kodak at full size:
  lo  0.183 bpp, 27.56 dB, LPIPS 0.0686
  mi  0.351 bpp, 29.65 dB, LPIPS 0.0428
  hi  0.538 bpp, 31.74 dB, LPIPS 0.0278
"""

from configs import mse_lpips


def get_config(variant: str = "lo"):
    config = mse_lpips.get_config(variant)
    config.loss.gan = 0.15
    return config
