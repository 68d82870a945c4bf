"""Closed-form EM for mixtures with one affine map from the one-hot state to the likelihood's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions import unbounded_log_scale
from lambent.errors import CombinationError
from lambent.likelihoods import BernoulliLikelihood, LikelihoodModule, NormalLikelihood, PoissonLikelihood
from lambent.likelihoods.counts import RATE_BOUND
from lambent.likelihoods.scale import raw_scale
from lambent.models import Mixture
from lambent.networks.base import optional_hook
from lambent.priors import CategoricalPriorModule

CHUNK = 1 << 21
"""Numbers in float64 at a time."""
EMPTY = 1e-9
"""A state with less than this many expected examples keeps its parameters."""
LOG_WEIGHT_FLOOR = math.log(2.0**-52)
"""No state's log weight falls below: an empty one costs the others nothing that float64 can see."""
LOGIT_BOUND = 20.0
"""Bernoulli logits stay within, where a state's pixels are all equal: probabilities of 2e-9 and up."""
LOG_RATE_BOUND = RATE_BOUND - 0.01
"""Poisson log rates stay within, where a state's counts are all 0: rates of 3e-7 and up."""


class MixtureStep:
    """EM for p(x) = sum_c pi_c p(x|c) (Dempster, Laird & Rubin 1977, section 4.3).

    With r_nc = p(c|x_n) and N_c = sum_n r_nc: pi_c = N_c / N; means sum_n r_nc x_n / N_c; Normal variances
    sum_n r_nc (x_n - m_c)^2 / N_c about the new means, pooled over states and dimensions as far as one scale serves
    them. A scale stays within e^-6.99 = 9.2e-4 and e^4.99 = 147 (`raw_scale`), a probability and a rate within the
    bounds above: each the best value inside, so that the likelihood still never falls. A state that nobody is in keeps
    its parameters and a weight of 2e-16.

    Raises:
        CombinationError: another prior, likelihood or decoder; says what would do.
    """

    def __init__(self, model: Mixture) -> None:
        self.prior, self.likelihood = _parts(model)
        self.affine: nn.Linear = self.likelihood.decoder.affine
        self.fit = _FITS[type(self.likelihood.family)]

    def __call__(self, x: Tensor) -> Tensor:
        """The iteration; log p(x), (B,), of the parameters before it."""
        log_p, mass = responsibilities(self.log_joint(x))
        if writable(self.likelihood, "likelihood"):
            self._fit_states(x, mass)
        if writable(self.prior, "prior"):
            self.prior.logits.copy_(mass.mean(0).log().clamp(min=LOG_WEIGHT_FLOOR))
        return log_p

    def log_joint(self, x: Tensor) -> Tensor:
        """Log p(x, c), (B, C), float64."""
        px, log_prior = self._states(), self.prior.logits.double().log_softmax(0)
        parts = [px.log_prob(part).T for part in chunks(x, self.affine.weight.numel())]
        return torch.cat(parts) + log_prior

    def sharpness(self, x: Tensor) -> float:
        """The largest number of the model in units of its own noise: what a relative rounding is multiplied by."""
        px = self._states()
        if isinstance(self.likelihood.family, NormalLikelihood):
            return float(x.abs().max() / px.log_scale.exp().min())  # type: ignore[attr-defined]
        bound = LOGIT_BOUND if isinstance(self.likelihood.family, BernoulliLikelihood) else RATE_BOUND
        return bound * float(px.variance.max().sqrt())

    def _states(self) -> Distribution:
        """p(x|c) of batch shape (C, 1), float64."""
        own, shapes = self.likelihood.own, self.likelihood.shapes
        numbers = self._numbers().view(-1, 1, *self.likelihood.family.out_shape(shapes))
        return self.likelihood.family.distribution(numbers, None if own is None else own.double(), shapes)

    def _numbers(self) -> Tensor:
        """What the decoder gives for each state, (C, P D)."""
        return (self.affine.weight.double() + self.affine.bias.double().unsqueeze(1)).T

    def _fit_states(self, x: Tensor, mass: Tensor) -> None:
        numbers = self._numbers().unflatten(1, (-1, math.prod(x.shape[1:])))
        self.fit(self.likelihood, numbers, x, mass)
        # a one-hot state picks a column of W: without a bias each number is rounded once
        self.affine.weight.copy_(numbers.flatten(1).T)
        self.affine.bias.zero_()


def _parts(model: Mixture) -> tuple[CategoricalPriorModule, Any]:
    prior, likelihood = model.prior, model.likelihood
    if not isinstance(prior, CategoricalPriorModule):
        raise CombinationError(f"schedule=em with {type(prior).__name__}: no closed form; use prior=categorical")
    if not isinstance(likelihood, LikelihoodModule) or type(likelihood.family) not in _FITS:
        found = type(optional_hook(likelihood, "family") or likelihood).__name__
        raise CombinationError(
            f"schedule=em with {found}: no closed-form M step; use likelihood=normal, bernoulli or poisson"
        )
    require_affine(likelihood)
    return prior, likelihood


def require_affine(likelihood: LikelihoodModule) -> None:
    """Refuses a decoder that is no affine map of the latent alone."""
    affine = optional_hook(likelihood.decoder, "affine")
    if not isinstance(affine, nn.Linear) or affine.bias is None or likelihood.shapes.condition:
        raise CombinationError(
            f"schedule=em with decoder {type(likelihood.decoder).__name__}: a closed form needs one affine map of the "
            "latent, without condition; use decoder=linear"
        )


def writable(module: nn.Module, name: str) -> bool:
    """Whether a part is to be written: not if it is frozen.

    Raises:
        CombinationError: it is frozen in part, for which there is no closed form.
    """
    free = {parameter.requires_grad for parameter in module.parameters()}
    if len(free) > 1:
        raise CombinationError(f"schedule=em: the {name} is frozen in part; freeze all of it, or none")
    return True in free


def chunks(x: Tensor, width: int) -> Iterator[Tensor]:
    """``x`` in float64, in blocks of as many examples as may take ``width`` numbers each."""
    yield from (part.double() for part in x.split(max(1, CHUNK // width)))


def responsibilities(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(x), (B,), and r = p(c|x), (B, C), from log p(x, c), (B, C)."""
    log_p = log_joint.logsumexp(1)
    return log_p, (log_joint - log_p.unsqueeze(1)).exp()


def _means(old: Tensor, x: Tensor, mass: Tensor) -> Tensor:
    """sum_n r_nc x_n / N_c, (C, D), or ``old`` where a state is empty."""
    count, total, start = mass.sum(0).unsqueeze(1), torch.zeros_like(old), 0
    for part in chunks(x.flatten(1), old.shape[1]):
        total += mass[start : start + len(part)].T @ part
        start += len(part)
    return torch.where(count > EMPTY, total / count.clamp(min=EMPTY), old)


def _scatter(mean: Tensor, x: Tensor, mass: Tensor) -> Tensor:
    """sum_n r_nc (x_n - m_c)^2, (C, D)."""
    total, start = torch.zeros_like(mean), 0
    for part in chunks(x.flatten(1), mean.shape[1]):
        for row, m, r in zip(total, mean, mass[start : start + len(part)].T, strict=True):
            row += r @ (part - m).square()
        start += len(part)
    return total


def _fit_normal(likelihood: LikelihoodModule, numbers: Tensor, x: Tensor, mass: Tensor) -> None:
    family, count = likelihood.family, mass.sum(0).unsqueeze(1)
    assert isinstance(family, NormalLikelihood)
    mean = _means(numbers[:, 0], x, mass)
    numbers[:, 0] = mean
    if family.scale == "fixed":
        return
    scatter = _scatter(mean, x, mass)
    if family.scale == "element":
        raw = raw_scale(scatter / count.clamp(min=EMPTY), family.sigma)
        numbers[:, 1] = torch.where(count > EMPTY, raw, numbers[:, 1])
        return
    variance = scatter.sum(0) / len(x)
    assert likelihood.own is not None
    pooled = variance.mean() if family.scale == "model" else variance.view(likelihood.own.shape)
    likelihood.own.copy_(raw_scale(pooled, family.sigma))


def _fit_bernoulli(likelihood: LikelihoodModule, numbers: Tensor, x: Tensor, mass: Tensor) -> None:
    mean = _means(numbers[:, 0].sigmoid(), x, mass).clamp(0, 1)  # rounding may leave a sum of masses above the total
    numbers[:, 0] = mean.logit().clamp(-LOGIT_BOUND, LOGIT_BOUND)


def _fit_poisson(likelihood: LikelihoodModule, numbers: Tensor, x: Tensor, mass: Tensor) -> None:
    count = mass.sum(0).unsqueeze(1)
    log_mean = _means(torch.zeros_like(numbers[:, 0]), x, mass).log().clamp(-LOG_RATE_BOUND, LOG_RATE_BOUND)
    raw = unbounded_log_scale(log_mean, -RATE_BOUND, RATE_BOUND)
    numbers[:, 0] = torch.where(count > EMPTY, raw, numbers[:, 0])


Fit = Callable[[LikelihoodModule, Tensor, Tensor, Tensor], None]
_FITS: dict[type, Fit] = {
    NormalLikelihood: _fit_normal,
    BernoulliLikelihood: _fit_bernoulli,
    PoissonLikelihood: _fit_poisson,
}
"""What writes a family's numbers (C, P, D), and the scale it learns beside them, from x (B, *event) and r (B, C)."""
