"""The distribution of vectors that a diffusion makes of noise, known by an estimate of a bound."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.gaussian_diffusion import GaussianDiffusion
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import full_precision, widened
from lambent.distributions.timesteps import stratified
from lambent.errors import ConfigError

ROWS = 2**13
"""Vectors that the denoiser sees at a time where no gradient is asked for."""


@dataclass(frozen=True)
class Visits:
    """Which noise levels are looked at, and how samples come down them.

    Attributes:
        levels: How many an estimate looks at of each vector, or of all K that are drawn for one example.
        steps: How many a sample visits.
        noise: How much noise comes back at each of these: 1 is the chain itself, 0 DDIM.
    """

    levels: int = 1
    steps: int = 100
    noise: float = 1.0


@dataclass(frozen=True, eq=False)
class NoiseSource:
    """Where the noise of an estimate is from, and which of how many samples of an example it is for."""

    generator: torch.Generator | None = None
    start: int = 0
    total: int | None = None


class DiffusionDensity(Distribution):
    """p(z) of z = mean + scale u, u what a diffusion of infinitely many levels makes of N(0, I) noise.

    With u_0 .. u_1 as in `lambent.distributions.gaussian_diffusion` and p(u|u_0) = N(u_0/a_0, s_0^2/a_0^2), in nats,

        log p(z) >= -sum log scale - KL(q(u_1|u)||N(0, I)) - levels - E[-log p(u|u_0)].

    ``log_prob`` is an unbiased estimate of the right side: of use where it enters linearly (an ELBO, no importance
    weights). Its noise is that of levels alone, and of these only by how far the denoiser differs from that of
    N(0, I), for which v = 0 and levels are known in closed form: a control variate.

    Args:
        chain: In continuous time, over vectors of about unit size.
        mean: (D,).
        log_scale: (D,).
        condition: What the denoiser is given beside, (*batch, c).
        visits: The levels looked at.
        place: Where noise is from.
    """

    estimated = True
    has_mean = False

    def __init__(
        self,
        chain: GaussianDiffusion,
        mean: Tensor,
        log_scale: Tensor,
        condition: Tensor | None = None,
        visits: Visits | None = None,
        place: NoiseSource | None = None,
    ) -> None:
        self.chain, self.loc, self.log_scale, self.condition = chain, mean, log_scale, condition
        self.visits, self.place = visits or Visits(), place or NoiseSource()
        super().__init__(() if condition is None else condition.shape[:-1], mean.shape)

    def estimating(self, generator: torch.Generator | None, start: int = 0, total: int | None = None) -> Self:
        """The same, the noise of estimates from ``generator``, levels those of samples ``start`` on of ``total``."""
        place = NoiseSource(generator, start, total)
        return type(self)(self.chain, self.loc, self.log_scale, self.condition, self.visits, place)

    def log_prob(self, value: Tensor) -> Tensor:
        """The estimate, nats, of values (..., D); their first dimension runs over samples if there are two or more."""
        value = full_precision(value)
        lead = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        samples = lead[0] if len(lead) > 1 else 1
        unit = ((value - self.loc) * torch.exp(-self.log_scale)).expand(*lead, -1).reshape(samples, -1, value.shape[-1])
        found = self.reference(unit) + self.correction(unit, self._conditions(lead, samples))
        return -found.view(lead) - self.log_scale.sum()

    def reference(self, unit: Tensor) -> Tensor:
        """The three terms where v = 0: about -log N(u; 0, I), of vectors (..., D)."""
        flat = unit.reshape(-1, unit.shape[-1])
        whole = self.chain.end_kl(flat) + self.expected_levels(flat) + self.chain.first_entropy(flat[0])
        return whole.view(unit.shape[:-1])

    def expected_levels(self, unit: Tensor) -> Tensor:
        """Levels where v = 0, (N,): 1/2 the integral of a^2 (a^2 D + s^2 |u|^2) over gamma, of vectors (N, D)."""
        low, high = self.chain.schedule.ends(widened(unit.new_zeros(())))
        length = torch.sigmoid(-low) - torch.sigmoid(-high)
        number = F.softplus(-low) - F.softplus(-high) - length
        return 0.5 * (unit.shape[-1] * number.to(unit.dtype) + length.to(unit.dtype) * unit.square().sum(-1))

    def correction(self, unit: Tensor, condition: Tensor | None = None) -> Tensor:
        """What the denoiser's levels cost more than those of v = 0, (K, B), of vectors (K, B, D): the estimate."""
        samples, batch, dims = unit.shape
        total = max(self.place.total or samples, samples)
        each = math.ceil(self.visits.levels / total)
        start, count = self.place.start * each, samples * each
        position = stratified(count, batch, start, total * each, self.place.generator, unit.device).flatten()
        items = unit.repeat_interleave(each, 0).view(-1, dims)
        noise = standard_noise(items.shape, items, self.place.generator)
        given = None if condition is None else condition.repeat_interleave(each, 0).flatten(0, 1)
        return self._more(items, position, noise, given).view(samples, each, batch).mean(1)

    def _more(self, items: Tensor, position: Tensor, noise: Tensor, condition: Tensor | None) -> Tensor:
        """Of rows, (N,), in bounded memory where no gradient is asked for."""
        size = max(1, len(items)) if torch.is_grad_enabled() else ROWS
        plain = dataclasses.replace(self.chain, denoiser=lambda z, gamma, given: torch.zeros_like(z), predict="v")
        rows = zip(items.split(size), position.split(size), noise.split(size), strict=True)
        return torch.cat(
            [
                self.chain.term(u, at, eps, given) - plain.term(u, at, eps)
                for (u, at, eps), given in zip(rows, _cut(condition, size), strict=False)
            ]
        )

    def _conditions(self, lead: torch.Size, samples: int) -> Tensor | None:
        return None if self.condition is None else self.condition.expand(*lead, -1).reshape(samples, -1, self.width)

    @property
    def width(self) -> int:
        """Numbers of the condition."""
        return 0 if self.condition is None else self.condition.shape[-1]

    def visiting(self, steps: int | None, noise: float = 1.0) -> Self:
        """The same, its samples visiting so many levels (none: as many as before), with so much noise at each."""
        visits = dataclasses.replace(self.visits, steps=steps or self.visits.steps, noise=noise)
        return type(self)(self.chain, self.loc, self.log_scale, self.condition, visits, self.place)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        top = standard_noise(shape, self.loc, generator).view(-1, shape[-1])
        given = None if self.condition is None else self.condition.expand(*shape[:-1], -1).reshape(len(top), -1)
        found = [self._down(z, c, generator) for z, c in zip(top.split(ROWS), _cut(given, ROWS), strict=False)]
        return (self.loc + self.log_scale.exp() * torch.cat(found)).view(shape)

    def _down(self, z: Tensor, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Draws of u from those of u_1, (N, D)."""
        steps, noise = self.visits.steps, self.visits.noise
        start = self.chain.generate(z, steps=steps, stochasticity=noise, condition=condition, generator=generator)
        return self.chain.emit(start, standard_noise(z.shape, z, generator))

    @property
    def mean(self) -> NoReturn:
        """Refused: nobody knows it."""
        raise ConfigError("the mean of a diffusion isn't known; draw from it, give x, or give values of z")

    @property
    def mode(self) -> NoReturn:
        """Refused: nobody knows it."""
        raise ConfigError("the mode of a diffusion isn't known; draw from it, give x, or give values of z")


def _cut(condition: Tensor | None, size: int) -> Iterable[Tensor | None]:
    """Conditions of so many rows each; without any, nothing for ever."""
    return itertools.repeat(None) if condition is None else condition.split(size)
