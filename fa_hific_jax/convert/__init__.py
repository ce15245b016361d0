"""Conversion of other projects' weights and checkpoints to the parameters of this package."""
