"""Autoregressive Bernoulli variables: each binary variable depends on those before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.discrete import Bernoulli
from lambent.distributions.numerics import full_precision, matmul, split_shape


class AutoregressiveBernoulli(Distribution):
    """D binary variables in order: variable i has logit l_i + sum_{j<i} W_ij x_j, a fully visible sigmoid belief net.

    DARN's layers (Gregor et al. 2014, section 3). ``log_prob`` is one masked product; ``sample`` takes D steps.

    Args:
        logits: l, (*batch, D).
        weight: W, (D, D); only what is strictly below its diagonal counts.

    >>> p = AutoregressiveBernoulli(torch.zeros(2), torch.tensor([[0.0, 0.0], [1e3, 0.0]]))
    >>> p.log_prob(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))  # the second almost surely equals the first
    tensor([-6.9315e-01, -1.0007e+03])
    """

    has_enumerate_support = True

    def __init__(self, logits: Tensor, weight: Tensor) -> None:
        self.logits, self.weight = full_precision(logits), full_precision(weight)
        super().__init__(*split_shape(self.logits.shape, 1, "AutoregressiveBernoulli"))

    @property
    def below(self) -> Tensor:
        """W with zeros on and above its diagonal, (D, D)."""
        return self.weight.tril(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value`` in nats, summed over the event."""
        value = value.to(self.logits.dtype)
        return Bernoulli(self.logits + matmul(value, self.below.T)).log_prob(value)

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 - torch's signature
        """All 2^D values, (2^D, *batch, D); raises ConfigError beyond 20 variables."""
        return Bernoulli(self.logits).enumerate_support(expand)

    @property
    def mode(self) -> Tensor:
        """The greedy mode: each variable's more probable value given those before it."""
        return self._in_order(self.logits.shape, lambda logit: (logit > 0).to(logit.dtype))

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return self._in_order(shape, lambda logit: torch.bernoulli(logit.sigmoid(), generator=generator))

    def _in_order(self, shape: torch.Size, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Chooses one variable after another; each adds its column of W to the logits of those after it."""
        logits, below = self.logits.expand(shape).clone(), self.below
        for i in range(shape[-1]):
            chosen = choose(logits[..., i])
            logits[..., i + 1 :].addcmul_(chosen.unsqueeze(-1), below[i + 1 :, i])
            logits[..., i] = chosen
        return logits

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> AutoregressiveBernoulli:
        """The same family at ``fn`` of logits and weight."""
        return AutoregressiveBernoulli(fn(self.logits), fn(self.weight))
