"""Training by expectation maximisation, for linear Gaussian models and mixtures."""
