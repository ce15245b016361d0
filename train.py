"""`python train.py` in the repository: the same as `fa-hific train`."""

from fa_hific_jax import cpu

if __name__ == "__main__":
    cpu.restart()
    from fa_hific_jax.cli.main import start

    start("train")
