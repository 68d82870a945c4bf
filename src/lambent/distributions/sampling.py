"""Sampling with an explicit generator, from the distributions of this package, of torch and of other libraries."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.errors import ConfigError

T = TypeVar("T")
_global_rng = threading.Lock()


def sample(distribution: Distribution, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
    """Draws of shape ``shape + batch_shape + event_shape``, outside the graph.

    Distributions that can't take a generator draw from torch's global one, seeded from ``generator`` and put back
    afterwards, one thread at a time; without a generator they draw from the global one as it stands.

    >>> normal = torch.distributions.Normal(0.0, 1.0)
    >>> a, b = (sample(normal, (2,), torch.Generator().manual_seed(1)) for _ in range(2))
    >>> torch.equal(a, b)
    True
    """
    if isinstance(distribution, OwnDistribution):
        return distribution.sample(shape, generator)
    return _seeded(lambda: distribution.sample(torch.Size(shape)), generator)


def point_estimate(distribution: Distribution) -> Tensor:
    """The mean; for symbols the greedy mode; for what has neither (`Distribution.has_mean`), a draw with a fixed seed.

    >>> point_estimate(torch.distributions.Normal(torch.ones(2), 1.0))
    tensor([1., 1.])
    """
    greedy: Tensor | None = getattr(distribution, "greedy", None)
    if greedy is not None:
        return greedy
    if not isinstance(distribution, OwnDistribution) or distribution.has_mean:
        mean: Tensor = distribution.mean
        return mean
    device = getattr(distribution, "context", torch.zeros(())).device
    return sample(distribution, (), torch.Generator(device).manual_seed(0))


def rsample(distribution: Distribution, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
    """Reparameterised draws, otherwise as `sample`."""
    if isinstance(distribution, OwnDistribution):
        return distribution.rsample(shape, generator)
    return _seeded(lambda: distribution.rsample(torch.Size(shape)), generator)


def rsample_and_log_prob(
    distribution: Distribution, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A reparameterised draw and its log density (nats), in one pass where the distribution can."""
    if isinstance(distribution, OwnDistribution):
        return distribution.rsample_and_log_prob(shape, generator)
    fused = getattr(distribution, "rsample_and_log_prob", None)
    if fused is not None:
        return _seeded(lambda: fused(torch.Size(shape)), generator)
    value = rsample(distribution, shape, generator)
    return value, distribution.log_prob(value)


def _seeded(draw: Callable[[], T], generator: torch.Generator | None) -> T:
    if generator is None:
        return draw()
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with _global_rng, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return draw()


def detached(distribution: Distribution) -> Distribution:
    """The same distribution with its parameters outside the graph (sticking the landing scores with it).

    Raises:
        ConfigError: it is not ours, has no ``detach`` of its own, and holds more than tensors and distributions.
    """
    if isinstance(distribution, OwnDistribution):
        return distribution.detach()
    own = getattr(distribution, "detach", None)
    if callable(own):
        result = own()
        assert isinstance(result, Distribution)
        return result
    return _detached_copy(distribution)


def _detached_copy(distribution: Distribution) -> Distribution:
    result = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, Tensor):
            result.__dict__[name] = value.detach()
        elif isinstance(value, Distribution):
            result.__dict__[name] = detached(value)
        elif not isinstance(value, bool | int | float | str | torch.Size | None):
            raise ConfigError(
                f"{type(distribution).__name__} can't be detached: it holds {name}, a {type(value).__name__}; "
                "give it a detach() method, or use draw=pathwise"
            )
    return result
