"""A rate function that weighs the noise levels of a diffusion otherwise than its bound does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lambent.models.diffusion.model import DrawnTimesteps
from lambent.objectives.rates import RateFunction
from lambent.posteriors import NoisingPosterior
from lambent.settings import Conflict, option, part
from lambent.trace import Latent, Trace

WEIGHTS = ("simple", "min-snr")


@part("rate", "snr-weighted")
@dataclass(frozen=True)
class SNRWeighted(RateFunction):
    """1/2 E_t[w |eps - eps_hat|^2] in place of the noise levels' rate: better samples, for a worse bound.

    The bound's own w is gamma'(t), which counts the least noise most. "simple" is w = 1 (Ho et al. 2020, eq. 14);
    "min-snr" w = min(1, limit exp(gamma)) (Hang et al. 2023, ICCV): less for noise that can hardly be seen, with a
    signal-to-noise ratio exp(-gamma) over the limit.

    >>> SNRWeighted("min-snr", limit=0.5).weights(torch.tensor([0.0, 1.0]))
    tensor([0.5000, 1.0000])
    """

    reserved: ClassVar[str] = "only a diffusion has noise levels to weigh; use rate=sum"
    weight: str = option("simple", "weight of the squared error at each timestep", choices=WEIGHTS)
    limit: float = option(5.0, "min-snr: the signal-to-noise ratio above which a timestep's weight is cut", above=0)

    def conflicts(self, parts: Any) -> Conflict | None:
        """A learned schedule learns from the bound itself."""
        if not isinstance(parts.posterior, NoisingPosterior) or parts.posterior.noise_schedule != "learned":
            return None
        why = "a schedule learns from the bound itself; use posterior.noise_schedule=linear"
        return Conflict(("rate", "posterior"), why)

    @property
    def is_bound(self) -> bool:
        """False: the loss is no bound on log p(x)."""
        return False

    def __call__(self, trace: Trace) -> Tensor:
        """The weighted squared error, and what else the latents cost, (K, B)."""
        return torch.stack([self._charge(latent).expand(trace.px.batch_shape) for latent in trace.latents]).sum(0)

    def _charge(self, latent: Latent) -> Tensor:
        if not isinstance(latent, DrawnTimesteps):
            return latent.rate
        assert latent.gamma is not None
        assert latent.weight is not None
        assert latent.errors is not None
        weights = latent.weight * self.weights(latent.gamma)
        return 0.5 * weights.to(latent.errors.dtype) * latent.errors

    def weights(self, gamma: Tensor) -> Tensor:
        """W at levels of log noise to signal ``gamma``, in its shape."""
        if self.weight == "simple":
            return torch.ones_like(gamma)
        return (self.limit * gamma.exp()).clamp_max(1.0)
