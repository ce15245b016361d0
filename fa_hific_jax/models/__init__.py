"""The networks: encoder, hyperprior, generator with FCM, discriminator."""
