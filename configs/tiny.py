"""FA-HiFiC small enough to train in seconds: for tests and for a first try with your own images.

  FA_HIFIC_DATA=data python train.py --config configs/tiny.py --workdir runs/tiny

If the environment variable FA_HIFIC_DATA names a folder with `train/` and `kodak/`, the model is
trained and evaluated on these photographs, otherwise on images that come with the packages.
"""

import os
from pathlib import Path

from configs import base


def get_config():
    config = base.get_config()
    config.model.encoder_widths = (8, 8, 12, 16, 16)
    config.model.generator_widths = (16, 16, 12, 8, 8)
    config.model.latent_channels = 8
    config.model.hyper_channels = 8
    config.model.residual_blocks = 1
    config.model.fcm_width = 4
    config.model.hyper_rounding = "straight_through"
    config.discriminator.widths = (8, 8, 8, 8)
    config.discriminator.context_channels = 4

    folder = os.environ.get("FA_HIFIC_DATA")
    if folder:
        config.data.train = (str(Path(folder) / "train"),)
        config.data.evaluation = str(Path(folder) / "kodak")
    else:
        config.data.train = ("dead_leaves:64", "photographs:train")
        config.data.cache = True
    config.data.crop = 64
    config.data.threads = 1

    config.loss.target_bpp = 0.5
    config.loss.lambda_above = 1.0
    config.loss.warmup_steps = 50
    config.loss.gan = 0.01
    config.loss.ffl = 0.5
    config.loss.dsl = 0.01
    config.optimizer.learning_rate = 1e-3
    config.optimizer.drop_steps = (150,)

    config.train.steps = 200
    config.train.batch_size = 4
    config.train.log_every = 20
    config.train.summary_every = 200
    config.train.checkpoint_every = 100
    return config
