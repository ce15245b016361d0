"""`python eval.py` in the repository; what it does stands in fa_hific_jax/eval.py."""

from fa_hific_jax.eval import start

if __name__ == "__main__":
    start()
