"""Evaluation of trained models: bounds, exact likelihoods, rates, latent usage and sample quality."""
