"""Exact log p(x), for the models that have it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lambent.draws import Enumerate
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.likelihoods.scale import location_and_log_scale
from lambent.models import VAE, LatentModel
from lambent.networks.base import optional_hook
from lambent.priors import NormalPriorModule

MOST_STATES = 4096
"""Joint values of discrete latents that are summed without being asked to."""
ROWS = 32_768
"""Decoder rows (states x examples) at a time."""
ExactLogProb = Callable[[Tensor, Tensor | None], Tensor]


def exact_log_prob(model: LatentModel) -> ExactLogProb | None:
    """(x, condition) -> log p(x) (B,) in nats where the model has it, else None.

    Mixtures and small discrete latents are summed; a standard Normal prior with an affine Normal likelihood of one
    scale per model or dimension (PPCA, factor analysis) is a Normal itself: N(b, W W^T + diag s^2) (Tipping & Bishop
    1999, eq. 3).
    """
    own = getattr(model, "log_prob", None)
    if callable(own):
        return lambda x, condition: own(x, condition)
    return _linear_gaussian(model) or _summed(model)


def _summed(model: LatentModel) -> ExactLogProb | None:
    """Log sum_z p(z) p(x|z) over all joint values of discrete latents, as many examples at a time as fit."""
    if model.state_count is None or model.state_count > MOST_STATES:
        return None
    size = max(1, ROWS // model.state_count)

    def log_prob(x: Tensor, condition: Tensor | None) -> Tensor:
        conditions = [None] * len(x) if condition is None else condition.split(size)
        parts = zip(x.split(size), conditions, strict=False)
        return torch.cat([model(part, Enumerate(), c).log_mean_weight(part) for part, c in parts])

    return log_prob


def _linear_gaussian(model: LatentModel) -> ExactLogProb | None:
    if not isinstance(model, VAE) or not isinstance(model.prior, NormalPriorModule):
        return None
    likelihood = model.likelihood
    if not isinstance(likelihood, LikelihoodModule) or not isinstance(likelihood.family, NormalLikelihood):
        return None
    affine = optional_hook(likelihood.decoder, "affine")
    if affine is None or likelihood.family.scale == "element" or likelihood.shapes.condition:
        return None
    return lambda x, _: linear_gaussian_log_prob(x.flatten(1), affine.weight, affine.bias, own_log_scale(likelihood))


def own_log_scale(likelihood: LikelihoodModule) -> Tensor:
    """The log scale of each dimension of a Normal likelihood whose scale doesn't depend on z, (D,), float64."""
    family, event = likelihood.family, likelihood.shapes.event
    assert isinstance(family, NormalLikelihood)
    like = next(likelihood.decoder.parameters())
    numbers = torch.zeros(1, *event, dtype=torch.float64, device=like.device)
    _, log_scale = location_and_log_scale(numbers, likelihood.own, family.scale, family.sigma, len(event))
    return log_scale.expand(event).flatten()


def linear_gaussian_log_prob(x: Tensor, weight: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """Log N(x; b, W W^T + diag s^2) in float64, (B,), at the cost of the latents' dimension cubed.

    Args:
        x: (B, D).
        weight: W, (D, L).
        bias: b, (D,).
        log_scale: log s, (D,).

    >>> x = torch.tensor([[1.0, 0.0, 0.5, -0.5, 1.0]])
    >>> w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.5, 0.25]])
    >>> b = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0])
    >>> s = torch.full((5,), 0.5, dtype=torch.float64)
    >>> round(linear_gaussian_log_prob(x, w, b, s.log()).item(), 10)
    -12.2506061166
    """
    scale = log_scale.double().exp()
    scaled, residual = weight.double() / scale.unsqueeze(-1), (x.double() - bias.double()) / scale
    identity = torch.eye(scaled.shape[1], dtype=torch.float64, device=x.device)
    factor = torch.linalg.cholesky(identity + scaled.T @ scaled)
    projected = torch.linalg.solve_triangular(factor, (residual @ scaled).T, upper=False)
    log_det = 2 * factor.diagonal().log().sum() + 2 * log_scale.double().sum()
    distance = residual.square().sum(-1) - projected.square().sum(0)
    return -0.5 * (len(log_scale) * math.log(2 * math.pi) + log_det + distance)
