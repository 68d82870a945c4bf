"""The discretised logistic: grey levels by differences of a CDF."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.binned import Binned
from lambent.distributions.numerics import full_precision, joint_shape, split_shape
from lambent.errors import ConfigError


class DiscretisedLogistic(Binned):
    """Levels 0..L-1 with the mass that a logistic gives to each one's bin (Kingma et al. 2016, eq. 12).

    Level i is centred at -1 + 2i/(L-1), in the unit of ``loc`` and the scale; bins meet half way, and the first and
    last take the tails. With a and b the standardised upper and lower edge,
    log P = -softplus(-a) - softplus(b) + log(1 - exp(b - a)), whose terms never cancel; edges go by the bin's index.

    Args:
        loc: Locations, (*batch, *event), where the levels span -1..1.
        log_scale: Log scales, broadcast against ``loc``.
        levels: L, at least 2.
        event_dims: Number of trailing dimensions that form the event.

    Raises:
        ConfigError: fewer than 2 levels.

    >>> DiscretisedLogistic(torch.zeros(1), torch.zeros(1), 2, 1).log_prob(torch.ones(1))  # -log 2
    tensor(-0.6931)
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, event_dims: int = 1) -> None:
        if levels < 2:
            raise ConfigError(f"DiscretisedLogistic: {levels} levels; expected 2 or more")
        self.loc, self.log_scale = full_precision(loc), full_precision(log_scale)
        self.levels, self.event_dims = levels, event_dims
        super().__init__(*split_shape(joint_shape(self.loc, self.log_scale), event_dims, "DiscretisedLogistic"))

    @property
    def _zeros(self) -> Tensor:
        return self.loc.new_zeros(self.batch_shape + self.event_shape)

    def log_masses(self, level: Tensor) -> Tensor:
        """Log probability of each element's level, before the event sum, nats."""
        inverse = torch.exp(-self.log_scale)
        # 0 at the first and last level and 1 elsewhere; products with them are many times faster than masks.
        not_first, not_last = level.clamp_max(1), (self.levels - 1 - level).clamp_max(1)
        # Neighbours compute their common edge by the same expression, so that masses telescope to 1 in float32 too.
        below = F.logsigmoid((self.loc - self._edge(level)) * inverse)
        above = F.logsigmoid((self._edge(level + 1) - self.loc) * inverse)
        width = torch.log(-torch.expm1(inverse * (-2 / (self.levels - 1))))
        return below * not_first + above * not_last + width * (not_first * not_last)

    def _edge(self, level: Tensor) -> Tensor:
        """The edge between ``level`` - 1 and ``level``."""
        return (2 * level - self.levels) / (self.levels - 1)

    @property
    def mode(self) -> Tensor:
        """The most probable level: the one around ``loc``, or an end whose tail outweighs it."""
        return self.or_an_end(self._nearest(self.loc.expand(self.batch_shape + self.event_shape)))

    def at_least(self, level: int) -> Tensor:
        """sigmoid((loc - lower edge)/scale)."""
        edge = (2 * level - self.levels) / (self.levels - 1)
        return torch.sigmoid((self.loc - edge) * torch.exp(-self.log_scale))

    def _nearest(self, position: Tensor) -> Tensor:
        return ((position + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.loc.device)
        noise = torch.logit(uniform, eps=1e-16).to(self.loc.dtype)
        return self._nearest(torch.addcmul(self.loc, self.log_scale.exp(), noise))

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> DiscretisedLogistic:
        """The same family at ``fn`` of location and log scale."""
        return DiscretisedLogistic(fn(self.loc), fn(self.log_scale), self.levels, self.event_dims)
