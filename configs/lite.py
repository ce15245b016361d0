"""FA-HiFiC light enough for a CPU: 10.2 M parameters of FA-HiFiC's 182 M.

  python train.py --config configs/lite.py --workdir runs/lite \\
      --config.loss.lpips_file=lpips_alex.npz --config.data.train="('images/',)"

Provisional until it has been trained: the widths were chosen by speed, the rest is fa_hific:lo. An
image of 768x512 takes 0.9 s of processor time to decode and 1.1 s to encode. At the image's own
size each channel costs as much time as sixteen at a quarter of it, so the finest levels are narrow
(16, where the paper has 60), and the residual blocks, at a sixteenth of the size, have most of the
parameters.
"""

from configs import fa_hific


def get_config():
    config = fa_hific.get_config("lo")
    config.model.encoder_widths = (16, 32, 64, 128, 256)
    config.model.generator_widths = (256, 128, 64, 32, 16)
    config.model.latent_channels = 128
    config.model.hyper_channels = 128
    config.model.residual_blocks = 5
    config.model.fcm_width = 16
    config.discriminator.widths = (32, 64, 128, 256)
    return config
