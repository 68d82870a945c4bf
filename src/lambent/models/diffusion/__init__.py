"""Gaussian diffusion models: settings, the model, and its losses by timestep."""
