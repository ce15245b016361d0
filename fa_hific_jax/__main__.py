"""`fa-hific` and `python -m fa_hific_jax`."""

from fa_hific_jax import cpu


def main() -> None:
    """Runs the command line of the process."""
    cpu.restart()
    from fa_hific_jax.cli.main import main

    main()


if __name__ == "__main__":
    main()
