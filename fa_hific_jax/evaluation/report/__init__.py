"""The page of an evaluation: tables, plots, pictures and spectra in one file that loads nothing."""

from fa_hific_jax.evaluation.report.page import write_report

__all__ = ["write_report"]
