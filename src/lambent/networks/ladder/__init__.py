"""Networks of hierarchies of latents: ladders of vectors and of images, with their residual blocks."""
