"""Denoising networks of diffusion models, and their noise schedules."""
