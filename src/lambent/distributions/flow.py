"""Normalising flows: distributions that an invertible network makes of Normal noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lambent.distributions.base import Distribution
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import HALF_LOG_TWO_PI, full_precision
from lambent.errors import ConfigError

_DRAWS = 10_000


class Flow(Distribution):
    """log p(z) = log N(f(z); 0, I) + log |det df/dz|, in nats; a draw is f^-1 of Normal noise.

    Args:
        net: f: a module whose ``forward(z)`` gives u (*, n) and log |det du/dz| (*), and ``inverse(u)`` gives z.
        features: n.
        parameters: Used in place of the module's parameters, by name.
    """

    has_rsample = True

    def __init__(self, net: nn.Module, features: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        self.net = net
        given = dict(net.named_parameters()) if parameters is None else parameters
        self.parameters = {name: full_precision(value) for name, value in given.items()}
        super().__init__((), (features,))

    @property
    def mean(self) -> Tensor:
        """The mean (n,), estimated from 10,000 draws with a fixed seed: it has no closed form."""
        like = next(iter(self.parameters.values()))
        return self.sample((_DRAWS,), torch.Generator(like.device).manual_seed(0)).mean(0)

    @property
    def mode(self) -> Tensor:
        """Raises ConfigError: it has no closed form."""
        raise ConfigError("the mode of a flow has no closed form; draw from it, give x, or give values of z")

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, nats; gradients reach the parameters and ``value``."""
        like = next(iter(self.parameters.values()))
        u, log_det = self._call("forward", full_precision(value).to(like.dtype))
        return log_det - 0.5 * u.square().sum(-1) - HALF_LOG_TWO_PI * u.shape[-1]

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        z: Tensor = self._call("inverse", standard_noise(shape, next(iter(self.parameters.values())), generator))
        return z

    def _call(self, method: str, argument: Tensor) -> Any:
        with torch.autocast(argument.device.type, enabled=False):
            return torch.func.functional_call(_Method(self.net, method), self._named, (argument,))

    @property
    def _named(self) -> dict[str, Tensor]:
        return {f"net.{name}": value for name, value in self.parameters.items()}

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Flow:
        """The same network at ``fn`` of its parameters."""
        return Flow(self.net, self.event_shape[0], {name: fn(value) for name, value in self.parameters.items()})


class _Method(nn.Module):
    """A module whose forward is another's method, so that it can be called with other parameters."""

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__()
        self.net, self.method = net, method

    def forward(self, argument: Tensor) -> Any:
        return getattr(self.net, self.method)(argument)
