"""Losses: pure functions of arrays, float32, unweighted."""
