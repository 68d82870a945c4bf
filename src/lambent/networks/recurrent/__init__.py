"""The recurrent reader and writer of DRAW, and their Gaussian attention window."""
