"""What a bound of several samples is, and what it credits each of them with.

The gradient that autograd can't take through a draw is added here: credit less baseline times the gradient of log q, or
REBAR's correction of it. Everything is a function of (K, B) terms, so that a bound is written once for every draw.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambent.trace import STREAMS, Advantage, Trace

Losses = dict[str, Tensor]
Judged = tuple[Tensor, Tensor | None]


class Reduction(ABC):
    """From the terms of K samples, (K, B), to one bound an example."""

    @abstractmethod
    def value(self, terms: Tensor) -> Tensor:
        """The bound of each example, (B,), in nats."""

    @abstractmethod
    def credit(self, terms: Tensor) -> Tensor:
        """What multiplies each sample's score in the gradient of the expected bound, (K, B)."""

    @abstractmethod
    def prediction(self, terms: Tensor) -> Tensor:
        """The credit as far as the other samples can tell, (K, B); independent of the sample itself."""


@dataclass(frozen=True)
class Mean(Reduction):
    """The mean over K: an ELBO of K samples."""

    def value(self, terms: Tensor) -> Tensor:
        """The mean over samples, (B,)."""
        return terms.mean(0)

    def credit(self, terms: Tensor) -> Tensor:
        """Each its K-th part."""
        return terms / len(terms)

    def prediction(self, terms: Tensor) -> Tensor:
        """The mean of the others, over K (Kool et al. 2019, eq. 8)."""
        return _mean_of_others(terms) / len(terms)


@dataclass(frozen=True)
class LogMean(Reduction):
    """The mean over groups of log (1/k) sum of k weights: IWAE with one group, MIWAE with more (Rainforth et al. 2018).

    Attributes:
        groups: Into how many the K samples are split.
    """

    groups: int = 1

    def value(self, terms: Tensor) -> Tensor:
        """Mean over groups of the log mean weight."""
        return self._bounds(terms).mean(0)

    def credit(self, terms: Tensor) -> Tensor:
        """Each sample its group's bound, over the number of groups."""
        split = self._split(terms)
        return (self._bounds(terms).unsqueeze(1).expand_as(split) / self.groups).flatten(0, 1)

    def prediction(self, terms: Tensor) -> Tensor:
        """The bound with the sample's log weight replaced by the others' mean (Mnih & Rezende 2016, section 2.5)."""
        split = self._split(terms)
        if split.shape[1] == 1:  # a group of one has no others in it; those of other groups tell as much
            return Mean().prediction(terms)
        without = torch.stack([_without_each(group) for group in split])
        return (without / self.groups).flatten(0, 1)

    def _split(self, terms: Tensor) -> Tensor:
        return terms.unflatten(0, (self.groups, -1))

    def _bounds(self, terms: Tensor) -> Tensor:
        split = self._split(terms)
        return torch.logsumexp(split, 1) - math.log(split.shape[1])


@dataclass(frozen=True)
class Blend(Reduction):
    """share * first + (1 - share) * second."""

    share: float
    first: Reduction
    second: Reduction

    def value(self, terms: Tensor) -> Tensor:
        """The blend of the bounds."""
        return self._blend(self.first.value(terms), self.second.value(terms))

    def credit(self, terms: Tensor) -> Tensor:
        """The blend of the credits."""
        return self._blend(self.first.credit(terms), self.second.credit(terms))

    def prediction(self, terms: Tensor) -> Tensor:
        """The blend of the predictions."""
        return self._blend(self.first.prediction(terms), self.second.prediction(terms))

    def _blend(self, first: Tensor, second: Tensor) -> Tensor:
        return self.share * first + (1 - self.share) * second


def _mean_of_others(terms: Tensor) -> Tensor:
    return (terms.sum(0) - terms) / max(1, len(terms) - 1)


def _without_each(log_weight: Tensor) -> Tensor:
    """Log mean weight, (k, B), of k samples where each in turn takes the geometric mean of the others' weights."""
    nothing = log_weight.new_full((1, *log_weight.shape[1:]), -math.inf)
    before = torch.cat([nothing, log_weight[:-1].logcumsumexp(0)])
    after = torch.cat([log_weight[1:].flip(0).logcumsumexp(0).flip(0), nothing])
    others = torch.logaddexp(before, after)  # in memory that grows like k, not its square
    return torch.logaddexp(others, _mean_of_others(log_weight)) - math.log(len(log_weight))


def losses(trace: Trace, terms: Tensor, reduction: Reduction, constant: Tensor | float = 0.0) -> Losses:
    """What raises the expected bound of ``terms`` (K, B), by parameter group.

    Args:
        trace: Says which levels autograd can't follow.
        terms: log p(x|z) - rate, or log weights; of every version of a sample where a control variate has several.
        reduction: The bound.
        constant: (K, B), added to the terms in the signal only: parts of them that don't hang on the draw.
    """
    if trace.controlled:
        return _controlled(trace, terms, reduction, constant)
    total = reduction.value(terms).mean()
    scored = [latent for latent in trace.latents if latent.score is not None]
    if not scored:
        return {"all": -total}
    judged = _judged(list(dict.fromkeys(z.advantage for z in scored)), (terms + constant).detach(), reduction)
    for latent in scored:
        assert latent.score is not None
        total = total + (judged[latent.advantage][0] * latent.score).sum(0).mean()
    return {"all": sum((loss for _, loss in judged.values() if loss is not None), -total)}


def _judged(baselines: list[Advantage | None], signal: Tensor, reduction: Reduction) -> dict[Advantage | None, Judged]:
    """The credit less each baseline, and its loss; once for all levels, since a running mean moves when it is asked."""
    credit, prediction = reduction.credit(signal), reduction.prediction(signal)
    found = {b: (credit, None) if b is None else b(credit, prediction) for b in baselines}
    return {b: (advantage.detach(), loss) for b, (advantage, loss) in found.items()}


def _controlled(trace: Trace, terms: Tensor, reduction: Reduction, constant: Tensor | float) -> Losses:
    """REBAR and RELAX: [f(b) - c(z'|b)] grad log q(b) + grad c(z) - grad c(z'|b), and the second moment it has.

    Tucker et al. 2017, eq. 5; Grathwohl et al. 2018, eq. 8. All of q acts through its logits, so the gradient is taken
    there; its mean doesn't hang on the control variate, so that lowering its second moment lowers its variance
    (Grathwohl et al. 2018, section 3.2).
    """
    (latent,) = trace.latents
    assert latent.score is not None
    q: Any = latent.q
    logits: Tensor = q.logits
    drawn, _, _ = terms.chunk(STREAMS)
    if not logits.requires_grad:  # q is frozen: there is no gradient to correct
        return {"generative": -reduction.value(drawn).mean()}
    hard, relaxed, again = (terms + constant).chunk(STREAMS)
    _, *soft = latent.value.chunk(STREAMS) if latent.value is not None else ()
    relaxed, again = (t + latent.control.extra(v) for t, v in zip((relaxed, again), soft, strict=True))
    scale, bound = latent.control.scale, reduction.value(drawn)
    signal = reduction.credit(hard.detach()) - scale * reduction.credit(again)
    path = scale * (reduction.value(relaxed) - reduction.value(again)) + bound
    (by_score,) = torch.autograd.grad(latent.score, logits, signal, create_graph=True)
    (by_path,) = torch.autograd.grad(path.sum(), logits, create_graph=True)
    gradient = by_score + by_path
    return {
        "generative": -bound.mean(),
        "inference": -(gradient.detach() * logits).sum(-1).mean(),
        "control": gradient.square().sum(-1).mean(),
    }
