"""Quantisers: vectors to the nearest of S codes, and how the codes are learnt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lambent.distributions.numerics import full_precision
from lambent.errors import ConfigError
from lambent.networks.quantisers.kmeans import kmeans, scattered
from lambent.networks.quantisers.nearest import nearest

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over processes."""


def alone(value: Tensor) -> Tensor:
    """The sum over a single process."""
    return value


class Quantiser(nn.Module, ABC):
    """S codes of d numbers each; vectors come as (..., d), indices as (...).

    Attributes:
        size: S.
        dim: d.
        used: (S,) how often each code was the nearest since the last `epoch`.
    """

    used: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        self.register_buffer("used", torch.zeros(size, dtype=torch.long))

    @abstractmethod
    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The code of each z, exactly, with the gradient passed on to z; and the codes' indices."""

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of whole-number indices of any type."""

    @abstractmethod
    def indices_of(self, value: Tensor) -> Tensor:
        """The indices of values that are codes (of the nearest codes, for others)."""

    def penalties(self, encoded: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Terms of the training loss, (B,): sums over all but the first dimension of ``encoded`` (B, ..., d)."""
        return {}

    @property
    def needs_initialisation(self) -> bool:
        """Whether `initialise` is to be called with encoder outputs before the first step."""
        return False

    def initialise(self, z: Tensor, total: Total = alone, *, leader: bool = True) -> None:
        """Places the codes among encoder outputs (..., d); with several processes, the leader's."""
        return

    def update_buffers(self, z: Tensor, indices: Tensor, total: Total = alone, *, leader: bool = True) -> None:
        """Learns from a step that was taken: z (..., d), finite, and the indices that `quantise` gave.

        Args:
            z: Encoder outputs.
            indices: Of their codes, (...).
            total: Sums over processes.
            leader: Whether dead codes are revived by this process's outputs; true in one process.
        """
        self._count(indices, total)

    def _count(self, indices: Tensor, total: Total) -> Tensor:
        counts = total(torch.bincount(indices.reshape(-1), minlength=self.size))
        self.used += counts
        return counts

    def pop_metrics(self) -> dict[str, float]:
        """Usage (share of codes absorbed at least once) and perplexity exp(-sum_i p_i log p_i); starts anew.

        Both are 0 where nothing was absorbed.
        """
        counts = self.used.double()
        self.used.zero_()
        total = counts.sum()
        if not total > 0:
            return {"usage": 0.0, "perplexity": 0.0}
        p = counts / total
        return {"usage": float((counts > 0).double().mean()), "perplexity": float(torch.exp(-torch.xlogy(p, p).sum()))}


@dataclass(frozen=True)
class Learning:
    """How a codebook learns.

    Attributes:
        rule: "ema" (running means of the outputs nearest to a code) or "gradient" (the term |sg[z] - e|^2).
        decay: Share of the running counts and sums kept at a step.
        smoothing: Laplace smoothing of the counts, in outputs a step.
        revive: A code is dead if its running count is below this share of the mean count (ema), or if an epoch did not
            use it (gradient); 0 revives none.
        commitment: Factor of |z - sg[e]|^2.
        start: "k-means" of encoder outputs, or "random".
    """

    rule: str = "ema"
    decay: float = 0.99
    smoothing: float = 1e-5
    revive: float = 0.03
    commitment: float = 0.25
    start: str = "k-means"

    def __post_init__(self) -> None:
        """Refuses a rule or a start that isn't known."""
        for name, known in (("rule", ("ema", "gradient")), ("start", ("k-means", "random"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} of a codebook, expected {' or '.join(known)}")


class Codebook(Quantiser):
    """S learned codes e_i (van den Oord et al. 2017, NeurIPS, eq. 1-3 and appendix A.1).

    By running means, with n_i outputs z nearest to code i at a step, decay g and smoothing s:

        N_i <- g N_i + (1 - g) n_i      m_i <- g m_i + (1 - g) sum z      e_i = m_i / ((N_i + s) N / (N + S s)),

    N the sum of all N_i. A dead code is replaced by an output of the current batch, chosen at random by torch's state.

    >>> book = Codebook(2, 1, Learning(start="random"))
    >>> _ = book.codes.copy_(torch.tensor([[0.0], [1.0]]))
    >>> book.quantise(torch.tensor([[0.8], [0.1]]))
    (tensor([[1.],
            [0.]]), tensor([1, 0]))
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    dead: Tensor
    started: Tensor

    def __init__(self, size: int, dim: int, learning: Learning | None = None) -> None:
        super().__init__(size, dim)
        self.learning = Learning() if learning is None else learning
        codes = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        if self.by_gradient:
            self.codes = nn.Parameter(codes)
            self.register_buffer("dead", torch.zeros(size, dtype=torch.bool))
        else:
            self.register_buffer("codes", codes)
            self.register_buffer("counts", torch.ones(size))
            self.register_buffer("sums", codes.clone())
        self.register_buffer("started", torch.tensor(self.learning.start == "random"))

    @property
    def by_gradient(self) -> bool:
        """Whether the codes are a parameter."""
        return self.learning.rule == "gradient"

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest code of each z, straight through, and its index."""
        z = full_precision(z)
        indices = self.indices_of(z)
        value: Tensor = _StraightThrough.apply(z, self.codes.detach(), indices)
        return value, indices

    def lookup(self, indices: Tensor) -> Tensor:
        """e_i; by the gradient rule autograd follows it to the codes."""
        return self.codes.index_select(0, indices.reshape(-1).long()).view(*indices.shape, self.dim)

    def indices_of(self, value: Tensor) -> Tensor:
        """The nearest codes' indices."""
        return nearest(value.detach().reshape(-1, self.dim), self.codes.detach()).view(value.shape[:-1])

    def penalties(self, encoded: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Commitment b |z - sg[e]|^2, and by the gradient rule |sg[z] - e|^2; sums per example, (B,)."""
        z, value = full_precision(encoded), self.lookup(indices)
        result = {"codebook": squared_distance(z.detach(), value)} if self.by_gradient else {}
        if self.learning.commitment:
            result["commitment"] = self.learning.commitment * squared_distance(z, value.detach())
        return result

    @property
    def needs_initialisation(self) -> bool:
        """Whether the codes are still to be placed by k-means."""
        return not bool(self.started)

    @torch.no_grad()
    def initialise(self, z: Tensor, total: Total = alone, *, leader: bool = True) -> None:
        """Codes at the leader's k-means of z, each counted as often as it is the nearest there (at least once)."""
        z = z.detach().reshape(-1, self.dim).to(self.codes.dtype)
        if not len(z):
            raise ConfigError("a codebook can't start from no encoder outputs; give it a batch of them")
        codes, sizes = kmeans(z, self.size)
        self.codes.copy_(total(codes if leader else torch.zeros_like(codes)))
        if not self.by_gradient:
            self.counts.copy_(total(sizes if leader else torch.zeros_like(sizes)).clamp_min(1))
            self.sums.copy_(self.codes * self.counts.unsqueeze(1))
        self.started.fill_(True)  # noqa: FBT003

    @torch.no_grad()
    def update_buffers(self, z: Tensor, indices: Tensor, total: Total = alone, *, leader: bool = True) -> None:
        """Counts the codes used, moves them (ema) and revives the dead ones; see `Quantiser.update_buffers`."""
        z = z.detach().reshape(-1, self.dim).to(self.codes.dtype)
        indices = indices.reshape(-1)
        counts = self._count(indices, total)
        if not self.by_gradient:
            self._follow(counts, total(scattered(z, indices, self.size)))
        if self.learning.revive:
            self._revive(z, total, leader=leader)

    def _follow(self, counts: Tensor, sums: Tensor) -> None:
        decay = self.learning.decay
        self.counts.mul_(decay).add_(counts, alpha=1 - decay)
        self.sums.mul_(decay).add_(sums, alpha=1 - decay)
        torch.div(self.sums, self._smoothed().unsqueeze(1), out=self.codes)

    def _smoothed(self) -> Tensor:
        total, smoothing = self.counts.sum(), self.learning.smoothing
        return (self.counts + smoothing) * (total / (total + self.size * smoothing))

    def _revive(self, z: Tensor, total: Total, *, leader: bool) -> None:
        dead = self.dead if self.by_gradient else self.counts < self.learning.revive * self.counts.mean()
        places = dead.nonzero().squeeze(1)
        if not len(places):
            return
        found = z.new_zeros(len(places), self.dim + 1)
        if leader:
            chosen = different(z, len(places))
            found[: len(chosen)] = torch.cat([chosen, torch.ones_like(chosen[:, :1])], 1)
        found = total(found)
        valid = found[:, -1] > 0
        self._place(places[valid], found[valid, :-1])

    def _place(self, places: Tensor, codes: Tensor) -> None:
        self.codes[places] = codes
        if self.by_gradient:
            self.dead[places] = False
            return
        self.counts[places] = self.counts.mean()
        self.sums[places] = codes * self._smoothed()[places].unsqueeze(1)

    def pop_metrics(self) -> dict[str, float]:
        """As every quantiser's; by the gradient rule codes that were never used count as dead from here on."""
        if self.by_gradient and bool(self.used.any()):
            self.dead.copy_(self.used == 0)
        return super().pop_metrics()


def different(z: Tensor, most: int) -> Tensor:
    """At most ``n`` distinct rows of ``z`` (M, d), at random by torch's state."""
    if not len(z):
        return z
    some = z[torch.randperm(len(z), device=z.device)[: 4 * most]]
    unlike = torch.unique(some, dim=0)
    return unlike[torch.randperm(len(unlike), device=z.device)[:most]]


def squared_distance(first: Tensor, second: Tensor) -> Tensor:
    """|first_b - second_b|^2 of each example: (B, ...) and (B, ...) to (B,)."""
    with torch.autocast(first.device.type, enabled=False):  # which makes 16 bits of it
        result: Tensor = _SquaredDistance.apply(first, second)
    return result


class _StraightThrough(torch.autograd.Function):
    """The code itself forwards, the identity backwards: z + (e - z) would only be e up to rounding."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, codes: Tensor, indices: Tensor) -> Tensor:
        return codes.index_select(0, indices.reshape(-1)).view(z.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class _SquaredDistance(torch.autograd.Function):
    """By hand, because it is two passes over the difference where autograd's is five."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        difference = (first - second).flatten(1)
        ctx.save_for_backward(difference)
        ctx.event = first.shape
        return torch.linalg.vecdot(difference, difference)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        slope = (difference * (2 * grads[0]).unsqueeze(1)).view(ctx.event)
        return slope if ctx.needs_input_grad[0] else None, -slope if ctx.needs_input_grad[1] else None
