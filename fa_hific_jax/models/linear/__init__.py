"""The linear path: a transform beside encoder and generator, and the hyperprior of its latents."""
