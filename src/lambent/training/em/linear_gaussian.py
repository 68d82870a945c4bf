"""Closed-form EM for linear-Gaussian models: probabilistic PCA and factor analysis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lambent.errors import CombinationError
from lambent.evaluation.exact import linear_gaussian_log_prob, own_log_scale
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.likelihoods.scale import raw_scale
from lambent.models import VAE
from lambent.networks.base import optional_hook
from lambent.networks.mlp import MLPEncoderModule
from lambent.posteriors import AmortisedPosteriorModule, FullCovariancePosterior
from lambent.posteriors.normal import raw_triangle
from lambent.priors import NormalPriorModule
from lambent.training.em.mixture import chunks, require_affine, writable


class LinearGaussianStep:
    """EM for z ~ N(0, I), x|z ~ N(W z + b, S), S diagonal (Rubin & Thayer 1982; Ghahramani & Hinton 1996, eq. 5 and 6).

    b is the data's mean, which maximises log p(x) for any W and S. With e_n = E[z|x_n] and V = cov(z|x), the same for
    all examples: W = sum_n (x_n - b) e_n^T [sum_n e_n e_n^T + N V]^-1 and S = diag(sum_n (x_n - b - W e_n)^2 / N +
    W V W^T), a sum of squares, so that it is never negative; its mean where one scale serves all dimensions
    (Tipping & Bishop 1999, eq. 27 and 28). A scale stays within e^-6.99 = 9.2e-4 and e^4.99 = 147 (`raw_scale`): the
    best value inside, so that the likelihood still never falls. Then q(z|x) is set to the exact posterior of what is
    stored, so that the ELBO is log p(x) (unless a standard deviation of q lies outside these bounds).

    Raises:
        CombinationError: another prior, likelihood, decoder or posterior; says what would do.
    """

    def __init__(self, model: VAE) -> None:
        self.likelihood, self.posterior = _likelihood(model), _posterior(model)
        self.affine: nn.Linear = self.likelihood.decoder.affine

    def __call__(self, x: Tensor) -> Tensor:
        """The iteration; log p(x), (B,), of the parameters before it."""
        flat = x.flatten(1)
        log_p = self.log_prob(flat)
        if writable(self.likelihood, "likelihood"):
            self._fit(flat)
        if writable(self.posterior, "posterior"):
            self._set_posterior()
        return log_p

    def log_prob(self, flat: Tensor) -> Tensor:
        """Exact log p(x), (B,), float64, of x (B, D)."""
        weight, bias, log_scale = self.affine.weight, self.affine.bias, own_log_scale(self.likelihood)
        parts = chunks(flat, flat.shape[1])
        return torch.cat([linear_gaussian_log_prob(part, weight, bias, log_scale) for part in parts])

    def sharpness(self, x: Tensor) -> float:
        """The largest number of the data in units of the noise: what a relative rounding is multiplied by."""
        return float(x.abs().max() / own_log_scale(self.likelihood).exp().min())

    def _fit(self, flat: Tensor) -> None:
        centre = torch.stack([part.sum(0) for part in chunks(flat, flat.shape[1])]).sum(0) / len(flat)
        gain, covariance = posterior_map(self.affine.weight.double(), own_log_scale(self.likelihood))
        weight = regression(flat, centre, gain, covariance)
        self._store(weight, centre, noise(flat, centre, weight, gain) + spread(weight, covariance))

    def _store(self, weight: Tensor, centre: Tensor, variance: Tensor) -> None:
        self.affine.weight.copy_(weight)
        self.affine.bias.copy_(centre)
        own, family = self.likelihood.own, self.likelihood.family
        if own is not None:
            shared = variance.mean() if family.scale == "model" else variance.view(own.shape)
            own.copy_(raw_scale(shared, family.sigma))

    def _set_posterior(self) -> None:
        gain, covariance = posterior_map(self.affine.weight.double(), own_log_scale(self.likelihood))
        self.posterior.head.weight.copy_(gain)
        self.posterior.head.bias.copy_(-gain @ self.affine.bias.double())
        self.posterior.own.copy_(raw_triangle(torch.linalg.cholesky(covariance)))


def posterior_map(weight: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """G (L, D) and V (L, L) of p(z|x) = N(G (x - b), V): V = (I + W^T S^-1 W)^-1, G = V W^T S^-1."""
    scaled = weight / log_scale.exp().unsqueeze(1)
    precision = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device) + scaled.T @ scaled
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return covariance @ (scaled / log_scale.exp().unsqueeze(1)).T, covariance


def regression(flat: Tensor, centre: Tensor, gain: Tensor, covariance: Tensor) -> Tensor:
    """W (D, L) = sum_n (x_n - b) e_n^T [sum_n e_n e_n^T + N V]^-1, with e_n = G (x_n - b)."""
    second, cross = len(flat) * covariance, torch.zeros_like(gain)
    for part in chunks(flat, flat.shape[1]):
        codes = (part - centre) @ gain.T
        second, cross = second + codes.T @ codes, cross + codes.T @ (part - centre)
    return torch.linalg.solve(second, cross).T


def noise(flat: Tensor, centre: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    """sum_n (x_n - b - W e_n)^2 / N, (D,), with e_n = G (x_n - b)."""
    total = torch.zeros_like(centre)
    for part in chunks(flat, flat.shape[1]):
        total += (part - centre - (part - centre) @ gain.T @ weight.T).square().sum(0)
    return total / len(flat)


def spread(weight: Tensor, covariance: Tensor) -> Tensor:
    """diag(W V W^T), (D,): the noise that the posterior's own uncertainty explains."""
    return ((weight @ covariance) * weight).sum(1)


def _likelihood(model: VAE) -> Any:
    prior, likelihood = model.prior, model.likelihood
    if not isinstance(prior, NormalPriorModule):
        raise CombinationError(f"schedule=em with {type(prior).__name__}: no closed form; use prior=normal")
    if not isinstance(likelihood, LikelihoodModule) or not isinstance(likelihood.family, NormalLikelihood):
        found = type(optional_hook(likelihood, "family") or likelihood).__name__
        raise CombinationError(f"schedule=em with {found}: no exact posterior; use likelihood=normal, or model=mixture")
    if likelihood.family.scale == "element":
        raise CombinationError(
            "schedule=em with likelihood.scale=element: no exact posterior; use likelihood.scale=model (PPCA) or "
            "dimension (factor analysis)"
        )
    require_affine(likelihood)
    return likelihood


def _posterior(model: VAE) -> Any:
    """The posterior, refused where it can't be the exact one: N(G x + g, V) with one V for all examples."""
    posterior = model.posterior
    holds = (
        isinstance(posterior, AmortisedPosteriorModule)
        and isinstance(posterior.family, FullCovariancePosterior)
        and posterior.family.shared
        and isinstance(posterior.encoder, MLPEncoderModule)
        and not len(posterior.encoder.layers)
    )
    if not holds:
        raise CombinationError(
            "schedule=em of a linear-Gaussian model sets the exact posterior, affine in x with one covariance; "
            "use posterior=full-cov posterior.shared=true encoder=linear"
        )
    return posterior
