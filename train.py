"""`python train.py` in the repository; what it does stands in fa_hific_jax/train.py."""

from fa_hific_jax.train import start

if __name__ == "__main__":
    start()
