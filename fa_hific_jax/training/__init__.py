"""State, step and loop of training."""
