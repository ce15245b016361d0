"""FA-HiFiC: HiFiC with frequency complement modules, focal frequency loss and DSL.

  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo \\
      --config.init_from=runs/hific_lo \\
      --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp, with the FA-HiFiC authors' weights of the
frequency losses: FFL 0.5, and DSL 0.25 times the sum of each level's loss over its 60 or 120
channels. Variants lo_favae, mi_favae, hi_favae have those of FA-VAE: FFL 1, and DSL 0.01 times the
mean over levels.

In both, each level of encoder and generator has its own sigma, and each channel is blurred alone,
as in FA-VAE. The FA-HiFiC authors' code blurs the sum of the channels, which gives a DSL of another
size (`legacy_kernel` in loss.dsl_options), and divides the MSE by a further 255.

Training starts from a trained `hific`. The authors trained only the FCMs and sigmas, without a
discriminator: --config.trainable="('fcm', 'sigma')" --config.loss.gan=0 (docs/training.md).

1M steps of 8 crops of 256x256. Estimate, not measured: 3.36 TFLOP per step as JAX counts them, 23
hours at a sustained 40 TFLOP/s (a quarter of an A100's dense TF32).

Results read off the authors' poster, to about 0.2 dB, with those of HiFiC in parentheses. The
images are Kodak cropped to 512x512 and scaled to 256x256, so these are no Kodak numbers in the
usual sense:
  lo  0.143 bpp, 23.9 dB, LPIPS 0.092  (0.147 bpp, 27.5 dB, LPIPS 0.092)
  mi  0.273 bpp, 25.0 dB, LPIPS 0.080  (0.303 bpp, 29.1 dB, LPIPS 0.063)
  hi  0.397 bpp, 26.9 dB, LPIPS 0.056  (0.468 bpp, 30.5 dB, LPIPS 0.043)
"""

from configs import hific

# Weights of FFL and DSL, and the options of DSL, by their source.
WEIGHTS = {"": (0.5, 0.25, ("channel_weighting",)), "favae": (1.0, 0.01, ())}


def get_config(variant: str = "lo"):
    rate, _, source = variant.partition("_")
    if source not in WEIGHTS:
        raise ValueError(
            f"config variant {variant!r} does not exist: choose {rate} or {rate}_favae"
        )
    config = hific.get_config(rate)
    config.model.fcm_width = 64
    config.loss.ffl, config.loss.dsl, config.loss.dsl_options = WEIGHTS[source]
    return config
