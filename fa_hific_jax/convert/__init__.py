"""Weights of other projects to ours."""
