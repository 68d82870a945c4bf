"""The covariance of the aggregated posterior, held to the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.numerics import matmul
from lambent.objectives.penalties.l1l2 import PenaltySettings
from lambent.settings import option, part
from lambent.trace import Latent

if TYPE_CHECKING:
    from lambent.shapes import Shapes


@part("penalty", "dip")
@dataclass(frozen=True)
class DIPPenalty(PenaltySettings):
    """lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2 (Kumar et al. 2018, eq. 6 and 7).

    C is the covariance over the data of the posterior's mean m(x) for kind "i", and of z itself for kind "ii", which
    is the same plus the mean of the posterior's own covariance (the law of total covariance). Estimated on the batch,
    divided by B - 1; a batch of one example has none, and pays nothing.
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous",)
    marginal: ClassVar[bool] = True
    kind: str = option("ii", "covariance of the posterior's means (i) or of z ~ q(z) (ii)", choices=("i", "ii"))
    lambda_od: float = option(10.0, "factor of the squares off the diagonal", minimum=0)
    lambda_d: float = option(10.0, "factor of the squares on the diagonal, less 1", minimum=0)

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty under its name in the metrics."""
        return {"dip": self}

    def __call__(self, latent: Latent) -> Tensor:
        """The penalty, a scalar in nats."""
        assert latent.q is not None
        means = latent.q.mean.flatten(len(latent.q.batch_shape))
        if means.shape[-2] < 2:
            return means.new_zeros(())
        centred = means - means.mean(-2, keepdim=True)
        covariance = matmul(centred.mT, centred) / (means.shape[-2] - 1)
        if self.kind == "ii":
            covariance = covariance + own_covariance(latent.q).mean(-3)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        off_diagonal = covariance.square().sum((-2, -1)) - diagonal.square().sum(-1)
        return (self.lambda_od * off_diagonal + self.lambda_d * (diagonal - 1).square().sum(-1)).mean()


def own_covariance(q: Distribution) -> Tensor:
    """The covariance of each example's posterior, (*batch, D, D); diagonal where the family has no other."""
    full = getattr(q, "covariance_matrix", None)
    return torch.diag_embed(q.variance.flatten(len(q.batch_shape))) if full is None else full
