"""Penalties that objectives add to the rate: l1/l2, MMD, DIP and density-ratio critics."""
