"""`python eval.py` in the repository: the same as `fa-hific eval`."""

from fa_hific_jax import cpu
from fa_hific_jax.errors import reported

if __name__ == "__main__":
    cpu.restart()
    with reported():  # JAX may refuse a variable of the environment when it is loaded.
        from fa_hific_jax.cli.eval import start
    start()
