"""Diffusion: a chain of latents as large as the data, each a little noisier, of which only denoising is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions import Normal, StandardNormal
from lambent.distributions.gaussian_diffusion import GaussianDiffusion, scales
from lambent.distributions.normal import standard_noise
from lambent.distributions.timesteps import spread, stratified
from lambent.draws import Ancestral, Draw, Mode
from lambent.errors import ConfigError
from lambent.models.base import LatentModel
from lambent.models.diffusion.timestep_losses import REPORTED, TimestepLosses
from lambent.networks.diffusion.schedules import Schedule
from lambent.priors.diffusion import LatentDiffusionPriorModule
from lambent.trace import Latent, Trace

NUMBERS = 2**18
"""Numbers that the denoiser sees at a time outside training."""


@dataclass(frozen=True)
class Timesteps:
    """How the chain is cut into levels and how these are visited.

    Attributes:
        steps: T; None for infinitely many.
        predict: What the denoiser gives: "eps", "x" or "v".
        sampling: Levels visited by a sample, T at most.
        importance: When levels are drawn in proportion to their loss: "never", in "evaluation", or "always".
    """

    steps: int | None = None
    predict: str = "v"
    sampling: int = 100
    importance: str = "evaluation"


@dataclass(frozen=True, eq=False)
class DrawnTimesteps(Latent):
    """The levels of each draw, and what was found there.

    Attributes:
        position: Where in 0..1, (K, B).
        losses: What the chain would cost if all levels cost as much, (K, B), nats.
        weight: One over the density of each position, (K, B).
        errors: |eps - eps_hat|^2, (K, B).
        gamma: Log noise to signal, (K, B).
    """

    position: Tensor | None = None
    weight: Tensor | None = None
    losses: Tensor | None = None
    errors: Tensor | None = None
    gamma: Tensor | None = None


class Diffusion(LatentModel):
    """p(z_1) prod p(z_s|z_t) p(x|z_0) under q that adds noise (Sohl-Dickstein et al. 2015; Ho et al. 2020; VDM, 2021).

    Its ELBO is the log likelihood's bound of `lambent.distributions.gaussian_diffusion`, with the levels estimated:
    each draw looks at one of them. The trace has two latents without values, "levels" and "end". In training, levels
    are spread over the batch; in evaluation over the K draws of each example, so that K a multiple of T takes all of
    them equally often, and otherwise in proportion to their loss, which leaves the estimate unbiased.

    A code is z_1, as many numbers as x, by DDIM's inversion; `decode` is DDIM.

    Args:
        denoiser: ``net(z (N, *event), gamma (N,), condition (N, c) or None) -> (N, *event)``.
        schedule: Gamma.
        likelihood: p(x|z_0).
        levels: How the chain is cut and visited.
    """

    likelihood: Any
    schedule: Any

    def __init__(self, denoiser: nn.Module, schedule: Schedule, likelihood: nn.Module, levels: Timesteps) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.likelihood, self.levels = denoiser, schedule, likelihood, levels
        self.losses = TimestepLosses()

    @property
    def chain(self) -> GaussianDiffusion:
        """The chain as it stands."""
        return GaussianDiffusion(self.schedule, self.denoiser, self.levels.predict, self.levels.steps)

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of an example."""
        shape: tuple[int, ...] = self.likelihood.shapes.event
        return shape

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch ``x`` (B, *event); generates without one, from draws of z_1 or a given one.

        `Ancestral` says how many levels are visited and how much noise comes back; any other draw is followed by DDIM.
        A `Mode` of x leaves the cost of the levels out.
        """
        if x is None:
            return self._generated(draw, condition)
        y = self.as_input(x)
        start = self._start(y, draw)
        px, batch = self._px(start), start.shape[:2]
        end = Latent("end", None, known={"kl": self.chain.end_kl(y).expand(batch)})
        levels = Latent("levels", None) if isinstance(draw, Mode) else self._levels(y, draw, condition)
        return Trace(px, (levels, end))

    def _start(self, y: Tensor, draw: Draw) -> Tensor:
        """z_0, (K, B, *event)."""
        signal, spread_ = self._first_scales(y)
        q = Normal(signal * y, spread_.log(), len(self.event))
        value = draw("start", StandardNormal(self.event, device=y.device), q).value
        assert value is not None
        return value

    def _first_scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return scales(self.schedule.ends(like.new_zeros(()))[0])

    def _px(self, start: Tensor) -> Distribution:
        """p(x|z_0) for z_0 (K, B, *event), which is clean but for noise of exp(gamma(0)/2) once divided by a_0."""
        log_noise = 0.5 * self.schedule.ends(start.new_zeros(()))[0]
        px: Distribution = self.likelihood.through(start / self._first_scales(start)[0], log_noise)
        return px

    def _levels(self, y: Tensor, draw: Draw, condition: Tensor | None) -> DrawnTimesteps:
        """The chain's cost, (K, B), estimated at one level each."""
        shape = (draw.samples, len(y))
        position, weight = self._placed(shape, draw, y.device)
        noise = standard_noise((*shape, *self.event), y, draw.generator)
        items, given = _repeated(y, draw.samples), None if condition is None else _repeated(condition, draw.samples)
        parts = zip(*self._parts(items, position.flatten(), noise.flatten(0, 1), weight.flatten(), given), strict=True)
        found = [self.chain.weighted_term(*part) for part in parts]
        kl, errors, gamma = (torch.cat(terms).view(shape) for terms in zip(*found, strict=True))
        losses = kl.detach() / weight.to(kl.dtype)
        return DrawnTimesteps(
            "levels",
            None,
            known={"kl": kl},
            position=position,
            losses=losses,
            errors=errors,
            gamma=gamma,
            weight=weight,
        )

    def _placed(self, shape: tuple[int, int], draw: Draw, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of the levels in 0..1, and one over their density."""
        total, wanted = draw.total or draw.samples, self.levels.importance
        if self.training:
            uniform, weighted = spread(*shape, draw.generator, device), wanted == "always"
        else:
            uniform = stratified(*shape, draw.start, total, draw.generator, device)
            every = self.levels.steps is not None and total % self.levels.steps == 0
            weighted = wanted != "never" and not every
        return self.losses.placed(uniform, self.levels.steps) if weighted else (uniform, torch.ones_like(uniform))

    def _parts(self, items: Tensor, *beside: Tensor | None) -> list[list[Tensor | None]]:
        """Rows of all arguments, cut where no gradient is asked for, so that memory is bounded."""
        size = len(items) if torch.is_grad_enabled() else max(1, NUMBERS // prod(self.event))
        cut: list[list[Tensor | None]] = [list(items.split(size))]
        return cut + [[None] * len(cut[0]) if b is None else list(b.split(size)) for b in beside]

    def _generated(self, draw: Draw, condition: Tensor | None) -> Trace:
        end = draw("end", StandardNormal((prod(self.event),), device=self._device))
        assert end.value is not None
        steps, noise = (draw.steps, draw.noise) if isinstance(draw, Ancestral) else (None, 0.0)
        return Trace(self._px(self._down(end.value, condition, steps, noise, draw.generator)), (end,))

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _visited(self, steps: int | None) -> int:
        most = self.levels.steps
        return steps or (self.levels.sampling if most is None else min(self.levels.sampling, most))

    def _down(
        self,
        end: Tensor,
        condition: Tensor | None,
        steps: int | None = None,
        noise: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """z_0 (K, B, *event) of z_1 (K, B, D)."""
        given = None if condition is None else _repeated(condition, len(end))
        cut = zip(*self._parts(end.flatten(0, 1).unflatten(1, self.event), given), strict=True)
        visited = self._visited(steps)
        found = [
            self.chain.generate(z, steps=visited, stochasticity=noise, condition=c, generator=generator) for z, c in cut
        ]
        return torch.cat(found).unflatten(0, end.shape[:2])

    def encode(self, x: Tensor, draw: Draw, condition: Tensor | None = None) -> Tensor:
        """z_1 (K, B, D) from which `decode` comes back to x, for the mode or draws of z_0."""
        start = self._start(self.as_input(x), draw)
        given = None if condition is None else _repeated(condition, len(start))
        cut = zip(*self._parts(start.flatten(0, 1), given), strict=True)
        found = [self.chain.invert(z, steps=self._visited(None), condition=c) for z, c in cut]
        return torch.cat(found).view(*start.shape[:2], -1)

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z_0) at the end of DDIM from codes z_1 (K, B, D)."""
        return self._px(self._down(code, condition))

    def from_level(self, x: Tensor, top: float, draw: Ancestral, condition: Tensor | None = None) -> Distribution:
        """p(x|z_0), (1, B), of z_0 generated from x with the noise of level ``top`` in 0..1."""
        y = self.as_input(x)
        most = self.levels.steps
        top = top if most is None else max(1, round(top * most)) / most
        z = self.chain.at(y, top, standard_noise(y.shape, y, draw.generator))
        start = self.chain.generate(
            z,
            steps=self._visited(draw.steps),
            stochasticity=draw.noise,
            top=top,
            condition=condition,
            generator=draw.generator,
        )
        return self._px(start.unsqueeze(0))

    def loss_at(
        self,
        x: Tensor,
        positions: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the chain would cost if all levels cost what those at ``positions`` (L,) in 0..1 do, (L, B), nats.

        Its mean over evenly spread positions is an estimate of the rate of "levels".
        """
        y = self.as_input(x)
        rows = [
            self.chain.term(y, at.expand(len(y)), standard_noise(y.shape, y, generator), condition) for at in positions
        ]
        return torch.stack(rows)

    def update_buffers(
        self, trace: Trace, total: Callable[[Tensor], Tensor], *, leader: bool = True, counted: bool = True
    ) -> None:
        """Remembers what the levels of a step cost."""
        rows = slice(None) if counted else slice(0)
        for drawn in trace.latents:
            if isinstance(drawn, DrawnTimesteps):
                assert drawn.position is not None
                assert drawn.losses is not None
                assert drawn.errors is not None
                assert drawn.weight is not None
                found = (drawn.position, drawn.losses, drawn.errors.detach() / prod(self.event), drawn.weight)
                position, losses, errors, weight = (part.flatten()[rows] for part in found)
                self.losses.update_buffers(position, losses, errors, total, weight)

    def pop_metrics(self) -> dict[str, Any]:
        """Nats and squared errors by noise level since the last call: of equal parts of t, between the gammas given."""
        found = self.losses.pop_metrics()
        if not found:
            return {}
        edges = torch.linspace(0, 1, REPORTED + 1, dtype=torch.float64)
        with torch.no_grad():
            gamma = self.schedule(edges.to(self._device))[0]
        return {"noise_levels": {"gamma": gamma.tolist(), **found}}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The denoiser's and likelihood's parameters ("generative") and those of a learned schedule ("inference")."""
        generative = [*self.denoiser.parameters(), *self.likelihood.parameters()]
        return {"generative": generative, "inference": list(self.schedule.parameters())}

    def group_buffers(self) -> dict[str, list[Tensor]]:
        """What levels cost depends on the denoiser."""
        return {"generative": list(self.losses.buffers())}


def ancestral(
    model: LatentModel, n: int, generator: torch.Generator, steps: int | None = None, noise: float | None = None
) -> Ancestral:
    """The draw that generates ``n`` examples, visiting ``steps`` levels with ``noise`` at each (none: the model's own).

    Raises:
        ConfigError: steps or noise of a model that is no diffusion and has no such prior, or out of range.
    """
    diffuses = isinstance(model, Diffusion) or isinstance(model.top_prior, LatentDiffusionPriorModule)
    if (steps, noise) != (None, None) and not diffuses:
        raise ConfigError("steps and noise of a sample: only a diffusion has levels to visit; leave both out")
    if steps is not None and steps < 1:
        raise ConfigError(f"steps={steps}: expected at least 1")
    if noise is not None and not 0 <= noise <= 1:
        raise ConfigError(f"noise={noise:g}: expected 0 (DDIM) to 1 (the chain itself)")
    return Ancestral(batch=n, generator=generator, steps=steps, noise=1.0 if noise is None else noise)


def _repeated(rows: Tensor, samples: int) -> Tensor:
    """Rows (B, ...) for K samples of each, (K B, ...)."""
    return rows if samples == 1 else rows.expand(samples, *rows.shape).flatten(0, 1)
