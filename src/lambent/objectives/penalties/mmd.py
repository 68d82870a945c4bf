"""The maximum mean discrepancy between the aggregated posterior and the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lambent.distributions.numerics import matmul
from lambent.distributions.sampling import rsample, sample
from lambent.objectives.penalties.l1l2 import PenaltySettings, drawn_value
from lambent.settings import option, part
from lambent.trace import Latent

if TYPE_CHECKING:
    from lambent.shapes import Shapes

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of the inverse multiquadratic kernels that are summed."""

Kernel = Callable[[Tensor, float], Tensor]


@part("penalty", "mmd")
@dataclass(frozen=True)
class MMDPenalty(PenaltySettings):
    """weight * MMD^2(q(z), p(z)) by the unbiased U-statistic (Gretton et al. 2012, eq. 3): it may be negative.

    With the rate charged 0 it makes the Wasserstein autoencoder (Tolstikhin et al. 2018, algorithm 2); with the rate
    charged 1 - alpha, and alpha + lambda - 1 as the weight, the InfoVAE (Zhao et al. 2019, eq. 6). Kernels of latents
    of D dimensions: "imq", the sum of C/(C + |a - b|^2) over C = 2 D sigma^2 s for s of `SCALES`; "rbf",
    exp(-|a - b|^2/(2 D sigma^2)).
    """

    gradients: ClassVar[tuple[str, ...]] = ("path", "double")
    compares: ClassVar[bool] = True
    weight: float = option(10.0, "weight of the squared discrepancy", minimum=0)
    kernel: str = option("imq", "kernel of the discrepancy", choices=("imq", "rbf"))
    sigma: float = option(1.0, "standard deviation of the prior's dimensions, for the kernel's width", above=0)

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty under its name in the metrics."""
        return {"mmd": self}

    def __call__(self, latent: Latent) -> Tensor:
        """A scalar, the mean over K; 0 for a batch of one example, which has no pairs."""
        z = drawn_value(latent, "mmd")
        if z.shape[1] < 2:
            return z.new_zeros(())
        width = 2 * z.shape[-1] * self.sigma**2
        kernel = inverse_multiquadratic if self.kernel == "imq" else gaussian
        prior = prior_value(latent).to(z.dtype)
        return self.weight * squared_mmd(z, prior, lambda squares: kernel(squares, width)).mean()


def prior_value(latent: Latent) -> Tensor:
    """As many draws of p as the latent has of q, (K, B, D); through p's parameters where it can be reparameterised."""
    assert latent.value is not None
    assert latent.p is not None
    draw = rsample if latent.p.has_rsample else sample
    return draw(latent.p, latent.value.shape[: 2 - len(latent.p.batch_shape)]).flatten(2)


def inverse_multiquadratic(squares: Tensor, width: float) -> Tensor:
    """The sum over `SCALES` of C/(C + squares), C = width * scale."""
    return torch.stack([width * scale / (width * scale + squares) for scale in SCALES]).sum(0)


def gaussian(squares: Tensor, width: float) -> Tensor:
    """The Gaussian kernel exp(-squares/width)."""
    return torch.exp(-squares / width)


def squared_mmd(first: Tensor, second: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Unbiased estimate of MMD^2 from draws (..., B, D) of two distributions, (...), by a kernel of squared distances.

    No draw is compared with itself: the mean over pairs i != j within each sample, less twice the mean between them.
    """
    within = [_pairs(kernel(_squares(sample, sample))) for sample in (first, second)]
    return within[0] + within[1] - 2 * kernel(_squares(first, second)).mean((-2, -1))


def _pairs(gram: Tensor) -> Tensor:
    """The mean of a Gram matrix off its diagonal."""
    size = gram.shape[-1]
    return (gram.sum((-2, -1)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)) / (size * (size - 1))


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2, (..., B, B)."""
    norms = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (norms - 2 * matmul(a, b.mT)).clamp_min(0)
