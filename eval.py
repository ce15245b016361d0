"""`python eval.py` in the repository; what it does stands in fa_hific_jax/eval.py."""

from fa_hific_jax.errors import reported

with reported():  # JAX may refuse a variable of the environment when it is loaded.
    from fa_hific_jax.eval import start

if __name__ == "__main__":
    start()
