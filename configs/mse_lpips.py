"""First stage of HiFiC and FA-HiFiC: rate, MSE and LPIPS, without discriminator or FCM.

  python train.py --config configs/mse_lpips.py:lo --workdir runs/mse_lpips_lo \\
      --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp. Source: HiFiC, models/hific/configs.py of
tensorflow/compression ("mselpips").

1M steps of 8 crops of 256x256. Estimate, not measured: 2.59 TFLOP per step as JAX counts them, 18
hours at a sustained 40 TFLOP/s (a quarter of an A100's dense TF32). No numbers were published for
this stage. docs/training.md describes the following stages.
"""

from configs import base

# Target rate in bits per pixel, and weight of the rate above it (Mentzer et al. 2020, A.6).
RATES = {"lo": (0.14, 2.0), "mi": (0.30, 1.0), "hi": (0.45, 0.5)}


def get_config(variant: str = "lo"):
    if variant not in RATES:
        raise ValueError(f"config variant {variant!r} does not exist: choose one of lo, mi, hi")
    config = base.get_config()
    config.loss.target_bpp, config.loss.lambda_above = RATES[variant]
    config.loss.lpips = 1.0
    return config
