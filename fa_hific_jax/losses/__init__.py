"""Losses: pure functions of arrays, computed in float32 and unweighted."""
