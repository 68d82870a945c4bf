"""Estimates of log p(x) by prior sampling and by importance sampling, with what they say of their own error.

Both are logs of an unbiased estimate of p(x), so lower bounds on average (Burda et al. 2016, theorem 1), in memory that
doesn't grow with the number of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lambent.draws import Ancestral, Draw
from lambent.errors import CombinationError
from lambent.evaluation.blocks import Batch, blocks_of, chunks_of, evaluating
from lambent.evaluation.bounds import bounds
from lambent.models import LatentModel
from lambent.seeds import derive


@dataclass(frozen=True, eq=False)
class EvidenceEstimate:
    """Estimates of log p(x), one an example; each tensor is (N,), float64.

    Attributes:
        log_p: log (1/K) sum_k w_k, nats.
        effective: (sum w)^2 / sum w^2, the effective sample size of the K weights (Kong 1992); nan where they are
            summed exactly instead of drawn.
        samples: K.
    """

    log_p: Tensor
    effective: Tensor
    samples: int

    @property
    def se(self) -> Tensor:
        """Standard error of ``log_p``, nats, by the delta method: sqrt((K / effective - 1) / (K - 1)); nan for K = 1.

        It never exceeds 1, however far off the estimate is: draws that miss where p(x|z) is large can't know of it.
        Believe it only where ``effective`` is large, say 100.
        """
        spread = (self.samples / self.effective - 1).clamp(min=0)
        return (spread / (self.samples - 1)).sqrt() if self.samples > 1 else torch.full_like(self.log_p, math.nan)


def prior_sampling(
    model: LatentModel, batch: Batch, n: int, *, samples: int, seed: int = 0, device: torch.device | None = None
) -> EvidenceEstimate:
    """Log (1/K) sum_k p(x|z_k) with z_k ~ p(z): importance sampling whose q never looked at x.

    The samples it needs grow like exp KL(p(z|x) || p(z)) (Chatterjee & Diaconis 2018, theorem 1.1), so exponentially
    with the nats of information that x has about z: fine for one or two latent dimensions, hopeless for many.

    Args:
        model: Any that generates, in evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many there are.
        samples: K, of each example's own.
        seed: Of the noise.
        device: Where the noise is made; the CPU by default.
    """
    device = device or torch.device("cpu")
    rows = torch.zeros(2, n, dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        for index, start, stop in blocks_of(n, samples):
            generator = torch.Generator(device).manual_seed(derive(seed, "evaluation block", index))
            rows[:, start:stop] = _from_prior(model, *batch(start, stop), samples, generator).cpu()
    return _estimate(rows[0], rows[1], samples)


def importance_sampling(
    model: LatentModel,
    batch: Batch,
    n: int,
    *,
    samples: int,
    seed: int = 0,
    draw: Draw | None = None,
    device: torch.device | None = None,
) -> EvidenceEstimate:
    """Log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x) with z_k ~ q(z|x): the same as IWAE-K.

    The samples it needs grow like exp KL(p(z|x) || q(z|x)) (Chatterjee & Diaconis 2018, theorem 1.1).

    Args:
        model: One with importance weights, in evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many there are.
        samples: K.
        seed: Of the noise.
        draw: Kind of draw, as `bounds` takes it.
        device: Where the noise is made; the CPU by default.

    Raises:
        CombinationError: the model has no importance weights.
    """
    found = bounds(model, batch, n, samples=samples, seed=seed, draw=draw, device=device)
    if found.iwae is None or found.effective is None:
        raise CombinationError(
            "importance sampling needs weights p(x, z) / q(z|x), and this model has none: give it a proper prior and "
            "posterior, as prior=normal posterior=normal"
        )
    return EvidenceEstimate(found.iwae, found.effective, samples)


def _from_prior(
    model: LatentModel, x: Tensor, condition: Tensor | None, samples: int, generator: torch.Generator
) -> Tensor:
    """(2, B): log sum of the K weights p(x|z), and log sum of their squares."""
    sums = torch.full((2, len(x)), -math.inf, dtype=torch.float64, device=x.device)
    for _, count in chunks_of(samples, len(x), Ancestral()):
        draw = Ancestral(samples=count, batch=len(x), generator=generator)
        log_weight = model(None, draw, condition).log_px(x).double()
        sums = torch.logaddexp(sums, torch.stack([log_weight.logsumexp(0), (2 * log_weight).logsumexp(0)]))
    return sums


def _estimate(log_sum: Tensor, log_square_sum: Tensor, samples: int) -> EvidenceEstimate:
    effective = torch.where(log_sum.isfinite(), (2 * log_sum - log_square_sum).exp(), 0.0)
    return EvidenceEstimate(log_sum - math.log(samples), effective, samples)
