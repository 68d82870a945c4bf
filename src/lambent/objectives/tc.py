"""The rate split by the aggregated posterior q(z) = (1/N) sum_n q(z|x_n), estimated on batches."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.marginals import log_marginals
from lambent.errors import CombinationError, ConfigError
from lambent.objectives.rates import RateFunction
from lambent.settings import option, part
from lambent.trace import Latent, Trace


@part("rate", "tc")
@dataclass(frozen=True)
class TotalCorrelationRate(RateFunction):
    """alpha I_q(x; z) + beta KL(q(z)||prod_i q(z_i)) + gamma KL(prod_i q(z_i)||p(z)) (Chen et al. 2018, eq. 2).

    The three terms add up to the rate, so it is charged as alpha rate + (beta - alpha) TC + (gamma - alpha) KL, with
    the closed-form rate where there is one: at alpha = beta = gamma nothing is estimated at all.

    log q(z) and log q(z_i) are logarithms of estimates from the batch, so they are biased, and the less so the larger
    the batch. Both estimators need the size N of the training set, which `sized` gives; without it the batch counts as
    the whole data set, and "mss" is exact then.
    """

    one_level: ClassVar[bool] = True
    alpha: float = option(1.0, "factor of the mutual information of x and z", minimum=0)
    beta: float = option(6.0, "factor of the total correlation", minimum=0)
    gamma: float = option(1.0, "factor of the dimension-wise KL from the prior", minimum=0)
    estimator: str = option(
        "mss",
        "of q(z): minibatch stratified sampling (mss), unbiased, or minibatch weighted sampling (mws), which treats "
        "the example that z was drawn from like any other",
        choices=("mss", "mws"),
    )
    n: int | None = None

    @property
    def is_bound(self) -> bool:
        """Only as a multiple of the rate: estimates of the single terms may be negative."""
        return self.alpha == self.beta == self.gamma and self.alpha >= 1

    def __call__(self, trace: Trace) -> Tensor:
        """The charge of every draw, (K, B).

        Raises:
            CombinationError: there are several levels of latents, or the family's marginals aren't known.
            ConfigError: the batch is larger than the training set.
        """
        latent = _only(trace)
        charged = self.alpha * latent.rate
        if self.alpha == self.beta == self.gamma:
            return charged
        joint, product = self._log_mixtures(latent)
        dimensions = product - latent.log_p
        return charged + (self.beta - self.alpha) * (joint - product) + (self.gamma - self.alpha) * dimensions

    def _log_mixtures(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """Estimates of log q(z) and sum_i log q(z_i), (K, B)."""
        assert latent.value is not None
        assert latent.q is not None
        size = latent.value.shape[1]
        weigh = stratified_log_weights if self.estimator == "mss" else weighted_log_weights
        log_weights = weigh(size, size if self.n is None else self.n).to(latent.value)
        return log_mixtures(latent.q, latent.value, log_weights)

    def sized(self, n: int) -> Self:
        """For a training set of ``n`` examples."""
        return dataclasses.replace(self, n=n)


def _only(trace: Trace) -> Latent:
    if len(trace.latents) != 1 or trace.latents[0].q is None or len(trace.latents[0].q.batch_shape) != 1:
        raise CombinationError(
            f"rate=tc takes apart the rate of one level of latents inferred from x, found {len(trace.latents)} "
            "levels; use model=vae, or rate=sum"
        )
    return trace.latents[0]


def stratified_log_weights(batch: int, n: int) -> Tensor:
    """Log weights (B, B) of minibatch stratified sampling: row i is of a draw z_i of q(z|x_i), column j of q(z_i|x_j).

    A draw's own example is in its batch with certainty, and the others are a random B - 1 of the remaining N - 1. So
    q(z_i|x_i)/N + sum_{j != i} (N - 1)/(N (B - 1)) q(z_i|x_j) has the mean q(z_i) over batches. (Chen et al. 2018,
    appendix C.2, give one of the others, whichever comes last, a smaller weight and the rest a larger one; this is the
    mean of theirs over the order.) A batch of one example counts as the whole data set.

    >>> stratified_log_weights(3, 5).exp()
    tensor([[0.2000, 0.4000, 0.4000],
            [0.4000, 0.2000, 0.4000],
            [0.4000, 0.4000, 0.2000]])
    """
    _require(batch, n)
    if batch == 1:
        return torch.zeros(1, 1)
    others = math.log(n - 1) - math.log(n) - math.log(batch - 1)
    return torch.full((batch, batch), others).fill_diagonal_(-math.log(n))


def weighted_log_weights(batch: int, n: int) -> Tensor:
    """Log weights of minibatch weighted sampling, 1/(N B) each (Chen et al. 2018).

    Biased whatever B: at B = N it gives q(z)/N. A factor that is the same for all z doesn't reach a gradient; that the
    draw's own example counts as much as the others at B < N does.

    >>> weighted_log_weights(2, 4).exp()
    tensor([[0.1250, 0.1250],
            [0.1250, 0.1250]])
    """
    _require(batch, n)
    return torch.full((batch, batch), -math.log(n * batch))


def _require(batch: int, n: int) -> None:
    if batch > n:
        raise ConfigError(f"rate=tc: a batch of {batch} examples, expected at most N = {n}; give sized() the right N")


def log_mixtures(q: Distribution, z: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the weighted sums over a batch of q(z_i|x_j), and the sum over dimensions of the same of each, (K, B).

    Args:
        q: Posteriors of batch shape (B,).
        z: Draws, (K, B, *latent).
        log_weights: (B, B), rows the draws and columns the examples.

    Raises:
        CombinationError: the marginals of q's family aren't known.
    """
    pairs = z.unsqueeze(2)
    marginals = log_marginals(q, pairs)
    if marginals is None:
        raise CombinationError(
            f"rate=tc needs log q(z_i|x) of each dimension, and {type(q).__name__} has none known; "
            "use posterior=normal, or lambent.distributions.register_marginals"
        )
    joint = torch.logsumexp(q.log_prob(pairs) + log_weights, -1)
    return joint, torch.logsumexp(marginals + log_weights.unsqueeze(-1), 2).sum(-1)
