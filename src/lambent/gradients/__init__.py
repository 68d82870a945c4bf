"""Comparison of gradient estimators by bias, variance and cost on one model."""
