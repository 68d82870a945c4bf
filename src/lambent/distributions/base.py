"""The base class of the distributions of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor


class Distribution(torch.distributions.Distribution):
    """A torch distribution that samples with an explicit generator and can be detached.

    Half-precision parameters are taken to float32 on construction, so draws and log densities are float32 then.
    Batch and event shapes are torch's: ``log_prob(value)`` has ``batch_shape`` and needs no sum outside. Arguments are
    never validated here; data is checked once, at its edge.

    Families implement ``_sample(shape, generator)`` (``shape`` = sample + batch + event shape; reparameterised where
    ``has_rsample``), ``log_prob``, ``_parameters`` (the tensors that define them) and ``_rebuild``.
    """

    has_rsample: bool = False
    normalised: ClassVar[bool] = True
    """False where "log_prob" is a convention, not a density (a flat prior, a point mass on the reals)."""
    straight_through: ClassVar[bool] = False
    """True where "rsample" gives discrete values with the gradient of the number before rounding, a biased one."""
    has_mean: ClassVar[bool] = True
    """False where the mean has no closed form."""
    estimated: bool = False
    """True where "log_prob" is a random number whose mean is log p or a bound on it: it may only enter linearly."""
    fused: ClassVar[bool] = False
    """True where scoring a fresh draw is far cheaper inside `rsample_and_log_prob` than by `log_prob` (flows)."""
    arg_constraints: ClassVar[dict[str, torch.distributions.constraints.Constraint]] = {}

    def __init__(self, batch_shape: Sequence[int], event_shape: Sequence[int]) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"{type(self).__name__}({shapes})"

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} can't be sampled")

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws of shape ``sample_shape + batch_shape + event_shape``, outside the graph."""
        with torch.no_grad():
            return self._sample(self._extended_shape(torch.Size(sample_shape)), generator)

    def rsample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws: gradients reach the parameters through the value."""
        if not self.has_rsample:
            raise NotImplementedError(f"{type(self).__name__} has no rsample")
        return self._sample(self._extended_shape(torch.Size(sample_shape)), generator)

    def rsample_and_log_prob(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A reparameterised draw and its log density; a family whose inverse is expensive overrides this."""
        value = self.rsample(sample_shape, generator)
        return value, self.log_prob(value)

    def estimating(self, generator: torch.Generator | None, start: int = 0, total: int | None = None) -> Self:
        """This distribution; where ``log_prob`` is an estimate, one whose noise comes from ``generator``.

        Its values are then samples ``start`` on of ``total`` of each example (None: all there are), in their first
        dimension, so that what is drawn once for each can be spread evenly over all.
        """
        return self

    def visiting(self, steps: int | None, noise: float = 1.0) -> Self:
        """The same; a diffusion is sampled by visiting ``steps`` of its levels with ``noise`` times its own noise."""
        return self

    @property
    def mode(self) -> Tensor:
        """The most probable value (the mean, for symmetric families)."""
        return self.mean

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """The same distribution with ``fn`` applied to each defining tensor."""
        raise NotImplementedError(f"{type(self).__name__} can't be rebuilt from its parameters")

    def detach(self) -> Self:
        """The same distribution, its parameters outside the graph (sticking the landing needs it)."""
        return self.map_parameters(Tensor.detach)
