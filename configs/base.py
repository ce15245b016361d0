"""Every key with its default, HiFiC's at its lowest rate; docs/configuration.md explains them.

The keys are declared in fa_hific_jax/settings. Every other config begins with this one and changes
what it must.
"""

from ml_collections import ConfigDict

from fa_hific_jax.settings import Settings, to_mapping


def get_config() -> ConfigDict:
    return ConfigDict(to_mapping(Settings())).lock()
