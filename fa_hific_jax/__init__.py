"""FA-HiFiC in JAX: generative image compression with frequency losses."""

__version__ = "0.1.0.dev0"


def __getattr__(name: str):
    # Loaded when asked for, so that the command line answers at once.
    if name == "load_model":
        import importlib

        return importlib.import_module("fa_hific_jax.codec.model_folder").load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
