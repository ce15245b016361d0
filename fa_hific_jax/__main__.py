"""`python -m fa_hific_jax`: the same as `fa-hific`."""

from fa_hific_jax.cli.main import main

if __name__ == "__main__":
    main()
