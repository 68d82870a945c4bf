"""Rate functions: what an ELBO-type loss charges for its latents.

A rate function maps a trace to (K, B) nats. The *reported* ELBO never uses one: it is always the plain sum. Whether
minus the loss is still a lower bound on log p(x) is stated by ``is_bound``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from lambent.settings import Part, option, part
from lambent.trace import Latent, Trace


class RateFunction(Part, ABC):
    """Trace -> (K, B), nats."""

    one_level: ClassVar[bool] = False
    """It compares the posteriors of a batch, which must have densities and one level of latents."""
    by_level: ClassVar[bool] = False
    """It treats the levels of a hierarchy differently."""

    @property
    @abstractmethod
    def is_bound(self) -> bool:
        """Whether E[log p(x|z)] minus this is still a lower bound on log p(x)."""

    @abstractmethod
    def __call__(self, trace: Trace) -> Tensor:
        """What the loss is charged for the latents."""

    @property
    def settled(self) -> bool:
        """Whether it will stay as it is to the end of the training."""
        return True

    def at(self, step: int) -> Self:
        """The rate function in force at training step ``step``."""
        return self

    def sized(self, n: int) -> Self:
        """The rate function that knows the training set to have ``n`` examples."""
        return self

    def over(self, levels: int) -> Self:
        """The rate function for a model of ``levels`` levels of latents."""
        return self


@part("rate", "sum")
@dataclass(frozen=True)
class SumOfRates(RateFunction):
    """The rates as they are: the ELBO itself."""

    @property
    def is_bound(self) -> bool:
        """Yes: it is the bound."""
        return True

    def __call__(self, trace: Trace) -> Tensor:
        """The sum of the rates of all levels, (K, B), in nats."""
        return trace.rate


@part("rate", "beta")
@dataclass(frozen=True)
class Beta(RateFunction):
    """beta * rate (Higgins et al. 2017, eq. 4); a bound if beta >= 1."""

    beta: float = option(4.0, "factor of the rate; 1 is the ELBO, 0 a plain autoencoder", minimum=0)

    @property
    def is_bound(self) -> bool:
        """Only for beta >= 1, since rates are not negative."""
        return self.beta >= 1

    def __call__(self, trace: Trace) -> Tensor:
        """Beta times the sum over levels."""
        return self.beta * trace.rate


@part("rate", "warm-up")
@dataclass(frozen=True)
class WarmUp(RateFunction):
    """Factor rising linearly to 1 (Bowman et al. 2016; Sonderby et al. 2016): not a bound while it is below 1."""

    steps: int = option(10_000, "training steps until the factor of the rate reaches 1", minimum=1)
    start: float = option(0.0, "factor at step 0", minimum=0, maximum=1)
    factor: float = 1.0

    @property
    def is_bound(self) -> bool:
        """Once the factor has reached 1."""
        return self.factor >= 1

    @property
    def settled(self) -> bool:
        """Once the factor has reached 1."""
        return self.factor >= 1

    def __call__(self, trace: Trace) -> Tensor:
        """The factor in force times the sum over levels."""
        return self.factor * trace.rate

    def at(self, step: int) -> Self:
        """The factor at ``step``."""
        return dataclasses.replace(self, factor=min(1.0, self.start + (1 - self.start) * step / self.steps))


@part("rate", "free-bits")
@dataclass(frozen=True)
class FreeBits(RateFunction):
    """sum_d max(nats, batch mean of rate_d) (Kingma et al. 2016, eq. 15): a bound, since it only charges more.

    Counted per latent dimension where the KL splits into dimensions, else per level.
    """

    nats: float = option(0.1, "nats per dimension, or per level, that are free of charge", minimum=0)
    by: str = option("dimension", "what the free nats are counted per", choices=("dimension", "level"))

    @property
    def is_bound(self) -> bool:
        """Yes: it is never below the mean rate of the batch."""
        return True

    def __call__(self, trace: Trace) -> Tensor:
        """The floor applies to means over the batch, so every example is charged the same; (K, B)."""
        charged = sum((self._charge(trace, latent) for latent in trace.latents), torch.zeros(()))
        return charged.expand(trace.px.batch_shape)

    def _charge(self, trace: Trace, latent: Latent) -> Tensor:
        elements = latent.rate.unsqueeze(-1) if self.by == "level" else _elements(latent)
        drawn = elements.dim() == 3
        means = (trace.average(elements) if drawn else elements).mean(0)
        if trace.followed or not drawn:
            return means.clamp_min(self.nats).sum()
        return torch.where(means > self.nats, elements, self.nats).sum(-1)  # a score credits each draw with its part


def _elements(latent: Latent) -> Tensor:
    """What a floor applies to: the rate of each dimension, (B, D) or (K, B, D), or of the level, (K, B, 1)."""
    elements = latent.rate_elements
    if elements is None:
        return latent.rate.unsqueeze(-1)
    events = 1 if latent.value is None else len(latent.value.shape[2:])
    return elements.flatten(elements.dim() - events)


@part("rate", "capacity")
@dataclass(frozen=True)
class Capacity(RateFunction):
    """gamma * |rate - C| with C rising (Burgess et al. 2018, eq. 8): not a bound."""

    gamma: float = option(30.0, "weight of the distance to the capacity; smaller for small data", minimum=0)
    maximum: float = option(25.0, "capacity C reached at the end, nats", minimum=0)
    steps: int = option(10_000, "training steps until C is reached", minimum=1)
    capacity: float = 0.0

    @property
    def is_bound(self) -> bool:
        """False: the loss is no bound on log p(x)."""
        return False

    @property
    def settled(self) -> bool:
        """Once the capacity has reached its maximum."""
        return self.capacity >= self.maximum

    def __call__(self, trace: Trace) -> Tensor:
        """Distance of the batch's mean rate to the capacity in force, the same for every example; (K, B)."""
        over = trace.average(trace.rate.expand(trace.px.batch_shape)).mean() - self.capacity
        if trace.followed:
            return (self.gamma * over.abs()).expand(trace.px.batch_shape)
        return self.gamma * over.detach().sign() * (trace.rate - self.capacity)  # a score credits each draw its part

    def at(self, step: int) -> Self:
        """The capacity at ``step``."""
        return dataclasses.replace(self, capacity=self.maximum * min(1.0, step / self.steps))
