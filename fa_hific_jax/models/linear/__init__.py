"""A linear transform beside encoder and generator, and the hyperprior that suits its latents."""
