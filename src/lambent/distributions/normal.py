"""Normal distributions: diagonal, standard, full covariance, low rank plus diagonal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import (
    HALF_LOG_TWO_PI,
    event_sum,
    full_precision,
    joint_shape,
    matmul,
    split_shape,
    widened,
)


def standard_noise(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, 1) draws of the given shape, with ``like``'s type and device."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def squared_difference(value: Tensor, loc: Tensor) -> Tensor:
    """(value - loc)^2 elementwise, broadcast, by one fused kernel: half the time of the two operations."""
    value = value.to(loc.dtype)
    if value.shape != loc.shape:
        value, loc = torch.broadcast_tensors(value, loc)
    return F.mse_loss(value, loc, reduction="none")


def _led(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` with leading dimensions of 1 up to ``like``'s: a view, whose gradient needs no sum over them."""
    alike = tensor.numel() == like.numel() and tensor.shape == like.shape[like.dim() - tensor.dim() :]
    return tensor.view(like.shape) if alike else tensor


class Normal(Distribution):
    """Independent Normals: log p(x) = sum_d -1/2 ((x_d - m_d)/s_d)^2 - log s_d - 1/2 log(2 pi), in nats.

    Args:
        loc: Means m, (*batch, *event).
        log_scale: Log standard deviations log s, broadcast against ``loc`` (a single number costs least).
        event_dims: Number of trailing dimensions that form the event.

    Raises:
        ConfigError: the parameters have fewer dimensions than the event.

    >>> Normal(torch.zeros(3, 2), torch.tensor(0.0)).log_prob(torch.zeros(2))  # -log(2 pi) each
    tensor([-1.8379, -1.8379, -1.8379])
    """

    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, event_dims: int = 1) -> None:
        self.loc, self.log_scale, self.event_dims = full_precision(loc), full_precision(log_scale), event_dims
        super().__init__(*split_shape(joint_shape(self.loc, self.log_scale), event_dims, "Normal"))

    @property
    def scale(self) -> Tensor:
        """Standard deviations, in ``log_scale``'s shape."""
        return self.log_scale.exp()

    @property
    def mean(self) -> Tensor:
        """The mean m, (*batch, *event)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance s^2, (*batch, *event)."""
        return (2 * self.log_scale).exp().expand(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        squares, precision = squared_difference(value, self.loc), torch.exp(-2 * self.log_scale)
        if precision.dim() == 0:
            quadratic = event_sum(squares, self.event_shape) * precision
        else:
            quadratic = event_sum(squares * precision, self.event_shape)
        log_scales = event_sum(self.log_scale, self.event_shape)
        return -0.5 * quadratic - (log_scales + HALF_LOG_TWO_PI * self.event_shape.numel())

    def log_prob_pairs(self, value: Tensor) -> Tensor:
        """Log density of every value under every one of these B distributions over vectors, nats.

        By matrix products, in float64, where expanding the square loses no significant digits.

        Args:
            value: (N, D).

        Returns:
            (N, B), float64.

        >>> Normal(torch.zeros(3, 2), torch.tensor(0.0)).log_prob_pairs(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
        """
        z, loc = widened(value), widened(self.loc)
        log_scale = widened(self.log_scale).expand_as(loc)
        precision = torch.exp(-2 * log_scale)
        weighted = precision * loc
        squares = matmul(z.square(), precision.mT) - 2 * matmul(z, weighted.mT) + (weighted * loc).sum(-1)
        return -0.5 * squares - log_scale.sum(-1) - HALF_LOG_TWO_PI * loc.shape[-1]

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        each = event_sum(self.log_scale, self.event_shape) + self.event_shape.numel() * (HALF_LOG_TWO_PI + 0.5)
        return each.expand(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        noise = standard_noise(shape, self.loc, generator)
        return torch.addcmul(_led(self.loc, noise), _led(self.scale, noise), noise)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Normal:
        """The same family at ``fn`` of the mean and of the log scale."""
        return Normal(fn(self.loc), fn(self.log_scale), self.event_dims)


class StandardNormal(Distribution):
    """N(0, I), a family of its own so that closed-form KLs against it needn't touch zeros and ones.

    >>> StandardNormal((2,)).log_prob(torch.zeros(3, 2))
    tensor([-1.8379, -1.8379, -1.8379])
    """

    has_rsample = True

    def __init__(
        self,
        event_shape: Sequence[int],
        batch_shape: Sequence[int] = (),
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = device
        self.dtype = dtype if dtype == torch.float64 else torch.float32
        super().__init__(batch_shape, event_shape)

    @property
    def loc(self) -> Tensor:
        """The mean as a scalar 0, which broadcasts."""
        return torch.zeros((), device=self.device, dtype=self.dtype)

    @property
    def log_scale(self) -> Tensor:
        """The log scale as a scalar 0, which broadcasts."""
        return self.loc

    @property
    def scale(self) -> Tensor:
        """The scale as a scalar 1, which broadcasts."""
        return self.loc + 1

    @property
    def mean(self) -> Tensor:
        """The mean, zeros (*batch, *event)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance, ones (*batch, *event)."""
        return self.scale.expand(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        quadratic = event_sum(full_precision(value).square(), self.event_shape)
        result = -0.5 * quadratic - HALF_LOG_TWO_PI * self.event_shape.numel()
        return result.expand(torch.broadcast_shapes(result.shape, self.batch_shape)) if self.batch_shape else result

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        return (self.loc + self.event_shape.numel() * (HALF_LOG_TWO_PI + 0.5)).expand(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> StandardNormal:
        """Itself: it has no parameters."""
        return self


class CholeskyNormal(Distribution):
    """N(m, L L^T), by its Cholesky factor: log p(x) = -1/2 |L^-1 (x - m)|^2 - sum_d log |L_dd| - D/2 log(2 pi).

    Args:
        loc: Means m, (*batch, D).
        tril: Lower triangular L, (*batch, D, D), its diagonal not 0; entries above the diagonal must be 0.

    >>> CholeskyNormal(torch.zeros(2), torch.eye(2)).log_prob(torch.zeros(2))
    tensor(-1.8379)
    """

    has_rsample = True

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        self.loc, self.tril = full_precision(loc), full_precision(tril)
        shape = self.loc.shape
        if shape[:-1] != self.tril.shape[:-2]:
            shape = torch.broadcast_shapes(shape, self.tril.shape[:-1])
        super().__init__(*split_shape(shape, 1, "CholeskyNormal"))

    @property
    def mean(self) -> Tensor:
        """The mean m, (*batch, D)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Diagonal of L L^T, (*batch, D)."""
        return self.tril.square().sum(-1).expand(self.batch_shape + self.event_shape)

    @property
    def covariance_matrix(self) -> Tensor:
        """L L^T, (*batch, D, D)."""
        return matmul(self.tril, self.tril.mT)

    @property
    def log_diagonal(self) -> Tensor:
        """Log |L_dd|, (*batch, D)."""
        return self.tril.diagonal(dim1=-2, dim2=-1).abs().log()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        difference = full_precision(value) - self.loc
        columns = _as_columns(difference, self.tril.dim() - 2)
        whitened = torch.linalg.solve_triangular(self.tril, columns, upper=False)
        quadratic = _from_columns(whitened.square().sum(-2, keepdim=True), (*difference.shape[:-1], 1)).squeeze(-1)
        return -0.5 * quadratic - self.log_diagonal.sum(-1) - HALF_LOG_TWO_PI * self.event_shape.numel()

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        each = self.log_diagonal.sum(-1) + self.event_shape.numel() * (HALF_LOG_TWO_PI + 0.5)
        return each.expand(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return self.loc + _matvec(self.tril, standard_noise(shape, self.loc, generator))

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> CholeskyNormal:
        """The same family at ``fn`` of the mean and of the factor."""
        return CholeskyNormal(fn(self.loc), fn(self.tril))


class LowRankNormal(Distribution):
    """N(m, F F^T + diag s^2), scored in O(D R^2) by the matrix determinant lemma and Woodbury's identity.

    Args:
        loc: Means m, (*batch, D).
        factor: F, (*batch, D, R).
        log_scale: log s, (*batch, D).

    >>> LowRankNormal(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2)).log_prob(torch.zeros(2))
    tensor(-1.8379)
    """

    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, log_scale: Tensor) -> None:
        self.loc, self.factor, self.log_scale = full_precision(loc), full_precision(factor), full_precision(log_scale)
        shape = joint_shape(self.loc, self.log_scale)
        if shape != self.factor.shape[:-1]:
            shape = torch.broadcast_shapes(shape, self.factor.shape[:-1])
        super().__init__(*split_shape(shape, 1, "LowRankNormal"))

    @property
    def mean(self) -> Tensor:
        """The mean m, (*batch, D)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Diagonal of the covariance, (*batch, D)."""
        each = self.factor.square().sum(-1) + (2 * self.log_scale).exp()
        return each.expand(self.batch_shape + self.event_shape)

    @property
    def covariance_matrix(self) -> Tensor:
        """F F^T + diag s^2, (*batch, D, D)."""
        diagonal = (2 * self.log_scale).exp().expand(self.batch_shape + self.event_shape)
        return matmul(self.factor, self.factor.mT) + torch.diag_embed(diagonal)

    def capacitance(self) -> tuple[Tensor, Tensor, Tensor]:
        """G = F / s, the Cholesky factor of I + G^T G, and log det(I + G^T G) / 2, in float64.

        Nearly parallel columns of F leave float32 no digits of them.
        """
        ratio = widened(self.factor) * torch.exp(-widened(self.log_scale)).unsqueeze(-1)
        identity = torch.eye(ratio.shape[-1], dtype=ratio.dtype, device=ratio.device)
        # cholesky_ex doesn't raise: a matrix without digits left gives NaN, and the training skips and counts the step
        cholesky = torch.linalg.cholesky_ex(identity + matmul(ratio.mT, ratio))[0]
        return ratio, cholesky, cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        ratio, cholesky, half_log_det = self.capacitance()
        scaled = (widened(value) - widened(self.loc)) * torch.exp(-widened(self.log_scale))
        u = _as_columns(scaled, ratio.dim() - 2)
        w = torch.cholesky_solve(matmul(ratio.mT, u), cholesky)
        # |u|^2 - |..|^2 would cancel; this is min_w |u - G w|^2 + |w|^2, the same number, with w at its minimum.
        columns = (u - matmul(ratio, w)).square().sum(-2, keepdim=True) + w.square().sum(-2, keepdim=True)
        quadratic = _from_columns(columns, (*scaled.shape[:-1], 1)).squeeze(-1)
        log_scales = event_sum(self.log_scale, self.event_shape) + half_log_det
        result = -0.5 * quadratic - log_scales - HALF_LOG_TWO_PI * self.event_shape.numel()
        return result.to(self.loc.dtype)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        each = event_sum(self.log_scale, self.event_shape) + self.capacitance()[2]
        each = each.to(self.loc.dtype) + self.event_shape.numel() * (HALF_LOG_TWO_PI + 0.5)
        return each.expand(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        narrow = standard_noise((*shape[:-1], self.factor.shape[-1]), self.loc, generator)
        wide = standard_noise(shape, self.loc, generator)
        return self.loc + _matvec(self.factor, narrow) + self.log_scale.exp() * wide

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> LowRankNormal:
        """The same family at ``fn`` of the mean, the factor and the log scale."""
        return LowRankNormal(fn(self.loc), fn(self.factor), fn(self.log_scale))


def _as_columns(vectors: Tensor, batch_dims: int) -> Tensor:
    """(*lead, *batch, D) to (*batch, D, N): the lead becomes columns, so no matrix is copied for it."""
    lead = vectors.dim() - 1 - batch_dims
    if lead <= 0:
        return vectors.unsqueeze(-1)
    return vectors.flatten(0, lead - 1).movedim(0, -1)


def _from_columns(columns: Tensor, shape: Sequence[int]) -> Tensor:
    """Back from (*batch, D, N) to ``shape``, which ends in D."""
    return columns.movedim(-1, 0).reshape(tuple(shape))


def _matvec(matrix: Tensor, vectors: Tensor) -> Tensor:
    """The matrix times each vector; leading dimensions of ``vectors`` beyond the matrix's are batched as columns."""
    product = matmul(matrix, _as_columns(vectors, matrix.dim() - 2))
    return _from_columns(product, (*vectors.shape[:-1], matrix.shape[-2]))
