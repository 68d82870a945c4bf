"""The importance-weighted bound of Burda et al. 2016."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.objectives.base import Objective, detach, penalised
from lambent.objectives.score_function import LogMean, losses
from lambent.settings import part
from lambent.trace import Estimate, Trace


@part("objective", "iwae")
@dataclass(frozen=True)
class IWAE(Objective):
    """E[log (1/K) sum_k w_k] (Burda et al. 2016, eq. 8), K being the draw's samples.

    The value is the log of the mean weight, never a self-normalised average of log weights (which is no bound). With
    doubly reparameterised draws the inference network gets the squared normalised weights (Tucker et al. 2019, eq. 8).
    """

    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("path", "double", "score", "control", "sum")

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: log mean weight, (B,)."""
        if any(latent.doubly is not None for latent in trace.latents):
            return self._doubly(trace, x)
        if not trace.followed:
            return self._credited(trace, x)
        bound = trace.log_mean_weight(x)
        return Estimate(detach(bound), penalised({"all": -bound.mean()}, trace), trace.evidence_kind)

    def _credited(self, trace: Trace, x: Tensor) -> Estimate:
        """The bound with a signal for every draw that autograd can't follow."""
        terms = trace.log_weight(x)
        bound = LogMean().value(trace.drawn(terms))
        return Estimate(detach(bound), penalised(losses(trace, terms, LogMean()), trace), trace.evidence_kind)

    def _doubly(self, trace: Trace, x: Tensor) -> Estimate:
        """The bound's own gradient for p, its doubly reparameterised one for q.

        The bound's gradient reaches each value with its normalised weight, and is weighted once more there, so that one
        pass back serves both. Not where a penalty looks at the values: its own gradient must stay as it is.
        """
        log_weight = trace.log_weight(x)
        bound = torch.logsumexp(log_weight, 0) - math.log(log_weight.shape[0])
        normalised = log_weight.detach().softmax(0)
        if not trace.penalties:
            for latent in trace.latents:
                if latent.doubly is not None:
                    latent.doubly.factors = normalised
            return Estimate(detach(bound), {"all": -bound.mean()}, trace.evidence_kind)
        inference = -(normalised.square() * log_weight).sum(0).mean()
        found = {"generative": -bound.mean(), "inference": inference}
        return Estimate(detach(bound), penalised(found, trace), trace.evidence_kind)


def effective_samples(log_weight: Tensor) -> Tensor:
    """Effective sample size (sum_k w)^2 / sum_k w^2 of (K, B) log weights, (B,): between 1 and K.

    >>> effective_samples(torch.zeros(5, 1))
    tensor([5.])
    """
    relative = log_weight - log_weight.amax(0)  # float32 has no digits to spare at -1000 nats
    return (2 * torch.logsumexp(relative, 0) - torch.logsumexp(2 * relative, 0)).exp()
