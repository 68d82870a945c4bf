"""Trained linear models against linear algebra: the PCA subspace, and the maximum-likelihood evidence of PPCA."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

import lambent
from lambent.config import settings_of_tokens
from lambent.data import DataOptions, Dataset, load

LATENT = 5


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", options=DataOptions(), split="train")


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Axes (D, latent) and all eigenvalues of the covariance, by singular values in float64."""
    _, s, v = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return v[:LATENT].T, s.square() / len(x)


def evidence_at_the_maximum(x: Tensor) -> float:
    """Mean log-likelihood of PPCA at its closed-form maximum (Tipping & Bishop 1999, eq. 4, 7 and 8)."""
    eigenvalues, d = principal_axes(x)[1], x.shape[1]
    noise = eigenvalues[LATENT:].sum() / (d - LATENT)
    log_det = eigenvalues[:LATENT].log().sum() + (d - LATENT) * noise.log()
    return float(-0.5 * (d * math.log(2 * math.pi) + log_det + d))


def train(recipe: str, digits: Dataset, *tokens: str) -> lambent.Run:
    return lambent.fit(recipe, digits, valid=digits, latent=LATENT, quiet=True, **settings_of_tokens(tokens))


def scaled(digits: Dataset) -> Tensor:
    assert isinstance(digits.x, Tensor)
    return digits.x.flatten(1).double() / 16


def angle(run: lambent.Run, digits: Dataset) -> float:
    weight = run.model.likelihood.decoder.output.weight.detach().double()
    return float(subspace_angles(weight.numpy(), principal_axes(scaled(digits))[0].numpy()).max())


def gap(run: lambent.Run, digits: Dataset) -> float:
    """Nats per example by which the run's exact evidence falls short of the maximum."""
    found = run.evaluate(digits, samples=1).log_likelihood
    assert found is not None
    assert found.kind == "exact"
    return evidence_at_the_maximum(scaled(digits)) - found.value


def test_a_trained_linear_autoencoder_spans_the_pca_subspace(digits):
    found = angle(train("linear-ae", digits), digits)
    print(f"largest principal angle {found:.1e} rad")
    assert found < 1e-2


def test_a_trained_ppca_reaches_the_maximum_likelihood_evidence(digits):
    found = gap(train("ppca", digits), digits)
    print(f"evidence short of the maximum by {found:.1e} nats per example")
    assert -1e-9 <= found < 1e-3


def test_too_short_a_training_fails_both_checks(digits):
    assert angle(train("linear-ae", digits, "epochs=5"), digits) > 1e-2
    assert gap(train("ppca", digits, "epochs=20"), digits) > 1e-3
