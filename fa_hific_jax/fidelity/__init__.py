"""What exists only to compute the same as other repositories; docs/fidelity.md lists all of it."""
