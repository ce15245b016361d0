"""All keys with their defaults, which are those of HiFiC at its lowest rate.

fa_hific_jax/settings declares the keys and docs/configuration.md explains them. Every other config
starts from this one and changes a few keys.
"""

from ml_collections import ConfigDict

from fa_hific_jax.settings import Settings, to_mapping


def get_config() -> ConfigDict:
    return ConfigDict(to_mapping(Settings())).lock()
