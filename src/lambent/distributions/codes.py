"""Quantised latents: point masses on the codes nearest to an encoder's outputs, and priors over code indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import split_shape
from lambent.distributions.sampling import detached, sample
from lambent.errors import ShapeError

if TYPE_CHECKING:
    from lambent.networks.quantisers.codebook import Quantiser


class CodeAssignment(Distribution):
    """q(z|x): all probability on the code nearest to each of the encoder's outputs.

    Values are the codes of all positions, flat; ``value.view(*, positions, d)`` restores them. A point mass on
    countably many values is a probability: log q = 0 at the codes and -inf elsewhere. ``rsample`` passes the gradient
    at the codes on to the outputs (van den Oord et al. 2017, NeurIPS, section 3.2).

    Args:
        encoded: The encoder's outputs, (*batch, positions, d).
        quantiser: The codebook.
        indices: Code indices (*batch, positions), where they are known already.

    Attributes:
        embedding: The codes, (*batch, positions * d), with the gradient passed on.
    """

    has_rsample = True
    straight_through: ClassVar[bool] = True

    def __init__(self, encoded: Tensor, quantiser: Quantiser, indices: Tensor | None = None) -> None:
        batch, (positions, dim) = split_shape(encoded.shape, 2, "CodeAssignment")
        if dim != quantiser.dim:
            raise ShapeError(f"Code: outputs (..., {positions}, {dim}), expected codes of size {quantiser.dim}")
        self.encoded, self.quantiser = encoded, quantiser
        value, self.indices = quantiser.quantise(encoded) if indices is None else (quantiser.lookup(indices), indices)
        self.embedding = value.flatten(-2)
        super().__init__(batch, (positions * dim,))

    @property
    def mean(self) -> Tensor:
        """The assigned codes, (*batch, positions * d)."""
        return self.embedding

    @property
    def variance(self) -> Tensor:
        """Zeros, of the shape of the codes."""
        return torch.zeros_like(self.embedding)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats: 0 at the assigned codes, -inf elsewhere."""
        same = (value == self.embedding).all(-1)
        return torch.where(same, 0.0, -torch.inf).to(self.embedding.dtype)

    def entropy(self) -> Tensor:
        """The entropy, 0 nats, of the batch shape."""
        return self.embedding.new_zeros(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return self.embedding.expand(shape)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> CodeAssignment:
        """The assignment of ``fn`` of the encoder's outputs."""
        return CodeAssignment(fn(self.encoded), self.quantiser)

    def scores(self, p: torch.distributions.Distribution, value: Tensor) -> dict[str, Tensor]:
        """Log q and log p of these codes, shaped as ``value`` (*, positions * d) leads, without another search.

        Empty where p is no distribution over the same codes.
        """
        if not isinstance(p, EmbeddedCodes) or p.quantiser is not self.quantiser:
            return {}
        lead = value.shape[:-1]
        return {"log_q": value.new_zeros(lead), "log_p": p.log_prob_of(self.indices).expand(lead)}

    def detach(self) -> CodeAssignment:
        """The same codes, outside the graph, without another search."""
        with torch.no_grad():
            return CodeAssignment(self.encoded.detach(), self.quantiser, self.indices)


class EmbeddedCodes(Distribution):
    """p(z): a distribution over grids of code indices, with the indices' codes, flattened, as values.

    Args:
        over: Distribution over indices; its event is a grid of any shape.
        quantiser: The codebook.
    """

    def __init__(self, over: torch.distributions.Distribution, quantiser: Quantiser) -> None:
        self.over, self.quantiser = over, quantiser
        super().__init__(over.batch_shape, (over.event_shape.numel() * quantiser.dim,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the nearest codes' indices, nats."""
        return self.log_prob_of(self.quantiser.indices_of(value.unflatten(-1, (-1, self.quantiser.dim))))

    def log_prob_of(self, indices: Tensor) -> Tensor:
        """Log probability of indices (..., positions), nats."""
        return self.over.log_prob(indices.unflatten(-1, self.over.event_shape))

    @property
    def estimated(self) -> bool:  # type: ignore[override]
        """Whether ``log_prob`` of the distribution over indices is an estimate."""
        return isinstance(self.over, Distribution) and self.over.estimated

    @property
    def mode(self) -> Tensor:
        """The codes of the most probable indices."""
        return self._codes(self.over.mode)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Codes of indices drawn from p, of shape ``sample_shape + batch_shape + event_shape``."""
        with torch.no_grad():
            return self._codes(sample(self.over, sample_shape, generator))

    def _codes(self, indices: Tensor) -> Tensor:
        lead = indices.shape[: indices.dim() - len(self.over.event_shape)]
        return self.quantiser.lookup(indices.reshape(*lead, -1)).flatten(-2)

    def detach(self) -> EmbeddedCodes:
        """The same distribution, its parameters outside the graph."""
        return EmbeddedCodes(detached(self.over), self.quantiser)
