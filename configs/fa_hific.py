"""FA-HiFiC: HiFiC with frequency complement modules, focal frequency loss and DSL.

  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo \\
      --config.loss.lpips_file=lpips_alex.npz --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp, with the FA-HiFiC authors' weights of the
frequency losses: FFL 0.5, DSL 0.25 times the sum of each level's loss over its 60 or 120 channels.
lo_favae, mi_favae, hi_favae have those of FA-VAE: FFL 1, DSL 0.01 times the mean over levels. In
both, each level of encoder and generator has its own sigma, and the blur is FA-VAE's, each channel
for itself. The authors' code blurs the sum of the channels, which gives a DSL of another size
(--config.loss.dsl_legacy_kernel=True), and divides the MSE by a further 255. The authors started
from a trained HiFiC. Read off their poster, Kodak cropped and shrunk to 256x256 (no Kodak numbers
in the usual sense): 0.143 bpp, 23.9 dB, LPIPS 0.091; 0.272, 25.0, 0.080; 0.397, 26.9, 0.056; HiFiC
beside it 0.149, 27.5, 0.093; 0.304, 29.1, 0.063; 0.468, 30.55, 0.043.
"""

from configs import hific

# Weights of FFL and DSL, and the DSL's weighting of its levels, by their source.
WEIGHTS = {"": (0.5, 0.25, "authors"), "favae": (1.0, 0.01, "mean")}


def get_config(variant: str = "lo"):
    rate, _, source = variant.partition("_")
    if source not in WEIGHTS:
        raise ValueError(
            f"config variant {variant!r} does not exist: choose {rate} or {rate}_favae"
        )
    config = hific.get_config(rate)
    config.model.fcm_width = 64
    config.loss.ffl, config.loss.dsl, config.loss.dsl_weighting = WEIGHTS[source]
    return config
