"""The fixed posterior of a diffusion: noise added along a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from torch import Tensor

from lambent.errors import CombinationError, ConfigError
from lambent.networks.diffusion.schedules import SCHEDULES, Schedule, schedule
from lambent.posteriors.base import PosteriorSettings
from lambent.settings import option, part


@part("posterior", "noising")
@dataclass(frozen=True)
class NoisingPosterior(PosteriorSettings):
    """q(z_t|x) = N(a_t y, s_t^2), y = x around 0, with gamma = log s_t^2/a_t^2 rising from t = 0 to 1.

    Nothing of it is inferred; only the schedule can learn (VDM: Kingma et al. 2021).
    """

    reserved: ClassVar[str] = "it adds noise that only a diffusion takes away; use model=diffusion"
    marginals: ClassVar[bool] = False
    noise_schedule: str = option("linear", "gamma(t): linear, cosine, ddpm (linear beta) or learned", choices=SCHEDULES)
    gamma_min: float = option(-13.3, "gamma at t=0, log noise-to-signal; the initial value where it is learned")
    gamma_max: float = option(5.0, "gamma at t=1, log noise-to-signal; the initial value where it is learned")
    hidden_dim: int = option(1024, "schedule learned: hidden sigmoid units of its monotonic network", minimum=1)

    def build(self) -> Schedule:
        """The schedule.

        Raises:
            ConfigError: it would not rise.
        """
        if self.gamma_min >= self.gamma_max:
            raise ConfigError(
                f"posterior.gamma_min={self.gamma_min:g} is not below posterior.gamma_max={self.gamma_max:g}: "
                "noise grows from the one to the other; exchange them"
            )
        return schedule(self.noise_schedule, self.gamma_min, self.gamma_max, self.hidden_dim)

    def width(self, latent: int) -> NoReturn:
        """Raises CombinationError: there is no head."""
        raise CombinationError("posterior=noising has no encoder; use model=diffusion")

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> NoReturn:
        """Raises CombinationError: there is no head."""
        raise CombinationError("posterior=noising has no encoder; use model=diffusion")
