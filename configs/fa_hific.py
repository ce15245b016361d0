"""FA-HiFiC: HiFiC with frequency complement modules, focal frequency loss and DSL.

  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo \\
      --config.loss.lpips_file=lpips_alex.npz --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp, with the FA-HiFiC authors' weights of the
frequency losses. lo_favae, mi_favae, hi_favae have those of FA-VAE, whose DSL is 25 times lighter.
The authors started from a trained HiFiC. Read off their poster, Kodak cropped and shrunk to 256x256
(no Kodak numbers in the usual sense): 0.143 bpp, 23.9 dB, LPIPS 0.091; 0.272, 25.0, 0.080; 0.397,
26.9, 0.056; HiFiC beside it 0.149, 27.5, 0.093; 0.304, 29.1, 0.063; 0.468, 30.55, 0.043.
"""

from configs import hific

# Weights of FFL and DSL by their source.
WEIGHTS = {"": (0.5, 0.25), "favae": (1.0, 0.01)}


def get_config(variant: str = "lo"):
    rate, _, source = variant.partition("_")
    if source not in WEIGHTS:
        raise ValueError(
            f"config variant {variant!r} does not exist: choose {rate} or {rate}_favae"
        )
    config = hific.get_config(rate)
    config.model.fcm_width = 64
    config.loss.ffl, config.loss.dsl = WEIGHTS[source]
    return config
