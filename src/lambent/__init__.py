"""lambent: latent-variable models from the same few parts, every number true."""
