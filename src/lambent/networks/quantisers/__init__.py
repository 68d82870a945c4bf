"""Quantisers of encodings: a learned codebook, finite scalar bins, and k-means for initial values."""
