"""Discrete draws as thresholds of continuous noise, and their continuous relaxations.

A binary variable is z > 0 with z = l + logit(u); a category is the argmax of z = log p + Gumbel noise. Softening the
threshold by a temperature gives the Concrete relaxation (Maddison et al. 2017, section 3; Jang et al. 2017, eq. 2);
drawing z again, given the outcome, gives the control variates of REBAR (Tucker et al. 2017, appendix A and B).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.discrete import Bernoulli, OneHotCategorical
from lambent.errors import CombinationError

Relaxable = Bernoulli | OneHotCategorical


def relaxable(distribution: Distribution) -> bool:
    """Whether a draw of it is a threshold of independent noise."""
    return isinstance(distribution, Bernoulli | OneHotCategorical)


def require_relaxable(name: str, distribution: Distribution) -> Relaxable:
    """The distribution itself.

    Raises:
        CombinationError: it has no relaxation; names the latent and the draws that would do.
    """
    if isinstance(distribution, Bernoulli | OneHotCategorical):
        return distribution
    raise CombinationError(
        f"latent {name!r}: {type(distribution).__name__} has no continuous relaxation; use draw=score or enumerate"
    )


def _uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """In the open interval (0, 1)."""
    info = torch.finfo(like.dtype)
    u = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return u.clamp_(info.tiny, 1 - info.eps)


def noisy(q: Relaxable, lead: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Z whose threshold is a draw of q, of shape ``lead + batch + event``; differentiable in q's logits."""
    u = _uniform((*lead, *q.logits.shape), q.logits, generator)
    if isinstance(q, Bernoulli):
        return q.logits + torch.logit(u)
    return q.log_probs - torch.log(-torch.log(u))


def harden(q: Relaxable, z: Tensor) -> Tensor:
    """The outcome that ``z`` stands for: 0 or 1, or one-hot vectors; outside the graph.

    >>> harden(Bernoulli(torch.zeros(2)), torch.tensor([-0.1, 3.0]))
    tensor([0., 1.])
    """
    if isinstance(q, Bernoulli):
        return (z > 0).to(z.dtype)
    return q.one_hot(q.grouped(z.detach()).argmax(-1))


def soften(q: Relaxable, z: Tensor, temperature: Tensor | float) -> Tensor:
    """The relaxed outcome: sigmoid(z / temperature), or the softmax of each group of classes.

    >>> soften(Bernoulli(torch.zeros(1)), torch.tensor([2.0]), 0.01)
    tensor([1.])
    """
    if isinstance(q, Bernoulli):
        return torch.sigmoid(z / temperature)
    return q.grouped(z / temperature).softmax(-1).flatten(-2)


def conditional(q: Relaxable, outcome: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Z given the outcome: a draw of p(z | outcome), differentiable in q's logits; ``outcome`` leads with samples."""
    u = _uniform(outcome.shape, q.logits, generator)
    return _binary_given(q, outcome, u) if isinstance(q, Bernoulli) else _category_given(q, outcome, u)


def _binary_given(q: Bernoulli, outcome: Tensor, u: Tensor) -> Tensor:
    """Logistic noise beyond 0 on the outcome's side, a softplus: exact where the outcome is as good as impossible."""
    side = 2 * (outcome > 0).to(u.dtype) - 1
    return side * F.softplus(torch.logit(u) + F.softplus(side * q.logits))


def _category_given(q: OneHotCategorical, outcome: Tensor, u: Tensor) -> Tensor:
    """The largest z of a group is Gumbel(0); the others are Gumbel(log p) truncated at it."""
    exponential = -torch.log(u)
    largest = (exponential * outcome).unflatten(-1, (-1, q.classes)).sum(-1, keepdim=True)
    spread = largest.expand(*largest.shape[:-1], q.classes).flatten(-2).log()
    others = -torch.logaddexp(exponential.log() - q.log_probs, spread)
    return torch.where(outcome > 0, -spread, others)
