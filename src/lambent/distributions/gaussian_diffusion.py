"""Gaussian diffusion: noise is added timestep by timestep and removed again, as a Markov chain of latents.

In the notation of Kingma et al. 2021 (VDM): z_t = a_t y + s_t eps with a_t^2 = sigmoid(-gamma(t)), s_t^2 =
sigmoid(gamma(t)) for t in 0..1, gamma rising. With p(z_1) = N(0, I) and p(z_s|z_t) = q(z_s|z_t, y = y_hat(z_t)),

    -log p(y) <= KL(q(z_1|y)||p(z_1)) + sum_t KL(q(z_s|z_t,y)||p(z_s|z_t)) + E[-log p(y|z_0)],

all in nats. How to use it, as a model of data or as a prior over vectors y of about unit size:

    chain = GaussianDiffusion(schedule, denoiser, predict="v", steps=None)
    rate = chain.end_kl(y) + weight * chain.term(y, position, noise)     # unbiased, (N,)
    z_0 = chain.first(y, noise)                                          # the condition of p(y|z_0)
    z_0 = chain.generate(z_1, steps=50, stochasticity=1.0)               # y is about z_0 / a_0
    z_1 = chain.invert(chain.first(y, torch.zeros_like(y)), steps=200)

``position`` (N,) lies in 0..1 and ``weight`` is one over its density: see `lambent.models.diffusion.timestep_losses`.
For a prior whose p(y|z_0) is N(z_0/a_0, s_0^2/a_0^2), E[-log p(y|z_0)] is the constant
`GaussianDiffusion.first_entropy`, and a draw of it is `GaussianDiffusion.emit`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import expm1_less, full_precision, widened
from lambent.errors import ConfigError

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(z (N, *event), gamma (N,), condition (N, c) or None) -> (N, *event)."""
PREDICTIONS = ("eps", "x", "v")


class Schedule(Protocol):
    """The schedule gamma(t), the log noise-to-signal ratio, rising from its minimum at t=0 to its maximum at t=1."""

    learned: bool

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The fraction of its range that gamma has covered at t, and its derivative, in ``t``'s dtype."""

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma at 0 and at 1, as scalars of ``like``'s dtype and device."""


class TimestepTerm(NamedTuple):
    """The loss at one timestep of each item, all of shape (N,).

    Attributes:
        cost: The weighted term of the bound, in nats.
        error: |eps - eps_hat|^2.
        gamma: Log noise-to-signal ratio.
    """

    cost: Tensor
    error: Tensor
    gamma: Tensor


@dataclass(frozen=True, eq=False)
class GaussianDiffusion:
    """The chain of one schedule and one denoiser.

    Attributes:
        schedule: The schedule gamma.
        denoiser: The network.
        predict: The meaning of its output: the noise "eps", the clean "x" (y), or "v" = a eps - s y (Salimans & Ho
            2022, section 4 and appendix D).
        steps: T, the number of timesteps; None for continuous time.
    """

    schedule: Schedule
    denoiser: Denoiser
    predict: str = "eps"
    steps: int | None = None

    def end_kl(self, y: Tensor) -> Tensor:
        """KL(q(z_1|y)||N(0, I)) = 1/2 sum_d a_1^2 y_d^2 + s_1^2 - 1 - log s_1^2, (N,), nats."""
        _, end = self.schedule.ends(widened(y.new_zeros(())))
        power = torch.sigmoid(-end).to(y.dtype) * y.square().flatten(1).sum(1)
        return 0.5 * (power + y[0].numel() * expm1_less(F.logsigmoid(end)).to(y.dtype))

    def first(self, y: Tensor, noise: Tensor) -> Tensor:
        """z_0 = a_0 y + s_0 noise, in ``y``'s shape."""
        return _noisy(y, noise, self.schedule.ends(widened(y.new_zeros(())))[0].expand(len(y)))

    def at(self, y: Tensor, position: float, noise: Tensor) -> Tensor:
        """z_t = a_t y + s_t noise at t = ``position``, in ``y``'s shape."""
        t = widened(y.new_full((len(y),), position))
        low, high = self.schedule.ends(t)
        return _noisy(y, noise, low + (high - low) * self.schedule.interior(t)[0])

    def emit(self, z: Tensor, noise: Tensor) -> Tensor:
        """A draw of p(y|z_0) = N(z_0/a_0, s_0^2/a_0^2), in ``z``'s shape."""
        start, _ = self.schedule.ends(widened(z.new_zeros(())))
        signal, spread = scales(start)
        return z / signal.to(z.dtype) + (spread / signal).to(z.dtype) * noise

    def first_entropy(self, like: Tensor) -> Tensor:
        """E[-log N(y; z_0/a_0, s_0^2/a_0^2)] of an item such as ``like`` (*event): D/2 (1 + log 2 pi + gamma(0))."""
        start, _ = self.schedule.ends(widened(like.new_zeros(())))
        return (0.5 * like.numel() * (1 + math.log(2 * math.pi) + start)).to(like.dtype)

    def term(self, y: Tensor, position: Tensor, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """One sample of the diffusion loss, (N,), in nats: its mean over ``position`` and ``noise`` is the loss.

        For T timesteps, T/2 expm1(gamma(t) - gamma(s)) |eps - eps_hat|^2 with s = floor(T position)/T and t = s + 1/T
        (VDM, eq. 14); in continuous time, 1/2 gamma'(position) |eps - eps_hat|^2.

        Args:
            y: Clean items (N, *event).
            position: (N,) in 0..1, in float64: the difference of two gammas is small.
            noise: eps, in ``y``'s shape.
            condition: (N, c) or None.
        """
        return self.weighted_term(y, position, noise, torch.ones_like(position), condition).cost

    def weighted_term(
        self, y: Tensor, position: Tensor, noise: Tensor, weight: Tensor, condition: Tensor | None = None
    ) -> TimestepTerm:
        """``weight`` times `term`, with the error and gamma that it is made of.

        A learned schedule's interior does not change the bound in continuous time, only the variance of this
        estimate L of it. So there the interior's gradient is made that of L^2 (VDM, appendix I.2): E[L] has no gradient
        for it, hence E[L^2] has the variance's, and d L^2 = 2 L dL.
        """
        steer = _Steering() if self.steps is None and self.schedule.learned else None
        gamma, factor = self._at(position, steer)
        z, low = _noisy(y, noise, gamma), gamma.to(y.dtype)
        error = self._error(full_precision(self.denoiser(z, low, condition)), y, noise, gamma)
        found = (weight * factor).to(error.dtype) * error
        if steer is not None:
            steer.loss = found.detach()
        return TimestepTerm(found, error, gamma)

    def _at(self, position: Tensor, steer: _Steering | None) -> tuple[Tensor, Tensor]:
        """Gamma at the timestep, and the factor of its squared error."""
        low, high = self.schedule.ends(position)
        if self.steps is None:
            share, slope = self.schedule.interior(position)
            if steer is not None:
                share, slope = steer.watch(share), steer.watch(slope)
            return low + (high - low) * share, 0.5 * (high - low) * slope
        below = (position * self.steps).floor().clamp(0, self.steps - 1)
        s, t = (self.schedule.interior(step / self.steps)[0] for step in (below, below + 1))
        return low + (high - low) * t, 0.5 * self.steps * torch.expm1((high - low) * (t - s))

    def _error(self, output: Tensor, y: Tensor, noise: Tensor, gamma: Tensor) -> Tensor:
        """|eps - eps_hat|^2, (N,), computed without the division by a small s or a that eps_hat may need."""
        if self.predict == "eps":
            return _squares(noise - output)
        if self.predict == "x":
            return torch.exp(-gamma).to(y.dtype) * _squares(y - output)
        signal, spread = (_beside(scale, y) for scale in scales(gamma))
        return torch.sigmoid(-gamma).to(y.dtype) * _squares(signal * noise - spread * y - output)

    def split(self, z: Tensor, gamma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The denoiser's estimates at z (N, *event) and gamma (N,): y and the noise, both (N, *event).

        Args:
            z: Noisy items, each at its own timestep.
            gamma: Log noise-to-signal ratio of each item.
            condition: (N, c) or None.
        """
        output = full_precision(self.denoiser(z, gamma.to(z.dtype), condition))
        signal, spread = (_beside(scale, z) for scale in scales(gamma))
        if self.predict == "eps":
            return (z - spread * output) / signal, output
        if self.predict == "x":
            return output, (z - signal * output) / spread
        return signal * z - spread * output, spread * z + signal * output

    def visited(self, steps: int, top: float = 1.0) -> Tensor:
        """Timesteps of a sampler, evenly spaced from 0 to ``top``, (steps + 1,) float64; no more than the chain has.

        Raises:
            ConfigError: the chain has fewer than ``steps`` timesteps.
        """
        if self.steps is None:
            return top * torch.arange(steps + 1, dtype=torch.float64) / steps
        if steps > self.steps:
            raise ConfigError(f"steps={steps}: the model has {self.steps} timesteps; use at most {self.steps}")
        most = round(top * self.steps)
        steps = max(1, min(steps, most))
        return (torch.arange(steps + 1, dtype=torch.float64) * (most / steps)).round() / self.steps

    @torch.no_grad()
    def generate(
        self,
        z: Tensor,
        *,
        steps: int,
        stochasticity: float = 1.0,
        top: float = 1.0,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples z_0 (N, *event) from z_1, or from z at the timestep ``top``.

        With c = -expm1(gamma(s) - gamma(t)) and e the stochasticity, z_s = a_s y_hat + s_s (sqrt(1 - e^2 c) eps_hat +
        e sqrt(c) noise): at e = 1 a draw of the exact p(z_s|z_t) (VDM, appendix A), at e = 0 DDIM (Song et al. 2021,
        ICLR, eq. 12, whose eta is e).

        Args:
            z: The noisy items at timestep ``top``.
            steps: Number of steps; with T of them (or many, in continuous time) z_0 is a sample of the model.
            stochasticity: From 0 to 1.
            top: The timestep of ``z``, a multiple of 1/T.
            condition: (N, c) or None.
            generator: Generator of the noise.
        """
        way = self.path(z, steps=steps, stochasticity=stochasticity, top=top, condition=condition, generator=generator)
        for state, _ in way:
            z = state
        return z

    @torch.no_grad()
    def path(
        self,
        z: Tensor,
        *,
        steps: int,
        stochasticity: float = 1.0,
        top: float = 1.0,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The states of `generate` in turn: z_s and the y_hat(z_t) it was made from, for each timestep."""
        for s, t in reversed(list(self._pairs(z, steps, top))):
            clean, noise = self.split(z, t.expand(len(z)), condition)
            signal, spread = (scale.to(z.dtype) for scale in scales(s))
            fresh = -torch.expm1(s - t) * stochasticity**2
            z = signal * clean + spread * torch.sqrt(1 - fresh).to(z.dtype) * noise
            if stochasticity > 0:
                z = z + spread * fresh.sqrt().to(z.dtype) * standard_noise(z.shape, z, generator)
            yield z, clean

    @torch.no_grad()
    def invert(self, z: Tensor, *, steps: int, condition: Tensor | None = None) -> Tensor:
        """z_1 from z_0, (N, *event), by DDIM in reverse (Song et al. 2021, section 4.3): exact for many steps.

        Args:
            z: z_0.
            steps: Number of steps.
            condition: (N, c) or None.
        """
        for s, t in self._pairs(z, steps, 1.0):
            clean, noise = self.split(z, s.expand(len(z)), condition)
            signal, spread = (scale.to(z.dtype) for scale in scales(t))
            z = signal * clean + spread * noise
        return z

    def _pairs(self, z: Tensor, steps: int, top: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Gamma of each timestep and of the next higher one, from the lowest."""
        at = self.visited(steps, top).to(widened(z.new_zeros(())))
        low, high = self.schedule.ends(at)
        gammas = low + (high - low) * self.schedule.interior(at)[0]
        yield from itertools.pairwise(gammas)


class _Steering:
    """Scales the gradient of watched tensors by 2 L, L the per-item loss: the gradient of L becomes that of L^2."""

    def __init__(self) -> None:
        self.loss = torch.zeros(())

    def watch(self, value: Tensor) -> Tensor:
        """``value`` (N,), with its gradient scaled in the backward pass, when the loss is known."""
        if value.requires_grad:
            value.register_hook(lambda grad: grad * (2 * self.loss).to(grad))
        return value


def scales(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Signal a and noise s at a timestep, with a^2 + s^2 = 1.

    >>> scales(torch.tensor(0.0))
    (tensor(0.7071), tensor(0.7071))
    """
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


def _noisy(y: Tensor, noise: Tensor, gamma: Tensor) -> Tensor:
    signal, spread = scales(gamma)
    return _beside(signal, y) * y + _beside(spread, y) * noise


def _beside(factors: Tensor, items: Tensor) -> Tensor:
    """One factor per item (N,), in a shape and dtype that multiply items (N, *event)."""
    return factors.to(items.dtype).view(-1, *[1] * (items.dim() - 1))


def _squares(items: Tensor) -> Tensor:
    return items.square().flatten(1).sum(1)
