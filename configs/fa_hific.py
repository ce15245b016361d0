"""FA-HiFiC: HiFiC with frequency complement modules, focal frequency loss and DSL.

  python train.py --config configs/fa_hific.py:lo --workdir runs/fa_hific_lo \\
      --config.loss.lpips_file=lpips_alex.npz --config.data.train="('images/',)"

Variants lo, mi, hi: targets 0.14, 0.30, 0.45 bpp. The weights are the authors', whose DSL is 25
times as heavy as FA-VAE's (--config.loss.ffl=1 --config.loss.dsl=0.01 gives theirs). The authors
started from a trained HiFiC. Read off their poster, Kodak cropped and shrunk to 256x256 (no Kodak
numbers in the usual sense): 0.143 bpp, 23.9 dB, LPIPS 0.091; 0.272, 25.0, 0.080; 0.397, 26.9,
0.056; HiFiC beside it 0.149, 27.5, 0.093; 0.304, 29.1, 0.063; 0.468, 30.55, 0.043.
"""

from configs import hific


def get_config(variant: str = "lo"):
    config = hific.get_config(variant)
    config.model.fcm_width = 64
    config.loss.ffl = 0.5
    config.loss.dsl = 0.25
    return config
