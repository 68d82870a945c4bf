"""A prior over vectors of latents, learned by a diffusion: latent diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions.diffusion_density import DiffusionDensity, Visits
from lambent.distributions.gaussian_diffusion import GaussianDiffusion
from lambent.errors import ConfigError
from lambent.networks.diffusion.denoiser import MLPDenoiser
from lambent.networks.diffusion.schedules import Schedule, schedule
from lambent.priors.base import DIFFUSION_FOR, AdaptivePriorModule, PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes

KEPT = 0.99
"""Share of the running moments that is kept at each batch, after the first ones."""
LEAST = 1e-6
"""Lower bound of the variance of a latent."""


@part("prior", "latent-diffusion")
@dataclass(frozen=True)
class LatentDiffusionPrior(PriorSettings):
    """A diffusion in the space of latents (Vahdat et al. 2021, NeurIPS; Rombach et al. 2022, CVPR), by v-prediction.

    Latents are standardised first. The ELBO stays a bound, with an estimate of a bound on log p(z) in it, and has no
    importance weights. It is learned together with the encoder (schedule=joint), or afterwards (schedule=two-stage).
    """

    instead: ClassVar[Mapping[str, str]] = DIFFUSION_FOR
    estimated: ClassVar[bool] = True
    hidden_dim: int = option(256, "units of each layer of the denoiser", minimum=1)
    blocks: int = option(3, "residual blocks of the denoiser", minimum=0)
    dropout: float = option(0.0, "dropout probability of a block's units", minimum=0.0, maximum=0.99)
    noise_schedule: str = option(
        "linear", "gamma(t), the log noise-to-signal ratio over time", choices=("linear", "ddpm", "cosine")
    )
    gamma_min: float = option(
        -10.0,
        "gamma at t=0, log noise-to-signal: finer details than exp(gamma/2) deviations of a latent are lost",
    )
    gamma_max: float = option(5.0, "gamma at t=1, log noise-to-signal")
    eval_timesteps: int = option(32, "timesteps at which each example is evaluated, over all its samples", minimum=1)
    sampling_steps: int = option(200, "timesteps that sampling visits", minimum=1)

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior, N(0, I) at the start.

        Raises:
            ConfigError: gamma would not rise.
        """
        if self.gamma_min >= self.gamma_max:
            raise ConfigError(
                f"prior.gamma_min={self.gamma_min:g} is not below prior.gamma_max={self.gamma_max:g}: noise grows from "
                "the one to the other; exchange them"
            )
        net = MLPDenoiser(self.hidden_dim, self.blocks, self.dropout).build_denoiser((shapes.latent,), shapes.condition)
        visits = Visits(self.eval_timesteps, self.sampling_steps)
        noise = schedule(self.noise_schedule, self.gamma_min, self.gamma_max)
        return LatentDiffusionPriorModule(net, noise, shapes.latent, visits, conditioned=shapes.condition > 0)


class LatentDiffusionPriorModule(AdaptivePriorModule):
    """p(z), or p(z|c) where the denoiser takes a condition: `DiffusionDensity`, standardised by running moments.

    Args:
        denoiser: ``net(u (N, D), gamma (N,), condition (N, c) or None) -> v (N, D)``.
        noise: The noise schedule.
        latent: D, the size of a latent.
        visits: Timesteps of an estimate in evaluation (training uses one per sample), and of a sample.
        conditioned: Whether the denoiser takes a condition.
    """

    centre: Tensor
    square: Tensor
    seen: Tensor

    def __init__(
        self, denoiser: nn.Module, noise: Schedule, latent: int, visits: Visits, *, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.denoiser, self.noise, self.visits, self.conditioned = denoiser, noise, visits, conditioned
        self.register_buffer("centre", torch.zeros(latent, dtype=torch.float64))
        self.register_buffer("square", torch.ones(latent, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, condition: Tensor | None = None) -> DiffusionDensity:
        """The prior, of batch shape (), or that of the condition (*batch, c) if the denoiser takes one."""
        like = next(self.denoiser.parameters())
        given = condition.to(like) if condition is not None and self.conditioned else None
        visits = Visits(1, self.visits.steps) if self.training else self.visits
        variance = (self.square - self.centre.square()).clamp_min(LEAST)
        chain = GaussianDiffusion(self.noise, self.denoiser, "v")
        return DiffusionDensity(chain, self.centre.to(like), 0.5 * variance.log().to(like), given, visits)

    def initialise(self, z: Tensor) -> None:
        """Sets mean and scale to those of latents (..., D)."""
        self.seen.zero_()
        self.update_buffers(z, lambda sums: sums)

    @torch.no_grad()
    def update_buffers(self, z: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Moves mean and scale towards those of a batch of latents (..., D); ``total`` sums over processes."""
        rows = z.detach().reshape(-1, z.shape[-1]).to(self.centre)
        count, first, second = total(
            torch.stack([torch.full_like(self.centre, len(rows)), rows.sum(0), rows.square().sum(0)])
        )
        self.seen += 1
        share = (1 / self.seen).clamp_min(1 - KEPT)
        self.centre += share * (first / count - self.centre)
        self.square += share * (second / count - self.square)
