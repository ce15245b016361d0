"""The smallest settings that still have every part: seconds to compile, milliseconds a step."""

from configs import tiny
from fa_hific_jax import settings as settings_lib


def tiny_config(**overrides):
    """ConfigDict of configs/tiny.py, smaller yet; overrides are group__key=value or key=value."""
    config = tiny.get_config()
    with config.unlocked():
        config.model.encoder_widths = (4, 4, 4, 4, 4)
        config.model.generator_widths = (4, 4, 4, 4, 4)
        config.model.latent_channels = 4
        config.model.hyper_channels = 4
        config.discriminator.widths = (4, 4, 4, 4)
        config.data.train = ("dead_leaves:4",)
        config.data.evaluation = "photographs:validation"
        config.data.cache = True
        config.data.threads = 0
        config.train.batch_size = 2
        config.train.steps = 6
        config.train.log_every = 2
        config.train.checkpoint_every = 3
        config.train.summary_every = 1000
        for key, value in overrides.items():
            group, _, field = key.partition("__")
            if field:
                config[group][field] = value
            else:
                config[key] = value
    return config


def tiny_settings(**overrides) -> settings_lib.Settings:
    """Settings of `tiny_config`."""
    return settings_lib.from_mapping(tiny_config(**overrides).to_dict())
