"""Rate functions that treat the levels of a hierarchy differently, for a time, so that none of them falls idle."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from lambent.objectives.rates import RateFunction
from lambent.settings import option, part
from lambent.trace import Latent, Trace

ORDERS = ("bottom-first", "top-first")


class RatesByLevel(RateFunction):
    """sum_l w_l rate_l with factors w_l outside the graph; a bound once they have come to 1 for good."""

    by_level: ClassVar[bool] = True

    @abstractmethod
    def factors(self, trace: Trace) -> Tensor:
        """w_l of each level, lowest first, (L,)."""

    @property
    def is_bound(self) -> bool:
        """Once every factor is 1 for good."""
        return self.settled

    def __call__(self, trace: Trace) -> Tensor:
        """The weighted sum over levels, (K, B)."""
        if self.settled or not trace.latents:
            return trace.rate
        pairs = zip(self.factors(trace).unbind(), trace.latents, strict=True)
        return torch.stack([w * latent.rate.expand(trace.px.batch_shape) for w, latent in pairs]).sum(0)


@part("rate", "level-warm-up")
@dataclass(frozen=True)
class LevelWarmUp(RatesByLevel):
    """Warm-up (Sonderby et al. 2016, section 2.3) of each level at its own time: factors rise linearly to 1, staggered.

    The level whose turn is the i-th (from 0) has the factor start + (1 - start) (step - i stagger) / steps, within
    start and 1. Charged bottom-first, the upper levels cost little for longest, so that what can be moved there is.

    >>> LevelWarmUp(steps=10, stagger=5).over(3).at(10).factors_of(3).tolist()
    [1.0, 0.5, 0.0]
    """

    steps: int = option(10_000, "training steps over which a level's factor rises to 1", minimum=1)
    stagger: int = option(1000, "training steps from the start of one level's rise to the next one's", minimum=0)
    order: str = option("bottom-first", "the level whose factor reaches 1 first", choices=ORDERS)
    start: float = option(0.0, "factor at step 0", minimum=0, maximum=1)
    step: int = 0
    levels: int | None = None

    @property
    def settled(self) -> bool:
        """Once the last level's factor has reached 1; never where the number of levels is not set (see `over`)."""
        return self.levels is not None and self.step >= self.steps + (self.levels - 1) * self.stagger

    def factors(self, trace: Trace) -> Tensor:
        """Those in force, (L,)."""
        return self.factors_of(len(trace.latents)).to(trace.latents[0].rate)

    def factors_of(self, levels: int) -> Tensor:
        """The factors of ``levels`` levels, lowest first, (L,)."""
        turns = torch.arange(levels) if self.order == "bottom-first" else torch.arange(levels - 1, -1, -1)
        return self.start + (1 - self.start) * ((self.step - turns * self.stagger) / self.steps).clamp(0, 1)

    def at(self, step: int) -> Self:
        """The factors at ``step``."""
        return dataclasses.replace(self, step=step)

    def over(self, levels: int) -> Self:
        """The rate function for a model of ``levels`` levels."""
        return dataclasses.replace(self, levels=levels)


@part("rate", "kl-balancing")
@dataclass(frozen=True)
class KLBalancing(RatesByLevel):
    """KL balancing (Vahdat & Kautz 2020, appendix A): for ``steps`` steps factors gamma_l, then 1.

    gamma_l is proportional to s_l E[rate_l], of mean 1 over the levels, with s_l the level's dimensions and the mean
    over the batch: what a level hardly uses is cheap, so that it isn't given up while it is young. On top comes the
    usual warm-up of all of them together, from ``start`` to 1.
    """

    steps: int = option(10_000, "training steps until every level's rate has the factor 1", minimum=1)
    start: float = option(0.0, "factor of the whole rate at step 0", minimum=0, maximum=1)
    done: float = 0.0

    @property
    def settled(self) -> bool:
        """Once the steps are over."""
        return self.done >= 1

    def factors(self, trace: Trace) -> Tensor:
        """Warm-up times gamma_l, (L,)."""
        return (self.start + (1 - self.start) * self.done) * balance(trace)

    def at(self, step: int) -> Self:
        """The factors at ``step``."""
        return dataclasses.replace(self, done=min(1.0, step / self.steps))


@torch.no_grad()
def balance(trace: Trace) -> Tensor:
    """gamma_l = L s_l r_l / sum_j s_j r_j, (L,), r_l the batch's mean rate; 1 for all where every rate is 0.

    Estimates below 0 count as 0.
    """
    rates = [trace.average(latent.rate.expand(trace.px.batch_shape)).mean() for latent in trace.latents]
    sizes = torch.tensor([float(_size(latent)) for latent in trace.latents])
    shares = sizes.to(rates[0]) * torch.stack(rates).clamp_min(0)
    total = shares.sum()
    return torch.where(total > 0, len(shares) * shares / total, torch.ones_like(shares))


def _size(latent: Latent) -> int:
    """Numbers in a level's value; 1 where it has none."""
    return 1 if latent.value is None else latent.value.shape[2:].numel()
