"""Probability models of the latents and the integer tables made from them."""
