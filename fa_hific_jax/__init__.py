"""FA-HiFiC in JAX: generative image compression with frequency losses."""

__version__ = "0.1.0.dev0"
