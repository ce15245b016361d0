"""demo"""

from configs import base


def get_config():
    config = base.get_config()
    config.model.encoder_widths = (8, 16, 32, 64, 96)
    config.model.generator_widths = (96, 64, 32, 16, 8)
    config.model.latent_channels = 32
    config.model.hyper_channels = 32
    config.model.residual_blocks = 2
    config.model.fcm_width = 8
    config.model.hyper_rounding = "straight_through"

    config.discriminator.widths = (16, 32, 48, 64)
    config.discriminator.context_channels = 8

    config.data.train = ("dead_leaves:128", "photographs:train")
    config.data.crop = 64
    config.data.cache = True
    config.data.threads = 1
    config.data.prefetch = 8

    config.loss.target_bpp = 0.5
    config.loss.lambda_above = 1.0
    config.loss.warmup_steps = 500
    config.loss.gan = 0.01
    config.loss.ffl = 0.5
    config.loss.dsl = 0.01

    config.optimizer.learning_rate = 2e-3
    config.optimizer.drop_steps = (2400,)
    config.train.steps = 3000
    config.train.batch_size = 4
    config.train.summary_every = 3000
    config.train.checkpoint_every = 3000
    config.evaluation.untrained_control = True
    return config
