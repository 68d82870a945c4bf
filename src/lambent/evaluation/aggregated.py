"""The aggregated posterior q(z) = (1/N) sum_n q(z|x_n), exactly: every pair of a draw and an example is looked at.

Its cost is N^2, so it is for data sets small enough to enumerate; objectives on batches estimate the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions import closed_kl, sample
from lambent.distributions.marginals import log_marginals
from lambent.draws import Mode
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.blocks import Batch, evaluating
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.trace import Latent

NUMBERS = 2**22
"""Numbers of the pairs of draws and examples held at a time."""
EXAMPLES = 1000
"""Examples encoded at a time."""


@dataclass(frozen=True, eq=False)
class AggregatedPosterior:
    """The mixture of all examples' posteriors, each with weight 1/N.

    Attributes:
        blocks: The posteriors, of batch shapes (n_1,), (n_2,), ..., that make N examples.

    >>> from lambent.distributions import Normal
    >>> q = Normal(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.0))
    >>> AggregatedPosterior((q,)).log_prob(torch.zeros(1, 1))  # log N(0; 1, 1)
    tensor([-1.4189], dtype=torch.float64)
    """

    blocks: Sequence[Distribution]

    @property
    def n(self) -> int:
        """N, the number of examples."""
        return sum(q.batch_shape.numel() for q in self.blocks)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z) of latents (R, *latent), (R,) float64, nats; in bounded memory."""
        return self._mean(z, lambda q, rows: q.log_prob(rows))

    def log_marginals(self, z: Tensor) -> Tensor | None:
        """Log q(z_i) of each of the P dimensions, (R, P) float64; None where the family's marginals aren't known."""
        if any(log_marginals(q, z[:1].unsqueeze(1)) is None for q in self.blocks):
            return None
        return self._mean(z, _marginals)

    def _mean(self, z: Tensor, score: Callable[[Distribution, Tensor], Tensor]) -> Tensor:
        """Log of the mean over examples of exp score(q, z), the rows taken a few at a time."""
        numbers = max(q.batch_shape.numel() for q in self.blocks) * z[0].numel()
        return torch.cat([self._mean_of_rows(rows, score) for rows in z.split(max(1, NUMBERS // numbers))])

    def _mean_of_rows(self, z: Tensor, score: Callable[[Distribution, Tensor], Tensor]) -> Tensor:
        total = [score(q, z.unsqueeze(1)).double().logsumexp(1) for q in self.blocks]
        return torch.stack(total).logsumexp(0) - math.log(self.n)


def _marginals(q: Distribution, z: Tensor) -> Tensor:
    found = log_marginals(q, z)
    assert found is not None
    return found


def mutual_information(q: Distribution, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """I_q(x; z) = E[log q(z|x) - log q(z)] over the examples of a batch, a number in nats (float64).

    q(z) is the aggregated posterior of these B examples themselves, so that the truth is at most log B; an unbiased
    estimate of it with ``samples`` draws an example (Hoffman & Johnson 2016; He et al. 2019, eq. 6, on a batch).

    Args:
        q: Posteriors of batch shape (B,).
        samples: Draws an example.
        generator: Of the noise; torch's global one by default.

    >>> from lambent.distributions import Normal
    >>> far = Normal(torch.tensor([[-100.0], [100.0]]), torch.tensor(0.0))
    >>> mutual_information(far)  # log 2: z tells x
    tensor(0.6931, dtype=torch.float64)
    """
    with torch.no_grad():
        z = sample(q, (samples,), generator)
        log_q = q.log_prob(z).double().flatten()
        return (log_q - AggregatedPosterior((q,)).log_prob(z.flatten(0, 1))).mean()


@dataclass(frozen=True)
class Term:
    """A mean over the examples, in nats, with the standard error that its finite number of draws leaves."""

    value: float
    se: float


@dataclass(frozen=True)
class Surgery:
    """The mean rate of a data set, taken apart (Hoffman & Johnson 2016; Chen et al. 2018, eq. 2), in nats.

    rate = mutual_information + marginal_kl, and marginal_kl = total_correlation + dimension_wise_kl.

    Attributes:
        rate: Mean of KL(q(z|x)||p(z)).
        mutual_information: I_q(x; z), at most log N.
        marginal_kl: KL(q(z)||p(z)).
        total_correlation: KL(q(z)||prod_i q(z_i)); None where the posterior's marginals aren't known.
        dimension_wise_kl: KL(prod_i q(z_i)||p(z)); None with it.
        n: N, the number of examples.
    """

    rate: Term
    mutual_information: Term
    marginal_kl: Term
    total_correlation: Term | None
    dimension_wise_kl: Term | None
    n: int


def surgery(model: LatentModel, batch: Batch, n: int, *, samples: int = 10, seed: int = 0) -> Surgery:
    """The rate of ``n`` examples taken apart; every draw is scored under every example's posterior, N^2 S pairs.

    Args:
        model: A model of one level of latents; in evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many there are.
        samples: S, draws an example; at least 2, to have a standard error.
        seed: Of the noise.

    Raises:
        CombinationError: the model has several levels, or no densities.
        ConfigError: fewer than 2 draws.
    """
    if samples < 2:
        raise ConfigError(f"samples={samples}: a standard error needs at least 2 draws an example")
    with torch.inference_mode(), evaluating(model):
        levels = [_level(model, batch, start, min(n, start + EXAMPLES)) for start in range(0, n, EXAMPLES)]
        aggregate = AggregatedPosterior([level.q for level in levels if level.q is not None])
        terms = [
            _terms(level, aggregate, samples, derive(seed, "evaluation block", i)) for i, level in enumerate(levels)
        ]
        rate, marginal, correlation = (torch.cat([t[i] for t in terms], 1) for i in range(3))
    known = not bool(torch.isnan(correlation).all())
    return Surgery(
        _term(rate),
        _term(rate - marginal),
        _term(marginal),
        _term(correlation) if known else None,
        _term(marginal - correlation) if known else None,
        n,
    )


def _level(model: LatentModel, batch: Batch, start: int, stop: int) -> Latent:
    x, condition = batch(start, stop)
    latents = model(x, Mode(), condition).latents
    if len(latents) != 1:
        raise CombinationError(f"the model has {len(latents)} levels of latents: q(z) is known of models with one")
    if not latents[0].normalised:
        raise CombinationError(f"latent {latents[0].name!r} has no density under q or p: q(z) is no density either")
    return latents[0]


def _terms(level: Latent, aggregate: AggregatedPosterior, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rate, log q(z) - log p(z), and log q(z) - sum_i log q(z_i) (NaN if unknown) of each draw, (S, B)."""
    q, p = level.q, level.p
    assert q is not None
    assert p is not None
    assert level.value is not None
    z = sample(q, (samples,), torch.Generator(level.value.device).manual_seed(seed))
    log_p = p.log_prob(z).double()
    kl = closed_kl(q, p)  # without its noise the terms below have less of it too
    rate = q.log_prob(z).double() - log_p if kl is None else kl.double().expand_as(log_p)
    log_qz = aggregate.log_prob(z.flatten(0, 1)).view_as(log_p)
    marginals = aggregate.log_marginals(z.flatten(0, 1))
    product = torch.full_like(log_qz, math.nan) if marginals is None else marginals.sum(-1).view_as(log_p)
    return rate, log_qz - log_p, log_qz - product


def _term(draws: Tensor) -> Term:
    """The mean of (S, N); the examples are the whole data set, so only the draws of each have an error."""
    samples, n = draws.shape
    return Term(draws.mean().item(), (draws.var(0).sum() / samples).sqrt().item() / n)
