"""The mutual information I_q(x;z) between data and latents, on as many examples as a square of them is cheap for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions import Normal, sample
from lambent.distributions.base import Distribution as OwnDistribution
from lambent.draws import Mode
from lambent.evaluation.blocks import Batch, evaluating
from lambent.models import LatentModel, MarkovChain
from lambent.trace import Trace

EXAMPLES = 2000
"""Most examples looked at: the cost is their square, and the truth at most their logarithm."""
NUMBERS = 2**22
"""Numbers of the pairs of draws and examples held at a time."""


@dataclass(frozen=True)
class Information:
    """I_q(x;z) of n examples, nats.

    Over n examples drawn from the data's distribution its expectation is a lower bound on that distribution's I_q(x;z),
    and at most log n.

    Attributes:
        value: The estimate, of one draw an example.
        se: Its standard error over examples, in q(z) too.
        n: The examples.
    """

    value: float
    se: float
    n: int

    @property
    def most(self) -> float:
        """Log n, nats: no value is above it but for the noise of the draws."""
        return math.log(self.n)

    def to_dict(self) -> dict[str, Any]:
        """As JSON wants it."""
        return {"value": self.value, "se": self.se, "unit": "nats", "kind": "lower bound", "n": self.n}


def information(model: LatentModel, batch: Batch, n: int, *, seed: int, device: torch.device) -> Information | None:
    """I_q(x;z) on ``n`` examples, its noise the same every time; None where it isn't known.

    It is known of one level of latents with a density; and of a chain, whose levels above the first know of x only what
    the first does, so that they add nothing to it. With conditions, x is an example together with its condition.

    Args:
        model: In evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many; the cost is their square.
        seed: Of the noise.
        device: Where the noise is made.
    """
    with torch.inference_mode(), evaluating(model):
        x, condition = batch(0, n)
        return of_trace(model, model(x, Mode(), condition), seed=seed, device=device)


def of_trace(model: LatentModel, trace: Trace, *, seed: int, device: torch.device) -> Information | None:
    """I_q(x;z) of the examples of a trace, as `information`."""
    q = _first_level(model, trace)
    return None if q is None else of_posteriors(q, torch.Generator(device).manual_seed(seed))


def _first_level(model: LatentModel, trace: Trace) -> Distribution | None:
    """The posterior of the level that holds all that the latents know of x, if there is one and it is a density."""
    single = len(trace.latents) == 1 or isinstance(model, MarkovChain)
    q = trace.latents[0].q if trace.latents and single and not trace.latents[0].relaxed else None
    if q is None or (isinstance(q, OwnDistribution) and q.straight_through):  # then it is the entropy of the codes
        return None
    density = not isinstance(q, OwnDistribution) or q.normalised
    return q if density and len(q.batch_shape) == 1 else None


def of_posteriors(q: Distribution, generator: torch.Generator | None = None) -> Information:
    """I_q(x;z) = E[log q(z|x) - log q(z)] with q(z) the mean of these B posteriors, one draw of each.

    Each example counts in its own term and in everyone's q(z); the standard error is of both (the influence function:
    t_j - mean_i q(z_i|x_j) / q(z_i), with t_j the term of example j).

    >>> from lambent.distributions import Normal
    >>> far = Normal(torch.tensor([[-100.0], [100.0]]), torch.tensor(0.0))
    >>> round(of_posteriors(far).value, 4)  # log 2: z tells x
    0.6931
    """
    with torch.no_grad():
        pairs = _pairs(q, sample(q, (), generator))
        mixed = pairs.logsumexp(1) - math.log(len(pairs))
        terms = pairs.diagonal() - mixed
        influence = terms - (pairs - mixed.unsqueeze(1)).exp().mean(0)
        n = len(terms)
        error = influence.std().item() / math.sqrt(n) if n > 1 else math.nan
        return Information(terms.mean().item(), error, n)


def _pairs(q: Distribution, z: Tensor) -> Tensor:
    """Log q(z_i|x_j), (B, B) float64, in bounded memory beside the result."""
    if isinstance(q, Normal) and q.event_dims == 1:
        return q.log_prob_pairs(z)
    rows = max(1, NUMBERS // max(1, len(z) * z[0].numel()))
    return torch.cat([q.log_prob(part.unsqueeze(1)).double() for part in z.split(rows)])
