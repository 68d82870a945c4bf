"""The evidence lower bound."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import Tensor

from lambent.objectives.base import Objective, detach, penalised
from lambent.objectives.rates import RateFunction, SumOfRates
from lambent.objectives.score_function import Mean, losses
from lambent.settings import part
from lambent.trace import Estimate, Trace


@part("objective", "elbo")
@dataclass(frozen=True)
class ELBO(Objective):
    """E_q[log p(x|z)] - KL(q||p) (Kingma & Welling 2014, eq. 3), its loss with the rate modified at will.

    The reported value is always the unmodified bound.

    >>> import torch
    >>> from lambent.distributions import Normal, StandardNormal
    >>> from lambent.draws import Pathwise
    >>> zero = torch.zeros(1, 1)
    >>> z = Pathwise()("z", StandardNormal((1,)), Normal(zero, zero))
    >>> ELBO()(Trace(Normal(z.value, zero), (z,)), zero).kind
    'lower bound'
    """

    gradients: ClassVar[tuple[str, ...]] = ("path", "score", "control", "sum")
    rate: RateFunction = field(default_factory=SumOfRates)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: mean over K of log p(x|z) - rate, (B,)."""
        log_px = trace.log_px(x)
        plain = log_px - trace.rate
        terms = plain if isinstance(self.rate, SumOfRates) else log_px - self.rate(trace)
        bound = trace.average(plain)
        if trace.followed:
            found = {"all": -(bound if terms is plain else trace.average(terms)).mean()}
        else:
            found = losses(trace, terms, Mean(), _constant(trace))
        return Estimate(detach(bound), penalised(found, trace), trace.elbo_kind)

    def with_rate(self, rate: RateFunction) -> Self:
        """The same bound, its loss charged by ``rate``."""
        return dataclasses.replace(self, rate=rate)

    def at(self, step: int) -> Self:
        """With the rate function in force at ``step``."""
        rate = self.rate.at(step)
        return self if rate is self.rate else dataclasses.replace(self, rate=rate)

    def sized(self, n: int) -> Self:
        """With a rate function that knows the training set's size."""
        rate = self.rate.sized(n)
        return self if rate is self.rate else dataclasses.replace(self, rate=rate)


def _constant(trace: Trace) -> Tensor | float:
    """A closed-form KL: no part of it hangs on the draw, where there is one level only."""
    if len(trace.latents) > 1 or trace.latents[0].kl is None:
        return 0.0
    return trace.latents[0].kl.detach()
