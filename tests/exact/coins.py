"""Discrete models so small that every expectation is a sum: of lambent's parts, and written out without it.

x | z ~ N(z . a, 1), z one or two coins or a category, each example with q, p and a of its own, so that one backward
pass gives a gradient per example.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions import Bernoulli, Normal, OneHotCategorical
from lambent.models import VAE

DOUBLE = torch.float64


@dataclass(frozen=True)
class Toy:
    """One example's numbers: logits of q and p, the slopes a, the observation, and all states of z."""

    q: tuple[float, ...]
    p: tuple[float, ...]
    a: tuple[float, ...]
    x: float
    states: tuple[tuple[int, ...], ...]
    one_hot: bool = False

    def parameters(self) -> list[Tensor]:
        """q, p and a, to be differentiated."""
        return [torch.tensor(t, dtype=DOUBLE, requires_grad=True) for t in (self.q, self.p, self.a)]

    def log_mass(self, logits: Tensor) -> Tensor:
        """Log probability of every state under these logits, by the formula."""
        table = torch.tensor(self.states, dtype=DOUBLE)
        if self.one_hot:
            return table @ (logits - torch.logsumexp(logits, 0))
        return -torch.log1p(torch.exp(logits * (1 - 2 * table))).sum(-1)

    def log_joint(self, p: Tensor, a: Tensor) -> Tensor:
        """Log p(x, z) of every state."""
        mean = torch.tensor(self.states, dtype=DOUBLE) @ a
        return self.log_mass(p) - 0.5 * (self.x - mean) ** 2 - 0.5 * math.log(2 * math.pi)


COIN = Toy((-1.2,), (0.4,), (1.9,), 1.3, ((0,), (1,)))
OTHER = Toy((0.7,), (-0.2,), (-1.1,), 0.4, ((0,), (1,)))
CATEGORY = Toy(
    (0.9, -0.8, 0.3), (0.2, 0.5, -0.3), (-1.0, 1.6, 0.3), 1.2, ((1, 0, 0), (0, 1, 0), (0, 0, 1)), one_hot=True
)
PAIR = Toy((-0.9, 0.8), (0.3, -0.4), (1.5, -1.2), 1.1, ((0, 0), (1, 0), (0, 1), (1, 1)))
TOYS = {"coin": COIN, "category": CATEGORY, "pair": PAIR}


def counts_of(states: int, samples: int) -> Tensor:
    """How often each state occurs among K samples: every possibility, (N, states)."""
    bars = itertools.combinations(range(samples + states - 1), states - 1)
    edges = torch.tensor([(-1, *cut, samples + states - 1) for cut in bars])
    return (edges.diff(dim=1) - 1).to(DOUBLE)


def log_mass_of(counts: Tensor, log_q: Tensor) -> Tensor:
    """Log probability of the counts: multinomial."""
    ways = torch.lgamma(counts.sum(1) + 1) - torch.lgamma(counts + 1).sum(1)
    return ways + counts @ log_q


def bound(log_q: Tensor, log_joint: Tensor, samples: int) -> Tensor:
    """L_K as the sum over all counts of K samples, differentiable."""
    counts = counts_of(len(log_q), samples)
    weights = torch.exp(log_joint - log_q)
    return (log_mass_of(counts, log_q).exp() * torch.log(counts @ weights / samples)).sum()


def truth(toy: Toy, name: str, samples: int, groups: int = 1, beta: float = 0.0) -> tuple[float, list[Tensor]]:
    """The bound called ``name`` and its gradient by q, p and a; PIWAE has one for q and another for p and a."""
    at = toy.parameters()
    log_q, log_joint = toy.log_mass(at[0]), toy.log_joint(*at[1:])
    single, whole, part = (bound(log_q, log_joint, k) for k in (1, samples, samples // groups))
    found = {"elbo": single, "iwae": whole, "miwae": part, "ciwae": beta * single + (1 - beta) * whole}
    if name == "piwae":
        (for_q,) = torch.autograd.grad(part, at[:1], retain_graph=True)
        return whole.item(), [for_q, *torch.autograd.grad(whole, at[1:])]
    return found[name].item(), list(torch.autograd.grad(found[name], at))


class _Given(nn.Module):
    """Logits per example, one row for each of the toys in turn."""

    def __init__(self, toys: Sequence[Toy], field: str) -> None:
        super().__init__()
        self.one_hot = toys[0].one_hot
        self.numbers = nn.Parameter(torch.tensor([getattr(toy, field) for toy in toys], dtype=DOUBLE))

    def forward(self, *context):
        return OneHotCategorical(self.numbers) if self.one_hot else Bernoulli(self.numbers)


class _Slopes(_Given):
    def forward(self, z, condition=None):
        return Normal((z * self.numbers).sum(-1, keepdim=True), torch.zeros((), dtype=DOUBLE))


def toy_model(toys: Sequence[Toy], control: nn.Module | None = None) -> VAE:
    """The toys as one batch."""
    model = VAE(_Given(toys, "p"), _Given(toys, "q"), _Slopes(toys, "a"))
    model.control = control
    return model


def toy_x(toys: Sequence[Toy]) -> Tensor:
    return torch.tensor([[toy.x] for toy in toys], dtype=DOUBLE)


def slopes(model: VAE, losses: dict[str, Tensor]) -> list[Tensor]:
    """Minus the losses' gradient by q, p and a of each example, (B, D) each: what raises the bound."""
    q, p, a = (part.numbers for part in (model.posterior, model.prior, model.likelihood))
    inference, generative = (losses.get(group, losses.get("all")) for group in ("inference", "generative"))
    (for_q,) = torch.autograd.grad(inference, [q], retain_graph=True, allow_unused=True, materialize_grads=True)
    return [-len(q) * g for g in (for_q, *torch.autograd.grad(generative, [p, a]))]
